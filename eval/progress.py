"""How far a run is: a bar with the time left on a terminal, a line a minute in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_SECONDS = 60


def progress(answers: Iterable[T], total: int, shown: bool = True) -> Iterator[T]:
    """The answers as they come; the time left supposes that the rest takes as long for each answer."""
    if not shown or not total:
        yield from answers
        return
    if sys.stderr.isatty():
        yield from tqdm(answers, "answers", total, unit="answer", dynamic_ncols=True)
        return
    start = said = time.monotonic()
    for number, answer in enumerate(answers, 1):
        yield answer
        if (now := time.monotonic()) - said >= LINE_SECONDS:
            said = now
            left = tqdm.format_interval((now - start) / number * (total - number))
            print(f"{number:,} of {total:,} answers, {left} left", flush=True)
