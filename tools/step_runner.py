"""Run a list of steps, each one or more commands of this project, and skip the steps that are up to date.

    steps ──commands, inputs──▶ fingerprint ──same as recorded?──▶ up to date, or run ──▶ RECORDS/NAME.json

A step is up to date if it finished with the same commands and the same inputs and its outputs are still
complete. Its inputs are the paths in its commands, each identified by the manifest in it or by its hash. An
interrupted step resumes if its commands can (training, evaluation, corpora). Otherwise it starts again, as
does a step whose commands or inputs have changed: its outputs are then deleted, but never a file that has no
record.
"""

import ctypes
import hashlib
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import NothingNewError, UserError
from core.provenance import atomic_io, manifest

PATHS = re.compile(r"[\w.-]*/[\w./-]+|[\w-][\w.-]*\.ya?ml\b")
"""What in a command is a path: it has a slash, or is the name of a YAML file."""
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
    """Folders or files from outside; if they change, the step starts again unless it has finished."""
    nothing_new: int | None = None
    """The exit code of a command that has nothing to do."""
    rejects: int | None = None
    """The exit code of a command that, having written its outputs, rejects what was made."""


class RejectedError(UserError):
    """A step says that what was made must not be used."""

    status = 1


def run(steps: Sequence[Step], records: Path) -> list[str]:
    """Run the steps that are not up to date, in order, and return their names.

    Raises UserError if one fails, NothingNewError and RejectedError if its exit code says so.
    """
    done: list[str] = []
    outside = [path for step in steps for path in step.reads]
    for number, step in enumerate(steps, 1):
        file, made_from = record_file(step, records), fingerprint(step, outside)
        before: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        same, finished = before.get("made_from") == made_from, before.get("done", False)
        if same and finished and all(_is_complete(Path(output)) for output in step.outputs):
            continue
        read = listing(step.reads)
        resumed = same and step.resumable and not finished and before.get("read") == read
        if not resumed:
            remove_outputs(step, recorded=bool(before))
        starts = before["starts"] + 1 if same else 1
        record: dict[str, Any] = {"made_from": made_from, "starts": starts, "done": False}
        if read:
            record["read"] = read
        atomic_io.write_text(file, json.dumps(record) + "\n")
        print(f"{number:>3}/{len(steps)} {step.name} …", end=" ", flush=True)
        record |= _execute(step, file.with_suffix(".log"))
        print(f"{record['seconds']:.0f} s{' (resumed)' if resumed else ''}", flush=True)
        atomic_io.write_text(file, json.dumps(record | {"done": True}) + "\n")
        done.append(step.name)
    return done


def record_file(step: Step, records: Path) -> Path:
    """The step's record, `NAME.json`; its log, `NAME.log`, is next to it."""
    name = re.sub(r"\W+", "-", step.name)
    return records / f"{name}.json"


def fingerprint(step: Step, outside: Sequence[str] = ()) -> str:
    """A hash of the step's commands and of everything that they read, except what comes from `outside`."""
    outputs = [Path(path) for path in step.outputs]
    inputs = {
        path: _contents(Path(path))
        for path in sorted(set(PATHS.findall(" ".join(step.commands))))
        if not any(out.is_relative_to(path) or Path(path).is_relative_to(out) for out in outputs)
        and not any(Path(path).is_relative_to(other) for other in outside)
    }
    return hashlib.sha256(json.dumps([step.commands, inputs], sort_keys=True).encode()).hexdigest()


def _contents(path: Path) -> Any:
    """A file's hash; for a folder, the outputs in its manifest or in the manifests one level below."""
    if path.is_file():
        return list(manifest.hash_files([path]).values())
    own = path / manifest.NAME
    files = [own] if own.is_file() else sorted(path.glob(f"*/{manifest.NAME}"))
    return {file.parent.name: manifest.read(file.parent)["outputs"] for file in files}


def listing(paths: Sequence[str]) -> str | None:
    """A hash of the names, sizes and times of all files in folders, whose contents are not read; None for no
    path."""
    files = sorted(
        file
        for path in map(Path, paths)
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file()
    )
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


def _execute(step: Step, log: Path) -> dict[str, float]:
    """Run the commands with their output appended to `log`; returns wall and CPU seconds."""
    start, cpu_start = time.monotonic(), _cpu_seconds()
    with log.open("ab") as out:
        for command in step.commands:
            child = subprocess.Popen(
                [sys.executable, "-m", *shlex.split(command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_end_with_parent,  # noqa: PLW1509
            )
            try:
                code = child.wait()
            except BaseException:
                child.terminate()
                child.wait()
                raise
            if code:
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
    return {"seconds": time.monotonic() - start, "cpu_seconds": _cpu_seconds() - cpu_start}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end_with_parent() -> None:
    """On Linux, a step is killed with its parent; otherwise the next run would find it still at work."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
        if os.getppid() == 1:  # the parent died before the call
            os.kill(os.getpid(), signal.SIGKILL)
