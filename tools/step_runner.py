"""Run a list of steps, each one or more commands of this project, and skip the steps that are up to date.

    steps ──commands, inputs──▶ fingerprint ──same as recorded?──▶ up to date, or run ──▶ RECORDS/NAME.json

A step is up to date if it finished with the same commands and the same inputs and its outputs are still
complete. Its inputs are the paths in its commands, each identified by its hash or the manifest in it, and
what it reads from outside, by the names, sizes and times of the files, as is a folder without a manifest. An
interrupted step resumes if its commands can (training, evaluation, corpora). Otherwise it starts again, as
does a step whose commands or inputs have changed: its outputs are then deleted, but never a file that has no
record. Several steps can run at once, each after those that it needs; they then divide the cores and GPUs.
"""

import ctypes
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from core.errors import NothingNewError, UserError
from core.files import files_below
from core.provenance import atomic_io, manifest

PATHS = re.compile(r"[\w.-]*/[\w./-]+|[\w-][\w.-]*\.ya?ml\b")
"""What in a command is a path: it has a slash, or is the name of a YAML file."""
LIBC = ctypes.CDLL(None)
LOG_LINES = 15
"""Last lines of a failed step's log that are shown."""


class Step(NamedTuple):
    """One or more commands, run in order, and what they write."""

    name: str
    commands: tuple[str, ...]
    """What follows `python -m`; split into words as by a shell, without expansions."""
    outputs: tuple[str, ...] = ()
    """Folders with a manifest, or files, that exist once the step is complete."""
    clears: tuple[str, ...] = ()
    """What is deleted, in addition to the outputs, before the step starts again."""
    resumable: bool = False
    """Whether the commands, if killed, continue from what they left."""
    reads: tuple[str, ...] = ()
    """Folders or files from outside; if they change, the step starts again."""
    nothing_new: int | None = None
    """The exit code of a command that has nothing to do."""
    rejects: int | None = None
    """The exit code of a command that, having written its outputs, rejects what was made."""
    needs: tuple[str, ...] = ()
    """Names of the steps that must be finished before, if several steps run at once."""


class RejectedError(UserError):
    """A step says that what was made must not be used."""

    status = 1


def run(
    steps: Sequence[Step], records: Path, at_once: int = 1, *, reads_may_change: bool = False
) -> list[str]:
    """Run the steps that are not up to date, up to `at_once` at a time, and return their names. With
    `reads_may_change`, a step that has finished is not repeated when what steps read from outside changes.

    Raises UserError if one fails, after those that run beside it have ended; NothingNewError and
    RejectedError if its exit code says so.
    """
    outside = [path for step in steps for path in step.reads] if reads_may_change else []
    if at_once == 1:
        return [
            step.name
            for number, step in enumerate(steps)
            if _keep(step, records, outside, number, len(steps))
        ]
    work = _Work(at_once)
    waiting, running = dict(enumerate(steps)), dict[Future[bool], Step]()
    done, failed = list[str](), list[BaseException]()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            while running or (waiting and not failed):
                names = {step.name for step in waiting.values()} | {step.name for step in running.values()}
                for number, step in list(waiting.items()):
                    if len(running) < at_once and not failed and names.isdisjoint(step.needs):
                        keep = (step, records, outside, number, len(steps), work)
                        running[pool.submit(_keep, *keep)] = waiting.pop(number)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    if error := future.exception():
                        failed.append(error)
                    elif future.result():
                        done.append(step.name)
        except BaseException:
            work.end()
            raise
    if failed:
        raise failed[0]
    return done


class _Work:
    """What steps that run at once share: cores, GPUs, the terminal."""

    def __init__(self, at_once: int) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = str(max(1, cores // at_once))
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = sorted(Path("/dev").glob("nvidia[0-9]*"), key=lambda path: int(path.name[6:]))
        cards = named.split(",") if named else [path.name[6:] for path in gpus]
        self._shares = [",".join(cards[place::at_once]) for place in range(at_once)] if cards else []
        if cards and len(cards) < at_once:
            raise UserError(f"{at_once} steps at once need as many GPUs; there are {len(cards)}.")
        self._free, self._lock = list(range(at_once)), threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def take(self) -> int:
        """A place, to be given back."""
        with self._lock:
            return self._free.pop()

    def give(self, place: int) -> None:
        """Give a place back."""
        with self._lock:
            self._free.append(place)

    def environment(self, place: int) -> dict[str, str]:
        """The variables of a step in this place."""
        own = {"CUDA_VISIBLE_DEVICES": self._shares[place]} if self._shares else {}
        return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", self.threads), **own}

    @contextmanager
    def child(self, child: "subprocess.Popen[bytes]") -> Iterator[None]:
        """Remember a process while it runs."""
        with self._lock:
            self._children.add(child)
            if self._ended:
                os.kill(child.pid, signal.SIGTERM)
        try:
            yield
        finally:
            with self._lock:
                self._children.discard(child)

    def end(self) -> None:
        """End all processes; those that are started later end at once."""
        with self._lock:
            self._ended = True
            for child in self._children:
                os.kill(child.pid, signal.SIGTERM)


def _keep(
    step: Step, records: Path, outside: Sequence[str], number: int, total: int, work: _Work | None = None
) -> bool:
    """Run a step unless it is up to date; whether it ran."""
    file, made_from = record_file(step, records), fingerprint(step, outside)
    before: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    same, finished = before.get("made_from") == made_from, before.get("done", False)
    if same and finished and all(_is_complete(Path(output)) for output in step.outputs):
        return False
    read = listing(step.reads)
    resumed = same and step.resumable and not finished and before.get("read") == read
    if not resumed:
        remove_outputs(step, recorded=bool(before))
    for output in map(Path, step.outputs):
        if output.suffix:  # a file; folders are made by their commands
            output.parent.mkdir(parents=True, exist_ok=True)
    starts = before["starts"] + 1 if same else 1
    record: dict[str, Any] = {"made_from": made_from, "starts": starts, "done": False}
    if read:
        record["read"] = read
    atomic_io.write_text(file, json.dumps(record) + "\n")
    title = f"{number + 1:>3}/{total} {step.name}"
    if work is None:
        print(f"{title} …", end=" ", flush=True)
    record |= _execute(step, file.with_suffix(".log"), work)
    took = f"{record['seconds']:.0f} s{' (resumed)' if resumed else ''}"
    print(took if work is None else f"{title} … {took}", flush=True)
    atomic_io.write_text(file, json.dumps(record | {"done": True}) + "\n")
    return True


def up_to_date(step: Step, records: Path) -> bool:
    """Whether the step has finished with its commands and inputs as they are now."""
    file = record_file(step, records)
    before: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    complete = all(_is_complete(Path(output)) for output in step.outputs)
    return bool(before.get("done")) and complete and before["made_from"] == fingerprint(step)


def unfinished(step: Step, records: Path) -> list[str]:
    """Those of the steps that it needs which have not finished."""
    files = {name: _record_of(name, records) for name in step.needs}
    return [
        f"`{name}`"
        for name, file in files.items()
        if not (file.exists() and json.loads(file.read_text("utf-8")).get("done"))
    ]


def record_file(step: Step, records: Path) -> Path:
    """The step's record, `NAME.json`; its log, `NAME.log`, is next to it."""
    return _record_of(step.name, records)


def _record_of(name: str, records: Path) -> Path:
    name = re.sub(r"\W+", "-", name)
    return records / f"{name}.json"


def fingerprint(step: Step, outside: Sequence[str] = ()) -> str:
    """A hash of the step's commands and of everything that they read, except what comes from `outside`."""
    outputs = [Path(path) for path in step.outputs]
    inputs = {
        path: listing([path]) if path in step.reads else _contents(Path(path))
        for path in sorted({*PATHS.findall(" ".join(step.commands)), *step.reads})
        if not any(out.is_relative_to(path) or Path(path).is_relative_to(out) for out in outputs)
        and not any(Path(path).is_relative_to(other) for other in outside)
    }
    return hashlib.sha256(json.dumps([step.commands, inputs], sort_keys=True).encode()).hexdigest()


def _contents(path: Path) -> Any:
    """A file's hash; for a folder, the outputs in its manifest or in the manifests one level below, or the
    listing of one that has none."""
    if path.is_file():
        return list(manifest.hash_files([path]).values())
    own = path / manifest.NAME
    files = [own] if own.is_file() else sorted(path.glob(f"*/{manifest.NAME}"))
    found = {file.parent.name: manifest.read(file.parent)["outputs"] for file in files}
    return found or (listing([str(path)]) if path.is_dir() else {})


def listing(paths: Sequence[str]) -> str | None:
    """A hash of the names, sizes and times of all files in folders, whose contents are not read; None for no
    path."""
    files = sorted(file for path in paths for file in files_below(Path(path)) if file.is_file())
    found = [(str(file), status.st_size, status.st_mtime_ns) for file in files if (status := file.stat())]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest() if paths else None


def _is_complete(output: Path) -> bool:
    return output.is_file() or (output / manifest.NAME).is_file()


def remove_outputs(step: Step, *, recorded: bool) -> None:
    """Delete what an earlier run of the step wrote; UserError if there are outputs but no record of one."""
    paths = [Path(path) for path in (*step.clears, *step.outputs)]
    existing = [path for path in paths if path.exists()]
    if existing and not recorded:
        raise UserError(
            f"{existing[0]} already exists, and there is no record that the step `{step.name}` wrote it. Move"
            " it away, or choose other output folders."
        )
    for path in paths:
        for each in (path, path.with_name(f".{path.name}.unfinished")):
            if each.is_dir():
                shutil.rmtree(each)
            else:
                each.unlink(missing_ok=True)


def _execute(step: Step, log: Path, work: _Work | None) -> dict[str, float]:
    """Run the commands with their output appended to `log`; returns wall and CPU seconds, and the peak memory
    of their largest process in bytes."""
    start, cpu, peak = time.monotonic(), 0.0, 0
    place = work.take() if work else 0
    environment = work.environment(place) if work else None
    try:
        with log.open("ab") as out:
            for command in step.commands:
                code, spent, memory = _call(command, out, environment, work)
                cpu, peak = cpu + spent, max(peak, memory)
                if code:
                    _explain(step, code, log)
    finally:
        if work:
            work.give(place)
    return {"seconds": time.monotonic() - start, "cpu_seconds": cpu, "peak_bytes": peak}


def _call(
    command: str, out: IO[bytes], environment: Mapping[str, str] | None, work: _Work | None
) -> tuple[int, float, int]:
    """A command's exit code, its CPU seconds with those of all that it started and waited for, and the peak
    memory of the largest of these processes in bytes."""
    child = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        env=environment,
        preexec_fn=_end_with_parent,  # noqa: PLW1509
    )
    with work.child(child) if work else nullcontext():
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return child.returncode, used.ru_utime + used.ru_stime, peak


def _explain(step: Step, code: int, log: Path) -> NoReturn:
    """Say why a command ended with this exit code."""
    last = log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
    lines = "\n".join(last)
    if code == step.nothing_new:
        raise NothingNewError(last[-1] if last else f"nothing new: {step.name}")
    if code == step.rejects and all(_is_complete(Path(output)) for output in step.outputs):
        raise RejectedError(lines)
    raise UserError(
        f"the step `{step.name}` failed with exit code {code}:\n{lines}\n"
        f"The full log is {log}. Run the same command again to continue with this step."
    )


def _end_with_parent() -> None:
    """On Linux, a step is killed with its parent; otherwise the next run would find it still at work."""
    if sys.platform == "linux":
        LIBC.prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
        if os.getppid() == 1:  # the parent died before the call
            os.kill(os.getpid(), signal.SIGKILL)
