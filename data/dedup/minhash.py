"""N-grams of keys (data/dedup/normalise.py): their hashes, MinHash signatures and exact Jaccard, at memory
speed.

    keys ──▶ grams        64 bits for every n-gram, for overlaps
         ──▶ signatures   MinHash of the set of n-grams, for near-duplicates
         ──▶ prune        exact Jaccard of pairs

A key with fewer characters or words than n is a single n-gram. N-grams are compared by 64-bit hashes, so two
different ones count as equal once in 10^19 comparisons.

All kernels over n-grams are in this file: numba detects outdated machine code on disk by the file of a
kernel, not by the files of the kernels it calls.
"""

import numpy as np
import numpy.typing as npt

from data.dedup.normalise import (
    SPACE,
    Flags,
    Hashes,
    Indices,
    Keys,
    Units,
    fold,
    kernel,
)

Signatures = npt.NDArray[np.uint32]
Stamps = npt.NDArray[np.int32]

MOST_UNITS = 1 << 22
"""N-grams are taken from this many units at a key's start: more than any patent has, but bounded memory."""
EMPTY = np.uint32(0xFFFFFFFF)
"""A bin of a signature without an n-gram; only the signature of an empty key has any."""

_BASE = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def grams(keys: Keys, characters: int, words: int) -> tuple[Hashes, Indices]:
    """The hash of every n-gram of every key in order, with repetitions, and D + 1 bounds between the keys."""
    hashes = np.empty(len(keys.units), np.uint64)
    bounds = np.zeros(len(keys.bounds), np.int64)
    _grams_of_all(keys.units, keys.bounds, keys.words, characters, words, hashes, bounds)
    return hashes[: bounds[-1]], bounds


def signatures(keys: Keys, characters: int, words: int, bins: int) -> Signatures:
    """D x bins: MinHash signatures; two agree in a bin with the probability of their sets' Jaccard
    index.

    One-permutation hashing (Li, Owen and Zhang 2012). If a round leaves bins empty, further rounds with other
    hashes fill them (Dahlgaard, Knudsen and Thorup 2017), which keeps the variance of independent hashes for
    short texts too, unlike copying from neighbouring bins.
    """
    found = np.empty((len(keys.words), bins), np.uint32)
    _sign_all(keys.units, keys.bounds, keys.words, characters, words, found)
    return found


def prune(
    keys: Keys,
    characters: int,
    words: int,
    left: Indices,
    right: Indices,
    threshold: float,
    titles: Hashes,
    short: int,
) -> tuple[Indices, npt.NDArray[np.float64], Indices]:
    """Drop the right one of every pair whose exact Jaccard index is at least `threshold`, unless one of
    them is dropped already, or one has fewer than `short` distinct n-grams and their `titles` (a hash for
    each key) differ.

    Pairs are sorted by (left, right), left < right. So at most one of two similar texts is kept, and each
    dropped one is similar to one that is kept. Returns for each key the one for which it is dropped, or -1,
    and their Jaccard index; and the number of pairs compared and of pairs that are similar.
    """
    kept = np.full(len(keys.words), -1, np.int64)
    jaccards = np.zeros(len(keys.words))
    counts = np.zeros(2, np.int64)
    texts = keys.units, keys.bounds, keys.words
    _prune(*texts, characters, words, left, right, threshold, titles, short, kept, jaccards, counts)
    return kept, jaccards, counts


def jaccard(a: str, b: str, characters: int, words: int) -> float:
    """The exact Jaccard index of two texts' sets of n-grams; 0 if a text is empty."""
    pair = np.zeros(1, np.int64), np.ones(1, np.int64)
    return float(prune(fold([a, b]), characters, words, *pair, 0.0, np.zeros(2, np.uint64), 0)[1][1])


@kernel
def _mix(value: np.uint64) -> np.uint64:
    """A bijection in which every bit depends on every other (the last steps of SplitMix64)."""
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))


@kernel
def _grams(units: Units, start: int, stop: int, words: bool, n: int, hashes: Hashes) -> int:
    """Write the hashes of one key's n-grams and return their number: rolling over characters or words."""
    count = 0
    stop = min(stop, start + MOST_UNITS)
    if words:
        word = np.uint64(0)
        for i in range(start, stop):
            if units[i] == SPACE:
                hashes[count] = _mix(word)
                count += 1
                word = np.uint64(0)
            else:
                word = (word + np.uint64(units[i])) * _BASE
                word ^= word >> np.uint64(32)
        if stop > start:
            hashes[count] = _mix(word)
            count += 1
    else:
        count = stop - start
        for i in range(np.uint64(count)):
            hashed = (np.uint64(units[np.uint64(start) + i]) + _FIRST) * _SECOND
            hashes[i] = hashed ^ (hashed >> np.uint64(29))
    if count == 0:
        return 0
    size = min(n, count)
    oldest = np.uint64(1)
    rolling = np.uint64(0)
    for i in range(size):
        oldest *= _BASE
        rolling = rolling * _BASE + hashes[i]
    for i in range(np.uint64(count - size)):
        leaving = hashes[i] * oldest
        hashes[i] = _mix(rolling)
        rolling = rolling * _BASE + hashes[i + np.uint64(size)] - leaving
    hashes[count - size] = _mix(rolling)
    return count - size + 1


@kernel
def _grams_of_all(
    units: Units, bounds: Indices, words: Flags, n: int, m: int, hashes: Hashes, ends: Indices
) -> None:
    for d in range(len(words)):
        size = m if words[d] else n
        ends[d + 1] = ends[d] + _grams(units, bounds[d], bounds[d + 1], words[d], size, hashes[ends[d] :])


@kernel
def _longest(bounds: Indices) -> int:
    longest = 0
    for d in range(len(bounds) - 1):
        longest = max(longest, min(bounds[d + 1] - bounds[d], MOST_UNITS))
    return longest


@kernel
def _sign_all(units: Units, bounds: Indices, words: Flags, n: int, m: int, found: Signatures) -> None:
    hashes = np.empty(_longest(bounds), np.uint64)
    for d in range(len(words)):
        count = _grams(units, bounds[d], bounds[d + 1], words[d], m if words[d] else n, hashes)
        _sign(hashes, count, found[d])


@kernel
def _sign(hashes: Hashes, count: int, signature: npt.NDArray[np.uint32]) -> None:
    """Split every hash into a bin (high half) and a value (low half), and keep each bin's least value."""
    bins = np.uint64(len(signature))
    half = np.uint64(32)
    signature[:] = EMPTY
    for i in range(np.uint64(count)):
        place = ((hashes[i] >> half) * bins) >> half
        signature[place] = min(signature[place], np.uint32(hashes[i] & np.uint64(0xFFFFFFFE)))
    turn = np.uint64(0)
    while count > 0 and np.any(signature == EMPTY):
        turn += np.uint64(1)
        is_open = signature == EMPTY
        for i in range(count):
            value = _mix(hashes[i] + turn * _BASE)
            place = ((value >> half) * bins) >> half
            if is_open[place]:
                signature[place] = min(signature[place], np.uint32(value & np.uint64(0xFFFFFFFE)))


@kernel
def _find(table: Hashes, stamps: Stamps, mask: np.uint64, stamp: int, value: np.uint64) -> np.uint64:
    """The place of a value, or where it can be put, in the hash set of `stamp`."""
    place = (value >> np.uint64(20)) & mask
    while stamps[place] == stamp and table[place] != value:
        place = (place + np.uint64(1)) & mask
    return place


@kernel
def _put(table: Hashes, stamps: Stamps, mask: np.uint64, stamp: int, value: np.uint64) -> bool:
    """Put a value into a hash set; returns whether it is new."""
    place = _find(table, stamps, mask, stamp, value)
    is_new = stamps[place] != stamp
    stamps[place] = stamp
    table[place] = value
    return bool(is_new)


@kernel
def _mask(count: int) -> np.uint64:
    """The mask of places in a hash set that `count` values fill to at most a half."""
    mask = np.uint64(15)
    while mask < np.uint64(2 * count):
        mask = np.uint64(2) * mask + np.uint64(1)
    return mask


@kernel
def _prune(
    units: Units, bounds: Indices, words: Flags, n: int, m: int, left: Indices, right: Indices,
    threshold: float, titles: Hashes, short: int,
    kept: Indices, jaccards: npt.NDArray[np.float64], counts: Indices,
) -> None:  # fmt: skip
    longest = _longest(bounds)
    slots = np.int64(_mask(longest)) + 1
    hashes, table = np.empty(longest, np.uint64), np.empty(slots, np.uint64)
    stamps, met = np.zeros(slots, np.int32), np.zeros(slots, np.int32)
    other_table, other_stamps = np.empty(slots, np.uint64), np.zeros(slots, np.int32)
    current, size, mask, stamp = -1, 0, np.uint64(0), 0
    for pair in range(len(left)):
        a, b = left[pair], right[pair]
        if kept[a] >= 0 or kept[b] >= 0 or words[a] != words[b]:
            continue
        if a != current:
            current, stamp, size = a, stamp + 1, 0
            count = _grams(units, bounds[a], bounds[a + 1], words[a], m if words[a] else n, hashes)
            mask = _mask(count)
            for i in range(np.uint64(count)):
                size += _put(table, stamps, mask, stamp, hashes[i])
        count = _grams(units, bounds[b], bounds[b + 1], words[b], m if words[b] else n, hashes)
        other_mask = _mask(count)
        shared, others = 0, 0
        for i in range(np.uint64(count)):
            place = _find(table, stamps, mask, stamp, hashes[i])
            if stamps[place] != stamp:
                others += _put(other_table, other_stamps, other_mask, pair + 1, hashes[i])
            elif met[place] != pair + 1:
                met[place] = pair + 1
                shared += 1
        counts[0] += 1
        alike = shared / max(1, size + others)
        is_sure = titles[a] == titles[b] or min(size, shared + others) >= short
        if alike >= threshold and shared > 0 and is_sure:
            counts[1] += 1
            kept[b] = a
            jaccards[b] = alike
