"""The data order: shares that hold at any point of a run, epochs, limits, and one permutation an epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.train.sampler import Order, Part


def drawn(order: Order) -> np.ndarray:
    """The source of every position."""
    return np.array([order.at(position)[0] for position in range(order.total)])


@settings(deadline=None, max_examples=60)
@given(
    weights=st.lists(st.floats(0.001, 1), min_size=2, max_size=8),
    total=st.integers(1, 3000),
    seed=st.integers(0, 9),
)
def test_every_source_has_its_share_to_within_one_sample_at_any_point(
    weights: list[float], total: int, seed: int
) -> None:
    shares = np.array(weights) / sum(weights)
    order = Order([Part(str(i), 50, share) for i, share in enumerate(shares)], total, seed)
    sources = drawn(order)
    had = np.cumsum(np.eye(len(shares))[sources], axis=0)
    asked = np.outer(np.arange(1, total + 1), shares)
    assert np.abs(had - asked).max() < 1


def test_shares_in_proportion_to_size_give_each_sample_once() -> None:
    sizes = {"a": 37, "b": 5, "c": 101}
    order = Order([Part(name, n, n / 143) for name, n in sizes.items()], 143, 0)
    seen = [order.at(position) for position in range(143)]
    assert sorted(seen) == [(source, i) for source, n in enumerate(sizes.values()) for i in range(n)]
    assert order.epochs(143) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_an_epoch_is_a_new_permutation_and_the_order_does_not_depend_on_where_one_begins() -> None:
    parts = [Part("a", 20, 0.75), Part("b", 3, 0.25)]
    order = Order(parts, 100, seed=7)
    whole = [order.at(position) for position in range(100)]
    assert [Order(parts, 100, seed=7).at(position) for position in (99, 3, 57)] == [
        whole[i] for i in (99, 3, 57)
    ]
    first, second = ([i for source, i in whole if source == 0][at : at + 20] for at in (0, 20))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert [Order(parts, 100, seed=8).at(position) for position in range(100)] != whole
    longer = Order(parts, 200, seed=7)
    assert [longer.at(position) for position in range(100)] == whole, "a longer run begins as a shorter one"


def test_a_source_at_its_limit_leaves_its_place_to_the_others() -> None:
    parts = [Part("domain", 1000, 0.5), Part("general", 20, 0.25, max_epochs=2), Part("law", 500, 0.25)]
    order = Order(parts, 1000, 0)
    sources = drawn(order)
    assert (sources == 1).sum() == 40
    end = int(np.flatnonzero(sources == 1)[-1]) + 1
    assert abs(end - 160) <= 4, "the share was kept up to the limit"
    after = np.cumsum(np.eye(3)[sources[end:]], axis=0)
    steps = np.arange(1, len(after) + 1)
    assert np.abs(after[:, 0] - steps * 2 / 3).max() < 2
    assert (
        order.report()[1]
        == "mixture: general: 4.00% of the run (asked: 25.00%), 2.00 epochs of 20 blocks, its limit"
    )


def test_a_run_ends_where_all_sources_are_at_their_limits() -> None:
    order = Order([Part("a", 10, 0.5, 1.0), Part("b", 10, 0.5, 1.5)], 100, 0)
    assert order.total == 25
    assert order.epochs(25) == {"a": 1.0, "b": 1.5}


def test_one_source_is_what_it_always_was() -> None:
    order = Order([Part("data", 9, 1.0)], 30, seed=3)
    expected = [
        i for e in range(4) for i in np.random.Generator(np.random.Philox(key=[3, e])).permutation(9).tolist()
    ]
    assert [order.at(position) for position in range(30)] == [(0, i) for i in expected[:30]]
    assert order.report() == []
    assert order.numbers(18) == {}


@pytest.mark.parametrize("position", [0, 1_234_567, 2_399_999])
def test_any_point_of_a_long_run_is_reached_at_once(position: int) -> None:
    """2.4 million blocks of 4,096 tokens are ten billion tokens; the plan is an array, the seek an index."""
    order = Order([Part("domain", 2_160_000, 0.9), Part("general", 80_000, 0.1)], 2_400_000, 0)
    source, sample = order.at(position)
    assert 0 <= sample < order.parts[source].samples
    assert order.epochs(2_400_000) == {"domain": 1.0, "general": 3.0}
