"""A folder under construction that may be gone on with, and chunks worked on by threads in order."""

import ctypes
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from core.errors import UserError
from core.provenance.atomic_io import lock, remove_leftovers, replace, write_text
from delta.kernel import kernel
from delta.safetensors_io import DiskError

T = TypeVar("T")
MARK = ".made-from"
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


@contextmanager
def unfinished(target: Path, made_from: str, *, resume: bool, force: bool) -> Iterator[Path]:
    """Yield the folder beside `target` that becomes it when the block ends well.

    With `resume` it holds what an interrupted run for the same `made_from` left; else it is empty. What a run
    leaves that was killed, or met a full disk, stays for that; what a check has refused goes at once.
    """
    remove_leftovers(target)
    if target.is_symlink() or (target.exists() and not (force and target.is_dir())):
        raise UserError(
            f"{target} exists already; it is never written over. Choose another folder, or pass --force,"
            " which replaces a folder after the new one is complete."
        )
    partial = target.with_name(f".{target.name}.unfinished")
    with lock(target.with_name(f".{target.name}.lock"), f"{target}: it is being made already"):
        if partial.is_symlink():
            raise UserError(f"{partial} is a symbolic link, which this program never makes. Remove it.")
        mark = partial / MARK
        if not (resume and mark.is_file() and mark.read_text("utf-8") == made_from):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            write_text(mark, made_from)
        try:
            yield partial
        except DiskError:
            raise
        except UserError:
            shutil.rmtree(partial)
            raise
        mark.unlink(missing_ok=True)
        if target.exists() and not force:
            raise UserError(f"{target} was made by somebody else in the meantime; it was not written over.")
        replace(partial, target)


def workers() -> ThreadPoolExecutor:
    """Threads for coding and hashing: the loops, zstd and SHA-256 let others run.

    Four keep the thread busy that reads and writes: two hash, a stream each, two code. More would only take
    memory, and so would a second one that sorts with numpy.
    """
    _keep_freed_memory()
    return ThreadPoolExecutor(min(4 if kernel() else 1, len(os.sched_getaffinity(0))))


def _keep_freed_memory() -> None:
    """Have the C library use freed pieces again: to fetch their pages each time is a tenth of the work."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(TRIM_THRESHOLD, 1 << 28)
        mallopt(MMAP_THRESHOLD, 1 << 25)


def hashed(pieces: Iterable[bytes], digest: "hashlib._Hash", pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The pieces, each hashed by a thread while its taker works on it; at the end all are."""
    last: Future[None] | None = None
    for piece in pieces:
        if last:
            last.result()
        last = pool.submit(digest.update, piece)
        yield piece
    if last:
        last.result()


def in_order(pool: ThreadPoolExecutor, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of calls in their order; only a few more than there are threads are under way."""
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
