"""Reading ahead gives what reading would give, also after a jump, and loses no error."""

import threading

import pytest

from core.train.dataloader import Ahead


def test_the_next_position_is_read_while_this_one_is_worked_on() -> None:
    begun = threading.Event()

    def read(position: int) -> int:
        if position == 4:
            begun.set()
        return position * 10

    ahead = Ahead(read, stride=4, end=12)
    assert ahead.at(0) == 0
    assert begun.wait(10), "position 4 is read before anybody asks for it"
    assert [ahead.at(4), ahead.at(8)] == [40, 80]


def test_a_jump_and_a_repetition_are_read_right_and_nothing_beyond_the_end() -> None:
    seen: list[int] = []

    def read(position: int) -> int:
        seen.append(position)
        return position

    ahead = Ahead(read, stride=1, end=6)
    assert [ahead.at(i) for i in (0, 3, 3, 4, 5)] == [0, 3, 3, 4, 5]
    assert max(seen) == 5


def test_an_error_is_raised_where_its_position_is_asked_for() -> None:
    def read(position: int) -> int:
        if position == 1:
            raise ValueError("position 1")
        return position

    ahead = Ahead(read, stride=1, end=3)
    assert ahead.at(0) == 0
    with pytest.raises(ValueError, match="position 1"):
        ahead.at(1)
