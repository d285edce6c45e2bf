"""A level of an axis is picked on validation data before anything is scored: the others are never scored.

Of each combination of the other axes' levels, the level with the best mean over all seeds is picked.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.errors import UserError
from tools.step_runner import Step, up_to_date
from tools.steps_file import Pick, StudyConfig
from tools.study.arms import FOLDER, Cell, Study

if TYPE_CHECKING:
    from eval.sample import EvalSample


RECORDS = "steps"
"""In a study's folder: records and logs of its steps."""


class Picked(NamedTuple):
    """What was picked for one combination of the other axes' levels."""

    others: tuple[str, ...]
    """Their levels."""
    level: str
    """The picked level."""
    values: dict[str, float]
    """Mean of the metric by level."""


def records_folder(study: Study) -> Path:
    """Where the records are; a file whose steps are only listed need not say where it writes."""
    return Path(study.described.value(FOLDER) if FOLDER in study.described.variables else ".") / RECORDS


def steps(study: Study, records: Path) -> list[Step]:
    """What there is to do: before the pick the validation of all levels, after it also the rest."""
    rule = rule_of(study)
    if rule is None:
        return study.steps()
    validation = study.steps({rule.step})
    if not all(up_to_date(step, records) for step in validation):
        return validation
    found = picked(study)
    rest = study.steps(study.goals() - {rule.step}, cells(study, found))
    names = {step.name for step in validation}
    return [*validation, *(step for step in rest if step.name not in names)]


def rule_of(study: Study) -> Pick | None:
    """The rule, if the study has one."""
    return (study.described.tree.study or StudyConfig()).pick


def cells(study: Study, found: list[Picked]) -> list[Cell]:
    """The trainings that are scored."""
    rule = rule_of(study)
    if rule is None:
        return study.cells
    at = list(study.axes).index(rule.axis)
    levels = {each.others: each.level for each in found}
    return [cell for cell in study.cells if levels[_others(cell, at)] == cell.levels[at]]


def picked(study: Study) -> list[Picked]:
    """What is picked, once all levels are validated. UserError if the task or metric is not there."""
    rule = rule_of(study)
    if rule is None:
        return []
    at, scores = list(study.axes).index(rule.axis), dict[tuple[str, ...], dict[str, list[float]]]()
    lower = False
    for cell in study.cells:
        value, lower = _score(Path(study.output(rule.step, cell)), rule)
        scores.setdefault(_others(cell, at), {}).setdefault(cell.levels[at], []).append(value)
    found = []
    for others, levels in scores.items():
        means = {level: sum(values) / len(values) for level, values in levels.items()}
        best = min(means, key=lambda level: means[level] * (1 if lower else -1))
        found.append(Picked(others, best, means))
    return found


def refuse_shared_questions(study: Study, runs: list[Path]) -> None:
    """UserError if a question that decided is among those that are scored."""
    from eval.sample import read_predictions

    rule = rule_of(study)
    if rule is None:
        return
    decided = {
        _question(sample)
        for cell in study.cells
        for sample in read_predictions(Path(study.output(rule.step, cell)))
    }
    for run in runs:
        for sample in read_predictions(run):
            if _question(sample) in decided:
                raise UserError(
                    f"{run}: sample {sample.id} of task {sample.task} is one of those that `{rule.axis}` was"
                    f" picked on (step `{rule.step}`). A test score needs other questions."
                )


def _others(cell: Cell, at: int) -> tuple[str, ...]:
    return cell.levels[:at] + cell.levels[at + 1 :]


def _score(folder: Path, rule: Pick) -> tuple[float, bool]:
    """The score of a validation, and whether lower is better."""
    from eval.analysis.scoring import by_task, primary_measures
    from eval.sample import read_predictions

    tasks = by_task(read_predictions(folder))
    if rule.task not in tasks:
        raise UserError(f"study.pick.task: {folder} has no task `{rule.task}`: {', '.join(tasks)}.")
    measures = primary_measures(tasks[rule.task], [rule.metric])
    if not measures:
        raise UserError(f"study.pick.metric: {folder}, task {rule.task}: nothing to pick by `{rule.metric}`.")
    measure = measures[0]
    return float(measure.combine(measure.statistics.sum(axis=0))), not measure.higher_is_better


def _question(sample: "EvalSample") -> tuple[str, str]:
    """What makes it the same question, however it is asked."""
    return sample.source or sample.prompt, sample.reference
