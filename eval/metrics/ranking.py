"""Rankings of documents against those that are relevant: nDCG, recall, average precision, reciprocal rank.

    prediction ["CN104223352", "US8930553", …]   the documents found, best first
    reference  {"US8930553": 1, "KR101": 2}      the relevant ones with their grades

Both are JSON. A document that a ranking has twice counts where it stands first. Documents that are not among
the relevant ones, or have the grade 0, are irrelevant. Every score is the mean over questions, each from 0 to
1; a question whose ranking is empty has 0.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from core.errors import UserError
from eval.metrics.measure import Measure, mean
from eval.sample import EvalSample

DEPTHS = (1, 5, 10, 100)
"""Of recall."""
DEPTH = 10
"""Of nDCG."""
Gain = Literal["linear", "exponential"]
GAINS: dict[Gain, Callable[[float], float]] = {
    "linear": lambda grade: grade,
    "exponential": lambda grade: 2.0**grade - 1,
}
"""Gain of a grade: as Järvelin and Kekäläinen (2002), or as Burges et al. (2005), which differs where grades
do."""


def ranking(gain: Gain) -> Callable[[Sequence[EvalSample]], list[Measure]]:
    """nDCG@10 (Järvelin and Kekäläinen 2002; discount log2(rank + 1)), recall at 1, 5, 10 and 100, and mean
    average precision and mean reciprocal rank of the whole ranking. Raises UserError for a malformed one."""

    def measure(samples: Sequence[EvalSample]) -> list[Measure]:
        rows = [(_ranked(s), _relevant(s)) for s in samples]
        label = "ranking" if gain == "linear" else f"ranking-{gain}"

        def of(name: str, score: Callable[[Sequence[str], Mapping[str, float]], float], how: str) -> Measure:
            return mean(f"{label}-{name}", [score(*row) for row in rows], f"{how}|mean of questions")

        return [
            of(f"ndcg@{DEPTH}", partial(ndcg, depth=DEPTH, gain=gain), f"{gain} gain|log2(rank + 1)"),
            *(of(f"recall@{k}", partial(recall, depth=k), "share of the relevant") for k in DEPTHS),
            of("map", average_precision, "precision at each relevant"),
            of("mrr", reciprocal_rank, "1 / rank of the first relevant"),
        ]

    return measure


def ndcg(ranked: Sequence[str], grades: Mapping[str, float], depth: int, gain: Gain) -> float:
    """Discounted gain of the first `depth` documents as a share of the largest possible one."""
    gains = [GAINS[gain](grades.get(name, 0.0)) for name in ranked[:depth]]
    best = sorted((GAINS[gain](grade) for grade in grades.values()), reverse=True)[:depth]
    return _discounted(gains) / _discounted(best)


def recall(ranked: Sequence[str], grades: Mapping[str, float], depth: int) -> float:
    """Share of the relevant documents that are among the first `depth`."""
    return sum(name in grades for name in ranked[:depth]) / len(grades)


def average_precision(ranked: Sequence[str], grades: Mapping[str, float]) -> float:
    """The precision at the rank of each relevant document, 0 for one that was not found, averaged."""
    found, total = 0, 0.0
    for rank, name in enumerate(ranked, 1):
        if name in grades:
            found += 1
            total += found / rank
    return total / len(grades)


def reciprocal_rank(ranked: Sequence[str], grades: Mapping[str, float]) -> float:
    """1 / rank of the first relevant document, 0 without one."""
    return next((1 / rank for rank, name in enumerate(ranked, 1) if name in grades), 0.0)


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def _ranked(s: EvalSample) -> list[str]:
    """The documents of a prediction, each once."""
    try:
        ranked = json.loads(s.prediction)
        assert isinstance(ranked, list)
        assert all(isinstance(each, str) for each in ranked)
    except (ValueError, AssertionError):
        raise UserError(
            f"task {s.task}, sample {s.id}: the prediction {s.prediction[:80]!r} is no ranking. Write a JSON"
            " list of ids, best first."
        ) from None
    return list(dict.fromkeys(ranked))


def _relevant(s: EvalSample) -> dict[str, float]:
    """The relevant documents of a reference, with their grades above 0."""
    grades = relevance(s.reference)
    if not grades:
        raise UserError(
            f"task {s.task}, sample {s.id}: the reference {s.reference[:80]!r} names no relevant document."
            ' Write a JSON object of ids and grades, at least one above 0: {"US8930553": 1}.'
        )
    return grades


def relevance(reference: str) -> dict[str, float]:
    """The ids with grades above 0 in a JSON object; empty if it is none."""
    try:
        grades = json.loads(reference)
    except ValueError:
        return {}
    if not isinstance(grades, dict):
        return {}
    numbers = [isinstance(grade, int | float) and 0 <= grade <= 1000 for grade in grades.values()]
    return {name: float(grade) for name, grade in grades.items() if grade} if all(numbers) else {}
