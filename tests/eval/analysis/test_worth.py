"""What a change is worth in examples: the number on made curves, and that its interval holds the truth."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from eval.analysis.worth import Worth, monotone, same_score, sentence, worth
from eval.metrics.measure import Floats

NUMBERS = [50.0, 100.0, 200.0, 400.0, 800.0]
GAIN = 1.6
"""How many examples without the change one example with it is equal to."""


def alike(scores: list[float], trainings: int = 3, questions: int = 20) -> Floats:
    """Scores without any noise."""
    return np.tile(np.asarray(scores)[:, None, None], (1, trainings, questions))


def study(draw: np.random.Generator, trainings: int, parts: Sequence[float]) -> tuple[Floats, Floats]:
    """Scores that rise with the logarithm of examples, without and with; standard deviations of seeds, of
    seeds in each arm, of questions, of questions in each arm, and of the rest."""
    truth = np.concatenate([0.1 * np.log(np.asarray(NUMBERS) * gain) for gain in (1.0, GAIN)])
    arms, questions = len(truth), 200
    shapes = [(1, trainings, 1), (arms, trainings, 1), (1, 1, questions), (arms, 1, questions),
              (arms, trainings, questions)]  # fmt: skip
    noise = [part * draw.standard_normal(shape) for part, shape in zip(parts, shapes, strict=True)]
    values = truth[:, None, None] + sum(noise)
    return values[: len(NUMBERS)], values[len(NUMBERS) :]


def test_the_worth_of_curves_without_noise_is_exact() -> None:
    curve = [math.log(number) for number in NUMBERS]
    gained = [math.log(GAIN * number) for number in NUMBERS[:4]]
    for found, number in zip(worth(alike(curve), NUMBERS, alike(gained), NUMBERS[:4]), NUMBERS, strict=False):
        ends = (found.value, found.low, found.high)
        assert ends == pytest.approx([(GAIN - 1) * number] * 3)
    lower = worth(alike([-c for c in curve]), NUMBERS, alike([-c for c in gained]), NUMBERS[:4],
                  higher_is_better=False)  # fmt: skip
    assert lower == worth(alike(curve), NUMBERS, alike(gained), NUMBERS[:4])


def test_from_no_examples_on_the_curve_is_linear_in_their_number() -> None:
    (found,) = worth(alike([0.0, 1.0, 2.0]), [0, 10, 100], alike([0.4]), [0])
    assert found.value == pytest.approx(4)
    (found,) = worth(alike([0.0, 1.0, 2.0]), [0, 10, 100], alike([1.5]), [10])
    assert found.value == pytest.approx(math.sqrt(1000) - 10)


def test_what_lies_beyond_the_curve_is_not_extrapolated() -> None:
    more, less = worth(alike([0.2, 0.4]), [50, 100], alike([0.9, 0.1]), [50, 80])
    assert (more.value, less.value) == (math.inf, -math.inf)
    assert sentence(more, "pretraining", "examples") == (
        "with 50 examples, pretraining is worth at least 50 more (95% interval at least 50)"
    )
    assert sentence(less, "it", "examples") == (
        "with 80 examples, it is worth less than -30 more (95% interval less than -30)"
    )
    assert more.tree()["value"] is None
    assert more.tree()["beyond"] == {"value": "more", "low": "more", "high": "more"}
    mixed = Worth(50, 20.0, -math.inf, math.inf, 0.0, 750.0, 1, 9)
    assert sentence(mixed, "it", "examples") == (
        "with 50 examples, it is worth 20 more"
        " (95% interval less than 0 to at least 750, over questions only)"
    )


CURVES = st.lists(st.floats(-5, 5), min_size=2, max_size=8)


@settings(deadline=None)
@given(CURVES)
def test_a_curve_becomes_the_nearest_one_that_never_falls(curve: list[float]) -> None:
    (found,) = monotone(np.asarray([curve]))
    np.testing.assert_allclose(found, isotonic_regression(curve).x, atol=1e-9)


@settings(deadline=None)
@given(CURVES, st.floats(-6, 6))
def test_the_curve_has_the_score_at_the_number_that_is_found(curve: list[float], score: float) -> None:
    rising = np.sort(np.asarray(curve, np.float64))
    numbers = np.asarray(10 * 2.0 ** np.arange(len(rising)), np.float64)
    (number,) = same_score(rising[None], numbers, np.asarray([score]))
    if math.isinf(number):
        assert score > rising[-1] if number > 0 else score < rising[0]
    else:
        assert np.interp(np.log(number), np.log(numbers), rising) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("trainings", [3, 5])
@pytest.mark.parametrize(
    "parts",
    [(0.05, 0.01, 1.0, 0.1, 0.3), (0.02, 0.03, 0.5, 0.1, 0.3), (0.0, 0.0, 0.5, 0.2, 0.5),
     (0.0, 0.03, 0.1, 0.05, 0.1)],
    ids=["questions", "both", "no seeds", "seeds"],
)  # fmt: skip
def test_intervals_hold_the_true_worth(parts: Sequence[float], trainings: int) -> None:
    draw, held = np.random.default_rng(1), []
    for _ in range(200):
        without, gained = study(draw, trainings, parts)
        for found in worth(without, NUMBERS, gained[:4], NUMBERS[:4], draws=400):
            held.append(found.low <= (GAIN - 1) * found.number <= found.high)
    assert 0.94 <= np.mean(held) <= 0.997


def test_the_order_of_levels_changes_nothing_and_one_seed_is_over_questions_only() -> None:
    without, gained = study(np.random.default_rng(2), 3, (0.02, 0.03, 0.5, 0.1, 0.3))
    order = [3, 0, 4, 1, 2]
    first = worth(without, NUMBERS, gained, NUMBERS)
    shuffled = worth(without[order], [NUMBERS[i] for i in order], gained, NUMBERS)
    assert first == shuffled
    one = worth(without[:, :1], NUMBERS, gained[:, :1], NUMBERS)
    assert all(each.tree()["over_questions_only"] for each in one)
    assert one[1].high > one[1].low
