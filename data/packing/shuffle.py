"""The order of the packed documents: by a hash of the seed and their id, language and text.

    documents of a shard ──sort_part──▶ PART.bin, PART.idx, PART.rows ──merge_parts──▶ NAME.bin, NAME.idx, …

Every part is sorted by the key, so the documents between two keys are contiguous in each part, and merging
goes through the range of keys bucket by bucket. That is a full shuffle with memory for one bucket and about
20 bytes per document, and files are read from start to end. It does not depend on shards or workers, because
the key does not. The ids themselves are reordered, not only the index: megatron-core, DeepSpeed and GPT-NeoX
use the order of the `.bin` file for that of the index when they join two data sets.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from data.dedup import training_index
from data.packing.indexed_dataset import Documents, Writer, with_ending

BUCKET_BYTES = 128 << 20
"""Approximate size of the ids in a bucket."""

ROWS = pa.schema([pa.field("key", pa.uint64()), pa.field("bytes", pa.int64()), *training_index.SCHEMA])
"""The row of a document: its key, the size of its text in UTF-8, and its row of `seen.parquet`."""


def order_key(record_id: str, language: str | None, text: bytes, seed: int) -> int:
    """64 bits that determine a document's position."""
    digest = xxhash.xxh3_64(f"{record_id} {language} ".encode(), seed)
    digest.update(text)
    return digest.intdigest()


def sort_part(unsorted: Path, rows: Sequence[pa.RecordBatch], part: Path, vocabulary_size: int) -> None:
    """Write the documents of a shard and their rows sorted by key, and remove the unsorted ones."""
    table = pa.Table.from_batches(rows, ROWS).combine_chunks()
    order = np.argsort(table["key"].to_numpy(), kind="stable")
    documents = Documents(unsorted)
    with Writer(part, vocabulary_size) as writer:
        for number in order.tolist():
            writer.add(documents[number])
    with pa.OSFile(str(with_ending(part, ".rows")), "wb") as sink, pa.ipc.new_file(sink, ROWS) as file:
        file.write_table(table.take(pa.array(order)))
    for ending in (".bin", ".idx"):
        with_ending(unsorted, ending).unlink()


def merge_parts(
    parts: Sequence[Path],
    name: Path,
    vocabulary_size: int,
    seen_file: Path | None,
    bucket_bytes: int = BUCKET_BYTES,
) -> None:
    """Write the documents of all parts, sorted by key, as `NAME.bin`, `NAME.idx` and `NAME.bytes.npy`.

    `seen_file`, if given, gets their rows as Parquet, one row group per bucket.
    """
    documents = [Documents(part) for part in parts]
    keys = [_rows(part)["key"].to_numpy().copy() for part in parts]
    total = sum(int(each.lengths.sum(dtype=np.int64)) * each.dtype.itemsize for each in documents)
    buckets = max(1, -(-total // bucket_bytes))
    edges = [number * 2**64 // buckets for number in range(1, buckets)]
    inner = [np.searchsorted(each, np.array(edges, np.uint64)) for each in keys]
    bounds = [np.concatenate([[0], cuts, [len(each)]]) for cuts, each in zip(inner, keys, strict=True)]
    sizes = [np.empty(0, np.int64)]
    sink = pq.ParquetWriter(seen_file, training_index.SCHEMA, compression="zstd") if seen_file else None
    with Writer(name, vocabulary_size) as writer:
        for bucket in range(buckets):
            spans = [(int(each[bucket]), int(each[bucket + 1])) for each in bounds]
            pieces = [each[first:stop] for each, (first, stop) in zip(keys, spans, strict=True)]
            order = np.argsort(np.concatenate(pieces), kind="stable")
            lengths = [each.lengths[first:stop] for each, (first, stop) in zip(documents, spans, strict=True)]
            ids = b"".join(each.raw(*span) for each, span in zip(documents, spans, strict=True))
            writer.add_reordered(ids, np.concatenate(lengths), order)
            tables = [
                _rows(part).slice(first, stop - first)
                for part, (first, stop) in zip(parts, spans, strict=True)
            ]
            rows = pa.concat_tables(tables).take(pa.array(order))
            sizes.append(rows["bytes"].to_numpy())
            if sink:
                sink.write_table(rows.select(training_index.SCHEMA.names), row_group_size=max(1, len(rows)))
    if sink:
        sink.close()
    np.save(with_ending(name, ".bytes.npy"), np.concatenate(sizes))


def _rows(part: Path) -> pa.Table:
    """The rows of a part, memory-mapped."""
    with pa.memory_map(str(with_ending(part, ".rows"))) as source:
        return pa.ipc.open_file(source).read_all()
