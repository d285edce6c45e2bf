"""What the launcher gives its ranks, and that they do not outlive it."""

import json
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


FAKE_SSH = """#!{python}
import os, subprocess, sys
open("{folder}/command", "w").write(" ".join(sys.argv))
there = {{"PATH": os.environ["PATH"], "HOME": "/", "OMP_NUM_THREADS": "1"}}
sys.exit(subprocess.run(["sh", "-c", sys.argv[-1]], env=there).returncode)
"""


@pytest.mark.parametrize(("end", "name"), [(signal.SIGUSR1, "SIGUSR1"), (signal.SIGKILL, "SIGHUP")])
def test_another_host_gets_environment_and_signals_but_nobody_sees_the_secrets(
    tmp_path: Path, end: signal.Signals, name: str
) -> None:
    (tmp_path / "hosts").write_text("127.0.0.2 slots=1\n")  # `ssh` starts a shell with an empty environment
    (tmp_path / "ssh").write_text(FAKE_SSH.format(python=sys.executable, folder=tmp_path))
    (tmp_path / "ssh").chmod(0o755)
    chosen = {
        "HF_TOKEN": "hidden-1",
        "WANDB_API_KEY": "hidden-2",
        "UCX_TLS": "tcp",
        "LD_LIBRARY_PATH": "/a b",
    }
    chosen |= {
        "PYTORCH_ALLOC_CONF": "x:1",
        "FI_PROVIDER": "efa",
        "TRITON_CACHE_DIR": "/t",
        "CUDA_VISIBLE_DEVICES": "",
    }
    environment = {**os.environ, **chosen, "NOT_FORWARDED": "1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "core.launch", "--hostfile", str(tmp_path / "hosts")]
    command += ["-m", "tests.core.distributed.noting_rank", str(tmp_path)]
    launcher = subprocess.Popen(command, cwd=ROOT, env=environment)
    below: list[psutil.Process] = []
    try:
        wait_for(tmp_path / "environment.json", launcher)
        below = psutil.Process(launcher.pid).children(recursive=True)
        seen = [(tmp_path / "command").read_text(), *(" ".join(each.cmdline()) for each in below)]
        assert not any("hidden" in each for each in seen)
        found = json.loads((tmp_path / "environment.json").read_text())
        assert {key: found.get(key) for key in chosen} == chosen
        assert "NOT_FORWARDED" not in found
        launcher.send_signal(end)
        wait_for(tmp_path / "signals")
        assert (tmp_path / "signals").read_text() == name
        assert launcher.wait(30) == (-9 if end == signal.SIGKILL else 138)
        assert not psutil.wait_procs(below, 30)[1]
    finally:
        launcher.kill()
        launcher.wait()
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def wait_for(file: Path, launcher: subprocess.Popen[bytes] | None = None) -> None:
    """Until there is such a file, while the launcher lives."""
    deadline = time.monotonic() + 120
    while not file.exists():
        assert launcher is None or launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_printing_to_a_lost_connection_does_not_end_a_run_that_is_about_to_save() -> None:
    code = (
        "import os, signal, sys\nfrom core.train.loop import _Signals\nsignals = _Signals()\n"
        "sys.stdin.read()\nos.kill(os.getpid(), signal.SIGHUP)\n"
        "print(1, flush=True)\nprint(2, file=sys.stderr, flush=True)\nsys.exit(7 * signals.received)"
    )
    rank = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert rank.stdout is not None
    assert rank.stdin is not None
    rank.stdout.close()
    rank.stdin.close()
    assert rank.wait(60) == 7


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


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, ["passive", "expandable_segments:True", "None"]),
        (
            {"OMP_WAIT_POLICY": "active", "PYTORCH_ALLOC_CONF": "backend:native"},
            ["active", "backend:native", "None"],
        ),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, ["passive", "None", "backend:native"]),
    ],
)
def test_what_torch_reads_when_it_is_loaded_is_set_in_every_process_unless_the_user_says_otherwise(
    own: dict[str, str], expected: list[str]
) -> None:
    names = ["OMP_WAIT_POLICY", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"]
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"CUDA_VISIBLE_DEVICES": "", **own}
    shown = f"import os, sys; print(*map(os.environ.get, {names}), 'torch' in sys.modules)"
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
        assert done.stdout.split() == [*expected, "False"], "set before torch is loaded"


def test_a_signal_that_comes_while_a_rank_is_polled_ends_the_launcher(tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = ["tests.core.distributed.signalled_poll", "--processes", "2", *RANK, str(tmp_path)]
    launcher = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environment)
    try:
        assert launcher.wait(120) == 128 + signal.SIGUSR1
    finally:
        if launcher.poll() is None:
            launcher.kill()  # its ranks end with it
            launcher.wait()
