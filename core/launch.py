"""Start a room's module as one process a GPU (or, on a CPU, one process, or as many as asked for), on one
host or many.

    python -m core.launch [--processes N] [TORCHRUN OPTION ...] -m MODULE [ARGUMENT ...]
    python -m core.launch --hostfile FILE -m MODULE [ARGUMENT ...]

A hostfile has a line a host, `worker-1 slots=8`, as MPI and DeepSpeed write it; each host is reached by ssh
without a password, has this folder at the same path, and is where the process of rank 0 runs if it stands
first.

The launcher is torchrun; this adds three things. One process is run without it. Each process of a CPU run
gets its share of the cores, where torchrun gives it one thread. And a rank that ends with a message for the
user (exit code 2) ends the whole run with that code, where torchrun would print a traceback of its own and
return 1.
"""

import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

FORWARDED = ("NCCL_", "HF_", "TORCH_", "CUDA_", "OMP_", "GLOO_", "WANDB_")
"""Beginnings of the environment variables that go along to other hosts."""
LOCAL = ("localhost", "127.0.0.1")


def main(arguments: list[str]) -> int:
    """Run `arguments` as described above; returns the exit code."""
    options = {"--processes": "", "--hostfile": ""}
    while arguments and arguments[0] in options:
        options[arguments[0]] = arguments[1]
        arguments = arguments[2:]
    if "-m" not in arguments:
        print(__doc__)
        return 2
    if "--dry-run" in arguments:  # one process checks for all of them
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
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "900")  # seconds for a checkpoint after a signal
    return _torchrun([f"--nproc-per-node={processes}", *arguments])


def _run_here(arguments: list[str]) -> int:
    """The module in this process."""
    sys.argv = arguments[1:]
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    return 0


def _torchrun(arguments: list[str]) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    if not any(option.startswith(("--nnodes", "--rdzv", "--master")) for option in arguments):
        arguments = ["--standalone", *arguments]
    else:
        # torch 2.13: a first host that stays does not tell the address of its shared store to one that comes
        # back (dynamic_rendezvous.py writes it in the first round only), and both wait for each other.
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        torchrun(["--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", *arguments])
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
        if failure.exitcode not in (2, 143):
            words = f"rank {rank} ended with exit code {failure.exitcode}; its own words stand above."
            print(f"error: {words}", file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


def _on_hosts(hostfile: Path, arguments: list[str]) -> int:
    """Start this launcher on every host and wait; when one host fails, the others are ended too."""
    hosts = _read_hostfile(hostfile)
    local = all(host in LOCAL for host, _ in hosts)
    port = os.environ.get("MASTER_PORT") or (free_port() if local else "29500")
    started = []
    for number, (host, slots) in enumerate(hosts):
        nodes = [f"--nnodes={len(hosts)}", f"--node-rank={number}"]
        where = [f"--master-addr={hosts[0][0]}", f"--master-port={port}"]
        launch = [sys.executable, "-m", "core.launch", "--processes", slots, *nodes, *where, *arguments]
        if host not in LOCAL:
            variables = [
                f"{name}={value}" for name, value in os.environ.items() if name.startswith(FORWARDED)
            ]
            remote = f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join(['env', *variables, *launch])}"
            launch = ["ssh", "-tt", "-o", "BatchMode=yes", host, remote]
        started.append(subprocess.Popen(launch, stdin=subprocess.DEVNULL))

    def forward(number: int, _: object) -> None:
        for process in started:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, forward)
    while all(process.poll() is None for process in started):
        time.sleep(0.2)
    failed = next((process.returncode for process in started if process.returncode), 0)
    if failed:
        forward(signal.SIGTERM, None)
    codes = [process.wait() for process in started]
    failed = failed or next((code for code in codes if code), 0)
    return failed if failed >= 0 else 128 - failed


def free_port() -> str:
    """A port on this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def _read_hostfile(file: Path) -> list[tuple[str, str]]:
    """Host and number of processes (empty: all its GPUs) of each line; ends the program at a wrong one."""
    if not file.is_file():
        sys.exit(_complain(f"{file}: there is no such hostfile."))
    hosts = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        found = re.fullmatch(r"(\S+)(?:\s+slots=([1-9]\d*))?", text)
        if text and not found:
            sys.exit(_complain(f"{file}:{number}: expected `host slots=8`, found `{text}`."))
        if found:
            hosts.append((found[1], found[2] or ""))
    return hosts or sys.exit(_complain(f"{file}: names no host."))


def _complain(words: str) -> int:
    print(f"error: {words}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
