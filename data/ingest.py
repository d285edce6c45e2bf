"""From files of any known format to Parquet shards of records: the first step of the corpus.

The files of all sources are listed in order and grouped into logical shards of about 256 MB of input,
whatever the number of workers, so that the result does not depend on it. A worker reads a shard's files
document by document and writes records as they come; memory holds one batch. The folder then holds
`shard-00000.parquet`, … (Zstandard, the columns of `data.record.SCHEMA`) and `rejected.jsonl`: `{"source",
"reason", "detail"}` for each document without a record. Every document is counted: documents = documents that
gave records + rejected documents.
"""

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from tqdm import tqdm

from core.config import Config
from core.errors import UserError
from data import formats
from data.record import SCHEMA, Record
from data.workers import map_in_order

SHARD_BYTES = 256 << 20
BATCH_CHARACTERS = 16 << 20
BATCH_RECORDS = 10_000

Counts = Counter[tuple[str, ...]]
"""By ("documents", SOURCE), ("rejected", SOURCE, REASON) and ("records", SOURCE, OFFICE, LANGUAGE)."""


class Source(Config):
    """Where documents come from."""

    path: str
    """A file, or a folder of files (with its subfolders; hidden files are left out)."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For tables: the record's field that a column holds, by the column's name, as `{"摘要": "abstract"}`."""


class Shard(NamedTuple):
    """Consecutive input files that are read together and written to one file."""

    number: int
    files: list[tuple[Path, Source]]
    size: int
    """Bytes of input."""


def ingest(
    sources: Sequence[Source], folder: Path, workers: int, *, shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """Read all documents of `sources` into `folder` and return the counts.

    Counts: `documents`, `rejected` (`total`, `by_reason`), `records`, `by_office_language`, `by_source`.
    Raises UserError where a source is missing or empty or a column is mapped to a field that does not exist.
    """
    shards = plan_shards(sources, shard_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counts = Counter()
    total = sum(shard.size for shard in shards)
    results = map_in_order(workers, _ingest_shard, shards, [folder] * len(shards))
    with tqdm(total=total, desc="ingest", unit="B", unit_scale=True, disable=None) as progress:
        for shard, found in zip(shards, results, strict=True):
            counts.update(found)
            progress.update(shard.size)
    with (folder / "rejected.jsonl").open("wb") as merged:
        for shard in shards:
            part = _rejected_path(folder, shard.number)
            with part.open("rb") as file:
                shutil.copyfileobj(file, merged)
            part.unlink()
    return _summary(counts, sources)


def read_records(folder: Path) -> Iterator[Record]:
    """All records of an ingested folder in order, streamed; UserError where there is no shard."""
    shards = sorted(folder.glob("shard-*.parquet"))
    if not shards:
        raise UserError(f"{folder} holds no shard-*.parquet. Run ingest into it first.")
    for shard in shards:
        yield from read_shard(shard)


def read_shard(shard: Path) -> Iterator[Record]:
    """The records of one shard file, in order, streamed."""
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=256):
            yield from cast(list[Record], batch.to_pylist())


def plan_shards(sources: Sequence[Source], shard_bytes: int) -> list[Shard]:
    """Group the sources' files, in order, into shards of `shard_bytes`; a larger file is one by itself."""
    shards: list[Shard] = []
    files: list[tuple[Path, Source]] = []
    size = 0
    for source in sources:
        _check_columns(source)
        for path in list_files(Path(source.path)):
            length = path.stat().st_size
            if files and size + length > shard_bytes:
                shards.append(Shard(len(shards), files, size))
                files, size = [], 0
            files.append((path, source))
            size += length
    return [*shards, Shard(len(shards), files, size)] if files else shards


def list_files(path: Path) -> list[Path]:
    """The file itself, or a folder's files, sorted; what is hidden is left out."""
    if not path.exists():
        raise UserError(f"source {path} does not exist. Correct `path`, or put the files there.")
    if path.is_file():
        return [path]
    files: list[Path] = []
    for folder, folders, names in os.walk(path, onerror=_stop, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    files.sort()
    if not files:
        raise UserError(f"source {path} is an empty folder. Put files there, or remove it from `sources`.")
    for file in files:
        try:
            str(file).encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"source {path}: the file name {str(file)!r} is not UTF-8. Rename it.") from None
    return files


def _stop(error: OSError) -> None:
    raise error  # a folder that cannot be opened must not be left out in silence


def _check_columns(source: Source) -> None:
    known = ", ".join(SCHEMA.names)
    for column, field in source.columns.items():
        if field not in SCHEMA.names:
            mapped = f"column {column!r} is mapped to {field!r}"
            raise UserError(f"source {source.path}: {mapped}; the fields are {known}.")


def _ingest_shard(shard: Shard, folder: Path) -> Counts:
    counts: Counts = Counter()
    rows: list[Record] = []
    characters = 0
    name = f"shard-{shard.number:05d}.parquet"
    with (
        pq.ParquetWriter(folder / name, SCHEMA, compression="zstd") as writer,
        _rejected_path(folder, shard.number).open("w", encoding="utf-8") as rejected,
    ):
        for path, source in shard.files:
            for outcome in formats.read(path, source.columns):
                counts["documents", source.path] += 1
                if isinstance(outcome, formats.Rejected):
                    counts["rejected", source.path, outcome.reason] += 1
                    rejected.write(json.dumps(dataclasses.asdict(outcome), ensure_ascii=False) + "\n")
                    continue
                for record in outcome:
                    office, language = record["office"] or "unknown", record["language"] or "unknown"
                    counts["records", source.path, office, language] += 1
                    rows.append(record)
                    characters += len(record["description"] or "") + sum(map(len, record["claims"] or ()))
                if characters > BATCH_CHARACTERS or len(rows) >= BATCH_RECORDS:
                    writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
                    rows, characters = [], 0
        if rows:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    return counts


def _rejected_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.rejected.jsonl"


def _summary(counts: Counts, sources: Sequence[Source]) -> dict[str, Any]:
    by_reason: Counter[str] = Counter()
    by_office: dict[str, Counter[str]] = {}
    by_source = {source.path: {"documents": 0, "rejected": 0, "records": 0} for source in sources}
    for (what, source, *rest), number in sorted(counts.items()):
        by_source[source][what] += number
        if what == "rejected":
            by_reason[rest[0]] += number
        elif what == "records":
            by_office.setdefault(rest[0], Counter())[rest[1]] += number
    return {
        "documents": sum(found["documents"] for found in by_source.values()),
        "rejected": {"total": by_reason.total(), "by_reason": dict(by_reason)},
        "records": sum(found["records"] for found in by_source.values()),
        "by_office_language": {office: dict(languages) for office, languages in by_office.items()},
        "by_source": by_source,
    }
