"""Intervals and tests: against arithmetic done another way, and against what they promise."""

import math
import random

import numpy as np
import pytest

from eval.analysis.significance import bootstrap, holm, mcnemar, paired_bootstrap, resample_sums, wilson
from eval.metrics.measure import mean, ratio


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (7, 20), (562, 1000)])
def test_wilsons_bounds_are_the_shares_whose_score_test_just_passes(k: int, n: int) -> None:
    low, high = wilson(k, n)
    for bound in (low, high):
        if 1e-12 < bound < 1 - 1e-12:
            z = abs(k / n - bound) / math.sqrt(bound * (1 - bound) / n)
            assert z == pytest.approx(1.959963984540054)
    assert 0 <= low <= k / n <= high <= 1


def test_bootstrap_is_seeded_and_agrees_with_theory_on_a_mean() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    measure = mean("m", values, "")
    low, high = bootstrap(measure.statistics, ratio)
    assert bootstrap(measure.statistics, ratio) == (low, high)
    half = 1.96 * values.std() / math.sqrt(400)
    assert (values.mean() - low, high - values.mean()) == pytest.approx((half, half), rel=0.05)


def test_a_resample_draws_n_samples_and_keeps_each_stratum() -> None:
    strata = ["a"] * 3 + ["b"] * 7
    one_hot = np.array([[s == "a", s == "b"] for s in strata], dtype=float)
    assert (resample_sums(one_hot, strata, 1100) == [3, 7]).all()
    free = resample_sums(one_hot, None, 1100)
    assert (free.sum(axis=1) == 10).all()
    assert free[:, 0].std() == pytest.approx(math.sqrt(10 * 0.3 * 0.7), rel=0.1)


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs() -> None:
    a = np.array([True] * 50 + [False] * 10 + [True] * 2 + [False] * 5)
    b = np.array([True] * 50 + [True] * 10 + [False] * 2 + [False] * 5)
    found = mcnemar(a, b)
    assert found.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert found.difference == pytest.approx(8 / 67)
    assert found.interval.low < found.difference < found.interval.high
    assert mcnemar(a, a).p == 1
    assert mcnemar(a, b).difference == -mcnemar(b, a).difference


def test_paired_bootstrap_sees_what_pairing_shows_and_nothing_in_equal_models() -> None:
    draw = np.random.default_rng(1)
    a = draw.normal(50, 20, 300)
    b = a + draw.normal(1, 2, 300)  # far smaller than the spread of the samples
    found = paired_bootstrap(mean("a", a, "").statistics, mean("b", b, "").statistics, ratio)
    assert found.p < 0.001
    assert found.interval.low < 1 < found.interval.high
    assert found.smallest_effect == pytest.approx(2.8016 * (b - a).std() / math.sqrt(300), rel=0.05)
    same = paired_bootstrap(mean("a", a, "").statistics, mean("a", a, "").statistics, ratio)
    assert (same.p, same.difference) == (1, 0)


def test_the_smallest_effect_is_seen_in_about_four_of_five_trials() -> None:
    draw, seen = np.random.default_rng(7), 0
    for _ in range(60):
        a = draw.normal(0, 1, 50)
        b = a + draw.normal(2.8016 / math.sqrt(50), 1, 50)
        seen += paired_bootstrap(mean("a", a, "").statistics, mean("b", b, "").statistics, ratio).p < 0.05
    assert 36 <= seen <= 58


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    draw = random.Random(2)
    p = [draw.random() / 20 for _ in range(9)]
    assert all(x <= y <= 1 for x, y in zip(p, holm(p), strict=True))
