"""A rank of two that dies or hangs: the run ends within the set time, with its name, and goes on exactly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, TinyRuns, losses


def start(tiny: TinyRuns, name: str, *settings: str) -> subprocess.Popen[str]:
    """A run of two processes."""
    command = [sys.executable, "-m", "core.launch", "--processes", "2", "-m", "pretrain"]
    return subprocess.Popen(
        [*command, *tiny.overrides(name, *settings)], cwd=ROOT, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for_steps(process: subprocess.Popen[str], metrics: Path, steps: int) -> None:
    """Wait until N training steps are logged."""
    deadline = time.monotonic() + 180
    while not (metrics.exists() and metrics.read_text().count("learning_rate") >= steps):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rank_of(process: subprocess.Popen[str], rank: int) -> psutil.Process:
    """The process of this rank."""
    return next(
        each for each in psutil.Process(process.pid).children(recursive=True)
        if each.environ().get("RANK") == str(rank)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rank", "number", "words"),
    [
        (1, signal.SIGKILL, ""),
        pytest.param(1, signal.SIGSTOP, "has not responded for", marks=pytest.mark.slow),
        pytest.param(0, signal.SIGSTOP, "has not responded for", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_dies_or_hangs_is_named_and_the_run_goes_on_exactly(
    tiny: TinyRuns, rank: int, number: signal.Signals, words: str
) -> None:
    settings = ["deepspeed.zero_stage=2", "training.steps=40", "training.validate_every_steps=null"]
    whole = tiny.train("lost-whole", *settings, processes=2)
    name = f"lost-{rank}-{number.name}"
    process = start(tiny, name, *settings, "training.timeout_minutes=0.2")
    wait_for_steps(process, tiny.folder / name / "metrics.jsonl", 7)
    lost = rank_of(process, rank)
    lost.send_signal(number)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - begun < 60, "twelve seconds were set; the rest is for a slow machine"
    assert process.returncode not in (0, 2), output
    assert f"rank {rank}" in output
    assert words in output
    assert not lost.is_running()
    resumed = tiny.train(name, *settings, processes=2)
    assert losses(resumed) == losses(whole)
