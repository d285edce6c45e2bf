"""Runs of a room's command that share one interpreter's start: importing torch, transformers and DeepSpeed
takes longer than training the tests' models.

The server imports the libraries, computes nothing, and forks for every command: what runs is `python -m
MODULE` as ever, in a process of its own that ends as any other does. Several processes get the variables that
SLURM's srun gives them; the launcher has tests of its own.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIBRARIES = (
    "deepspeed.ops", "peft", "transformers.models.llama.modeling_llama", "core.train.loop",
    "core.checkpoint.resume", "pretrain.recipe", "transformers.tokenization_utils_tokenizers",
)  # fmt: skip


def serve() -> list[str] | None:
    """Fork for each line of stdin until it ends; returns the arguments in a process that is to run them."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the libraries print
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        wanted: dict[str, Any] = json.loads(line)
        pids = []
        for rank in range(wanted["processes"]):
            pid = os.fork()
            if not pid:
                _become(wanted, rank)
                return list(wanted["arguments"])
            pids.append(pid)
        print(_wait(pids, wanted["timeout"]), file=answers, flush=True)
    return None


def _become(wanted: dict[str, Any], rank: int) -> None:
    """This process's output, variables and arguments are those of the command."""
    os.setsid()
    for number, name in ((0, os.devnull), (1, wanted["out"]), (2, wanted["err"])):
        opened = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    if wanted["processes"] > 1:
        own, size = str(rank), str(wanted["processes"])
        os.environ.update(RANK=own, LOCAL_RANK=own, WORLD_SIZE=size, LOCAL_WORLD_SIZE=size)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=wanted["port"])
    sys.argv = wanted["arguments"]
    sys.orig_argv = [sys.executable, "-m", *wanted["arguments"]]


def _wait(pids: list[int], timeout: float) -> int:
    """The exit code of the first process that fails, which ends the others; else 0. A process that lost its
    store, which the first process has, waits for that one's own code."""
    from core.distributed.watchdog import EXIT_CODE

    deadline, running, failed, lost = time.monotonic() + timeout, list(pids), 0, False
    while running:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                code = os.waitstatus_to_exitcode(status)
                if code == EXIT_CODE and running:
                    deadline, lost = min(deadline, time.monotonic() + 10), True
                else:
                    failed = failed or code
        if failed or time.monotonic() > deadline:
            failed = failed or (EXIT_CODE if lost else 124)
            for pid in running:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return failed or (EXIT_CODE if lost else 0)


class Warm:
    """The server of a test session; it starts at the first command and ends with the session's process."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(
        self, *arguments: str | Path, processes: int = 1, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """`python -m ARGUMENTS` in so many processes, one thread each, on the CPU."""
        from core.launch import free_port

        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        if self._server is None or self._server.poll() is not None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.warm"], cwd=ROOT, env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self._server.stdin
        assert self._server.stdout
        command = [str(each) for each in arguments]
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
            wanted = {
                "arguments": command, "processes": processes, "timeout": timeout, "environment": environment,
                "out": out.name, "err": err.name, "port": free_port(),
            }  # fmt: skip
            self._server.stdin.write(json.dumps(wanted) + "\n")
            self._server.stdin.flush()
            status = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(command, status, out.read(), err.read())


if __name__ == "__main__":
    given = serve()
    if given is not None:
        runpy.run_module(given[0], run_name="__main__", alter_sys=True)
