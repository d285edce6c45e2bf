"""Map a pure function over shards, in local processes or on a dask cluster; a killed run loses one shard.

    work(shard, scratch folder) ──▶ files and counts ──▶ SHARD.NAME for each file NAME, SHARD.json last

A shard is finished once its `shard-00000.json` exists, with its counts; a rerun does only the other shards.
The function sees one shard and nothing else, so the result does not depend on the number of workers, on which
worker does a shard, or on how often the run was killed.
"""

import json
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from core.config.loader import Config
from core.errors import UserError
from core.provenance import atomic_io
from data.dask_cluster import SlurmConfig, open_cluster

Shard = TypeVar("Shard")
Result = TypeVar("Result")
DIED = (
    "a worker process died, most likely out of memory. Finished shards are kept: run the same command again,"
    " with fewer workers (engine.workers) if it happens again."
)
Rows = list[list[Any]]
"""Counts by a key of several strings: `[*key, number]`."""
Work = Callable[[Shard, Path], Any]
"""Takes a shard and an empty folder to write to; returns its counts as JSON values."""


class EngineConfig(Config):
    """Which workers run the steps. The result does not depend on it."""

    workers: int | None = Field(None, ge=1)
    """Worker processes on this machine; null for one per core."""
    scheduler: str | None = None
    """Instead of local processes, the address of a dask scheduler, e.g. `tcp://host:8786`, or `slurm`. Its
    workers and this process must start in the repository's root and share the folders."""
    slurm: SlurmConfig = SlurmConfig()


@contextmanager
def open_executor(config: EngineConfig) -> Iterator[Executor | None]:
    """The executor of shards; None if there is one worker: this process."""
    if config.scheduler is not None:
        with open_cluster(config.scheduler, config.slurm) as cluster:
            yield cluster
        return
    workers = config.workers or len(os.sched_getaffinity(0))
    if workers == 1:
        yield None
        return
    # Spawned, because a fork copies the locks of the threads that Arrow and torch may hold.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin_worker) as pool:
        yield pool


def map_shards(
    work: Work[Shard], shards: Sequence[Shard], folder: Path, executor: Executor | None, *, title: str
) -> list[Any]:
    """Do the unfinished shards; returns the counts of all shards, in order.

    `work` must be importable by name (a module's function, or a `functools.partial` of one).
    """
    from tqdm import tqdm

    missing = [number for number in range(len(shards)) if not _done(folder, number).exists()]
    with tqdm(
        total=len(shards), initial=len(shards) - len(missing), desc=title, unit="shard", disable=None
    ) as bar:
        if executor is None or len(missing) < 2:
            for number in missing:
                _do(work, shards[number], folder, number)
                bar.update()
        else:
            futures = [executor.submit(_do, work, shards[number], folder, number) for number in missing]
            for future in as_completed(futures):
                _raise_failure(future, futures)
                bar.update()
    return [json.loads(_done(folder, number).read_text("utf-8")) for number in range(len(shards))]


def map_in_order(
    executor: Executor | None, function: Callable[..., Result], *arguments: Sequence[Any]
) -> Iterator[Result]:
    """`map(function, *arguments)` over the workers, for small results that are needed in order."""
    if executor is None or len(arguments[0]) < 2:
        yield from map(function, *arguments)
        return
    try:
        yield from executor.map(function, *arguments)
    except BrokenProcessPool:
        raise UserError(DIED) from None


def to_rows(counts: Counter[tuple[str, ...]]) -> Rows:
    """Counts by keys of several strings, as JSON values: `[*key, number]`."""
    return [[*key, number] for key, number in counts.items()]


def sum_rows(shards: Iterable[Rows]) -> Counter[tuple[str, ...]]:
    """The sum of the rows that `to_rows` made for each shard."""
    counts: Counter[tuple[str, ...]] = Counter()
    for rows in shards:
        counts.update({tuple(key): number for *key, number in rows})
    return counts


def nested(counts: Mapping[tuple[str, ...], int]) -> dict[str, dict[str, int]]:
    """`{office: {language: n}}` of counts by (office, language), sorted; zeros are left out."""
    found: dict[str, dict[str, int]] = {}
    for (office, language), number in sorted(counts.items()):
        if number:
            found.setdefault(office, {})[language] = number
    return found


def join_parts(folder: Path, name: str) -> None:
    """Concatenate the files `shard-*.NAME` into NAME, atomically, and remove them.

    If NAME already exists, a run that was killed here wrote it.
    """
    parts = sorted(folder.glob(f"shard-*.{name}"))
    if not (folder / name).exists():
        partial = folder / f".{name}.partial"
        with partial.open("wb") as joined:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined)
        partial.replace(folder / name)
    for part in parts:
        part.unlink()


def forget_shards(folder: Path) -> None:
    """Remove the marks of finished shards, once the step is complete."""
    for mark in folder.glob("shard-*.json"):
        mark.unlink()


def remove_shards(folder: Path) -> None:
    """Remove a folder of shards, the marks first, so that an interrupted removal never looks finished."""
    forget_shards(folder)
    shutil.rmtree(folder)


def shard_name(number: int) -> str:
    """The stem of a shard's files."""
    return f"shard-{number:05d}"


def _begin_worker() -> None:
    """Set up a worker process: the tokenizers library must not start a thread per core as well, and a killed
    parent must not leave workers running, which would use memory and write at the same time as the next
    run's."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _do(work: Work[Shard], shard: Shard, folder: Path, number: int) -> None:
    scratch = folder / f".{shard_name(number)}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    counts = work(shard, scratch)
    for path in sorted(scratch.iterdir()):
        path.replace(folder / f"{shard_name(number)}.{path.name}")
    scratch.rmdir()
    atomic_io.write_text(_done(folder, number), json.dumps(counts, ensure_ascii=False) + "\n")


def _done(folder: Path, number: int) -> Path:
    return folder / f"{shard_name(number)}.json"


def _raise_failure(future: "Future[None]", others: "Sequence[Future[None]]") -> None:
    try:
        future.result()
    except BrokenProcessPool:
        raise UserError(DIED) from None
    except BaseException:
        for other in others:
            other.cancel()
        raise
