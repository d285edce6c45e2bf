"""Start a module as one process per GPU, or on a CPU as one process or --processes, on one host or several.

    python -m core.launch [--processes N] [TORCHRUN OPTION ...] -m MODULE [ARGUMENT ...]
    python -m core.launch --hostfile FILE -m MODULE [ARGUMENT ...]

A hostfile has one line per host, `worker-1 slots=8`, as for MPI and DeepSpeed. Each host is reached by ssh
without a password and has this folder at the same path. Rank 0 runs on the first host. The launcher there is
told through its standard input, which nobody else can see, what to set in its environment and which signals
to act on; if the connection breaks it does as after SIGHUP.

The launcher is torchrun, with six differences. One process is run without it. Each process of a CPU run gets
its share of the cores, not one thread. A rank that ends with a message for the user (exit code 2) ends the
whole run with that code. And torchrun's own log and traceback are not printed: if a rank crashed, a file has
them, which is named. No rank outlives a launcher that was killed. After a signal the ranks have the time that
they need to save, and the signals that a scheduler sends next change nothing.
"""

import ctypes
import json
import logging
import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

FORWARDED = (
    "CUDA_", "FI_", "GLOO_", "HF_", "KMP_", "LD_LIBRARY_PATH", "MKL_", "NCCL_", "OMP_", "PYTORCH_",
    "TOKENIZERS_", "TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "TRANSFORMERS_", "TRITON_", "UCX_", "WANDB_",
)  # fmt: skip
"""Prefixes of the environment variables that are set on other hosts too."""
LOCAL = ("localhost", "127.0.0.1")
LAUNCHER = "PATENT_LLAMA_LAUNCH"
"""The environment variable with the launcher's process, for its ranks."""
REMOTE = "--from-stdin"
"""The argument of a launcher on another host; `TOLD` is set once it has its environment."""
TOLD = "PATENT_LLAMA_TOLD"
SSH_FAILED = 255
"""The exit code of ssh(1) itself."""


def main(arguments: list[str]) -> int:
    """Run `arguments` as described above; returns the exit code."""
    if arguments[:1] == [REMOTE]:
        arguments = _told_by_stdin(arguments)
    set_for_torch()
    options = {"--processes": "", "--hostfile": ""}
    while arguments and arguments[0] in options:
        options[arguments[0]] = arguments[1]
        arguments = arguments[2:]
    if "-m" not in arguments:
        print(__doc__)
        return 2
    if "--dry-run" in arguments:  # one process checks for all
        hosts = _read_hostfile(Path(options["--hostfile"])) if options["--hostfile"] else [("", "")]
        slots = [int(number or options["--processes"] or 1) for _, number in hosts]
        os.environ.setdefault("WORLD_SIZE", str(sum(slots)))
        return _run_here(arguments[arguments.index("-m") :])
    if options["--hostfile"]:
        return _on_hosts(Path(options["--hostfile"]), arguments)
    import torch

    processes = int(options["--processes"] or 0) or max(1, torch.cuda.device_count())
    if processes == 1 and arguments[0] == "-m":
        return _run_here(arguments)
    if not torch.cuda.is_available():
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    # Seconds for a checkpoint after a signal: how long it may take is for the scheduler to say.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(24 * 3600))
    return _torchrun([f"--nproc-per-node={processes}", *arguments])


def _run_here(arguments: list[str]) -> int:
    """The module in this process."""
    sys.argv = arguments[1:]
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    return 0


def _torchrun(arguments: list[str]) -> int:
    """The module in processes that torchrun starts and watches."""
    os.environ[LAUNCHER] = str(os.getpid())  # ranks need not leave their message for torchrun to print
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    if not any(option.startswith(("--nnodes", "--rdzv", "--master")) for option in arguments):
        arguments = ["--standalone", *arguments]
    else:
        # torch 2.13: a first host that stays does not send the address of its shared store to one that comes
        # back (dynamic_rendezvous.py writes it in the first round only), and both wait for each other.
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    _obey_the_first_signal()
    _survive_a_signal_while_polling()
    torch_log = _TorchLog()
    try:
        torchrun(["--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", *arguments])
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
        if failure.exitcode not in (2, 143):
            ended = f"exit code {failure.exitcode}" if failure.exitcode > 0 else failure.message
            file = torch_log.write(str(error))
            print(f"error: rank {rank} ended: {ended}. torchrun's log: {file}", file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


def _obey_the_first_signal() -> None:
    """Have torchrun ignore what a scheduler sends after its first signal (SIGTERM at the time limit): it
    would end at once, and its ranks with it, in the middle of a checkpoint. Ctrl-C still counts."""
    from torch.distributed.elastic.multiprocessing import api

    end_ranks = api._terminate_process_handler

    def obey(signum: int, frame: FrameType | None) -> None:
        if signum != signal.SIGINT:
            for later in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
                signal.signal(later, signal.SIG_IGN)
        end_ranks(signum, frame)

    api._terminate_process_handler = obey


def _survive_a_signal_while_polling() -> None:
    """Have torchrun's ranks polled under a lock that its thread may take twice. torchrun's handler raises
    wherever the signal comes; if that is in `Popen.poll`, just behind the taking of its lock, the lock stays
    taken, and the launcher would wait for it instead of for its ranks, which have saved and ended."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    starter: Any = subprocess_handler.SubprocessHandler
    start = starter._popen

    def popen(*arguments: Any) -> Any:
        process = start(*arguments)
        process._waitpid_lock = threading.RLock()
        return process

    starter._popen = popen


class _TorchLog(logging.Handler):
    """Keeps what torchrun's launcher logs, in place of the terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logger = logging.getLogger("torch.distributed")
        logger.handlers = [self]  # torch's own print to the terminal
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(f"{time.strftime('%H:%M:%S')} {record.levelname} {record.getMessage()}")

    def write(self, summary: str) -> Path:
        """Write all lines and torchrun's `summary` of the failures to a file."""
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix="patent-llama-launch-", suffix=".log", delete=False
        ) as file:
            file.write("\n".join([*self.lines, summary]) + "\n")
        return Path(file.name)


def _on_hosts(hostfile: Path, arguments: list[str]) -> int:
    """Start this launcher on every host and wait; if one host fails, the others are stopped too."""
    hosts = _read_hostfile(hostfile)
    local = all(host in LOCAL for host, _ in hosts)
    port = os.environ.get("MASTER_PORT") or (free_port() if local else "29500")
    started = []
    for number, (host, slots) in enumerate(hosts):
        nodes = [f"--nnodes={len(hosts)}", f"--node-rank={number}"]
        where = [f"--master-addr={hosts[0][0]}", f"--master-port={port}"]
        launch = [sys.executable, "-m", "core.launch", "--processes", slots, *nodes, *where, *arguments]
        if host not in LOCAL:
            launch.insert(3, REMOTE)
            remote = f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join(launch)}"
            launch = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=20", host, remote]
        process = subprocess.Popen(
            launch,
            stdin=subprocess.DEVNULL if host in LOCAL else subprocess.PIPE,
            preexec_fn=partial(end_with_parent, signal.SIGTERM),  # noqa: PLW1509 (no thread runs here)
            process_group=0,  # a terminal's Ctrl-C reaches this launcher only, which passes it on
        )
        started.append(process)
        _tell(process, {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)})

    def forward(number: int, _: object) -> None:
        for process in started:
            if process.stdin:
                _tell(process, number)
            else:
                process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, forward)
    while all(process.poll() is None for process in started):
        time.sleep(0.2)
    for (host, _), process in zip(hosts, started, strict=True):
        if process.returncode == SSH_FAILED and process.stdin:
            print(f"error: {host}: no connection by ssh, or it was lost. The run ends.", file=sys.stderr)
    failed = next((process.returncode for process in started if process.returncode), 0)
    if failed:
        forward(signal.SIGTERM, None)
    codes = [process.wait() for process in started]
    failed = failed or next((code for code in codes if code), 0)
    return failed if failed >= 0 else 128 - failed


def _tell(process: subprocess.Popen[bytes], message: object) -> None:
    """Send a line of JSON to a launcher on another host, if the connection to it is not lost."""
    if process.stdin:
        with suppress(OSError):
            os.write(process.stdin.fileno(), json.dumps(message).encode() + b"\n")


def _told_by_stdin(arguments: list[str]) -> list[str]:
    """Start again with the environment that the first line of standard input holds (LD_LIBRARY_PATH counts
    from the start of a process), then obey the signals in the lines that follow; returns the other
    arguments."""
    if TOLD not in os.environ:
        with open(0, "rb", buffering=0, closefd=False) as told:
            variables = json.loads(told.readline() or "{}")
        command = [sys.executable, "-m", "core.launch", *arguments]
        os.execve(sys.executable, command, {**os.environ, **variables, TOLD: "1"})
    lines = os.fdopen(os.dup(0), "rb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the ranks must not read from it

    def obey() -> None:
        for line in lines:
            os.kill(os.getpid(), json.loads(line))
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=obey, daemon=True, name="signals").start()
    return arguments[1:]


def set_for_torch() -> None:
    """Set what takes effect if torch is not loaded yet; values of the user's stay.

    OpenMP's threads wait for their next piece of work asleep, not spinning on a core that another process (a
    rank, a test, a neighbour's) needs: measured by benchmarks/spinning.py. A GPU's memory is taken in
    segments that can grow: tensors of different sizes otherwise leave gaps that are too small for the next.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its older name
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def end_with_launcher() -> None:
    """If torchrun (or this launcher) started this process as a rank, end when it does, however it ends: the
    ranks of a killed launcher would keep their GPUs and wait for each other."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    end_with_parent(signal.SIGKILL)
    launcher = Path("/proc", os.environ.get(LAUNCHER, "self"))
    if Path("/proc/self").exists() and not launcher.exists():  # it ended before it was asked for
        sys.exit(_error("the launcher has ended"))


def end_with_parent(number: signal.Signals) -> None:
    """Have Linux send this process a signal when the process that started it ends; see prctl(2)."""
    if sys.platform == "linux":
        parent_death_signal = 1
        ctypes.CDLL(None).prctl(parent_death_signal, int(number), 0, 0, 0)


def free_port() -> str:
    """A free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def _read_hostfile(file: Path) -> list[tuple[str, str]]:
    """Host and number of processes (empty: all its GPUs) of each line; exits with an error at a wrong one."""
    if not file.is_file():
        sys.exit(_error(f"{file}: hostfile not found"))
    hosts = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        found = re.fullmatch(r"(\S+)(?:\s+slots=([1-9]\d*))?", text)
        if text and not found:
            sys.exit(_error(f"{file}:{number}: expected `host slots=8`, got `{text}`"))
        if found:
            hosts.append((found[1], found[2] or ""))
    return hosts or sys.exit(_error(f"{file}: no host in it"))


def _error(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
