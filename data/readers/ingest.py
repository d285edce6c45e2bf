"""From files of any known format to Parquet shards of records: the first step of the corpus.

The files of all sources are listed in order and grouped into shards of about 256 MB of input (large files are
split if `data.readers.file_splits` can), whatever the number of workers, so that the result does not depend
on it. A worker reads a shard's files document by document and writes records as they come; memory holds one
batch. The folder then holds `shard-00000.parquet`, … (Zstandard, the columns of `data.record.SCHEMA`) and
`rejected.jsonl`: `{"source", "reason", "detail"}` for each document without a record. Every document is
counted: documents = documents with records + rejected documents; records that the selection leaves out are
counted by rule. What is no document, such as a drawing in an archive, is counted by itself.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data.executor import (
    Rows,
    forget_shards,
    join_parts,
    map_shards,
    sum_rows,
    to_rows,
)
from data.readers import formats
from data.readers.file_splits import parts
from data.readers.record_filter import SelectConfig, rule_that_drops
from data.readers.source import Source, check_sources
from data.readers.source_files import list_files
from data.record import PARQUET, SCHEMA, Noted, Record, Rejected
from data.stream import FileSplit

SHARD_BYTES = 256 << 20
BATCH_CHARACTERS = 16 << 20
BATCH_RECORDS = 10_000

Counts = Counter[tuple[str, ...]]
"""By ("documents", SOURCE), ("rejected", SOURCE, REASON), ("noted", SOURCE, REASON),
("dropped", SOURCE, RULE) and ("records", SOURCE, OFFICE, LANGUAGE)."""


class InputShard(NamedTuple):
    """Consecutive input files that are read together and written to one file."""

    number: int
    files: list[tuple[Path | None, Source, FileSplit | None]]
    """A data set of the hub has no path; a file without a split is read whole."""
    size: int
    """Bytes of input."""


def ingest(
    sources: Sequence[Source],
    folder: Path,
    executor: Executor | None,
    *,
    select: SelectConfig | None = None,
    shard_bytes: int = SHARD_BYTES,
    known: Collection[str] = (),
) -> dict[str, Any]:
    """Read all documents of `sources`, write the records that `select` takes to `folder`, return the counts.

    The files and data sets in `known` are left out, because an earlier corpus has them.
    Counts: `documents`, `rejected` (`total`, `by_reason`), `noted` (by reason), `dropped` (records
    by rule of `select`), `records`, `by_office_language`, `sources` (terms and counts of each), `shards` (the
    source of each).
    Raises UserError if a source is missing or empty, or a column is mapped to an unknown field.
    """
    check_sources(sources)
    shards = plan_shards(sources, shard_bytes, known)
    work = partial(ingest_shard, select or SelectConfig())
    counts = sum_rows(map_shards(work, shards, folder, executor, title="ingest"))
    join_parts(folder, "rejected.jsonl")
    forget_shards(folder)
    return _summary(counts, sources) | {"shards": [shard.files[0][1].name for shard in shards]}


def plan_shards(sources: Sequence[Source], shard_bytes: int, known: Collection[str] = ()) -> list[InputShard]:
    """Group the sources' files, in order, into shards of `shard_bytes`; a larger file, or each of its splits,
    is a shard of its own."""
    shards: list[InputShard] = []
    files: list[tuple[Path | None, Source, FileSplit | None]] = []
    size = 0
    for source in sources:
        if files:  # a shard has one source, so that later steps can count by it
            shards.append(InputShard(len(shards), files, size))
            files, size = [], 0
        if source.path is None:
            if source.name not in known:
                files.append((None, source, None))
            continue
        for path in list_files(Path(source.path)):
            if path.as_posix() in known:
                continue
            found = parts(path, source.options(), shard_bytes)
            length = path.stat().st_size // len(found)
            for part in found:
                if files and size + length > shard_bytes:
                    shards.append(InputShard(len(shards), files, size))
                    files, size = [], 0
                files.append((path, source, part))
                size += length
    return [*shards, InputShard(len(shards), files, size)] if files else shards


def ingest_shard(select: SelectConfig, shard: InputShard, folder: Path) -> Rows:
    """Write the records of one shard to `folder`: `parquet` and `rejected.jsonl`; returns the counts."""
    counts: Counts = Counter()
    rows: list[Record] = []
    characters = 0
    with (
        pq.ParquetWriter(folder / "parquet", SCHEMA, **PARQUET) as writer,
        (folder / "rejected.jsonl").open("w", encoding="utf-8") as rejected,
    ):
        for path, source, part in shard.files:
            for outcome in _read(path, source, part):
                if isinstance(outcome, Noted):
                    counts["noted", source.name, outcome.reason] += 1
                    continue
                counts["documents", source.name] += 1
                if isinstance(outcome, Rejected):
                    counts["rejected", source.name, outcome.reason] += 1
                    rejected.write(json.dumps(dataclasses.asdict(outcome), ensure_ascii=False) + "\n")
                    continue
                for record in outcome:
                    if rule := rule_that_drops(select, record):
                        counts["dropped", source.name, rule] += 1
                        continue
                    office, language = record["office"] or "unknown", record["language"] or "unknown"
                    counts["records", source.name, office, language] += 1
                    rows.append(record)
                    characters += len(record["description"] or "") + sum(map(len, record["claims"] or ()))
                if characters > BATCH_CHARACTERS or len(rows) >= BATCH_RECORDS:
                    writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
                    rows, characters = [], 0
        if rows:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    return to_rows(counts)


def _read(path: Path | None, source: Source, part: FileSplit | None) -> Iterator[list[Record] | Rejected]:
    if path is not None:
        return formats.read(path, source.options(), part)
    from data.readers.table_records import read_dataset

    assert source.dataset is not None
    return read_dataset(source.dataset, source.revision, source.split, source.options())


def _summary(counts: Counts, sources: Sequence[Source]) -> dict[str, Any]:
    by_reason: Counter[str] = Counter()
    noted: Counter[str] = Counter()
    by_rule: Counter[str] = Counter()
    by_office: dict[str, Counter[str]] = {}
    by_source: dict[str, Counter[str]] = {source.name: Counter() for source in sources}
    for (what, source, *rest), number in sorted(counts.items()):
        by_source[source][what] += number
        if what == "rejected":
            by_reason[rest[0]] += number
        elif what == "noted":
            noted[rest[0]] += number
        elif what == "dropped":
            by_rule[rest[0]] += number
        elif what == "records":
            by_office.setdefault(rest[0], Counter())[rest[1]] += number
    return {
        "documents": sum(found["documents"] for found in by_source.values()),
        "rejected": {"total": by_reason.total(), "by_reason": dict(by_reason)},
        **({"noted": dict(noted)} if noted else {}),
        "dropped": dict(by_rule),
        "records": sum(found["records"] for found in by_source.values()),
        "by_office_language": {office: dict(languages) for office, languages in by_office.items()},
        "sources": {
            source.name: {
                **source.terms,
                **{
                    what: by_source[source.name][what]
                    for what in ("documents", "rejected", "dropped", "records")
                },
            }
            for source in sources
        },
    }
