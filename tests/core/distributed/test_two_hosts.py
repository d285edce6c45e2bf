"""A run over two hosts with ssh: one is cut off, and comes back."""

import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import TinyRuns
from tests.core.distributed.two_hosts import Host, missing, two_hosts

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() != "", reason=missing())]

SETTINGS = ["training.steps=40", "training.timeout_minutes=0.3", "deepspeed.zero_stage=1"]


def losses(run: Path) -> dict[int, float]:
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return {entry["step"]: entry["loss"] for entry in map(json.loads, lines) if "loss" in entry}


def trains(host: Host) -> bool:
    """Whether a Python process runs on a host."""
    processes = psutil.Process(host.pid).children(recursive=True)
    return any(process.name().startswith("python") for process in processes)


def test_a_host_that_is_cut_off_ends_the_run_and_it_resumes_when_the_host_is_back(
    tiny: TinyRuns, tmp_path: Path
) -> None:
    tiny.train("uncut", *SETTINGS, processes=2)
    run, printed = tiny.folder / "cut-off", tmp_path / "printed"
    (tmp_path / "hosts").write_text("worker-1 slots=1\nworker-2 slots=1\n")
    words = ["-m", "core.launch", "--hostfile", str(tmp_path / "hosts"), "-m", "pretrain"]
    command = [sys.executable, *words, "--config", "configs/pretrain/tiny.yaml"]
    command += tiny.overrides("cut-off", *SETTINGS)
    with two_hosts(tmp_path / "ssh") as (first, second), printed.open("w") as output:
        training = first.start(command, output, OMP_NUM_THREADS="1")
        deadline = time.monotonic() + 120
        while len(losses(run)) < 8:
            assert training.poll() is None, printed.read_text()
            assert time.monotonic() < deadline, printed.read_text()
            time.sleep(0.05)
        second.link(up=False)
        assert training.wait(180) == 3, printed.read_text()
        assert "on worker-2) has not responded for" in printed.read_text()
        while trains(second):
            assert time.monotonic() < deadline + 180, "processes of a host that was cut off go on"
            time.sleep(0.2)
        second.link(up=True)
        first.reach("worker-2")
        again = first.start(command, output, OMP_NUM_THREADS="1")
        assert again.wait(120) == 0, printed.read_text()
    assert "resumed from" in printed.read_text()
    assert losses(run) == losses(tiny.folder / "uncut")
