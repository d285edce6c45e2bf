"""The Parquet shards to which a step of the corpus writes its records, read in order and streamed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

from core.errors import UserError
from core.provenance import manifest
from data.record import Record, with_all_columns


def read_records(folder: Path) -> Iterator[Record]:
    """All records of an ingested folder in order, streamed; UserError if there is no shard."""
    for shard in shard_files(folder):
        yield from read_shard(shard)


def shard_files(folder: Path) -> list[Path]:
    """The files of records of a step's folder, in order; UserError if there is none."""
    shards = sorted(folder.glob("shard-*.parquet"))
    if not shards:
        raise UserError(f"{folder}: no shard-*.parquet found. Run ingest into it first.")
    return shards


def shard_hashes(folder: Path) -> dict[str, str]:
    """The hash of each file of a step's folder, by path: from its manifest, or else of its shards."""
    recorded = (folder / manifest.NAME).exists()
    return manifest.outputs_of(folder) if recorded else manifest.hash_files(shard_files(folder))


def read_shard(shard: Path) -> Iterator[Record]:
    """The records of one shard file, in order, streamed."""
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=256):
            yield from cast(list[Record], with_all_columns(batch).to_pylist())


def read_column(shard: Path, name: str) -> Iterator[Any]:
    """One field of the records of a shard file, in order, streamed."""
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=256, columns=[name]):
            yield from batch[name].to_pylist()
