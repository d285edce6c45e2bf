"""The repetition in a text, as in Gopher (https://arxiv.org/abs/2112.11446, table A1).

The share of characters in repeated lines, and in repeated n-grams. The units of an n-gram are characters in
Chinese, Japanese and Thai, words elsewhere. The n-grams are hashed by a compiled loop over the text's bytes;
this module loads numba, so import it only where it is needed.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from data.language import base

WORDS, CHARACTERS = 10, 20
"""Units in an n-gram."""
SPACELESS = ("zh", "ja", "th")


def repeated_lines(text: str) -> float:
    """The share of characters in lines that occurred before."""
    seen: set[str] = set()
    again = total = 0
    for line in text.split("\n"):
        total += len(line)
        if line in seen:
            again += len(line)
        else:
            seen.add(line)
    return again / total if total else 0.0


def repeated_ngrams(text: str, language: str | None) -> float:
    """The share of bytes, without white space, in n-grams that occurred before: 20 characters, or 10
    words."""
    spaceless = base(language or "") in SPACELESS
    data = np.frombuffer(text.encode(), np.uint8)
    return float(_repeated(data, CHARACTERS if spaceless else WORDS, spaceless))


@njit(cache=True)
def _repeated(data: npt.NDArray[np.uint8], n: int, spaceless: bool) -> float:
    """Bytes in n-grams seen before, over all bytes of units; a unit is a character or a word."""
    hashes = np.empty(len(data), np.uint64)
    lengths = np.empty(len(data), np.int32)
    units = 0
    inside = False
    for byte in data:
        if byte <= 32:
            inside = False
            continue
        if not inside or (spaceless and byte & 0xC0 != 0x80):
            hashes[units] = np.uint64(0xCBF29CE484222325)
            lengths[units] = 0
            units += 1
            inside = True
        hashes[units - 1] = (hashes[units - 1] ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        lengths[units - 1] += 1
    if units < n:
        return 0.0

    size = 2
    while size < 2 * units:
        size *= 2
    seen = np.zeros(size, np.uint64)
    base_number, oldest = np.uint64(0x9E3779B97F4A7C15), np.uint64(1)
    for _ in range(n):
        oldest *= base_number
    rolling = np.uint64(0)
    again, total, covered = 0, 0, 0
    for i in range(units):
        total += lengths[i]
        rolling = rolling * base_number + hashes[i]
        if i >= n:
            rolling -= hashes[i - n] * oldest
        if i < n - 1:
            continue
        mixed = (rolling ^ (rolling >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        key = mixed ^ (mixed >> np.uint64(32)) | np.uint64(1)
        place = np.int64(key & np.uint64(size - 1))
        while seen[place] != 0 and seen[place] != key:
            place = (place + 1) & (size - 1)
        if seen[place] == 0:
            seen[place] = key
            continue
        for j in range(max(covered, i - n + 1), i + 1):
            again += lengths[j]
        covered = i + 1
    return again / total
