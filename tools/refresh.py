"""Renew a served model when new files have come: train, compare, index, and publish what is not worse.

    python -m tools.refresh --config configs/refresh.yaml            the same as `make refresh`
    python -m tools.refresh --list | --dry-run                       the commands | are all files there?
    python -m tools.refresh --until sft                              up to a step, for schedulers
    python -m tools.refresh --rollback                               the former model and index again

    steps (configs/refresh.yaml) ──tools/step_runner.py──▶ FOLDER/0002/* ──▶ models/current, indexes/current

A killed refresh goes on with its generation; a new one begins only if there are new files. Exit code 0:
published, or nothing new (3 with --until, so that a scheduler can skip what follows); 1: worse, not
published; 2: a step failed. Nothing in use is touched before all steps have succeeded.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from core import dry_run
from core.config.loader import add_arguments, from_arguments
from core.errors import NothingNewError, UserError, run_command
from core.provenance import atomic_io, manifest
from tools import steps_file
from tools.step_runner import (
    PATHS,
    RejectedError,
    Step,
    listing,
    record_file,
    remove_outputs,
    run,
)
from tools.steps_file import Description, StepsFile

STATE = "state.json"
"""In a generation's folder once it has ended: `state`, and what it was."""
STEPS = "steps"
"""In a generation's folder: records and logs of its steps."""
RECORD = "published"
"""In a generation's folder: what was published, with a manifest that names all that it was made from."""
State = dict[str, Any]


class Place(NamedTuple):
    """Where a refresh works, as its file of steps says."""

    folder: Path
    model_link: Path
    index_link: Path

    def generation(self, number: int) -> Path:
        """A generation's folder."""
        return self.folder / f"{number:04}"

    def states(self) -> dict[int, State | None]:
        """All generations in order, each with how it ended; None for one that has not."""
        found: dict[int, State | None] = {}
        for each in sorted(self.folder.glob("[0-9]*"), key=lambda path: path.name):
            if each.name.isdigit() and each.is_dir():
                file = each / STATE
                found[int(each.name)] = json.loads(file.read_text("utf-8")) if file.exists() else None
        return found

    def write(self, number: int, state: State) -> None:
        """Say how a generation ended."""
        text = json.dumps(state, ensure_ascii=False, indent=1)
        atomic_io.write_text(self.generation(number) / STATE, f"{text}\n")

    @contextmanager
    def links_locked(self) -> Iterator[None]:
        """Keep others from the links; what a killed process began with them is finished first."""
        with atomic_io.lock(self.folder / ".links.lock", "another process is publishing"):
            for number, state in self.states().items():
                if state and state["state"] in ENDINGS:
                    self.point(state)
                    self.write(number, state | {"state": ENDINGS[state["state"]]})
            yield

    def point(self, state: State) -> None:
        """Let the links lead to what a state says."""
        to = state["before"] if state["state"] == "rolling back" else state
        for link, target in ((self.model_link, to["model"]), (self.index_link, to["index"])):
            if target:
                _link(link, Path(target))


ENDINGS = {"publishing": "published", "rolling back": "rolled back"}
"""What is under way, and what it then is."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.refresh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, default="configs/refresh.yaml")
    parser.add_argument("--list", action="store_true", help="print the commands and exit")
    parser.add_argument(
        "--dry-run", action="store_true", help="check the files that the steps name, and exit"
    )
    parser.add_argument("--until", metavar="STEP", help="only this step and all that it needs")
    parser.add_argument("--rollback", action="store_true", help="publish the former model and index again")
    arguments = parser.parse_intermixed_args()
    if arguments.keys:
        from_arguments(StepsFile, arguments)
        return 0
    described = steps_file.read(arguments.config, arguments.overrides)
    links = (Path(described.value(name)) for name in ("current_model", "current_index"))
    place = Place(Path(described.value("folder")), *links)
    if arguments.rollback and not arguments.dry_run:
        return rollback(place)
    given = values(described, place, _next(place))
    steps = described.steps(given)
    _check(described, steps)
    if arguments.list:
        print(steps_file.shown(steps))
        return 0
    if arguments.dry_run:
        first = described.value("first_corpora").replace(",", " ").split()
        looks = [
            dry_run.model("base", described.value("base")),
            *(dry_run.place("first corpus", corpus) for corpus in first),
            *steps_file.looks(steps),
        ]
        return dry_run.report(looks)
    busy = f"{place.folder}: another refresh is at work there"
    with atomic_io.lock(place.folder / atomic_io.LOCK, busy):
        return refresh(described, place, arguments.until)


def refresh(described: Description, place: Place, until: str | None = None) -> int:
    """Go on with the generation that has not ended, or begin one if there are new files; the exit code."""
    with place.links_locked():
        pass
    number = _next(place)
    given = values(described, place, number)
    steps = described.steps(given)
    _check(described, steps)
    if (known := _known(described, place, steps, number)) is not None:
        return 3 if until and not known else known
    wanted = described.before(until) if until else {step.name for step in steps}
    records = place.generation(number) / STEPS
    records.mkdir(parents=True, exist_ok=True)
    print(f"generation {number:04}, from {given['current']}", flush=True)
    try:
        run([step for step in steps if step.name in wanted], records, reads_may_change=True)
    except NothingNewError as error:
        for step in steps:
            if record_file(step, records).exists():
                remove_outputs(step, recorded=True)
        shutil.rmtree(place.generation(number))
        print(f"{error}\nnothing published")
        return 3 if until else 0
    except RejectedError as error:
        state = _state(described, place, number, steps, given) | {"state": "rejected"}
        place.write(number, state)
        print(f"{error}\nnot published: {state['comparison']}. {_in_service(place)}")
        return 1
    if not until:
        publish(described, place, number, steps, given)
    return 0


def values(described: Description, place: Place, number: int) -> dict[str, str]:
    """The variables that refresh gives to the steps."""
    published = [state for state in place.states().values() if state and state["state"] == "published"]
    first = described.value("first_corpora").replace(",", " ").split()
    corpora = [*first, *(state["corpus"] for state in published)]
    index = _target(place.index_link) or described.value("first_index")
    named = ((f"corpus-{each}", corpus) for each, corpus in enumerate(corpora, 1))
    return {
        "generation": f"{number:04}",
        "current": _target(place.model_link) or described.value("base"),
        "earlier": ",".join(corpora),
        "mixture": ",".join(f"{{name: {name}, output_dir: {corpus}}}" for name, corpus in named),
        "extends": f"--extends {index}" if index else "",
    }


def _next(place: Place) -> int:
    """The generation to go on with, or a new one."""
    states = place.states()
    last = max(states, default=0)
    return last if last and states[last] is None else last + 1


def _check(described: Description, steps: Sequence[Step]) -> None:
    """UserError if the file lacks what refresh relies on."""
    if not any(step.reads for step in steps):
        raise UserError(f"{described.file}: no step has `reads`, the folder where new files come.")
    for name in ("corpus", "model", "index", "comparison", "first_index"):
        if name not in described.variables:
            raise UserError(f"{described.file}: variables: `{name}` is missing.")


def _known(described: Description, place: Place, steps: Sequence[Step], number: int) -> int | None:
    """The exit code if the last generation ended and nothing has changed since; otherwise None."""
    last = place.states().get(number - 1)
    if number - 1 != max(place.states(), default=0) or last is None:
        return None
    outside = {step.name: listing(step.reads) for step in steps if step.reads}
    if last["state"] == "published":
        if last["read"] != outside:
            return None
        print(f"nothing new since generation {number - 1:04}: nothing published")
        return 0
    again = described.steps(values(described, place, number - 1))
    if (last["recipe"], last["read"]) != (_recipe(again), outside):
        return None
    print(
        f"generation {number - 1:04} was {last['state']} (see {last['comparison']}), and neither files nor"
        f" recipe have changed since: nothing published. {_in_service(place)}"
    )
    return 1


def _recipe(steps: Sequence[Step]) -> str:
    """A hash of the commands and of the files that they name, except what the steps write."""
    written = [PurePath(path) for step in steps for path in (*step.outputs, *step.clears)]
    commands = [step.commands for step in steps]
    named = sorted(set(PATHS.findall(" ".join(command for each in commands for command in each))))
    outside = [Path(path) for path in named if not any(PurePath(path).is_relative_to(w) for w in written)]
    files = manifest.hash_files(path for path in outside if path.is_file())
    return hashlib.sha256(json.dumps([commands, files], sort_keys=True).encode()).hexdigest()


def _state(
    described: Description, place: Place, number: int, steps: Sequence[Step], given: dict[str, str]
) -> State:
    """What a generation was, and by what it may be known again."""
    records = place.generation(number) / STEPS
    files = {step.name: record_file(step, records) for step in steps if step.reads}
    parts = ("model", "index", "corpus", "comparison")
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        **{part: described.value(part, given) for part in parts},
        "before": {"model": given["current"], "index": given["extends"].removeprefix("--extends ") or None},
        "recipe": _recipe(steps),
        "read": {name: json.loads(file.read_text("utf-8"))["read"] for name, file in files.items()},
    }


def publish(
    described: Description, place: Place, number: int, steps: Sequence[Step], given: dict[str, str]
) -> None:
    """Write the record of what is published, and let the links lead there."""
    state = _state(described, place, number, steps, given) | {"state": "publishing"}
    record = place.generation(number) / RECORD
    with place.links_locked():
        now = values(described, place, number)
        if now != given:
            changed = ", ".join(name for name in now if now[name] != given[name])
            raise UserError(
                f"what is published has changed since this refresh began ({changed}). Run it again: what"
                " depends on it is made anew."
            )
        comparison = Path(state["comparison"])
        rows = json.loads(comparison.read_text("utf-8"))
        inputs = manifest.hash_files([comparison])
        for part in ("model", "index"):
            inputs |= manifest.outputs_of(Path(state[part]))
        said = {key: value for key, value in state.items() if key not in ("state", "recipe", "read")}
        with manifest.build(record, step="publish", config=said, inputs=inputs, force=True) as built:
            verdicts = [row["verdict"] for row in rows if row["primary"]]
            built.counts |= {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
            text = json.dumps({**said, "scores": rows}, ensure_ascii=False, indent=1)
            atomic_io.write_text(built.path / "record.json", f"{text}\n")
        place.write(number, state)
        place.point(state)
        place.write(number, state | {"state": "published"})
    print(f"published {state['model']} and {state['index']} (record: {record})")
    print("a service that runs keeps the former ones until it is started again")


def rollback(place: Place) -> int:
    """Let the links lead to what was published before the last publication."""
    with place.links_locked():
        published = [
            (number, state)
            for number, state in place.states().items()
            if state and state["state"] == "published"
        ]
        if not published:
            raise UserError(f"{place.folder}: nothing was published there that could be rolled back.")
        number, state = published[-1]
        before = state["before"]
        if not Path(before["model"]).is_dir():
            raise UserError(
                f"{before['model']}, the model before generation {number:04}, is not a folder here."
            )
        if before["index"] and not Path(before["index"]).is_dir():
            raise UserError(f"{before['index']}, the index before generation {number:04}, is gone.")
        state = state | {"state": "rolling back"}
        place.write(number, state)
        place.point(state)
        place.write(number, state | {"state": "rolled back"})
    print(f"generation {number:04} is rolled back. {_in_service(place)} Start the service again to use it.")
    return 0


def _in_service(place: Place) -> str:
    target = _target(place.model_link)
    return f"{place.model_link} is {target}." if target else "No model is published."


def _target(link: Path) -> str:
    """What a link leads to, from here; an empty text if there is none. UserError if it leads nowhere."""
    if not link.is_symlink():
        if link.exists():
            raise UserError(
                f"{link} is not a symbolic link. Move it away, and link to it: ln -s FOLDER {link}"
            )
        return ""
    if not link.exists():
        raise UserError(f"{link} leads to {link.readlink()}, which is gone. Let it lead to a folder.")
    real = link.resolve()
    here = Path.cwd().resolve()
    return str(real.relative_to(here) if real.is_relative_to(here) else real)


def _link(link: Path, target: Path) -> None:
    """Replace a symbolic link in one step: a reader finds the old target or the new one."""
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))
    new.replace(link)
    atomic_io.sync_folder(link.parent)


if __name__ == "__main__":
    run_command(main)
