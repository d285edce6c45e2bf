"""What the launcher gives its ranks, and that they do not outlive it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from core.launch import LAUNCHER
from tests.conftest import ROOT

RANK = ["-m", "tests.core.distributed.sleeping_rank"]
WAYS = {
    "core.launch": ["core.launch", "--processes", "2"],
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
    "hosts": ["core.launch", "--hostfile", "hosts"],
}


def is_running(process: int) -> bool:
    """False for a process that is gone, or that nobody has waited for yet."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("way", ["core.launch", *(pytest.param(each, marks=pytest.mark.slow)
                                                  for each in ("torchrun", "hosts"))])  # fmt: skip
def test_no_rank_outlives_a_launcher_that_was_killed(tmp_path: Path, way: str) -> None:
    (tmp_path / "hosts").write_text("localhost slots=1\n127.0.0.1 slots=1\n")
    (tmp_path / "ranks").mkdir()
    command = [each if each != "hosts" else str(tmp_path / "hosts") for each in WAYS[way]]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        [sys.executable, "-m", *command, *RANK, str(tmp_path / "ranks")], cwd=ROOT, env=environment
    )
    started: list[int] = []
    try:
        deadline = time.monotonic() + 120
        while len(started) < 2:
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
            started = [int(file.name) for file in (tmp_path / "ranks").iterdir()]
        below = [each.pid for each in psutil.Process(launcher.pid).children(recursive=True)]
        assert set(started) <= set(below)
        started = below
        launcher.kill()
        launcher.wait()
        deadline = time.monotonic() + 30
        while any(map(is_running, started)):
            assert time.monotonic() < deadline, "a rank is left"
            time.sleep(0.05)
    finally:
        for process in (launcher.pid, *started):
            if is_running(process):
                os.kill(process, signal.SIGKILL)
        launcher.wait()


def test_a_rank_that_starts_after_its_launcher_has_ended_ends_at_once(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "1", LAUNCHER: str(gone.pid)}
    done = subprocess.run(
        [sys.executable, *RANK, str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "the launcher has ended" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("own", [None, "active"])
def test_openmp_waits_asleep_in_every_process_unless_the_user_says_otherwise(own: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} | ({"OMP_WAIT_POLICY": own} if own else {})
    shown = "import os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    for code in (
        f"from core.errors import run_command; run_command(lambda: exec({shown!r}))",
        "import sys; from core import launch; sys.modules['torch'] = None\n"
        f"try: launch.main(['-m', 'none'])\nexcept ImportError: sys.modules.pop('torch'); exec({shown!r})",
    ):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [own or "passive", "False"], "set before torch is loaded"
