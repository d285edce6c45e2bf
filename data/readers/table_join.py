"""Tables that each hold a part of every patent, such as PatentsView's, become one record a patent.

    g_patent.tsv, g_claims_2020.tsv, … ──rows──▶ fragments ──by patent──▶ buckets on disk ──join──▶ records

A row of such a table is a `Fragment`. The worker that reads it writes it to one of the source's buckets, by
its patent; once all files of the source are read, each bucket is sorted by patent and joined, one record in
memory at a time. So the result depends neither on the order of files nor on who read them, and memory holds
one bucket, about as much as one shard of input (of a source of more than 256 shards, its 256th part).
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from data.claim_numbers import of_record, with_claims
from data.patent_numbers import publication_key
from data.record import SCHEMA, Record

KEYS = ("patent_id", "pgpub_id")
"""Columns by which PatentsView's tables refer to a patent or an application."""

OF_PATENTSVIEW = {"office": "US", "language": "en"}
"""What its tables do not say."""

ORDER = {
    "patent_title": 0,
    "patent_abstract": 1,
    "claim_text": 2,
    "summary_text": 3,
    "draw_desc_text": 4,
    "description_text": 5,
}
"""PatentsView's columns of text, and their place in the record; sections of a description follow each
other."""

MOST_BUCKETS = 256
BUFFER_CHARACTERS = 16 << 20
NAME = "fragments-"


class Fragment(list[Record]):
    """The records of one row, or of a patent's rows in one table, which other tables complete."""

    def __init__(self, records: list[Record], order: int) -> None:
        super().__init__(records)
        self.order = order
        """Where the text belongs, see ORDER."""


class Bucket(NamedTuple):
    """What workers wrote of some patents of a source."""

    source: str
    files: list[Path]


def order_of(header: Collection[str]) -> int | None:
    """The place of a table's text in the record; None if the table stands for itself."""
    if not any(key in header for key in KEYS):
        return None
    return min((place for column, place in ORDER.items() if column in header), default=None)


class FragmentWriter:
    """Writes fragments to `FOLDER/fragments-BUCKET`, a stream of Arrow batches each."""

    def __init__(self, folder: Path, buckets: int) -> None:
        self.folder, self.buckets = folder, buckets
        self.rows: dict[int, list[dict[str, object]]] = {}
        self.characters = 0
        self.writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}

    def add(self, fragment: Fragment) -> None:
        """Keep the fragment's records for their buckets."""
        for record in fragment:
            key = publication_key(record["id"]) or record["id"]
            bucket = xxhash.xxh3_64_intdigest(key.encode()) % self.buckets
            self.rows.setdefault(bucket, []).append({**record, "key": key, "order": fragment.order})
            self.characters += len(record["description"] or "") + sum(map(len, record["claims"] or ()))
        if self.characters > BUFFER_CHARACTERS:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        self._write()
        for writer in self.writers.values():
            writer.close()

    def _write(self) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        for bucket, rows in self.rows.items():
            if bucket not in self.writers:
                file = self.folder / f"{NAME}{bucket:03d}"
                self.writers[bucket] = pa.ipc.new_stream(str(file), STORED, options=options)
            self.writers[bucket].write_batch(pa.RecordBatch.from_pylist(rows, schema=STORED))
        self.rows, self.characters = {}, 0


def buckets(folder: Path, sources: Sequence[str]) -> list[Bucket]:
    """The buckets of every source, in order; `sources` names that of each shard in `folder`."""
    found: dict[tuple[int, str], list[Path]] = {}
    for file in sorted(folder.glob(f"shard-*.{NAME}*")):
        shard, _, bucket = file.name.removeprefix("shard-").partition(f".{NAME}")
        first = sources.index(sources[int(shard)])
        found.setdefault((first, bucket), []).append(file)
    return [Bucket(sources[first], found[first, bucket]) for first, bucket in sorted(found)]


def joined(bucket: Bucket) -> Iterator[Record]:
    """The record of each patent in a bucket, sorted by number."""
    batches = [batch for file in bucket.files for batch in pa.ipc.open_stream(pa.OSFile(str(file)))]
    table = pa.table(
        {
            "key": pa.chunked_array([batch["key"] for batch in batches]),
            "order": pa.chunked_array([batch["order"] for batch in batches]),
            "batch": [number for number, batch in enumerate(batches) for _ in range(len(batch))],
            "row": [row for batch in batches for row in range(len(batch))],
        }
    )
    by_patent = table.take(pc.sort_indices(table, [(name, "ascending") for name in table.column_names]))
    for _, group in itertools.groupby(_rows(by_patent), key=lambda row: row["key"]):
        yield merged([_record(batches[row["batch"]], row["row"]) for row in group])


def merged(fragments: Sequence[Record]) -> Record:
    """One record of several of one patent: of each field the first value, but all claims by their numbers,
    and all sections of the description."""
    whole = fragments[0]
    for record in fragments[1:]:
        whole = cast(Record, {name: whole[name] or value for name, value in record.items()})  # type: ignore[literal-required]
    if len(fragments) > 1:
        whole["id"] = max((record["id"] for record in fragments), key=len)  # with its kind code
        texts = dict.fromkeys(record["description"] for record in fragments if record["description"])
        whole["description"] = "\n".join(texts) or None
        claims: dict[int, str] = {}
        for record in fragments:
            claims = of_record(record) | claims
        whole = with_claims(whole, dict(sorted(claims.items())))
    return whole


STORED = pa.schema([*SCHEMA, pa.field("key", pa.string()), pa.field("order", pa.int8())])


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def _record(batch: pa.RecordBatch, row: int) -> Record:
    (stored,) = batch.slice(row, 1).to_pylist()
    return cast(Record, {name: stored[name] for name in SCHEMA.names})
