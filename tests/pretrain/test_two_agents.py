"""Two hosts, each with a torchrun agent of its own; one is lost with all its processes, and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from core.launch import free_port
from tests.conftest import ROOT, TinyRuns, losses

STEPS = ["deepspeed.zero_stage=2", "training.steps=60", "training.validate_every_steps=null"]


def agent(tiny: TinyRuns, name: str, port: str, log: Path) -> subprocess.Popen[bytes]:
    """What a user types on one host, with the meeting point on loopback."""
    meeting = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-id={name}", f"--rdzv-endpoint=127.0.0.1:{port}"]
    quick = ["--rdzv-conf=keep_alive_interval=1,keep_alive_max_attempt=3", "--max-restarts=3"]
    launcher = [sys.executable, "-m", "core.launch", "--processes", "1", *meeting, *quick, "-m", "pretrain"]
    return subprocess.Popen(
        [*launcher, *tiny.overrides(name, *STEPS, "training.timeout_minutes=3")],
        cwd=ROOT, start_new_session=True, stdout=log.open("wb"), stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


def kill_host(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the agent and its worker: none of them says goodbye."""
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        each.send_signal(signal.SIGKILL)
    process.wait()


def wait_for(
    there: Callable[[], bool], agents: dict[str, subprocess.Popen[bytes]], folder: Path, seconds: float = 300
) -> None:
    """Until something is so, while all agents live."""
    deadline = time.monotonic() + seconds
    while not there():
        assert all(process.poll() is None for process in agents.values()), said(folder)
        assert time.monotonic() < deadline, said(folder)
        time.sleep(0.01)


def listens(port: str) -> bool:
    """Whether somebody does on this port of loopback."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", int(port))) == 0


def said(folder: Path) -> str:
    """What both agents wrote."""
    return "\n".join(log.read_text("utf-8", "replace")[-3000:] for log in sorted(folder.glob("*.log")))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_host_that_is_lost_comes_back_and_the_losses_are_those_of_a_run_without_loss(
    tiny: TinyRuns, tmp_path: Path
) -> None:
    whole = tiny.train("agents-whole", *STEPS, processes=2)
    name, port = "agents-lost", free_port()
    agents = {"first": agent(tiny, name, port, tmp_path / "first.log")}
    try:
        wait_for(lambda: listens(port), agents, tmp_path)  # the meeting point is not the one that is lost
        agents["second"] = agent(tiny, name, port, tmp_path / "second.log")
        wait_for((tiny.folder / name / "checkpoints/latest").exists, agents, tmp_path)
        kill_host(agents["second"])
        time.sleep(2)
        assert agents["first"].poll() is None, "the other host waits for it\n" + said(tmp_path)
        agents["second"] = agent(tiny, name, port, tmp_path / "third.log")
        codes = {host: process.wait(timeout=400) for host, process in agents.items()}
    finally:
        for process in agents.values():
            if process.poll() is None:
                kill_host(process)
    assert codes == {"first": 0, "second": 0}, said(tmp_path)
    assert losses(tiny.metrics(name)) == losses(whole)
    assert "resumed from" in (tiny.folder / name / "log.txt").read_text()
