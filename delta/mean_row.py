"""An embedding with the row that Stanford Alpaca adds to its base: the mean of all rows, in float32.

torch's sum is repeated to the last bit. It adds rows to partial sums, and those to others in four levels, so
that rounding errors stay small; the columns beyond a multiple of 32 are added four rows at a time. (Where
columns are left over, torch's last bits differ with the number of threads and with AVX-512.)
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np

from delta.lora_merge import as_float32
from delta.safetensors_io import Tensor, read_pieces

Array = np.ndarray[Any, np.dtype[np.float32]]
LEVELS, BLOCK, TOGETHER = 4, 32, 4
PIECE_BYTES = 1 << 20


def with_mean_row(tensor: Tensor, piece_elements: int) -> Iterator[bytes]:
    """The matrix in float32 with one row more, in pieces of so many elements."""
    left = b""
    for rows in chain(_rows(tensor), [mean_of_rows(tensor)[None]]):
        left += rows.tobytes()
        while len(left) >= 4 * piece_elements:
            yield left[: 4 * piece_elements]
            left = left[4 * piece_elements :]
    if left:
        yield left


def mean_of_rows(tensor: Tensor) -> Array:
    """The mean of a matrix's rows, as torch's `mean(dim=0)` of the float32 matrix."""
    number, columns = tensor.shape
    wide = columns // BLOCK * BLOCK
    total = _cascade((row[:wide] for piece in _rows(tensor) for row in piece), number, (wide,))
    rest = np.concatenate([piece[:, wide:] for piece in _rows(tensor)])
    groups = number // TOGETHER
    grouped = rest[: TOGETHER * groups].reshape(groups, TOGETHER, columns - wide)
    parts = _cascade(grouped, groups, (TOGETHER, columns - wide))
    for row in rest[TOGETHER * groups :]:
        parts[0] += row
    for part in parts[1:]:
        parts[0] += part
    return (np.concatenate([total, parts[0]]) / np.float32(number)).astype(np.float32)


def _cascade(rows: Iterable[Array], number: int, shape: tuple[int, ...]) -> Array:
    """The sum of `number` rows of a shape."""
    power = max(4, (max(number, 1) - 1).bit_length() // LEVELS)
    mask = (1 << power) - 1
    sums = np.zeros((LEVELS, *shape), np.float32)
    for count, row in enumerate(rows, 1):
        sums[0] += row
        for level in range(1, LEVELS):
            if count & (mask << ((level - 1) * power)):
                break
            sums[level] += sums[level - 1]
            sums[level - 1] = 0
    for level in range(1, LEVELS):
        sums[0] += sums[level]
    total: Array = sums[0]
    return total


def _rows(tensor: Tensor) -> Iterator[Array]:
    """Some rows at a time, as float32."""
    row_bytes = tensor.size // tensor.shape[0]
    for piece in read_pieces(tensor, max(1, PIECE_BYTES // row_bytes) * row_bytes):
        yield as_float32(piece, tensor.dtype).reshape(-1, tensor.shape[1])
