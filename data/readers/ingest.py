"""From files of any known format to Parquet shards of records: the first step of the corpus.

The files of all sources are listed in order and grouped into shards of about 256 MB of input (large files are
split if `data.readers.file_splits` can), whatever the number of workers, so that the result does not depend
on it. A worker reads a shard's files document by document and writes records as they come; memory holds one
batch. Rows of tables that hold parts of patents are joined, once all are read (`table_join`), into further
shards of their source. The folder then holds `shard-00000.parquet`, … (Zstandard, the columns of
`data.record.SCHEMA`) and `rejected.jsonl`: `{"source", "reason", "detail"}` for each document without a
record. Every document is counted: documents = documents with records + rejected documents; records that the
selection leaves out are counted by rule. What is no document, such as a drawing in an archive, is counted by
itself.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from data.executor import (
    Rows,
    forget_shards,
    join_parts,
    map_shards,
    remove_shards,
    shard_name,
    sum_rows,
    to_rows,
)
from data.readers import formats, table_join
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
    buckets: int = 1
    """For rows of tables that are joined: that many for the whole source."""


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
    select = select or SelectConfig()
    shards = plan_shards(sources, shard_bytes, known)
    counts = sum_rows(map_shards(partial(ingest_shard, select), shards, folder, executor, title="ingest"))
    origins = [shard.files[0][1].name for shard in shards]
    if buckets := table_join.buckets(folder, origins):
        scratch = folder / ".joined"
        counts += sum_rows(map_shards(partial(join_bucket, select), buckets, scratch, executor, title="join"))
        for number in range(len(buckets)):
            made = scratch / f"{shard_name(number)}.parquet"
            if made.exists():  # a run that was killed here may have moved it
                made.replace(folder / f"{shard_name(len(shards) + number)}.parquet")
    join_parts(folder, "rejected.jsonl")
    forget_shards(folder)  # from here on, a run that is killed begins again
    if buckets:
        remove_shards(folder / ".joined")
        for bucket in buckets:
            for file in bucket.files:
                file.unlink()
    return _summary(counts, sources) | {"shards": [*origins, *(bucket.source for bucket in buckets)]}


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
    if files:
        shards.append(InputShard(len(shards), files, size))
    total: Counter[str] = Counter()
    for shard in shards:
        total[shard.files[0][1].name] += shard.size
    return [
        shard._replace(buckets=min(table_join.MOST_BUCKETS, 1 + total[shard.files[0][1].name] // shard_bytes))
        for shard in shards
    ]


class ShardWriter:
    """Writes the selected records of a shard to `FOLDER/parquet`, and counts them."""

    def __init__(self, folder: Path, select: SelectConfig, counts: Counts) -> None:
        self.file = pq.ParquetWriter(folder / "parquet", SCHEMA, **PARQUET)
        self.select, self.counts = select, counts
        self.rows: list[Record] = []
        self.characters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write()
        self.file.close()

    def add(self, record: Record, source: str) -> None:
        """Write the record, unless a rule of the selection drops it."""
        if rule := rule_that_drops(self.select, record):
            self.counts["dropped", source, rule] += 1
            return
        self.counts["records", source, record["office"] or "unknown", record["language"] or "unknown"] += 1
        self.rows.append(record)
        self.characters += len(record["description"] or "") + sum(map(len, record["claims"] or ()))
        if self.characters > BATCH_CHARACTERS or len(self.rows) >= BATCH_RECORDS:
            self._write()

    def _write(self) -> None:
        if self.rows:
            self.file.write_batch(pa.RecordBatch.from_pylist(self.rows, schema=SCHEMA))
        self.rows, self.characters = [], 0


def ingest_shard(select: SelectConfig, shard: InputShard, folder: Path) -> Rows:
    """Write the records of one shard to `folder`: `parquet`, `rejected.jsonl`, and rows that are to be joined
    to `fragments-BUCKET`; returns the counts."""
    counts: Counts = Counter()
    fragments = table_join.FragmentWriter(folder, shard.buckets)
    with (
        ShardWriter(folder, select, counts) as writer,
        (folder / "rejected.jsonl").open("w", encoding="utf-8") as rejected,
    ):
        for path, source, part in shard.files:
            for outcome in _read(path, source, part):
                if isinstance(outcome, Noted):
                    counts["noted", source.name, outcome.reason] += 1
                elif isinstance(outcome, table_join.Fragment):
                    counts["noted", source.name, "table-row"] += 1
                    fragments.add(outcome)
                else:
                    counts["documents", source.name] += 1
                    if isinstance(outcome, Rejected):
                        counts["rejected", source.name, outcome.reason] += 1
                        line = json.dumps(dataclasses.asdict(outcome), ensure_ascii=False)
                        rejected.write(line + "\n")
                    else:
                        for record in outcome:
                            writer.add(record, source.name)
    fragments.close()
    return to_rows(counts)


def join_bucket(select: SelectConfig, bucket: table_join.Bucket, folder: Path) -> Rows:
    """Write the joined records of a bucket to `folder`: `parquet`; returns the counts."""
    counts: Counts = Counter()
    with ShardWriter(folder, select, counts) as writer:
        for record in table_join.joined(bucket):
            counts["documents", bucket.source] += 1
            writer.add(record, bucket.source)
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
