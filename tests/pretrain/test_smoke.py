"""The check of a node before a long run: what passes, and that what is wrong fails."""

from pathlib import Path

import pytest

from pretrain.smoke_test import compared
from tests.conftest import run


@pytest.mark.slow
def test_two_processes_of_this_machine_pass_every_check(tmp_path: Path) -> None:
    done = run("pretrain", "smoke", "--processes", "2", "--folder", tmp_path / "smoke", timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = [line.split(maxsplit=1)[0] for line in done.stdout.splitlines()]
    assert verdicts == ["pass"] * 6 + ["-"] * 2
    assert "2 processes, 2 share a row" in done.stdout
    assert "saved on 2, resumed on 1" in done.stdout
    assert "tokens/s on 2" in done.stdout


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        ([2.0, 1.0], "pass", "differ by 0.0"),
        ([2.0, 1.0005], "pass", "differ by 5.0e-04"),
        ([2.0, 1.01], "FAIL", "differ by 1.0e-02"),
        ([2.0], "FAIL", "1 steps were logged, not 2"),
        ("exit code 1, see zero-3.txt: NCCL error", "FAIL", "NCCL error"),
    ],
)
def test_losses_that_differ_or_are_missing_fail(found: list[float] | str, verdict: str, words: str) -> None:
    metrics = found if isinstance(found, str) else [{"loss": loss} for loss in found]
    check = compared("ZeRO 3", metrics, [2.0, 1.0])
    assert check.verdict == verdict
    assert words in check.found


def test_a_run_that_breaks_fails_with_its_last_words(tmp_path: Path) -> None:
    folder = tmp_path / "smoke"
    done = run("pretrain", "smoke", "--processes", "2", "--folder", folder, "data.pack.parts=[chapters]")
    assert done.returncode == 1
    assert "FAIL  one process  exit code 2" in done.stdout
    assert str(folder / "one-process.txt") in done.stdout


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = run("pretrain", "smoke", "--processes", "2", "--folder", tmp_path)
    assert done.returncode == 2
    assert "holds something else" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
