"""Confidence intervals and significance tests for all scores.

    per-sample statistics (n x k) ──resample_sums──▶ sums (resamples x k) ──combine──▶ scores ──▶ interval

A corpus metric is a function (`combine`) of sums of per-sample statistics, so each resample is one row of a
matrix product: 10,000 resamples of 2,000 samples take a fraction of a second. All resampling is seeded.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eval.metrics.measure import Combine, Floats

RESAMPLES = 10_000
_CHUNK = 100
_NORMAL_95 = 1.959963984540054
_NORMAL_POWER_80 = 0.8416212335729143


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


class Comparison(NamedTuple):
    """Two models on the same samples: `difference` is B - A, with its interval and p-value."""

    difference: float
    interval: Interval
    p: float
    smallest_effect: float
    """The difference that this test detects with 80% power at the 5% level."""


def resample_sums(
    statistics: Floats, strata: Sequence[Any] | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """Sums (resamples x k) of `statistics` (n x k) over samples drawn with replacement.

    With `strata` (one label per sample) each stratum keeps its size, so no subject of an exam disappears.
    """
    labels = np.unique([str(label) for label in strata], return_inverse=True)[1] if strata else None
    groups = (
        [np.arange(len(statistics))]
        if labels is None
        else [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    )
    generator = np.random.default_rng(seed)
    sums = np.zeros((resamples, statistics.shape[1]))
    for members in groups:
        n = len(members)
        for start in range(0, resamples, _CHUNK):
            rows = min(_CHUNK, resamples - start)
            drawn = generator.integers(n, size=(rows, n), dtype=np.uint16 if n < 1 << 16 else np.int64)
            times = np.array([np.bincount(row, minlength=n) for row in drawn], np.float64)
            sums[start : start + rows] += times @ statistics[members]
    return sums


def bootstrap(
    statistics: Floats, combine: Combine, strata: Sequence[Any] | None = None, seed: int = 0
) -> Interval:
    """The percentile bootstrap interval of a score."""
    return percentiles(combine(resample_sums(statistics, strata, seed=seed)))


def wilson(successes: float, n: int) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    if n == 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / n, _NORMAL_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(middle - half if successes else 0.0, middle + half if successes < n else 1.0)


def paired_bootstrap(
    a: Floats, b: Floats, combine: Combine, strata: Sequence[Any] | None = None, seed: int = 0
) -> Comparison:
    """Compare a corpus metric of A and B: statistics (n x k) of the same samples in the same order.

    Both are resampled together (Koehn 2004). p is the share of resamples whose difference is at least as far
    from the observed difference as that is from 0, as in sacrebleu.
    """
    columns = a.shape[1]
    sums = resample_sums(np.hstack([a, b]), strata, seed=seed)
    differences = combine(sums[:, columns:]) - combine(sums[:, :columns])
    difference = float(combine(b.sum(axis=0)) - combine(a.sum(axis=0)))
    # The tolerance absorbs rounding errors, so that identical models get p = 1.
    extreme = np.count_nonzero(np.abs(differences - difference) >= abs(difference) - 1e-12)
    return Comparison(
        difference,
        percentiles(differences),
        min(1.0, (extreme + 1) / (len(differences) + 1)),
        (_NORMAL_95 + _NORMAL_POWER_80) * float(differences.std(ddof=1)),
    )


def mcnemar(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> Comparison:
    """McNemar's exact two-sided test of right and wrong answers of A and B on the same questions.

    The interval of the difference is Wald's with half an observation added to each cell (Agresti and Min
    2005).
    """
    n, lost, won = len(a), int(np.sum(a & ~b)), int(np.sum(b & ~a))
    discordant = lost + won
    tail = sum(math.comb(discordant, i) for i in range(min(lost, won) + 1))
    p = min(1.0, 2 * tail / 2**discordant)
    difference = (won - lost) / n
    middle = (won - lost) / (n + 2)
    error = math.sqrt(max(discordant + 1 - (won - lost) ** 2 / (n + 2), 0.0)) / (n + 2)
    interval = Interval(max(-1.0, middle - _NORMAL_95 * error), min(1.0, middle + _NORMAL_95 * error))
    smallest = (_NORMAL_95 + _NORMAL_POWER_80) * math.sqrt(max(discordant, 1)) / n
    return Comparison(difference, interval, p, min(1.0, smallest))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of a family of tests, in the order given (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def percentiles(values: Floats) -> Interval:
    """The middle 95% of resampled scores."""
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))
