"""What a study found: scores of its arms, differences between levels, worth, replay laws, cost.

    Study (axes, arms, runs) ──load──▶ task: scores (trainings, questions) of each arm
    ──found──▶ one tree of numbers: results.json, and what tools/study/page.py shows

Of a task only the questions count that all trainings of all its arms answered. Arms and levels are taken in
the order of the axes, whatever the order of the study's arms.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.errors import UserError
from eval.analysis.replay_law import fit_replay
from eval.analysis.scoring import by_task, named_measure, primary_measures
from eval.analysis.trainings import LEAST, compared, crossed, described, judge, pseudo_values, unpaired
from eval.analysis.worth import sentence, worth
from eval.metrics.measure import Floats
from eval.sample import EvalSample, read_predictions

FORMAT = 1
REPLAY = "replay"
"""The axis to which laws of the replay share are fitted."""
WORSE = 0.01
"""By how much of its least the general loss may be above it, for the share that is recommended."""

Tree = dict[str, Any]
Key = tuple[str, ...]
"""An arm's levels, in the order of the axes."""


class Axis(NamedTuple):
    """What is varied. The first level is the baseline."""

    name: str
    levels: tuple[str, ...]
    numbers: tuple[float, ...] | None = None
    """One for each level, if a level does not say its number (`all`)."""


class Training(NamedTuple):
    """One training of an arm."""

    seed: int
    runs: tuple[Path, ...]
    """Its evaluation runs; no task is in two of them."""
    seconds: float
    cpu_seconds: float
    tokens: int | None
    """Cost of the steps that only this training needed."""


class Arm(NamedTuple):
    """One level of each axis, and its trainings."""

    levels: dict[str, str]
    trainings: tuple[Training, ...]


class Study(NamedTuple):
    """A study that has run."""

    name: str
    title: str
    axes: tuple[Axis, ...]
    arms: tuple[Arm, ...]
    decided_on: dict[str, str]
    """What was picked, and on which split."""
    headlines: dict[str, str]
    """Task to the score to show; empty: every task's primary score."""
    replay_law: dict[str, str] | None = None
    """The tasks with bits per byte of the `domain` and `general` loss."""
    worse: float = WORSE


class Scores(NamedTuple):
    """One task's scores in all arms that have it."""

    task: str
    metric: str
    higher_is_better: bool
    questions: int
    left_out: int
    """Questions that not all trainings answered."""
    values: dict[Key, Floats]
    """(trainings, questions) of each arm; in the order of `seeds`."""
    seeds: dict[Key, list[int]]
    runs: dict[Key, list[Path]]

    def same(self, keys: Sequence[Key]) -> bool:
        """Whether arms have the very same runs: what differs between them came after this score."""
        return len(keys) > 1 and all(self.runs[key] == self.runs[keys[0]] for key in keys)

    def varies(self, place: int) -> bool:
        """Whether levels of the axis at this place have different runs."""
        groups: dict[Key, set[tuple[Path, ...]]] = {}
        for key, runs in self.runs.items():
            groups.setdefault(key[:place] + key[place + 1 :], set()).add(tuple(runs))
        return any(len(each) > 1 for each in groups.values())

    def common(self, keys: Sequence[Key]) -> tuple[list[Floats], list[int]]:
        """The scores of arms for the seeds that all of them have, and these."""
        seeds = sorted(set.intersection(*(set(self.seeds[key]) for key in keys)))
        rows = [[self.seeds[key].index(seed) for seed in seeds] for key in keys]
        return [self.values[key][chosen] for key, chosen in zip(keys, rows, strict=True)], seeds


def axis_numbers(axis: Axis) -> tuple[float, ...] | None:
    """The number of each level; None if the axis is not numeric."""
    if axis.numbers is not None:
        if len(axis.numbers) != len(axis.levels):
            raise UserError(
                f"axis {axis.name}: {len(axis.numbers)} numbers for {len(axis.levels)} levels. Give each one."
            )
        return tuple(map(float, axis.numbers))
    found = [_number(level) for level in axis.levels]
    numbers = tuple(each for each in found if each is not None)
    return numbers if len(numbers) == len(found) and len(set(numbers)) == len(numbers) else None


def found(study: Study) -> Tree:
    """Every number of a study; what is infinite or unknown is None. Raises UserError for arms that do not
    fit together.

    `scores`: each arm and task, as `over_trainings` has them. `differences`: for each axis `rows` as
    `compare_trainings` has them, `at` levels of the other axes. `worth`: fields of `worth.Worth`, and which
    `unit` the number counts. `replay`: what `fit_replay` returns, `at` levels of the other axes.
    """
    arms = arms_by_key(study)
    tasks = load(study, arms)
    return {
        "format": FORMAT,
        "name": study.name,
        "title": study.title,
        "axes": [{**axis._asdict(), "numbers": axis_numbers(axis)} for axis in study.axes],
        "decided_on": study.decided_on,
        "tasks": [
            {
                **{name: getattr(each, name) for name in Scores._fields[:5]},
                "varies": sorted(axis.name for place, axis in enumerate(study.axes) if each.varies(place)),
            }
            for each in tasks
        ],
        "scores": [row for each in tasks for row in _scores(study, each)],
        "differences": [_differences(study, tasks, place) for place in range(len(study.axes))],
        "worth": [row for pair in worth_axes(study) for row in _worth(study, tasks, *pair)],
        "replay": list(_replay(study, tasks)),
    }


def arms_by_key(study: Study) -> dict[Key, Arm]:
    """The arms with trainings, in the order of the axes; UserError for wrong levels or seeds."""
    given: dict[Key, Arm] = {}
    for arm in study.arms:
        if arm.levels.keys() != {axis.name for axis in study.axes}:
            raise UserError(f"study {study.name}: an arm has not one level of each axis: {arm.levels}.")
        for axis in study.axes:
            if arm.levels[axis.name] not in axis.levels:
                raise UserError(f"axis {axis.name} has no level `{arm.levels[axis.name]}`.")
        key = tuple(arm.levels[axis.name] for axis in study.axes)
        seeds = [training.seed for training in arm.trainings]
        if key in given or len(set(seeds)) < len(seeds):
            raise UserError(f"arm {', '.join(key)}: it is there twice, or a seed of it. Give each once.")
        given[key] = arm
    ordered = product(*(axis.levels for axis in study.axes))
    arms = {key: given[key] for key in ordered if key in given and given[key].trainings}
    if not arms:
        raise UserError(f"study {study.name}: no arm has a training.")
    return arms


def load(study: Study, arms: Mapping[Key, Arm]) -> list[Scores]:
    """The scores of each task in the arms all of whose trainings have it."""
    read: dict[Path, list[EvalSample]] = {}
    tasks: dict[str, dict[Key, list[dict[str, EvalSample]]]] = {}
    places: dict[str, dict[Key, list[Path]]] = {}
    seeds = {key: sorted(training.seed for training in arm.trainings) for key, arm in arms.items()}
    for key, arm in arms.items():
        for training in sorted(arm.trainings):
            answered: dict[str, list[EvalSample]] = {}
            for run in training.runs:
                if run not in read:
                    read[run] = read_predictions(run)
                new = by_task(read[run])
                if twice := answered.keys() & new.keys():
                    raise UserError(f"{run}: task {min(twice)} is also in another run of the same training.")
                answered |= new
                for task in new:
                    places.setdefault(task, {}).setdefault(key, []).append(run)
            for task, samples in answered.items():
                tasks.setdefault(task, {}).setdefault(key, []).append({s.id: s for s in samples})
    if missing := study.headlines.keys() - tasks.keys():
        raise UserError(f"no run has the task {min(missing)}. Tasks: {', '.join(tasks)}.")
    result = []
    for task in study.headlines or tasks:
        runs = {key: each for key, each in tasks[task].items() if len(each) == len(seeds[key])}
        if runs:
            result.append(_load_task(task, study.headlines.get(task), runs, seeds, places[task]))
    return result


def worth_axes(study: Study) -> Iterator[tuple[int, int]]:
    """Pairs of an axis of counts and an axis of two levels, by their places."""
    for counted, axis in enumerate(study.axes):
        numbers = axis_numbers(axis)
        whole = numbers and all(each >= 0 and each == int(each) for each in numbers)
        if whole and len(axis.levels) > 1 and max(numbers or ()) > 1:
            for changed, other in enumerate(study.axes):
                if changed != counted and len(other.levels) == 2:
                    yield counted, changed


def combinations(study: Study, without: Sequence[int]) -> list[dict[str, str]]:
    """All combinations of the levels of the axes that are not at the places `without`."""
    rest = [axis for place, axis in enumerate(study.axes) if place not in without]
    return [
        dict(zip([axis.name for axis in rest], levels, strict=True))
        for levels in product(*(axis.levels for axis in rest))
    ]


def key_of(study: Study, levels: Mapping[str, str]) -> Key:
    """The key of the arm with these levels."""
    return tuple(levels[axis.name] for axis in study.axes)


def _number(level: str) -> float | None:
    """`10%` is 0.1; None for a level that is no number."""
    try:
        number = float(level.removesuffix("%")) / (100 if level.endswith("%") else 1)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _load_task(
    task: str,
    score: str | None,
    runs: Mapping[Key, list[dict[str, EvalSample]]],
    seeds: Mapping[Key, list[int]],
    places: Mapping[Key, list[Path]],
) -> Scores:
    all_runs = [run for of_arm in runs.values() for run in of_arm]
    asked = set().union(*all_runs)
    ids = sorted(set.intersection(*(set(run) for run in all_runs)))
    if len(ids) < 2:
        raise UserError(f"task {task}: all trainings have {len(ids)} questions in common, and 2 are needed.")
    for name in ids:
        if len({run[name].reference for run in all_runs}) > 1:
            raise UserError(f"task {task}, sample {name}: the runs have different references.")
    values, kinds = {}, set()
    for key, of_arm in runs.items():
        rows = []
        for run in of_arm:
            samples = [run[name] for name in ids]
            measures = [named_measure(samples, score)] if score else primary_measures(samples)
            if not measures:
                raise UserError(f"task {task}: it has no score in arm {', '.join(key)}.")
            kinds.add((measures[0].name, measures[0].higher_is_better))
            rows.append(pseudo_values(measures[0]))
        values[key] = np.stack(rows)
    if len(kinds) > 1:
        raise UserError(
            f"task {task}: the runs have different scores: {', '.join(sorted(k for k, _ in kinds))}."
        )
    ((metric, higher),) = kinds
    left_out = len(asked) - len(ids)
    kept = {key: seeds[key] for key in values}, {key: places[key] for key in values}
    return Scores(task, metric, higher, len(ids), left_out, values, *kept)


def _scores(study: Study, scores: Scores) -> Iterator[Tree]:
    for key, values in scores.values.items():
        row: Tree = {"arm": dict(zip([axis.name for axis in study.axes], key, strict=True))}
        row |= {"task": scores.task, "metric": scores.metric, "trainings": len(values), "n": scores.questions}
        yield row | {"seeds": scores.seeds[key]} | described(crossed(values))


def _differences(study: Study, tasks: Sequence[Scores], place: int) -> Tree:
    """Each level of an axis against its first, at each combination of the others: one family of tests."""
    axis, rows = study.axes[place], []
    compared_before = list[tuple[str, list[Path], list[Path]]]()
    for rest in combinations(study, [place]):
        base = key_of(study, rest | {axis.name: axis.levels[0]})
        for level in axis.levels[1:]:
            key = key_of(study, rest | {axis.name: level})
            for scores in tasks:
                if base not in scores.values or key not in scores.values:
                    continue
                pair = scores.task, scores.runs[base], scores.runs[key]
                if not scores.same([base, key]) and pair not in compared_before:
                    compared_before.append(pair)
                    head = {"at": rest, "level": level, "against": axis.levels[0]}
                    rows.append(head | _difference(scores, base, key))
    judge(rows)
    return {"axis": axis.name, "rows": rows}


def _difference(scores: Scores, base: Key, key: Key) -> Tree:
    """Paired by seed, if the arms have any in common."""
    (own, theirs), seeds = scores.common([base, key])
    if seeds:
        difference = crossed(theirs - own)
    else:
        own, theirs = scores.values[base], scores.values[key]
        difference = unpaired(own, theirs)
    return {
        "task": scores.task, "metric": scores.metric, "higher_is_better": scores.higher_is_better,
        "trainings": difference.shape[0], "n": scores.questions, "paired": bool(seeds),
        "a": float(own.mean()), "b": float(theirs.mean()), **compared(difference),
    }  # fmt: skip


def _worth(study: Study, tasks: Sequence[Scores], counted: int, changed: int) -> Iterator[Tree]:
    """What the second level of `changed` is worth, in what the levels of `counted` count."""
    unit, change = study.axes[counted], study.axes[changed]
    numbers = dict(zip(unit.levels, axis_numbers(unit) or (), strict=True))
    without, gained = change.levels
    for rest in combinations(study, [counted, changed]):
        for scores in tasks:
            keys = {
                (of, level): key_of(study, rest | {change.name: of, unit.name: level})
                for of in change.levels
                for level in unit.levels
            }
            there = [pair for pair, key in keys.items() if key in scores.values]
            at = {of: [level for each, level in there if each == of] for of in change.levels}
            if len(at[without]) < 2 or not at[gained]:
                continue
            if scores.same([keys[without, level] for level in at[without]]):
                continue
            values, seeds = scores.common([keys[pair] for pair in there])
            if not seeds:
                continue
            arms = dict(zip(there, values, strict=True))
            curves = [np.stack([arms[of, level] for level in at[of]]) for of in change.levels]
            points = [[numbers[level] for level in at[of]] for of in change.levels]
            rows = worth(curves[0], points[0], curves[1], points[1], higher_is_better=scores.higher_is_better)
            said = f"{change.name} `{gained}` instead of `{without}`"
            for row in sorted(rows):
                if math.isinf(row.value) and row.value > 0 and row.most <= 0:
                    continue  # the baseline has no more: nothing could be said but `at least 0`
                yield {
                    "axis": change.name, "level": gained, "against": without, "unit": unit.name, "at": rest,
                    "task": scores.task, "metric": scores.metric, **row.tree(),
                    "said": sentence(row, said, unit.name),
                }  # fmt: skip


def _replay(study: Study, tasks: Sequence[Scores]) -> Iterator[Tree]:
    """Laws of the replay share, at each combination of the other axes."""
    place = next((i for i, axis in enumerate(study.axes) if axis.name == REPLAY), None)
    if place is None or not study.replay_law:
        return
    axis, named = study.axes[place], {scores.task: scores for scores in tasks}
    numbers = axis_numbers(axis)
    losses = {loss: named.get(study.replay_law.get(loss, "")) for loss in ("domain", "general")}
    if numbers is None or not all(0 <= number <= 1 for number in numbers):
        raise UserError(f"axis {REPLAY}: a law of it needs shares from 0 to 1, such as 0.1 or 10%.")
    for loss, scores in losses.items():
        if scores is None or scores.higher_is_better:
            raise UserError(f"replay_law: {loss} must name a task of the study whose score is a loss.")
    for rest in combinations(study, [place]):
        keys = {level: key_of(study, rest | {axis.name: level}) for level in axis.levels}
        there = [
            level for level in axis.levels if all(s and keys[level] in s.values for s in losses.values())
        ]
        if not there:
            continue
        shares = [numbers[axis.levels.index(level)] for level in there]
        curves: dict[str, Floats] = {}
        for loss, scores in losses.items():
            values, seeds = scores.common([keys[level] for level in there]) if scores else ([], [])
            if seeds:
                curves[loss] = np.stack([each.mean(axis=1) for each in values])
        if len(curves) == len(losses):
            law = fit_replay(shares, curves, study.worse)
            fewest = min(values.shape[1] for values in curves.values())
            yield {"at": rest, "shares": sorted(shares), "trainings": fewest, **law}


def over_questions_only(tree: Tree) -> bool:
    """Whether any interval of a study is over questions only."""
    rows = [*tree["scores"], *(row for table in tree["differences"] for row in table["rows"])]
    return any(row["trainings"] < LEAST for row in rows)
