"""The keys by which texts are compared, computed at memory speed; keys are never trained on.

A key is a text without case, white space, punctuation, width and the difference between Traditional and
Simplified characters. If at least a quarter of a text's bytes are Han characters or kana, its n-grams are of
characters and its key has no spaces; otherwise they are of words, and the key has one space between words.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

Bytes = npt.NDArray[np.uint8]
Units = npt.NDArray[np.uint16]
Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Int = int | np.int64
F = TypeVar("F", bound=Callable[..., Any])

SPACE = np.uint16(32)
ONE, TWO, THREE, FOUR, SIX, TWELVE = map(np.uint64, (1, 2, 3, 4, 6, 12))
LEAD, LOW_4, LOW_6 = np.uint64(0xE), np.uint64(0xF), np.uint64(0x3F)
"""UTF-8: the high half of the first of three bytes, and the bits of a byte that belong to the character."""
TEXTS = ("title", "abstract", "claims", "description")
BATCH_ROWS = 256


class Keys(NamedTuple):
    """The keys of D texts, one after the other."""

    units: Units
    """UTF-16 code units of all keys."""
    bounds: Indices
    """D + 1: key d is `units[bounds[d]:bounds[d + 1]]`."""
    words: Flags
    """D: whether the n-grams of key d are words, not characters."""


def fold(texts: Sequence[str] | pa.Array) -> Keys:
    """The keys of texts (also of an Arrow array of strings, without copying it); null is an empty text."""
    array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    array = array.cast(pa.large_string()).fill_null("")
    _, bounds_buffer, data_buffer = array.buffers()
    bounds = np.frombuffer(bounds_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)
    units = np.empty(int(bounds[-1] - bounds[0]) if len(array) else 0, np.uint16)
    ends = np.zeros(len(array) + 1, np.int64)
    words = np.empty(len(array), np.bool_)
    _fold(data, bounds, folding(), units, ends, words)
    return Keys(units[: ends[-1]], ends, words)


def digests(keys: Keys) -> Hashes:
    """D x 2: xxh3 of every key in 128 bits; zeros for an empty one."""
    view = memoryview(keys.units.data).cast("B")
    found = [
        xxhash.xxh3_128_digest(view[2 * start : 2 * end]) if end > start else bytes(16)
        for start, end in zip(keys.bounds.tolist(), keys.bounds[1:].tolist(), strict=False)
    ]
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, 2)


def kernel(function: F) -> F:
    """Compile at the first call; the machine code is cached on disk, or compiled in every process if no
    folder is writable."""
    try:
        return cast(F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True)(function))


def read_batches(shard: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a shard of records in order, a few megabytes at a time."""
    with pq.ParquetFile(shard, memory_map=True) as file:
        yield from file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False)


def whole_texts(batch: pa.RecordBatch) -> pa.Array:
    """The whole text of each record of a batch: title, abstract, claims and description, one per line."""
    columns = [batch[name] if name != "claims" else pc.binary_join(batch[name], "\n") for name in TEXTS]
    separator = pa.scalar("\n", pa.large_string())
    wide = [column.cast(pa.large_string()) for column in columns]  # together they may exceed 2 GB
    return pc.binary_join_element_wise(*wide, separator, null_handling="skip")


@lru_cache(maxsize=1)
def folding() -> Units:
    """The unit of a key for each UTF-16 unit: a lower-case, half-width, Simplified letter, digit or mark, or
    0 for separators. Units of a surrogate pair are unchanged."""
    import opencc

    table = np.zeros(1 << 16, np.uint16)
    folded = [chr(code) for code in range(1 << 16)]
    for code in range(1 << 16):
        if 0xD800 <= code < 0xE000:
            table[code] = code
            continue
        for change in (_half_width, str.lower):
            changed = change(folded[code])
            if len(changed) == 1 and changed < "\U00010000":
                folded[code] = changed
        if unicodedata.category(folded[code])[0] in "LNM":
            table[code] = ord(folded[code])
    # One character per line: the conversion of phrases would make a key depend on its neighbours.
    han = [code for code in range(0x3400, 0xFB00) if unicodedata.name(folded[code], "").startswith("CJK")]
    simplified = opencc.OpenCC("t2s").convert("\n".join(folded[code] for code in han)).split("\n")
    for code, character in zip(han, simplified, strict=True):
        if len(character) == 1 and ord(character) < 1 << 16:
            table[code] = ord(character)
    return table


def _half_width(character: str) -> str:
    return unicodedata.normalize("NFKC", character)


@kernel
def _fold(data: Bytes, bounds: Indices, table: Units, units: Units, ends: Indices, words: Flags) -> None:
    """Decode UTF-8, fold, and write the keys one after the other.

    A unit is always written, and kept by advancing: a branch at each punctuation mark would be mispredicted.
    """
    at: Int = 0
    for d in range(len(words)):
        place, stop = bounds[d], bounds[d + 1]
        han = np.uint64(0)
        for i in range(np.uint64(place), np.uint64(stop)):
            han += np.uint64(0xE3 <= data[i] <= 0xE9)  # first byte of U+3000 to U+9FFF, three bytes each
        words[d] = 12 * np.int64(han) < stop - place or han == 0
        if words[d]:
            at = _fold_words(data, place, stop, table, units, at)
        else:
            at = _fold_characters(data, place, stop, table, units, at)
        ends[d + 1] = at


@kernel
def _fold_characters(data: Bytes, place: int, stop: int, table: Units, units: Units, at: Int) -> Int:
    """One text, without spaces. Indices are unsigned, so that none is checked for being negative: half the
    time."""
    i, end, out = np.uint64(place), np.uint64(stop), np.uint64(at)
    while i < end:
        byte = np.uint64(data[i])
        if byte >> FOUR == LEAD:  # three bytes, as nearly all here
            second, third = np.uint64(data[i + ONE]), np.uint64(data[i + TWO])
            unit = table[(byte & LOW_4) << TWELVE | (second & LOW_6) << SIX | third & LOW_6]
            units[out] = unit
            out += np.uint64(unit != 0)
            i += THREE
        else:
            code, after = _decode(data, np.int64(i))
            i = np.uint64(after)
            if code < 1 << 16:
                units[out] = table[code]
                out += np.uint64(table[code] != 0)
            else:
                out = np.uint64(_put_pair(units, np.int64(out), code))
    return np.int64(out)


@kernel
def _fold_words(data: Bytes, place: Int, stop: Int, table: Units, units: Units, at: Int) -> Int:
    """One text, with a space between two words."""
    first, gap = at, False
    while place < stop:
        code, place = _decode(data, place)
        kept = bool(code >= 1 << 16 or table[code] != 0)
        units[at] = SPACE
        at += int(gap and kept and at > first)
        gap = not kept
        if code < 1 << 16:
            units[at] = table[code]
            at += int(kept)
        else:
            at = _put_pair(units, at, code)
    return at


@kernel
def _put_pair(units: Units, at: Int, code: np.int64) -> Int:
    units[at] = np.uint16(0xD800 + ((code - (1 << 16)) >> 10))
    units[at + 1] = np.uint16(0xDC00 + (code & 0x3FF))
    return at + 2


@kernel
def _decode(data: Bytes, place: Int) -> tuple[np.int64, Int]:
    """The code point that begins at a byte of UTF-8, and the place after it."""
    code = np.int64(data[place])
    if code < 0x80:
        return code, place + 1
    second = np.int64(data[place + 1] & 0x3F)
    if code < 0xE0:
        return (code & 0x1F) << 6 | second, place + 2
    third = np.int64(data[place + 2] & 0x3F)
    if code < 0xF0:
        return (code & 0x0F) << 12 | second << 6 | third, place + 3
    return (code & 0x07) << 18 | second << 12 | third << 6 | np.int64(data[place + 3] & 0x3F), place + 4
