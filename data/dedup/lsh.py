"""Candidate pairs for exact comparison, by locality-sensitive hashing of MinHash signatures.

    signatures ──▶ band keys ──sort each band──▶ buckets ──▶ pairs whose signatures agree enough

Two signatures share a bucket if all rows of one band agree: of pairs with Jaccard index J, the share
1 - (1 - J^rows)^bands does so for some band. Such a pair is kept if its signatures agree in as many bins as
expected at the threshold, less two standard deviations: almost no pair above it is lost, and shared
boilerplate only costs a comparison of two signatures, not of two texts. A band's key has 32 bits; that two
different bands have one key costs a comparison, too.

Records are numbered by preference. In a bucket of more than `bucket_cap` records, the `bucket_cap` most
preferred ones are compared with all others, but the others not with one another: work stays linear in the
size of the corpus, whatever its boilerplate. A pair that is skipped here can still be found in other bands.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.provenance.atomic_io import scratch_array
from data.dedup.minhash import Signatures
from data.dedup.normalise import Hashes, Indices, kernel

MEMORY_BYTES = 512 << 20
"""Larger arrays are in files."""
ROOM = 1 << 20
"""Pairs that are collected before repetitions are removed."""
HALF, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


class Candidates(NamedTuple):
    """Pairs to compare, and statistics."""

    left: Indices
    right: Indices
    """The less preferred one: left < right. Sorted by (left, right), each pair once."""
    capped_buckets: int
    """Buckets larger than the cap."""
    skipped_pairs: int
    """Pairs of those buckets that were not compared there."""


class Bands:
    """The signatures of N records and the keys of their bands; in files of a folder, if they are large."""

    def __init__(self, folder: Path, records: int, bands: int, rows: int) -> None:
        is_large = 4 * records * bands * (rows + 1) > MEMORY_BYTES
        shapes = {"signatures.u32": (records, bands * rows), "bands.u32": (bands, records)}
        self._signatures, self._keys = (
            scratch_array(folder / name, np.uint32, shape) if is_large else np.empty(shape, np.uint32)
            for name, shape in shapes.items()
        )
        self._rows = rows

    def put(self, numbers: Indices, signatures: Signatures) -> None:
        """Store the signatures of some records."""
        self._signatures[numbers] = signatures
        keys = np.empty((self._keys.shape[0], len(numbers)), np.uint32)
        _band_keys(signatures, self._rows, keys)
        self._keys[:, numbers] = keys

    def candidates(self, threshold: float, bucket_cap: int, known: int) -> Candidates:
        """The candidate pairs; two of the first `known` records are never compared."""
        bins = self._signatures.shape[1]
        least = math.floor(bins * threshold - 2 * math.sqrt(bins * threshold * (1 - threshold)))
        counts = np.zeros(2, np.int64)
        pairs, found = np.empty(0, np.uint64), [np.empty(0, np.uint64)]
        signatures = np.asarray(self._signatures)
        for band in self._keys:
            # Buckets, and by preference within one: sorted as numbers, which is faster than by argsort.
            places = (np.asarray(band, np.uint64) << HALF) | np.arange(len(band), dtype=np.uint64)
            places.sort()
            found.append(_pairs(places, signatures, max(least, 0), bucket_cap, known, counts))
            if sum(map(len, found)) > len(pairs) + ROOM:
                pairs, found = np.unique(np.concatenate((pairs, *found))), []
        pairs = np.unique(np.concatenate((pairs, *found)))
        left, right = (
            (pairs >> HALF).astype(np.int64),
            (pairs & LOW).astype(np.int64),
        )
        return Candidates(left, right, int(counts[0]), int(counts[1]))


@kernel
def _band_keys(signatures: Signatures, rows: int, keys: Signatures) -> None:
    for record in range(keys.shape[1]):
        for band in range(keys.shape[0]):
            key = np.uint64(0)
            for i in range(band * rows, (band + 1) * rows):
                key = (key ^ np.uint64(signatures[record, i])) * np.uint64(0x9E3779B97F4A7C15)
                key ^= key >> np.uint64(32)
            keys[band, record] = np.uint32(key)


@kernel
def _pairs(
    places: Hashes, signatures: Signatures, least: int, cap: int, known: int, counts: Indices
) -> Hashes:
    """All pairs in a bucket that agree in at least `least` bins, as left << 32 | right; `places` is
    key << 32 | record, sorted."""
    found = np.empty(1024, np.uint64)
    size = 0
    start = 0
    while start < len(places):
        stop = start + 1
        while stop < len(places) and places[stop] >> HALF == places[start] >> HALF:
            stop += 1
        if stop - start > cap:
            beyond = stop - start - cap
            counts[0] += 1
            counts[1] += beyond * (beyond - 1) // 2
        for i in range(start, min(stop, start + cap)):
            left = np.int64(places[i] & LOW)
            for j in range(i + 1, stop):
                right = np.int64(places[j] & LOW)
                if right < known:
                    continue
                agreeing = 0
                for b in range(signatures.shape[1]):
                    agreeing += signatures[left, b] == signatures[right, b]
                if agreeing >= least:
                    if size == len(found):
                        found = np.concatenate((found, np.empty(size, np.uint64)))
                    found[size] = np.uint64(left) << HALF | np.uint64(right)
                    size += 1
        start = stop
    return found[:size]
