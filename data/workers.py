"""Work on shards in several processes, with results in order whatever their number."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from core.errors import UserError

T = TypeVar("T")


def map_in_order(workers: int, function: Callable[..., T], *arguments: Sequence[Any]) -> Iterator[T]:
    """`map(function, *arguments)` over processes; in this process for one worker or one call.

    Raises UserError where a process dies, which mostly is a lack of memory.
    """
    calls = len(arguments[0])
    if workers == 1 or calls <= 1:
        yield from map(function, *arguments)
        return
    # Spawned, because a fork copies the locks of the threads that Arrow and torch may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, calls), mp_context=context) as pool:
        try:
            yield from pool.map(function, *arguments)
        except BrokenProcessPool:
            raise UserError(
                f"a worker died, often for lack of memory. Run again with fewer workers than {workers}."
            ) from None
