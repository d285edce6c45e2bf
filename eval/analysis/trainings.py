"""Scores over trainings: what a recipe gives, and not what one run of it gave.

    seeds × questions ──▶ variance of trainings, of questions, of the rest ──▶ interval over both

The same recipe with another seed gives another model, and a question asked of all of them is one question.
Scores are crossed, trainings × questions: y = mean + training + question + rest. The variance of the mean is
the sum of the three components, each over its number of draws, estimated by mean squares (negative estimates
are zero), with Satterthwaite's degrees of freedom (1946). Trainings of two arms with the same seeds are
paired. Sources: Bouthillier et al. 2021, Dodge et al. 2019, Miller 2024.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from core.errors import UserError
from eval.analysis.scoring import LEVEL, by_task, primary_measures
from eval.analysis.significance import holm
from eval.metrics.measure import Floats, Measure
from eval.sample import EvalSample

Tree = dict[str, Any]
Runs = Sequence[Sequence[EvalSample]]
"""The predictions of each training of an arm."""

LEAST = 3
"""Trainings of an arm, for an interval over trainings."""
MOST = 1000
"""Trainings beyond which more of them are not proposed."""
POWER = 0.8
CAUTION = 1.75
"""Degrees of freedom are counted as if the mean square of trainings were so many times larger. With few
trainings it is small by chance in some studies, which would have many degrees of freedom, too: coverage fell
to 92% with 3 trainings. With this it is 93 to 97% (simulated: 3 to 10 trainings, 50 to 500 questions)."""


class Mean(NamedTuple):
    """A mean over trainings and questions."""

    value: float
    error: float
    """Standard error."""
    freedom: float
    components: tuple[float, float, float]
    """Variances of trainings, of questions, and of the rest, each of a single draw."""
    shape: tuple[int, int]
    """Trainings, questions."""

    def half(self) -> float:
        """Half of the 95% interval."""
        return quantile(0.975, self.freedom) * self.error


def crossed(values: Floats) -> Mean:
    """The mean of scores (trainings, questions); with fewer than LEAST trainings over questions only."""
    trainings, questions = values.shape
    mean, of_trainings, of_questions = values.mean(), values.mean(axis=1), values.mean(axis=0)
    by_question = trainings * float(((of_questions - mean) ** 2).sum()) / max(1, questions - 1)
    if trainings < LEAST:
        error = math.sqrt(by_question / (trainings * questions))
        return Mean(
            float(mean), error, questions - 1, (math.nan, by_question / trainings, math.nan), values.shape
        )
    by_training = questions * float(((of_trainings - mean) ** 2).sum()) / (trainings - 1)
    rest_freedom = (trainings - 1) * max(1, questions - 1)
    left = values - of_trainings[:, None] - of_questions[None, :] + mean
    rest = float((left**2).sum()) / rest_freedom
    asked = max(by_question - rest, 0.0) + rest
    total = max(by_training - rest, 0.0) + asked
    counted = CAUTION * by_training
    spread = counted**2 / (trainings - 1) + by_question**2 / max(1, questions - 1) + rest**2 / rest_freedom
    freedom = (max(counted - rest, 0.0) + asked) ** 2 / spread if spread else math.inf
    components = (max(by_training - rest, 0.0) / questions, max(by_question - rest, 0.0) / trainings, rest)
    error = math.sqrt(total / (trainings * questions))
    return Mean(float(mean), error, freedom, components, values.shape)


def unpaired(a: Floats, b: Floats) -> Mean:
    """The difference B - A of two arms whose trainings have nothing in common but the questions."""
    both, questions = [crossed(arm) for arm in (a, b)], a.shape[1]
    per_question = b.mean(axis=0) - a.mean(axis=0)
    asked = float(per_question.var(ddof=1)) / questions
    parts = [0.0 if math.isnan(arm.components[0]) else arm.components[0] / arm.shape[0] for arm in both]
    total = sum(parts) + asked
    counted = [CAUTION * part for part in parts]
    spread = asked**2 / (questions - 1)
    spread += sum(part**2 / (arm.shape[0] - 1) for part, arm in zip(counted, both, strict=True) if part)
    components = (sum(arm.components[0] for arm in both), float(per_question.var(ddof=1)), 0.0)
    fewest = min(arm.shape[0] for arm in both)
    freedom = (sum(counted) + asked) ** 2 / spread if spread else math.inf
    return Mean(float(per_question.mean()), math.sqrt(total), freedom, components, (fewest, questions))


def needed(difference: Mean) -> int | None:
    """How many trainings of each arm would show this difference with 80% power at the 5% level; None if no
    number of them would: there are too few questions."""
    of_trainings, of_questions, rest = difference.components
    if math.isnan(of_trainings) or not difference.value:
        return None
    questions = difference.shape[1]
    for trainings in range(LEAST, MOST + 1):
        by_training = of_trainings / trainings + rest / (trainings * questions)
        error = math.sqrt(by_training + of_questions / questions)
        # Degrees of freedom as they would be: of trainings alone, more where questions carry the variance.
        share = by_training / max(error**2, 1e-300)
        freedom = 1 / max(share**2 / (trainings - 1) + (1 - share) ** 2 / (questions - 1), 1e-12)
        if (quantile(0.975, freedom) + quantile(POWER, freedom)) * error <= abs(difference.value):
            return trainings
    return None


def stretch(trainings: int) -> float:
    """By what deviations that are resampled from so few trainings are too small for a 95% interval: their
    variance is (n - 1) / n of what it is estimated to be, and its estimate has n - 1 degrees of freedom."""
    if trainings < 2:
        return 1.0
    return math.sqrt(trainings / (trainings - 1)) * quantile(0.975, trainings - 1) / quantile(0.975, math.inf)


def over_trainings(arm: Runs, metrics: Sequence[str] = ()) -> list[Tree]:
    """The primary score of each task and metric over all trainings: `task`, `metric`, `trainings`, `n`,
    `value`, `low`, `high`, `share_of_trainings` of the variance of one training's score."""
    return [{**head, **described(crossed(values))} for head, values in _scores(arm, metrics)]


def compare_trainings(a: Runs, b: Runs, metrics: Sequence[str] = (), *, paired: bool = True) -> list[Tree]:
    """B against A on each task's primary scores: means, `difference` with its interval, `p`, `p_holm`, the
    `smallest_effect` that would have been shown with 80% power, the trainings `needed` for the difference,
    and the verdict of B. Paired trainings are given in the same order. Raises UserError."""
    if paired and len(a) != len(b):
        raise UserError(
            f"A has {len(a)} trainings and B {len(b)}. Give those with the same seed in the same order, or"
            " --unpaired for trainings that have no seed in common."
        )
    rows: list[Tree] = []
    others = {(head["task"], head["metric"]): values for head, values in _scores(b, metrics)}
    for head, own in _scores(a, metrics):
        theirs = others.get((head["task"], head["metric"]))
        if theirs is None or theirs.shape[1] != own.shape[1]:
            raise UserError(f"task {head['task']}: A and B have not the same questions, or other metrics.")
        difference = crossed(theirs - own) if paired else unpaired(own, theirs)
        row = head | {"a": float(own.mean()), "b": float(theirs.mean())} | compared(difference)
        rows.append(row)
    judge(rows)
    for row in rows:
        del row["higher_is_better"]
    return rows


def described(mean: Mean) -> Tree:
    """`value`, its interval `low` to `high`, and `share_of_trainings` of the variance of one training's score
    (None over questions only)."""
    half = mean.half()
    of_trainings, of_questions, rest = mean.components
    one = of_trainings + (of_questions + rest) / mean.shape[1]
    share = of_trainings / one if one and not math.isnan(one) else None
    return {
        "value": mean.value,
        "low": mean.value - half,
        "high": mean.value + half,
        "share_of_trainings": share,
    }


def compared(difference: Mean) -> Tree:
    """What is said of a difference before it is judged: `difference`, `low`, `high`, `share_of_trainings`,
    `p`, `smallest_effect`, `needed`."""
    row = described(difference)
    row["difference"] = row.pop("value")
    return row | {
        "p": _p_value(difference),
        "smallest_effect": _smallest(difference),
        "needed": needed(difference),
    }


def judge(rows: Sequence[Tree]) -> None:
    """Give each difference of one family of tests its `p_holm` and the `verdict` of B, by its
    `higher_is_better`."""
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        better = (row["difference"] > 0) == row["higher_is_better"]
        shown = adjusted <= LEVEL and row["difference"]
        row |= {"p_holm": adjusted, "verdict": ("better" if better else "worse") if shown else "not shown"}


def mean_table(rows: Sequence[Tree]) -> str:
    """The table of `over_trainings` for a terminal."""
    from core.html_report import text_table

    header = ["task", "metric", "trainings", "n", "score (95%)", "variance that is training's"]
    return text_table(
        header,
        [
            [
                row["task"],
                row["metric"],
                row["trainings"],
                row["n"],
                _with_interval(row, "value"),
                _share(row),
            ]
            for row in rows
        ],
    )


def difference_table(rows: Sequence[Tree]) -> str:
    """The table of `compare_trainings` for a terminal."""
    from core.html_report import text_table

    header = [
        "task",
        "metric",
        "n",
        "A",
        "B",
        "difference (95%)",
        "p (Holm)",
        "smallest",
        "needed",
        "verdict",
    ]
    shown = []
    for row in rows:
        enough = row["trainings"] >= LEAST
        more = (row["needed"] or "more questions") if enough and row["difference"] else ""
        values = [f"{row[key]:.4g}" for key in ("a", "b")]
        smallest = "" if row["smallest_effect"] is None else f"{row['smallest_effect']:.2g}"
        shown.append(
            [row["task"], row["metric"], row["n"], *values, _with_interval(row, "difference", "+"),
             f"{row['p_holm']:.2g}", smallest, more, row["verdict"]]
        )  # fmt: skip
    few = any(row["trainings"] < LEAST for row in rows)
    note = (
        f"\nintervals are over questions only: with {LEAST} trainings or more they are over both"
        if few
        else ""
    )
    return text_table(header, shown) + note


def quantile(share: float, freedom: float) -> float:
    """Student's t, for any degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(max(1.0, min(freedom, 1e9)), share))


def pseudo_values(measure: Measure) -> Floats:
    """One value a sample whose mean is the score, also of a score that is no mean (Efron and Tibshirani 1993:
    the jackknife); of a mean the samples' own values."""
    n, sums = len(measure.statistics), measure.statistics.sum(axis=0)
    without = measure.combine(sums - measure.statistics)
    return n * float(measure.combine(sums)) - (n - 1) * without


def _scores(arm: Runs, metrics: Sequence[str]) -> list[tuple[Tree, Floats]]:
    """Task and metric, and scores (trainings, questions) of the questions that all trainings answered."""
    if not arm:
        raise UserError("give the runs of at least one training.")
    tasks = [by_task(run) for run in arm]
    found: list[tuple[Tree, Floats]] = []
    for task in (name for name in tasks[0] if all(name in other for other in tasks)):
        answered = [{sample.id: sample for sample in run[task]} for run in tasks]
        ids = [sample.id for sample in tasks[0][task] if all(sample.id in run for run in answered)]
        if len(ids) < 2:
            raise UserError(
                f"task {task}: the trainings have {len(ids)} questions in common, and 2 are needed."
            )
        for name in ids:
            if len({run[name].reference for run in answered}) > 1:
                raise UserError(f"task {task}, sample {name}: the runs have different references.")
        measures = [primary_measures([run[name] for name in ids], metrics) for run in answered]
        for same in zip(*measures, strict=True):
            head = {"task": task, "metric": same[0].name, "trainings": len(arm), "n": len(ids)}
            head["higher_is_better"] = same[0].higher_is_better
            found.append((head, np.stack([pseudo_values(measure) for measure in same])))
    if not found:
        raise UserError("the runs have no task in common.")
    return found


def _p_value(mean: Mean) -> float:
    from scipy.special import stdtr

    if not mean.error:
        return 0.0 if mean.value else 1.0
    return float(2 * stdtr(max(1.0, min(mean.freedom, 1e9)), -abs(mean.value) / mean.error))


def _smallest(mean: Mean) -> float | None:
    both = quantile(0.975, mean.freedom) + quantile(POWER, mean.freedom)
    return both * mean.error if mean.error else None


def _with_interval(row: Tree, key: str, sign: str = "") -> str:
    return f"{row[key]:{sign}.4g} ({row['low']:{sign}.4g} – {row['high']:{sign}.4g})"


def _share(row: Tree) -> str:
    return "over questions only" if row["share_of_trainings"] is None else f"{row['share_of_trainings']:.0%}"
