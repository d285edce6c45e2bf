"""A SLURM cluster for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import Cluster, missing, two_nodes


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := missing():
        pytest.fail(reason)
    with two_nodes(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project's files, with a folder for what jobs make."""
    for name in ("core", "data", "pretrain", "sft", "delta", "eval", "serve", "tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    return tmp_path
