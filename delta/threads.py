"""Chunks of work on threads, with results in order."""

import ctypes
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from delta.kernel import kernel

T = TypeVar("T")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, from glibc's malloc.h."""


def workers() -> ThreadPoolExecutor:
    """Threads for coding and hashing; the compiled loops, zstd and SHA-256 release the GIL.

    Four keep up with the thread that reads and writes: two hash one stream each, two code. More would only
    use memory, and so would a second thread that sorts with numpy.
    """
    _keep_freed_memory()
    return ThreadPoolExecutor(min(4 if kernel() else 1, len(os.sched_getaffinity(0))))


def _keep_freed_memory() -> None:
    """Let the C library reuse freed blocks: fetching their pages again takes a tenth of the time."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(TRIM_THRESHOLD, 1 << 28)
        mallopt(MMAP_THRESHOLD, 1 << 25)


def hashed(pieces: Iterable[bytes], digest: "hashlib._Hash", pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The pieces, each hashed by a thread while the caller works on it; `digest` is complete at the end."""
    last: Future[None] | None = None
    for piece in pieces:
        if last:
            last.result()
        last = pool.submit(digest.update, piece)
        yield piece
    if last:
        last.result()


def in_order(pool: ThreadPoolExecutor, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of calls, in order; only a few more calls than threads are in flight."""
    waiting: deque[Future[T]] = deque()
    try:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) > pool._max_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
