"""Tests against real input files, which are not part of this project: `make test-real REAL=DIR`."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real files, from the environment variable REAL."""
    folder = os.environ.get("REAL")
    if not folder or not Path(folder).is_dir():
        pytest.fail(
            f"REAL={folder or ''} names no folder of real files: run `make test-real REAL=DIR`", pytrace=False
        )
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, so none is forgotten: `make test` passes without real files."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.real)
