"""The learning rate over a run, as shares of the peak."""

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config.schema import ScheduleConfig
from core.train.lr_schedule import rate

KINDS = get_args(ScheduleConfig.model_fields["kind"].annotation)


def rates(steps: int, **settings: object) -> list[float]:
    """The rate of every step."""
    config = ScheduleConfig.model_validate(settings)
    return [rate(config, step, steps) for step in range(steps)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_rises_from_above_zero_and_reaches_the_peak_when_the_warm_up_ends(kind: str) -> None:
    found = rates(100, kind=kind, warmup_steps=4)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(found) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_warm_up_the_first_step_is_at_the_peak(kind: str) -> None:
    assert rates(100, kind=kind, warmup_steps=0)[0] == 1
    assert rates(1, kind=kind, warmup_share=0) == [1]


@pytest.mark.parametrize("steps", [10, 33, 1000])
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_step_has_the_final_share_and_constant_stays_at_the_peak(
    kind: str, final: float, steps: int
) -> None:
    last = rates(steps, kind=kind, final_share=final)[-1]
    assert last == pytest.approx(1.0 if kind == "constant" else final)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "linear", "warmup_steps": 0, "final_share": 0}, [1, 0.75, 0.5, 0.25, 0]),
        ({"kind": "linear", "warmup_steps": 2, "final_share": 0.5}, [1 / 3, 2 / 3, 1, 0.75, 0.5]),
        ({"kind": "cosine", "warmup_steps": 0, "final_share": 0}, [1, 0.85355339, 0.5, 0.14644661, 0]),
        ({"kind": "constant", "warmup_steps": 1}, [0.5, 1, 1, 1, 1]),
        (
            {"kind": "warmup-stable-decay", "warmup_steps": 1, "decay_share": 0.4, "final_share": 0},
            [0.5, 1, 1, 0.5, 0],
        ),
        ({"kind": "warmup-stable-decay", "warmup_steps": 0, "decay_share": 0.2}, [1, 1, 1, 1, 0.1]),
        ({"kind": "warmup-stable-decay", "warmup_steps": 0, "decay_share": 0}, [1, 1, 1, 1, 1]),
        (
            {"kind": "warmup-stable-decay", "warmup_steps": 1, "decay_steps": 2, "final_share": 0},
            [0.5, 1, 1, 0.5, 0],
        ),
        (
            {"kind": "linear", "warmup_steps": 2, "warmup_from_share": 0.1, "final_share": 0.1},
            [0.4, 0.7, 1, 0.55, 0.1],
        ),
    ],
)
def test_the_rates_of_five_steps(settings: dict[str, object], expected: list[float]) -> None:
    assert rates(5, **settings) == pytest.approx(expected)


def test_warmup_stable_decay_is_flat_and_then_falls_in_a_line() -> None:
    found = rates(1000, kind="warmup-stable-decay", warmup_share=0.05, decay_share=0.2, final_share=0.1)
    assert found[50:800] == [1.0] * 750
    falls = [earlier - later for earlier, later in pairwise(found[799:])]
    assert falls == pytest.approx([0.9 / 200] * 200)


def test_steps_of_the_warm_up_go_before_its_share() -> None:
    assert rates(100, warmup_steps=10, warmup_share=0.5) == rates(100, warmup_steps=10)
    assert rates(100, warmup_share=0.5) == rates(100, warmup_steps=50)


@settings(deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    steps=st.integers(1, 10_000),
    warmup_steps=st.none() | st.integers(0, 20_000),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1)),
    data=st.data(),
)
def test_the_rate_is_never_zero_never_above_the_peak_and_after_the_warm_up_never_rises(
    kind: str, steps: int, warmup_steps: int | None, shares: tuple[float, float, float], data: st.DataObject
) -> None:
    warmup_share, decay_share, final_share = shares
    config = ScheduleConfig.model_validate(
        {"kind": kind, "warmup_steps": warmup_steps, "warmup_share": warmup_share}
        | {"decay_share": decay_share, "final_share": final_share}
    )
    step = data.draw(st.integers(0, steps - 1))
    warmup = warmup_steps if warmup_steps is not None else round(warmup_share * steps)
    here, after = rate(config, step, steps), rate(config, step + 1, steps)
    assert 0 < here <= 1
    assert after >= here if step < warmup else after <= here


def test_a_decay_that_branches_off_a_stable_run_follows_its_rates_until_there() -> None:
    stable = rates(1000, kind="constant", warmup_steps=20)
    branch = rates(600, kind="warmup-stable-decay", warmup_steps=20, decay_steps=100, final_share=0)
    assert branch[:500] == stable[:500]
    assert branch[-1] == 0
    assert branch[549] == pytest.approx(0.5)
