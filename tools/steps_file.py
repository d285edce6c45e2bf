"""Steps that are written down as data: a YAML file of commands, to run, list, check, plan and schedule.

    variables: {run: runs/mine, tasks: tiny}
    steps:
      - {name: pretrain, command: "pretrain --config mine.yaml run_dir=${run}", outputs: ["${run}/model"]}
      - {name: scores, needs: [pretrain], command: "eval run --model ${run}/model --tasks ${tasks}"}

`${name}` is a variable of the file, which `name=value` on the command line replaces, or one that the program
gives. A `study` runs the steps for each of its arms and seeds: tools/study/arms.py. Everything is checked
before the first step starts; an error names the line.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pydantic import Field

from core import dry_run
from core.config.loader import Config, Origins, load, places
from core.errors import UserError
from tools.step_runner import PATHS, Step

VARIABLE = re.compile(r"\$\{([^{}]*)\}")
CONFIGS = (".yaml", ".yml")
"""Endings of files that a command reads as they stand: they must be there before the first step."""
Scalar = bool | int | float | str


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
    """Folders or files from outside. If they change, the step starts again; not in `make refresh` once it has
    finished: what came later belongs to the next generation."""
    resumable: bool = False
    """Whether its commands, if killed, continue from what they left."""
    nothing_new: int | None = Field(None, ge=1, le=255)
    """The exit code by which it says that there is nothing to do: the steps end, without an error."""
    rejects: int | None = Field(None, ge=1, le=255)
    """The exit code by which it says, after writing its outputs, that what was made must not be used."""
    resources: Resources = Resources()
    """What it needs: `gpus`, `memory_gb`."""
    only: dict[str, Scalar] = Field({})
    """In a study: axis (or `seed`) and level; the step runs in these arms only."""
    raw_gb: float | None = Field(None, gt=0)
    """For `make plan`: size of a corpus's raw files, in GB."""
    tokens: float | None = Field(None, gt=0)
    """For `make plan`: tokens in the corpus, or tokens trained on per epoch."""
    samples: float | None = Field(None, gt=0)
    """For `make plan`, instead of `tokens`: number of chats or questions."""
    tokens_per_sample: float | None = Field(None, gt=0)
    """For `make plan`: their mean length, an assumption; correct it once `--prepare` has counted them."""

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands, also of a step that has one."""
        return (self.command,) if isinstance(self.command, str) else self.command


class Machine(Config):
    """Cards that run a step together."""

    name: str
    """What the plan calls it."""
    card: str
    """A card of core/model/flops.py, which has its peak."""
    gpus: int = Field(ge=1)
    """Number of cards."""
    gib: float = Field(gt=0)
    """Memory of one card, in GiB."""


class Comparison(Config):
    """A table of the summary: what `eval compare` or `eval ranking` wrote."""

    title: str
    """What it shows."""
    file: str
    """The file, with variables."""
    names: tuple[str, str]
    """What A and B are."""
    metrics: tuple[str, ...] = ()
    """The metrics that are shown; all, if none is named."""


class ReplayLaw(Config):
    """The tasks whose bits per byte a law of the share of general text is fitted to."""

    domain: str
    """Task of domain text."""
    general: str
    """Task of general text."""
    most_worse: float = Field(0.01, ge=0)
    """How much worse the general loss may become, as a share of it."""


class Pick(Config):
    """One level of an axis is picked before anything is scored: the others are not scored at all."""

    axis: str
    """The axis, such as a learning rate."""
    step: str
    """The step that evaluates each level on validation data."""
    task: str
    """A task of that evaluation."""
    metric: str
    """A metric of that task."""


class StudyConfig(Config):
    """Arms and seeds that the steps run for, and what is shown."""

    title: str = ""
    """Heading of the report."""
    axes: dict[str, dict[str, dict[str, Scalar]] | tuple[Scalar, ...]] = Field({})
    """Axis to its levels, the baseline first: names with the variables that they set, or values of the
    variable of the axis's name. The arms are all combinations."""
    seeds: int = Field(1, ge=1)
    """Number of trainings of each arm. `${seed}` is 1, 2, …"""
    scores: tuple[str, ...] = ()
    """The steps whose first output is an evaluation."""
    headlines: dict[str, str] = Field({})
    """Task to the metric that is shown; without, each task's primary ones."""
    pick: Pick | None = None
    """What is picked on validation data: `axis`, `step`, `task`, `metric`."""
    replay_law: ReplayLaw | None = None
    """For an axis `replay`: tasks whose losses are fitted: `domain`, `general`, `most_worse`."""
    comparisons: tuple[Comparison, ...] = ()
    """Other tables of the summary: title, file, names, metrics."""


class StepsFile(Config):
    """A file of steps."""

    variables: dict[str, Scalar] = Field({})
    """Names and values, which stand in commands and paths as `${name}`."""
    steps: tuple[StepConfig, ...] = Field(min_length=1)
    """The steps: name, command, needs, outputs, clears, reads, resumable, nothing_new, rejects, resources,
    only, raw_gb, tokens, samples, tokens_per_sample."""
    study: StudyConfig | None = None
    """Arms and seeds: `make study`."""
    architecture: dict[str, Any] = Field({})
    """For `make plan`: keys of a transformers configuration, the shape of the base. It needs no weights."""
    mfu_share: float = Field(0.4, gt=0, le=1)
    """For `make plan`: model FLOP utilisation, the assumption behind all hours."""
    disk_gb_per_s: float = Field(1.0, gt=0)
    """For `make plan`: GB per second in which all processes together write a checkpoint: an assumption;
    measure your disk."""
    machines: tuple[Machine, ...] = ()
    """For `make plan`: the machines to plan for: name, card, gpus, gib."""


@dataclass(frozen=True)
class Description:
    """A file of steps with what the command line set."""

    file: Path
    tree: StepsFile
    places: Origins
    """Where each key of the file stands."""
    variables: dict[str, str]
    """Values as written, with `${…}` in them."""
    entries: tuple[StepConfig, ...]
    """In order: each after those that it needs."""
    keys: dict[str, str]
    """Of each step, its key in `places`."""

    def place(self, key: str) -> str:
        """Where a key, or the one that contains it, was set."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, "command line")

    def value(self, name: str, given: Mapping[str, str] | None = None) -> str:
        """A variable's value; `given` are the program's own variables. UserError if the file has none."""
        if name not in self.variables:
            raise UserError(f"{self.file}: variables: `{name}` is missing.")
        return self.fill(f"${{{name}}}", f"variables.{name}", {**self.variables, **(given or {})})

    def steps(self, given: Mapping[str, str] | None = None) -> list[Step]:
        """The steps with all variables filled in; UserError for an unknown one or an output of two steps."""
        for name in given or {}:
            if name in self.variables:
                where = self.place(f"variables.{name}")
                raise UserError(f"{where}: variables: `{name}` is set by the program. Choose another name.")
        known = {**self.variables, **(given or {})}
        made = [self.step(entry, known, entry.name, entry.needs) for entry in self.entries]
        self.refuse_shared(made, self.keys)
        return made

    def step(self, entry: StepConfig, known: Mapping[str, str], name: str, needs: Sequence[str]) -> Step:
        """A step with these variables filled in."""

        def filled(part: str, texts: Sequence[str]) -> tuple[str, ...]:
            key = f"{self.keys[entry.name]}.{part}"
            return tuple(self.fill(text, f"{key}.{n}", known) for n, text in enumerate(texts))

        return Step(
            name,
            tuple(command.strip() for command in filled("command", entry.commands)),
            filled("outputs", entry.outputs),
            filled("clears", entry.clears),
            entry.resumable,
            filled("reads", entry.reads),
            entry.nothing_new,
            entry.rejects,
            tuple(needs),
        )

    def before(self, name: str) -> set[str]:
        """A step and all that it needs; UserError if there is no such step."""
        needs = {entry.name: entry.needs for entry in self.entries}
        if name not in needs:
            raise UserError(f"{self.file}: no step `{name}`{hint(name, needs)} It has {', '.join(needs)}.")
        found = [name]
        for each in found:
            found += [other for other in needs[each] if other not in found]
        return set(found)

    def fill(self, text: str, key: str, known: Mapping[str, str], inside: tuple[str, ...] = ()) -> str:
        """A text with its variables filled in; UserError, with the place of `key`, for an unknown one."""

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name not in known:
                raise UserError(f"{self.place(key)}: `${{{name}}}`: no such variable{hint(name, known)}")
            if name in inside:
                circle = " → ".join([*inside[inside.index(name) :], name])
                raise UserError(f"{self.place(key)}: variables that need each other: {circle}.")
            at = f"variables.{name}" if name in self.variables else key
            return self.fill(known[name], at, known, (*inside, name))

        return VARIABLE.sub(value, text)

    def refuse_shared(self, steps: Sequence[Step], keys: Mapping[str, str]) -> None:
        """UserError if an output of a step is, contains or lies in one of another step's; `keys`: the place
        of each step, by its name."""
        written = [
            (PurePath(path).parts, number)
            for number, step in enumerate(steps)
            for path in {*step.clears, *step.outputs}
        ]
        outer: tuple[tuple[str, ...], int] | None = None
        for parts, number in sorted(written):
            if outer is None or parts[: len(outer[0])] != outer[0]:
                outer = (parts, number)
            elif number != outer[1]:
                (first, there), (second, here) = sorted([(number, parts), (outer[1], outer[0])])
                places = [self.place(keys[steps[each].name]) for each in (second, first)]
                raise UserError(
                    f"{places[0]}: the step `{steps[second].name}` writes {PurePath(*here)}, and"
                    f" `{steps[first].name}` ({places[1]}) writes {PurePath(*there)}. Give each step its own"
                    " outputs."
                )


def read(file: Path, overrides: Sequence[str] = ()) -> Description:
    """Read a file of steps. UserError for unknown keys, and for needs that are unknown or go in a circle."""
    first = load(StepsFile, file, [each for each in overrides if _is_key(each)])
    variables = {name: text(value) for name, value in first.variables.items()}
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals or not name:
            raise UserError(f"`{override}` is not of the form name=value.")
        if name in variables:
            variables[name] = value
        elif not _is_key(override):
            listed = ", ".join(variables) or "none"
            raise UserError(
                f"`{override}`: {file} has no variable `{name}`{hint(name, variables)} It has {listed}."
            )
    where = places(file)
    for name in variables.keys() & StepsFile.model_fields.keys():
        raise UserError(f"{where[f'variables.{name}']}: `{name}` is a key of the file. Choose another name.")
    if any(override.startswith("steps=") for override in overrides):
        where = {key: place for key, place in where.items() if not key.startswith("steps")}
    keys = {step.name: f"steps.{number}" for number, step in enumerate(first.steps)}
    described = Description(file, first, where, variables, (), keys)
    ordered = tuple(_ordered(first.steps, described))
    return Description(file, first, where, variables, ordered, keys)


def _is_key(override: str) -> bool:
    """Whether an override is of a key of the file, not of a variable."""
    key = override.partition("=")[0]
    return key.partition(".")[0] in StepsFile.model_fields


def text(value: Scalar) -> str:
    """A value as it stands in a command."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def hint(name: str, known: Mapping[str, object]) -> str:
    """The end of a sentence: `; did you mean …?` if a known name is near."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean `{near[0]}`?" if near else "."


def _ordered(steps: Sequence[StepConfig], described: Description) -> Iterator[StepConfig]:
    """The steps, each after those that it needs; otherwise as in the file."""
    at: dict[str, int] = {}
    for number, step in enumerate(steps):
        if step.name in at:
            here, first = (described.place(f"steps.{each}") for each in (number, at[step.name]))
            raise UserError(f"{here}: a second step `{step.name}`, after that of {first}.")
        at[step.name] = number
    for number, step in enumerate(steps):
        for place, need in enumerate(step.needs):
            if need not in at:
                line = described.place(f"steps.{number}.needs.{place}")
                raise UserError(f"{line}: `{step.name}` needs `{need}`: no such step{hint(need, at)}")
    waiting, done = list(steps), set[str]()
    while waiting:
        ready = next((step for step in waiting if done.issuperset(step.needs)), None)
        if ready is None:
            circle = find_circle({step.name: [n for n in step.needs if n not in done] for step in waiting})
            line = described.place(f"steps.{at[circle[0]]}.needs")
            raise UserError(f"{line}: a circle: {' needs '.join(circle)}.")
        waiting.remove(ready)
        done.add(ready.name)
        yield ready


def find_circle(needs: Mapping[str, Sequence[str]]) -> list[str]:
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
    """The configurations that the commands name, and what the steps read from outside; each once."""
    written = {PurePath(path) for step in steps for path in (*step.outputs, *step.clears)}
    seen = set[str]()
    for step in steps:
        named = sorted(set(PATHS.findall(" ".join(step.commands))))
        configs = [path for path in named if path.endswith(CONFIGS) and written.isdisjoint(_above(path))]
        for path in (*step.reads, *configs):
            if path not in seen:
                seen.add(path)
                yield dry_run.place(step.name.split(" ")[0], path)


def _above(path: str) -> set[PurePath]:
    return {PurePath(path), *PurePath(path).parents}
