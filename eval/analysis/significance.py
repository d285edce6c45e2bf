"""Confidence intervals and significance tests for all scores.

    per-sample statistics (n x k) ──leave one out──▶ standard error ──Student's t──▶ interval
    those of A and B ──exchange A and B at random──▶ differences if the models were equal ──▶ p-value

Both hold for few samples. An interval uses t quantiles, on a scale on which scores are roughly symmetrical.
The p-value is exact: if A and B are equally good, exchanging their answers to a question changes nothing.
With n samples it is at least 2 / 2^n, so fewer than six can show no difference at the 5% level.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eval.metrics.measure import Combine, Floats, Measure, f1, ratio

EXCHANGES = 10_000
"""Number of random exchanges of A's and B's answers, where all of them are too many."""
_EXACT = 13
"""All 2^n exchanges are tried for up to this many samples whose answers differ."""
_CHUNK = 100
_NORMAL_95 = 1.959963984540054
_NORMAL_POWER_80 = 0.8416212335729143


class Interval(NamedTuple):
    """A 95% interval; NaN if the samples do not tell (one sample, or all with the same score)."""

    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


class Comparison(NamedTuple):
    """Two models on the same samples: `difference` is B - A, with its interval and p-value."""

    difference: float
    interval: Interval
    p: float
    smallest_effect: float
    """The difference that this test detects with 80% power at the 5% level; NaN if unknown."""


def smallest_p(n: int) -> float:
    """The smallest p-value that any comparison of two models on n samples can give."""
    return min(1.0, 2.0 ** (1 - n))


def score_interval(measure: Measure) -> Interval:
    """The interval of a score: Wilson's for right and wrong, otherwise the jackknife's with Student's t.

    The standard error is that of the log-odds if the score has a largest value, else of the logarithm if it
    is positive. Samples that are all alike tell nothing about the spread: Wilson's interval then holds for
    any score between 0 and a largest value, and other scores have no interval.
    """
    n, sums = len(measure.statistics), measure.statistics.sum(axis=0)
    if measure.binary:
        return wilson(float(sums[0]), n)
    value, top = float(measure.combine(sums)), largest_score(measure)
    without = measure.combine(sums - measure.statistics)
    positive = top is None and value > 0 and bool((without > 0).all())
    if n > 1 and (top is None or 0 < value < top):
        there = functools.partial(_scale, top=top, positive=positive)
        middle = float(there(np.asarray(value)))
        error, freedom = standard_error(there(without), middle, measure.strata)
        if freedom and error > 1e-9 * max(1.0, abs(middle)):
            half = student(0.975, freedom) * error
            return Interval(*(_back(end, top, positive) for end in (middle - half, middle + half)))
    if top is None:
        return UNKNOWN
    size = _effective_size(measure.strata) if measure.strata else n
    low, high = wilson(value / top * size, size)
    return Interval(top * low, top * high)


def compare_scores(a: Measure, b: Measure) -> Comparison:
    """Compare A and B on the same samples in the same order: McNemar's test for right and wrong, otherwise
    an exchange (randomisation) test, and the jackknife's interval of the difference with Student's t."""
    if a.binary:
        return mcnemar(a.statistics[:, 0] > 0.5, b.statistics[:, 0] > 0.5)
    n, combine = len(a.statistics), a.combine
    sums = a.statistics.sum(axis=0), b.statistics.sum(axis=0)
    difference = float(combine(sums[1]) - combine(sums[0]))
    without = combine(sums[1] - b.statistics) - combine(sums[0] - a.statistics)
    error, freedom = standard_error(without, difference, a.strata)
    p = exchange_test(a.statistics, b.statistics, combine)
    if freedom and error > 1e-9 * max(1.0, abs(difference)):
        half = student(0.975, freedom) * error
        detected = half + student(0.8, freedom) * error
        return Comparison(difference, Interval(difference - half, difference + half), p, detected)
    tops = [top for top in map(largest_score, (a, b)) if top is not None]
    if len(tops) < 2:
        return Comparison(difference, UNKNOWN, p, math.nan)
    # As for right and wrong without a difference (see `mcnemar`): half an observation in each cell.
    top = max(tops)
    half = top * _NORMAL_95 / (n + 2)
    interval = Interval(max(-top, difference - half), min(top, difference + half))
    return Comparison(difference, interval, p, min(top, top * (_NORMAL_95 + _NORMAL_POWER_80) / n))


def exchange_test(a: Floats, b: Floats, combine: Combine, seed: int = 0) -> float:
    """Two-sided p-value of a corpus metric's difference: the share of exchanges of A's and B's statistics
    (n x k), sample by sample, with a difference at least as large (Fisher 1935; Noreen 1989).

    Exact for up to 13 samples that differ; otherwise from 10,000 seeded exchanges.
    """
    differ = np.flatnonzero((a != b).any(axis=1))
    middle = (a.sum(axis=0) + b.sum(axis=0)) / 2
    half = (b[differ] - a[differ]) / 2
    observed = abs(float(combine(b.sum(axis=0)) - combine(a.sum(axis=0))))
    enough = observed - 1e-9 * max(1.0, observed)  # so that rounding does not lose the observed one
    bits: Iterable[npt.NDArray[np.int64]]
    if exact := len(differ) <= _EXACT:
        bits = [np.arange(2 ** len(differ))[:, None] >> np.arange(len(differ)) & 1]
    else:
        generator, size = np.random.default_rng(seed), (_CHUNK, len(differ))
        bits = (generator.integers(2, size=size) for _ in range(EXCHANGES // _CHUNK))
    extreme = total = 0
    for exchanged in bits:
        moved = (1.0 - 2.0 * exchanged) @ half
        found = np.abs(combine(middle + moved) - combine(middle - moved))
        extreme, total = extreme + int(np.count_nonzero(found >= enough)), total + len(exchanged)
    return extreme / total if exact else (extreme + 1) / (total + 1)


def standard_error(without: Floats, value: float, strata: Sequence[Any] | None = None) -> tuple[float, int]:
    """The jackknife's standard error (Tukey 1958) of a score, and its degrees of freedom.

    `without` has the score without each sample. With `strata` (one label per sample) only the spread within
    each stratum counts; strata of one sample form one together.
    """
    n = len(without)
    labels = _strata(strata) if strata else np.zeros(n, np.int64)
    sizes = np.bincount(labels)
    freedom = n - len(sizes)
    if not freedom:
        return math.nan, 0
    influence = (n - 1) * (value - without)
    deviation = influence - (np.bincount(labels, influence) / sizes)[labels]
    spread = np.bincount(labels, deviation**2) * sizes / np.maximum(sizes - 1, 1)
    return math.sqrt(float(spread.sum())) / n, freedom


def largest_score(measure: Measure) -> float | None:
    """The largest value that a score between 0 and a largest value can have; None for other scores."""
    if measure.strata:  # an average over subjects of shares
        return 1.0
    if measure.name.startswith(("bleu-", "chrf")):
        return 100.0
    above, below = measure.statistics[:, 0], measure.statistics[:, 1]
    if measure.combine is ratio and not (
        measure.higher_is_better and ((above >= 0) & (above <= below)).all()
    ):
        return None
    return 1.0 if measure.combine in (ratio, f1) else None


def wilson(successes: float, n: float) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    if n == 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / n, _NORMAL_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_95 / (1 + z2 / n) * math.sqrt(max(0.0, share * (1 - share) / n + z2 / (4 * n * n)))
    # Rounding may lead out of 0 to 1 beside its ends.
    return Interval(
        max(0.0, middle - half) if successes else 0.0, min(1.0, middle + half) if successes < n else 1.0
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


def student(share: float, freedom: int) -> float:
    """The quantile of Student's t distribution with `freedom` (1, 2, …) degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def _scale(scores: Floats, top: float | None, positive: bool) -> Floats:
    """Log-odds of scores between 0 and `top`, the logarithm of positive scores, other scores as they are."""
    if top is not None:
        share = np.clip(scores / top, 1e-9, 1 - 1e-9)
        return np.asarray(np.log(share / (1 - share)))
    return np.asarray(np.log(scores) if positive else scores)


def _back(end: float, top: float | None, positive: bool) -> float:
    """A score from the scale of its interval; what is too large for a number is infinite."""
    if top is None and not positive:
        return end
    try:
        power = math.exp(end)
    except OverflowError:
        return math.inf if top is None else top
    return power if top is None else top * power / (1 + power)


def _strata(strata: Sequence[Any]) -> npt.NDArray[np.int64]:
    """The number of each sample's stratum, from 0; those of one sample share one."""
    labels, counts = np.unique([str(label) for label in strata], return_inverse=True, return_counts=True)[1:]
    alone = counts[labels] == 1
    labels = np.where(alone, len(counts), labels)
    if alone.sum() == 1:
        labels[alone] = labels[int(np.argmin(alone))]
    return np.unique(labels, return_inverse=True)[1]


def _effective_size(strata: Sequence[Any]) -> float:
    """The number of samples whose plain mean would be as exact as the mean over equally weighted strata."""
    counts = np.unique([str(label) for label in strata], return_counts=True)[1]
    return float(len(counts) ** 2 / (1 / counts).sum())
