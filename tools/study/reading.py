"""Read the file of a study, with what the command line changes, and check all of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from tools import steps_file
from tools.steps_file import Description, StudyConfig
from tools.study.arms import Study, levels_of


def read(file: Path, overrides: Sequence[str] = (), seeds: int | None = None) -> Study:
    """A study; `AXIS=LEVEL,LEVEL` among the overrides chooses levels. UserError for what is wrong in it."""
    first = steps_file.read(file).tree.study or StudyConfig()
    levels = {
        name: value for name, _, value in (each.partition("=") for each in overrides) if name in first.axes
    }
    described = steps_file.read(file, [each for each in overrides if each.partition("=")[0] not in levels])
    chosen = _with_levels(described, levels)
    kept = chosen.tree.study or StudyConfig()
    unchosen = {
        axis: {name: sets for name, sets in each.items() if name not in levels_of(kept)[axis]}
        for axis, each in levels_of(first).items()
        if axis in levels
    }
    study = Study(chosen, seeds or kept.seeds, unchosen)
    _check(study)
    return study


def _with_levels(described: Description, chosen: dict[str, str]) -> Description:
    """The description with these levels of its axes only."""
    study = described.tree.study
    if not chosen or study is None:
        return described
    axes: dict[str, Any] = dict(study.axes)
    for axis, listed in chosen.items():
        levels, names = axes[axis], [name.strip() for name in listed.split(",") if name.strip()]
        unknown = [name for name in names if isinstance(levels, dict) and name not in levels]
        if unknown or not names:
            near = steps_file.hint(unknown[0], levels) if unknown else "."
            known = ", ".join(steps_file.text(level) for level in levels)
            raise UserError(f"{axis}={listed}: no such level{near} It has {known}.")
        axes[axis] = {name: levels[name] for name in names} if isinstance(levels, dict) else tuple(names)
    tree = described.tree.model_copy(update={"study": study.model_copy(update={"axes": axes})})
    return Description(
        described.file, tree, described.places, described.variables, described.entries, described.keys
    )


def _check(study: Study) -> None:
    """UserError if the study names steps or axes that it does not have, or a step's text is wrong."""
    tree = study.described.tree.study or StudyConfig()
    outputs = {each.name: each.outputs for each in study.described.entries}
    named = [("study.scores", name) for name in tree.scores]
    if tree.pick:
        named.append(("study.pick.step", tree.pick.step))
    for key, name in named:
        if name not in outputs:
            raise UserError(f"{study.described.place(key)}: no step `{name}`{steps_file.hint(name, outputs)}")
        if not outputs[name]:
            raise UserError(f"{study.described.place(key)}: the step `{name}` has no outputs.")
    if tree.pick and tree.pick.axis not in study.axes:
        where = study.described.place("study.pick.axis")
        raise UserError(f"{where}: no axis `{tree.pick.axis}`{steps_file.hint(tree.pick.axis, study.axes)}")
    if tree.replay_law and "replay" not in study.axes:
        raise UserError(f"{study.described.place('study.replay_law')}: it needs an axis `replay`.")
    study.steps()
