"""A run that is killed or told to end goes on as if it had not been."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from core.provenance import manifest
from tests.conftest import ROOT, TinyRuns, losses, warm
from tests.pretrain.folders import weights


@pytest.mark.parametrize(
    ("stage", "processes"),
    [(2, 2), pytest.param(1, 1, marks=pytest.mark.slow), pytest.param(3, 2, marks=pytest.mark.slow)],
)
def test_killed_and_resumed_the_losses_are_those_of_an_uninterrupted_run(
    tiny: TinyRuns, stage: int, processes: int
) -> None:
    name = f"killed-{stage}-{processes}"
    settings = [f"deepspeed.zero_stage={stage}", "training.steps=12"]
    whole = tiny.train(f"{name}-whole", *settings, processes=processes)
    _start_and_signal(tiny, name, settings, processes, signal.SIGKILL, after_step=7)
    before = tiny.metrics(name)
    assert 7 <= before[-1]["step"] < 12, "the run was to be killed between a checkpoint and its end"
    resumed = tiny.train(name, *settings, processes=processes)
    assert [m["step"] for m in resumed] == list(range(1, 13)), "each step stands once"
    assert losses(resumed) == losses(whole)
    assert torch.equal(*(weights(tiny.folder / folder / "model") for folder in (name, f"{name}-whole")))


@pytest.mark.parametrize("moment", ["write", "hash", "manifest", "rename", "renamed", "remove"])
def test_killed_in_a_checkpoint_the_one_before_or_the_new_one_is_whole(tiny: TinyRuns, moment: str) -> None:
    """Also where only one checkpoint is kept."""
    settings = ["deepspeed.zero_stage=1", "training.steps=6", "training.save_every_steps=2"]
    settings += ["training.validate_every_steps=null", "training.keep_checkpoints=1"]
    whole = tiny.train("moments-whole", *settings)
    killed = warm("tests.pretrain.dying", moment, "pretrain", *tiny.overrides(f"in-{moment}", *settings))
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    newest = max((tiny.folder / f"in-{moment}" / "checkpoints").glob("step-*"))
    assert newest.name == ("step-00000004" if moment in ("renamed", "remove") else "step-00000002")
    manifest.verify(newest)
    assert losses(tiny.train(f"in-{moment}", *settings)) == losses(whole)
    assert [path.name for path in newest.parent.glob("step-*")] == ["step-00000006"]


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_to_the_launcher_saves_on_all_processes(tiny: TinyRuns, number: signal.Signals) -> None:
    settings = ["deepspeed.zero_stage=1", "training.steps=400", "training.save_every_steps=null"]
    name = f"launcher-{number.name}"
    status, output = _start_and_signal(tiny, name, settings, 2, number, after_step=3)
    assert status in (143, 128 + number), output
    assert "continues from step" in output
    saved = sorted(path.name for path in (tiny.folder / name / "checkpoints").glob("step-*"))
    assert saved == [f"step-{tiny.metrics(name)[-1]['step']:08d}"]


def test_a_scheduler_that_hurries_does_not_end_a_run_that_saves(tiny: TinyRuns) -> None:
    """SIGUSR1 in advance, then SIGTERM, twice, at the time limit: all to the launcher and to its ranks."""
    settings = ["training.steps=400", "training.save_every_steps=3", "training.keep_checkpoints=1"]
    command = [sys.executable, "-m", "core.launch", "--processes", "2", "-m", "tests.pretrain.dying", "slow"]
    process = _start([*command, "pretrain", *tiny.overrides("hurried", *settings)])
    _wait_for_step(tiny, "hurried", process, 4)
    family = psutil.Process(process.pid)
    everyone = [family, *family.children(recursive=True)]
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        for member in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has saved and ended
                member.send_signal(number)
        time.sleep(1)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 138, output
    assert "continues from step" in output
    (saved,) = (tiny.folder / "hurried" / "checkpoints").glob("step-*")
    assert saved.name == f"step-{tiny.metrics('hurried')[-1]['step']:08d}"
    manifest.verify(saved)


def test_sigterm_saves_and_the_same_command_goes_on(tiny: TinyRuns) -> None:
    settings = ["deepspeed.zero_stage=1", "training.steps=12", "training.save_every_steps=100"]
    whole = tiny.train("terminated-whole", *settings)
    status, output = _start_and_signal(tiny, "terminated", settings, 1, signal.SIGTERM, after_step=3)
    assert status == 143
    assert "continues from step" in output
    assert losses(tiny.train("terminated", *settings)) == losses(whole)


def _start_and_signal(
    tiny: TinyRuns, name: str, settings: list[str], processes: int, number: signal.Signals, after_step: int
) -> tuple[int, str]:
    """Start a run, send a signal to all its processes once it has logged `after_step`; its exit code and
    output."""
    launcher = ["core.launch", "--processes", str(processes), "-m"] if processes > 1 else []
    process = _start([sys.executable, "-m", *launcher, "pretrain", *tiny.overrides(name, *settings)])
    _wait_for_step(tiny, name, process, after_step)
    if process.poll() is None:
        family = psutil.Process(process.pid)
        for member in [*family.children(recursive=True), family] if number == signal.SIGKILL else [family]:
            member.send_signal(number)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def _start(command: list[str]) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def _wait_for_step(tiny: TinyRuns, name: str, process: "subprocess.Popen[str]", step: int) -> None:
    metrics = tiny.folder / name / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_text().count("learning_rate") >= step:
            return
        time.sleep(0.005)
