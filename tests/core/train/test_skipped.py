"""What of each source was in skipped steps is counted, told, and refused where it is too much."""

from collections import Counter
from typing import Any

import pytest

from core.checkpoint.progress import Progress
from core.train.sampler import Order, Part
from core.train.skipped import Skipped, sentence


class Chats:
    """Rows of one chat: every tenth is of a rare source."""

    def __init__(self) -> None:
        self.source_counts = {"common": 90, "rare": 10}

    def sources_at(self, index: int) -> Counter[str]:
        return Counter(["rare" if index % 10 == 3 else "common"])


def order_of(*parts: Part) -> Order:
    return Order(list(parts), 200, 0)


def test_shares_by_source_are_exact_at_the_end_of_an_epoch_also_when_the_run_was_resumed() -> None:
    order = order_of(Part("data", 100, 1.0))

    def index(position: int) -> int:
        return order.at(position)[1]

    rare = [position for position in range(100) if index(position) % 10 == 3]
    counting = Skipped(order, Chats(), index, Progress())
    for position in rare[:7]:
        counting.add(position, position + 1)
    assert counting.shares(100) == {"common": 0, "rare": 0.7}
    again = Skipped(order, Chats(), index, Progress(skipped=[[each, each + 1] for each in rare[:7]]))
    assert again.shares(200) == {"common": 0, "rare": 0.35}
    assert again.lost(again.shares(100)) is None, "seven are few"
    for position in range(100, 200):
        if index(position) % 10 == 3:
            again.add(position, position + 1)
    assert again.lost(again.shares(200)) == "85% of what has come up of `rare` was in skipped steps"


def test_the_parts_of_a_mixture_are_its_sources() -> None:
    order = order_of(Part("patents", 300, 0.75), Part("general", 100, 0.25))
    data: Any = object()
    counting = Skipped(order, data, lambda position: position, Progress())
    shares = counting.add(0, 200)
    assert shares == {"patents": pytest.approx(1), "general": pytest.approx(1)}
    assert counting.lost(shares) is not None


def test_nothing_is_said_of_a_run_without_skipped_steps() -> None:
    assert sentence(Progress(step=9, samples=36).counts()) is None
    assert "skipped_shares" not in Progress().counts()
    progress = Progress(step=10, samples=40, skipped_steps=2, skipped=[[4, 12]])
    assert sentence(progress.counts()) == (
        "2 of 10 steps were skipped as spikes or not finite, with 20.0% of the samples"
    )
    progress.skipped_shares = {"a": 0.1, "b": 0.5}
    assert str(sentence(progress.counts())).endswith("of the samples (a 10.0%, b 50.0%)")
