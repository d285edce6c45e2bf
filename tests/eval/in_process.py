"""`python -m eval` in this process, which has its libraries loaded already."""

import contextlib
import io
import sys
from pathlib import Path

import pytest

from eval.__main__ import main
from tests.conftest import ROOT


def here(*arguments: str | Path) -> tuple[int, str]:
    """The command `eval …`: its exit code, and what it printed."""
    output = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended,
        contextlib.redirect_stdout(output), contextlib.redirect_stderr(output),
    ):  # fmt: skip
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", ["eval", *map(str, arguments[1:])])
        main()
    return int(ended.value.code or 0), output.getvalue()
