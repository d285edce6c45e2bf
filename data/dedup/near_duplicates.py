"""Near-duplicates among records: pairs by hashing (data/dedup/lsh.py), then exact Jaccard of their folded
texts.

    shard-*.keys ──signatures──▶ bands ──▶ pairs ──texts of those records only──▶ prune

A record is dropped only if a kept one is similar by exact comparison. Short texts must have the same title
too: of two designs, the office's formula is most of the text. Texts are read from the shards in one
pass; the folded texts of all pairs are in memory during the comparison or, if they are large, in a file.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from core.provenance.atomic_io import scratch_array
from data.dedup.fingerprints import KeyConfig, KeyedShard, key_batches
from data.dedup.lsh import MEMORY_BYTES, Bands
from data.dedup.minhash import prune
from data.dedup.normalise import (
    TEXTS,
    Hashes,
    Indices,
    Keys,
    digests,
    fold,
    read_batches,
    whole_texts,
)

SHORT_NGRAMS = 200
"""A text with fewer distinct n-grams is short: its near duplicates have the same title, apart from case,
width, punctuation and script (benchmarks/near_threshold.py)."""


class NearConfig(KeyConfig):
    """When texts are near duplicates."""

    threshold: float = Field(0.6, gt=0, le=1)
    """Minimum Jaccard index of the sets of n-grams of near duplicates."""
    bucket_cap: int = Field(100, ge=2)
    """Number of records in a bucket that are compared with all others in it; see data/dedup/lsh.py."""


class Near(NamedTuple):
    """The near duplicates among N records."""

    kept_for: Indices
    """N: the record for which this one is dropped, or -1."""
    jaccards: npt.NDArray[np.float64]
    """N: their Jaccard index."""
    counts: dict[str, int]
    """Pairs that hashing found, that were compared (in the others the right one was already dropped) and that
    were similar; buckets over the cap, and pairs skipped there."""


def near(
    config: NearConfig,
    parts: Sequence[KeyedShard],
    where: Indices,
    row: Indices,
    lengths: Indices,
    known: int,
    scratch: Path,
) -> Near:
    """Drop the less preferred of similar records; the N records are in order of preference.

    `where` and `row` (N each) are the shard and row of each record, `lengths` the UTF-16 units of its folded
    text; none of the first `known` is dropped. The signatures and the texts of all records in pairs are
    written to `scratch`, if they are large.
    """
    bands = Bands(scratch, len(where), config.bands, config.rows)
    for part, numbers in _by_part(parts, np.arange(len(where)), where, row):
        for batch, here, rows in _matched(key_batches(config, part), row[numbers]):
            signed = np.frombuffer(batch["signature"].buffers()[1], np.uint32).reshape(len(batch), -1)
            bands.put(numbers[here], signed[rows])
    pairs = bands.candidates(config.threshold, config.bucket_cap, known)
    numbers = np.unique(np.concatenate((pairs.left, pairs.right)))
    keys, titles, place = _fetch(parts, numbers, where, row, lengths, scratch / "texts.u16")
    sizes, sides = (config.characters, config.words), (place[pairs.left], place[pairs.right])
    kept, jaccards, (compared, alike) = prune(keys, *sizes, *sides, config.threshold, titles, SHORT_NGRAMS)
    kept_for, index = np.full(len(where), -1), np.zeros(len(where))
    number_at = np.empty(len(numbers), np.int64)
    number_at[place[numbers]] = numbers
    goes = np.flatnonzero(kept >= 0)
    kept_for[number_at[goes]] = number_at[kept[goes]]
    index[number_at[goes]] = jaccards[goes]
    counts = {
        "candidate_pairs": len(pairs.left),
        "compared_pairs": int(compared),
        "alike_pairs": int(alike),
        "capped_buckets": pairs.capped_buckets,
        "skipped_pairs": pairs.skipped_pairs,
    }
    return Near(kept_for, index, counts)


def _fetch(
    parts: Sequence[KeyedShard], numbers: Indices, where: Indices, row: Indices, lengths: Indices, path: Path
) -> tuple[Keys, Hashes, Indices]:
    """The folded texts of some records and hashes of their folded titles, and the place of each record's
    number among them."""
    place = np.full(len(where), -1)
    size = int(lengths[numbers].sum())
    large = 2 * size > MEMORY_BYTES
    units = scratch_array(path, np.uint16, size) if large else np.empty(size, np.uint16)
    bounds, words = np.zeros(len(numbers) + 1, np.int64), np.zeros(len(numbers), bool)
    titles, fetched = np.empty(len(numbers), np.uint64), 0
    for part, some in _by_part(parts, numbers, where, row):
        for batch, here, rows in _matched(read_batches(part.shard, TEXTS), row[some]):
            records = batch.take(pa.array(rows))
            folded = fold(whole_texts(records))
            stop, start = fetched + len(rows), bounds[fetched]
            bounds[fetched + 1 : stop + 1] = start + folded.bounds[1:]
            units[start : bounds[stop]] = folded.units
            words[fetched:stop] = folded.words
            titles[fetched:stop] = digests(fold(records["title"]))[:, 0]
            place[some[here]] = np.arange(fetched, stop)
            fetched = stop
    return Keys(np.asarray(units), bounds, words), titles, place


def _by_part(
    parts: Sequence[KeyedShard], numbers: Indices, where: Indices, row: Indices
) -> Iterator[tuple[KeyedShard, Indices]]:
    """Each shard with some of the records, and their numbers in the order of its rows."""
    numbers = numbers[np.lexsort((row[numbers], where[numbers]))]
    bounds = np.searchsorted(where[numbers], np.arange(len(parts) + 1))
    for part, start, stop in zip(parts, bounds, bounds[1:], strict=False):
        if stop > start:
            yield part, numbers[start:stop]


def _matched(
    batches: Iterable[pa.RecordBatch], rows: Indices
) -> Iterator[tuple[pa.RecordBatch, slice, Indices]]:
    """Each batch with some of the (sorted) rows, which of them, and their positions in the batch."""
    start = 0
    for batch in batches:
        first, last = np.searchsorted(rows, (start, start + len(batch)))
        if last > first:
            yield batch, slice(first, last), rows[first:last] - start
        start += len(batch)
