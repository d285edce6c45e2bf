"""The steps of a study: those of its file, for each arm and seed, once wherever nothing differs.

    axes × seeds ──▶ what each step's texts mention, also through variables and other steps ──▶ its instances

`${here}` is the folder of a step, `${NAME}` that of the step NAME for the same arm and seed; a step that is
mentioned is needed. A step that mentions no axis and no seed, however indirectly, runs once for all. Its
folder is named after the levels that it depends on (`runs/study/tuning/examples-100/seed-2`), so that a new
level or seed leaves those of the others as they are. What no arm needs is not run.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from core.errors import UserError
from tools.step_runner import Step
from tools.steps_file import VARIABLE, Description, StepConfig, StudyConfig, find_circle, hint, text

SEED, HERE, FOLDER = "seed", "here", "folder"
Levels = dict[str, dict[str, str]]
"""Level to the variables that it sets."""


class Cell(NamedTuple):
    """One training of one arm."""

    levels: tuple[str, ...]
    """A level of each axis."""
    seed: int


class Use(NamedTuple):
    """What the texts of a step depend on."""

    axes: frozenset[str]
    """Axes, or `seed`."""
    steps: frozenset[str]
    """Other steps."""


@dataclass
class Study:
    """A file of steps with its arms and seeds."""

    described: Description
    seeds: int
    unchosen: Mapping[str, Levels] = field(default_factory=dict)
    """Axis to the levels of the file that are not studied. Steps that are for them alone are left out."""
    axes: dict[str, Levels] = field(init=False)
    """Axis to level to the variables that it sets."""
    cells: list[Cell] = field(init=False)
    """All arms, each with all seeds."""
    _levels: dict[str, Levels] = field(init=False)
    """The same with the levels that are not studied."""
    _entries: dict[str, StepConfig] = field(init=False)
    _uses: dict[tuple[str, Cell], Use] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        study = self.described.tree.study
        self._entries = {entry.name: entry for entry in self.described.entries}
        self.axes = levels_of(study) if study else {}
        self._levels = {axis: {**self.unchosen.get(axis, {}), **levels} for axis, levels in self.axes.items()}
        self._check()
        arms = itertools.product(*self.axes.values())
        self.cells = [Cell(arm, seed) for arm in arms for seed in range(1, self.seeds + 1)]

    def arms(self) -> Iterator[tuple[dict[str, str], list[Cell]]]:
        """Each arm's levels, and its trainings."""
        for levels, cells in itertools.groupby(self.cells, key=lambda cell: cell.levels):
            yield dict(zip(self.axes, levels, strict=True)), list(cells)

    def steps(self, names: set[str] | None = None, cells: list[Cell] | None = None) -> list[Step]:
        """The instances of these steps (of all that no other needs) for these trainings, and all that they
        need, in order. UserError for what is wrong in the file."""
        goals = names or self.goals()
        made: dict[str, Step] = {}
        keys: dict[str, str] = {}
        for cell in cells or self.cells:
            wanted = [name for name in self._entries if name in goals and self.runs(name, cell)]
            for name in self._needed(wanted, cell):
                title = self.title(name, cell)
                keys[title] = self.described.keys[name]
                if title not in made:
                    made[title] = self._step(name, cell)
        order = {name: number for number, name in enumerate(self._ordered())}
        steps = sorted(made.values(), key=lambda step: order[step.name.split(" ")[0]])
        self.described.refuse_shared(steps, keys)
        return steps

    def needed(self, name: str, cell: Cell) -> list[str]:
        """The titles of a step and of all that it needs, for a training."""
        return [self.title(each, cell) for each in self._needed([name], cell)]

    def goals(self) -> set[str]:
        """The steps that are scored, and those that no other one mentions for any level of the file."""
        cells = [Cell(levels, 1) for levels in itertools.product(*self._levels.values())]
        mentioned = {
            other for name in self._entries for cell in cells for other in self._use(name, cell).steps
        }
        study = self.described.tree.study
        return set(self._entries) - mentioned | set(study.scores if study else ())

    def runs(self, name: str, cell: Cell) -> bool:
        """Whether a step is for this training at all (`only`)."""
        levels = {**dict(zip(self.axes, cell.levels, strict=True)), SEED: str(cell.seed)}
        return all(levels[axis] == text(level) for axis, level in self._entries[name].only.items())

    def title(self, name: str, cell: Cell) -> str:
        """The name of an instance: the step's and the levels that it depends on."""
        return " ".join([name, *self._label(name, cell)])

    def folder(self, name: str, cell: Cell) -> str:
        """An instance's folder."""
        parts = (re.sub(r"[^\w.-]+", "-", part) for part in self._label(name, cell))
        return "/".join([f"${{{FOLDER}}}", name, *parts])

    def output(self, name: str, cell: Cell) -> str:
        """The first output of an instance."""
        entry = self._entries[name]
        known = self._known(cell) | {HERE: self.folder(name, cell)}
        return self.described.fill(entry.outputs[0], self.described.keys[name], known)

    def value(self, written: str) -> str:
        """A text outside the steps, for the first arm and seed that have all steps which it mentions."""
        if (cell := self._cell_with(written)) is not None:
            return self.described.fill(written, "study", self._known(cell))
        raise UserError(
            f"{self.described.place('study')}: `{written}`: no arm has all steps that it mentions."
        )

    def left_out(self, written: str) -> bool:
        """Whether a text outside the steps is for levels that are not studied."""
        return any(self.unchosen.values()) and self._cell_with(written) is None

    def _cell_with(self, written: str) -> Cell | None:
        """The first arm and seed that have all steps which a text mentions."""
        for cell in self.cells:
            steps = set[str]()
            self._mentions(written, cell, set(), steps, set())
            if all(self.runs(name, cell) for name in steps):
                return cell
        return None

    def _check(self) -> None:
        """UserError for names that clash or do not exist."""
        described, variables = self.described, self.described.variables
        for name in (*self._entries, SEED, HERE):
            if name in variables:
                where = described.place(f"variables.{name}")
                raise UserError(f"{where}: `{name}` is set by the program. Choose another name.")
        set_by: dict[str, str] = {}
        for axis, levels in self.axes.items():
            where = described.place(f"study.axes.{axis}")
            if axis in self._entries or axis in (SEED, HERE):
                raise UserError(f"{where}: `{axis}` is set by the program. Choose another name.")
            if not levels:
                raise UserError(f"{where}: the axis has no level.")
            slugs = {re.sub(r"\W+", "-", level) for level in levels}
            if len(slugs) < len(levels):
                raise UserError(
                    f"{where}: two of its levels would have the same folder: {', '.join(levels)}."
                )
            for name in {name for level in levels.values() for name in level}:
                if name not in variables and name != axis:
                    raise UserError(f"{where}: no variable `{name}`{hint(name, variables)}")
                if name in set_by:
                    raise UserError(f"{where}: `{name}` is also set by the axis `{set_by[name]}`.")
                set_by[name] = axis
        for name, entry in self._entries.items():
            for axis, level in entry.only.items():
                where = described.place(f"{described.keys[name]}.only.{axis}")
                known = [*self._levels.get(axis, ())]
                if axis == SEED:
                    known = [str(seed) for seed in range(1, max(self.seeds, 1) + 1)]
                if axis not in (*self.axes, SEED):
                    raise UserError(f"{where}: no axis `{axis}`{hint(axis, self.axes)}")
                if text(level) not in known:
                    raise UserError(
                        f"{where}: no level {text(level)} of `{axis}`. It has {', '.join(known)}."
                    )

    def _known(self, cell: Cell) -> dict[str, str]:
        """The variables for a training."""
        known = {**self.described.variables, SEED: str(cell.seed)}
        for (axis, levels), level in zip(self._levels.items(), cell.levels, strict=True):
            known |= {axis: level} | levels[level]
        return known | {name: self.folder(name, cell) for name in self._entries}

    def _use(self, name: str, cell: Cell, inside: tuple[str, ...] = ()) -> Use:
        """What a step depends on, itself and through others."""
        if name in inside:
            circle = find_circle(
                {each: [other] for each, other in zip(inside, (*inside[1:], name), strict=True)}
            )
            where = self.described.place(self.described.keys[name])
            raise UserError(f"{where}: a circle: {' needs '.join(circle)}.")
        if (name, cell) not in self._uses:
            axes, steps = set[str](), set(self._entries[name].needs)
            self._mentions("\n".join(_texts(self._entries[name])), cell, axes, steps, set())
            for other in steps - {name}:
                axes |= self._use(other, cell, (*inside, name)).axes
            self._uses[name, cell] = Use(frozenset(axes), frozenset(steps - {name}))
        return self._uses[name, cell]

    def _mentions(self, written: str, cell: Cell, axes: set[str], steps: set[str], seen: set[str]) -> None:
        """Add the axes and steps that a text mentions, also through variables."""
        for name in set(VARIABLE.findall(written)) - seen:
            seen.add(name)
            if name in self._entries:
                steps.add(name)
            if name == SEED or name in self.axes:
                axes.add(name)
            value = self.described.variables.get(name, "")
            for (axis, levels), level in zip(self._levels.items(), cell.levels, strict=True):
                if any(name in each for each in levels.values()):
                    axes.add(axis)
                    value = levels[level].get(name, value)
            self._mentions(value, cell, axes, steps, seen)

    def _label(self, name: str, cell: Cell) -> list[str]:
        used = self._use(name, cell).axes
        levels = zip((*self.axes, SEED), (*cell.levels, cell.seed), strict=True)
        return [f"{axis}-{level}" for axis, level in levels if axis in used]

    def _needed(self, names: list[str], cell: Cell) -> list[str]:
        """Steps and all that they need, each after those."""
        found: dict[str, None] = {}

        def add(name: str, by: str) -> None:
            if not self.runs(name, cell):
                where = self.described.place(self.described.keys[by])
                raise UserError(
                    f"{where}: `{by}` needs `{name}`, which runs only for {_only(self._entries[name])}."
                )
            for other in sorted(self._use(name, cell).steps):
                add(other, name)
            found.setdefault(name)

        for name in names:
            add(name, name)
        return list(found)

    def _step(self, name: str, cell: Cell) -> Step:
        entry = self._entries[name]
        known = self._known(cell) | {HERE: self.folder(name, cell)}
        needs = [self.title(other, cell) for other in sorted(self._use(name, cell).steps)]
        step = self.described.step(entry, known, self.title(name, cell), needs)
        if any(f"${{{HERE}}}" in each for each in _texts(entry)):
            here = self.described.fill(known[HERE], self.described.keys[name], known)
            step = step._replace(clears=tuple(dict.fromkeys((*step.clears, here))))
        return step

    def _ordered(self) -> list[str]:
        """All steps, each after those that it needs in any arm; otherwise as in the file."""
        needs = {name: set[str]() for name in self._entries}
        for name in needs:
            for cell in self.cells:
                needs[name] |= self._use(name, cell).steps
        found: list[str] = []
        while len(found) < len(needs):
            ready = next((n for n in needs if n not in found and needs[n] <= set(found)), None)
            if ready is None:
                raise UserError(f"{self.described.file}: steps need each other in different arms.")
            found.append(ready)
        return found


def levels_of(study: StudyConfig) -> dict[str, Levels]:
    """Axis to its levels, in order."""
    return {
        axis: {name: {key: text(value) for key, value in each.items()} for name, each in levels.items()}
        if isinstance(levels, dict)
        else {text(value): {axis: text(value)} for value in levels}
        for axis, levels in study.axes.items()
    }


def _texts(entry: StepConfig) -> list[str]:
    return [*entry.commands, *entry.outputs, *entry.clears, *entry.reads]


def _only(entry: StepConfig) -> str:
    return ", ".join(f"{axis} {text(level)}" for axis, level in entry.only.items())


def job_name(title: str) -> str:
    """A step's name for a scheduler."""
    return re.sub(r"[^\w.-]+", "-", title)
