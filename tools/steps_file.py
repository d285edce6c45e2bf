"""Steps that are written down as data: a YAML file of commands, which run, list, check and schedule it alike.

    variables: {run: runs/mine, tasks: tiny}
    steps:
      - {name: pretrain, command: "pretrain --config mine.yaml run_dir=${run}", outputs: ["${run}/model"]}
      - {name: scores, needs: [pretrain], command: "eval run --model ${run}/model --tasks ${tasks}"}

`${name}` is a variable of the file, which `name=value` on the command line replaces, or one that the program
gives. Everything is checked before the first step starts; an error names the line.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pydantic import Field

from core import dry_run
from core.config.loader import Config, Origins, load, places
from core.errors import UserError
from tools.step_runner import PATHS, Step

VARIABLE = re.compile(r"\$\{([^{}]*)\}")
CONFIGS = (".yaml", ".yml")
"""Endings of files that a command reads as they stand: they must be there before the first step."""


class Resources(Config):
    """What a step needs; for schedulers, the runner does not look at it."""

    gpus: int | None = Field(None, ge=0)
    """Number of GPUs."""
    memory_gb: float | None = Field(None, gt=0)
    """Main memory in GB."""


class StepConfig(Config):
    """One step."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """What the step is called: small letters, digits and hyphens."""
    command: str | tuple[str, ...]
    """What follows `python -m`, or several of these, run in order."""
    needs: tuple[str, ...] = ()
    """Names of the steps that must be finished before."""
    outputs: tuple[str, ...] = ()
    """Folders with a manifest, or files, that exist once the step is finished."""
    clears: tuple[str, ...] = ()
    """What is deleted, besides the outputs, before the step starts again from its beginning."""
    reads: tuple[str, ...] = ()
    """Folders or files from outside. If they change, the step starts again while it is unfinished, but is not
    repeated once it has finished."""
    resumable: bool = False
    """Whether its commands, if killed, continue from what they left."""
    nothing_new: int | None = Field(None, ge=1, le=255)
    """The exit code by which it says that there is nothing to do: the steps end, without an error."""
    rejects: int | None = Field(None, ge=1, le=255)
    """The exit code by which it says, after writing its outputs, that what was made must not be used."""
    resources: Resources = Resources()
    """What it needs: `gpus`, `memory_gb`."""


class StepsFile(Config):
    """A file of steps."""

    variables: dict[str, bool | int | float | str] = Field({})
    """Names and values, which stand in commands and paths as `${name}`."""
    steps: tuple[StepConfig, ...] = Field(min_length=1)
    """The steps: name, command, needs, outputs, clears, reads, resumable, nothing_new, rejects, resources."""


@dataclass(frozen=True)
class Description:
    """A file of steps with the variables of the command line."""

    file: Path
    places: Origins
    """Where each key of the file stands."""
    variables: dict[str, str]
    """Values as written, with `${…}` in them."""
    entries: tuple[StepConfig, ...]
    """In order: each after those that it needs."""
    keys: dict[str, str]
    """Of each step, its key in `places`."""

    def value(self, name: str, given: Mapping[str, str] | None = None) -> str:
        """A variable's value; `given` are the program's own variables. UserError if the file has none."""
        if name not in self.variables:
            raise UserError(f"{self.file}: variables: `{name}` is missing.")
        return self._fill(f"${{{name}}}", f"variables.{name}", {**self.variables, **(given or {})})

    def steps(self, given: Mapping[str, str] | None = None) -> list[Step]:
        """The steps with all variables filled in; UserError for an unknown one or an output of two steps."""
        known = {**self.variables, **(given or {})}
        for name in given or {}:
            if name in self.variables:
                where = self.places.get(f"variables.{name}", "command line")
                raise UserError(f"{where}: variables: `{name}` is set by the program. Choose another name.")
        made = []
        for entry in self.entries:
            key = self.keys[entry.name]

            def filled(part: str, texts: Sequence[str], key: str = key) -> tuple[str, ...]:
                return tuple(self._fill(text, f"{key}.{part}.{n}", known) for n, text in enumerate(texts))

            commands = (entry.command,) if isinstance(entry.command, str) else entry.command
            made.append(
                Step(
                    entry.name,
                    tuple(command.strip() for command in filled("command", commands)),
                    filled("outputs", entry.outputs),
                    filled("clears", entry.clears),
                    entry.resumable,
                    filled("reads", entry.reads),
                    entry.nothing_new,
                    entry.rejects,
                )
            )
        self._refuse_shared(made)
        return made

    def before(self, name: str) -> set[str]:
        """A step and all that it needs; UserError if there is no such step."""
        needs = {entry.name: entry.needs for entry in self.entries}
        if name not in needs:
            raise UserError(f"{self.file}: no step `{name}`{_hint(name, needs)}. It has {', '.join(needs)}.")
        found = [name]
        for each in found:
            found += [other for other in needs[each] if other not in found]
        return set(found)

    def _fill(self, text: str, key: str, known: Mapping[str, str], inside: tuple[str, ...] = ()) -> str:
        def value(found: re.Match[str]) -> str:
            name = found[1]
            where = self.places.get(key, self.places.get(key.rpartition(".")[0], "command line"))
            if name not in known:
                raise UserError(f"{where}: `${{{name}}}`: no such variable{_hint(name, known)}.")
            if name in inside:
                circle = " → ".join([*inside[inside.index(name) :], name])
                raise UserError(f"{where}: variables that need each other: {circle}.")
            place = f"variables.{name}" if name in self.variables else key
            return self._fill(known[name], place, known, (*inside, name))

        return VARIABLE.sub(value, text)

    def _refuse_shared(self, steps: Sequence[Step]) -> None:
        """UserError if an output of a step is, contains or lies in one of another step's."""
        taken: list[tuple[PurePath, Step]] = []
        for step in steps:
            for path in map(PurePath, dict.fromkeys((*step.clears, *step.outputs))):
                for other, owner in taken:
                    if owner is not step and (path.is_relative_to(other) or other.is_relative_to(path)):
                        where, there = (self.places[self.keys[each.name]] for each in (step, owner))
                        raise UserError(
                            f"{where}: the step `{step.name}` writes {path}, and `{owner.name}` ({there})"
                            f" writes {other}. Give each step its own outputs."
                        )
                taken.append((path, step))


def read(file: Path, overrides: Sequence[str] = ()) -> Description:
    """Read a file of steps. UserError for unknown keys, and for needs that are unknown or go in a circle."""
    tree = load(StepsFile, file)
    variables = {name: _text(value) for name, value in tree.variables.items()}
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals or not name:
            raise UserError(f"`{override}` is not of the form name=value.")
        if name not in variables:
            listed = ", ".join(variables) or "none"
            raise UserError(
                f"`{override}`: {file} has no variable `{name}`{_hint(name, variables)}: {listed}."
            )
        variables[name] = value
    where = places(file)
    keys = {step.name: f"steps.{number}" for number, step in enumerate(tree.steps)}
    return Description(file, where, variables, tuple(_ordered(tree.steps, where)), keys)


def _text(value: bool | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hint(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _ordered(steps: Sequence[StepConfig], where: Origins) -> Iterator[StepConfig]:
    """The steps, each after those that it needs; otherwise as in the file."""
    at: dict[str, int] = {}
    for number, step in enumerate(steps):
        if step.name in at:
            first = where[f"steps.{at[step.name]}"]
            raise UserError(
                f"{where[f'steps.{number}']}: a second step `{step.name}`, after that of {first}."
            )
        at[step.name] = number
    for number, step in enumerate(steps):
        for place, need in enumerate(step.needs):
            if need not in at:
                line = where[f"steps.{number}.needs.{place}"]
                raise UserError(f"{line}: `{step.name}` needs `{need}`: no such step{_hint(need, at)}.")
    waiting, done = list(steps), set[str]()
    while waiting:
        ready = next((step for step in waiting if done.issuperset(step.needs)), None)
        if ready is None:
            circle = _circle({step.name: [n for n in step.needs if n not in done] for step in waiting})
            raise UserError(f"{where[f'steps.{at[circle[0]]}.needs']}: a circle: {' needs '.join(circle)}.")
        waiting.remove(ready)
        done.add(ready.name)
        yield ready


def _circle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of steps, each of which needs the next; the first is also the last. All have a need."""
    path = [next(iter(needs))]
    while path[-1] not in path[:-1]:
        path.append(needs[path[-1]][0])
    return path[path.index(path[-1]) :]


def shown(steps: Sequence[Step]) -> str:
    """The commands, to be read or typed."""
    return "\n".join(
        line
        for step in steps
        for line in (f"# {step.name}", *(f"python -m {each}" for each in step.commands))
    )


def looks(steps: Sequence[Step]) -> Iterator[dry_run.Look]:
    """The configurations that the commands name, and what the steps read from outside."""
    written = [PurePath(path) for step in steps for path in (*step.outputs, *step.clears)]
    for step in steps:
        for path in step.reads:
            yield dry_run.place(step.name, path)
        for path in sorted(set(PATHS.findall(" ".join(step.commands)))):
            if path.endswith(CONFIGS) and not any(PurePath(path).is_relative_to(each) for each in written):
                yield dry_run.place(step.name, path)
