"""What a metric returns: statistics of each sample, and how sums of them become a score.

samples ──metric──▶ Measure(statistics n x k, combine) ──sum or resample──▶ sums (k) ──combine──▶ score
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Combine = Callable[[Floats], Floats]
"""Sums of statistics (..., k) to scores (...)."""


class Measure(NamedTuple):
    """Statistics (n x k) of n samples, and the function that turns their sums into a score."""

    name: str
    statistics: Floats
    combine: Combine
    signature: str
    higher_is_better: bool = True
    chance: Floats | None = None
    """Expected value of guessing, for each sample."""
    binary: bool = False
    """Each sample is right or wrong: Wilson's interval and McNemar's test apply."""
    strata: tuple[str, ...] | None = None
    """One label per sample; a resample keeps the size of each stratum."""


def mean(name: str, values: Sequence[float] | Floats, signature: str) -> Measure:
    """The mean over samples."""
    column = np.asarray(values, dtype=np.float64)
    return Measure(name, np.column_stack([column, np.ones_like(column)]), ratio, signature)


def ratio(sums: Floats) -> Floats:
    """First statistic divided by the second; 0 if the second is 0."""
    return np.asarray(sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], 1.0))


def f1(sums: Floats) -> Floats:
    """F1 from sums (..., 3): correct, predicted, expected."""
    below = sums[..., 1] + sums[..., 2]
    return np.asarray(2 * sums[..., 0] / np.where(below > 0, below, 1.0))


def scaled(factor: float) -> Combine:
    """`ratio` times a factor."""
    return lambda sums: factor * ratio(sums)
