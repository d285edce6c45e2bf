"""The whole story on a laptop: raw texts to a published model with scores, by the commands of every day.

    python -m tools.demo                       all steps that are not done; `make demo` is the same
    python -m tools.demo --list                the commands, without running them
    python -m tools.demo inventions=500 runs=runs/small corpora=corpora/small     --keys lists all sizes

    steps (tools/demo/steps.py) ──command, inputs──▶ hash ──as recorded?──▶ up to date, or run ──▶ summary

A step is done when it has ended well with the command and the inputs that it has now: what it reads are the
paths in its command, each by the manifest that stands there or by its hash. A killed step goes on from what
it left where its command can (training, evaluation, corpora), else it begins anew, as does one whose command
or inputs changed: then what it had made is removed, and nothing that no record tells of.
"""

import argparse
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
from typing import Any

from core.config.loader import add_arguments, from_arguments
from core.errors import UserError, run_command
from core.provenance import atomic_io, manifest
from tools.demo.steps import Sizes, Step, slug, steps

PATHS = re.compile(r"[\w.-]*/[\w./-]+")
SHOWN = 15
"""Lines of a failed step's log that are shown."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, default=None)
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    arguments = parser.parse_intermixed_args()
    sizes = from_arguments(Sizes, arguments)
    if sizes is None:
        return 0
    todo = steps(sizes)
    if arguments.list:
        print("\n".join("\n".join([f"# {step.name}", *map(_typed, step.commands)]) for step in todo))
        return 0
    records = Path(sizes.runs) / "steps"
    records.mkdir(parents=True, exist_ok=True)
    with atomic_io.lock(records / ".lock", f"{sizes.runs}: another demo is at work there"):
        if not run(todo, records):
            print(f"all {len(todo)} steps are up to date: {sizes.runs}")
    from tools.demo.summary import summarise

    print(summarise(sizes, todo))
    return 0


def run(todo: Sequence[Step], records: Path) -> list[str]:
    """Do the steps that are not done, in their order; the names of those. UserError where one fails."""
    done: list[str] = []
    for number, step in enumerate(todo, 1):
        file, made_from = records / f"{slug(step)}.json", fingerprint(step)
        before: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        same, done_before = before.get("made_from") == made_from, before.get("done", False)
        if same and done_before and all(_proven(Path(made)) for made in step.makes):
            continue
        goes_on = same and step.goes_on and not done_before
        if not goes_on:
            _remove(step, ours=bool(before))
        starts = before["starts"] + 1 if same else 1
        record: dict[str, Any] = {"made_from": made_from, "starts": starts, "done": False}
        atomic_io.write_text(file, json.dumps(record) + "\n")
        print(f"{number:>3}/{len(todo)} {step.name} …", end=" ", flush=True)
        record |= _execute(step, file.with_suffix(".log"))
        print(f"{record['seconds']:.0f} s{' (went on)' if goes_on else ''}", flush=True)
        atomic_io.write_text(file, json.dumps(record | {"done": True}) + "\n")
        done.append(step.name)
    return done


def fingerprint(step: Step) -> str:
    """A hash of the command and of all that it reads."""
    made = [Path(path) for path in step.makes]
    found = {
        path: _content(Path(path))
        for path in sorted(set(PATHS.findall(" ".join(step.commands))))
        if not any(out.is_relative_to(path) or Path(path).is_relative_to(out) for out in made)
    }
    return hashlib.sha256(json.dumps([step.commands, found], sort_keys=True).encode()).hexdigest()


def _content(path: Path) -> Any:
    """What stands there: outputs by the manifest in it, or by those one level below; a file's hash."""
    if path.is_file():
        return list(manifest.hash_files([path]).values())
    own = path / manifest.NAME
    files = [own] if own.is_file() else sorted(path.glob(f"*/{manifest.NAME}"))
    return {file.parent.name: manifest.read(file.parent)["outputs"] for file in files}


def _proven(path: Path) -> bool:
    """Whether a result is whole: a file, or a folder with its manifest."""
    return path.is_file() or (path / manifest.NAME).is_file()


def _remove(step: Step, *, ours: bool) -> None:
    """Take away what the step made from something else; UserError where no record says that it made it."""
    there = [path for path in map(Path, (*step.clears, *step.makes)) if path.exists()]
    if there and not ours:
        raise UserError(
            f"{there[0]} is there already, and no record says that the demo made it. Move it away, or give"
            " the demo other folders: runs=… corpora=…"
        )
    for path in map(Path, (*step.clears, *step.makes)):
        for each in (path, path.with_name(f".{path.name}.unfinished")):
            if each.is_dir():
                shutil.rmtree(each)
            else:
                each.unlink(missing_ok=True)


def _execute(step: Step, log: Path) -> dict[str, float]:
    """Run the commands with their output in `log`; wall and CPU seconds."""
    began, used = time.monotonic(), _cpu_seconds()
    with log.open("ab") as out:
        for command in step.commands:
            child = subprocess.Popen(
                [sys.executable, "-m", *shlex.split(command)], stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, preexec_fn=_end_with_parent,  # noqa: PLW1509
            )  # fmt: skip
            try:
                code = child.wait()
            except BaseException:
                child.terminate()
                child.wait()
                raise
            if code:
                lines = "\n".join(log.read_text("utf-8", "replace").splitlines()[-SHOWN:])
                raise UserError(
                    f"the step `{step.name}` ended with code {code}:\n{lines}\n"
                    f"Its log is {log}; the same command goes on with this step."
                )
    return {"seconds": time.monotonic() - began, "cpu_seconds": _cpu_seconds() - used}


def _typed(command: str) -> str:
    return f"python -m {command}"


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end_with_parent() -> None:
    """On Linux, a killed demo takes its step along: else the next demo would find it still at work."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
        if os.getppid() == 1:  # it died in between
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run_command(main)
