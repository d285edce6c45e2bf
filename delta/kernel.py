"""The functions of kernel.c, if they have been compiled (`bash setup.sh kernel`).

The same is done with numpy otherwise, more slowly. ctypes releases the GIL during a call.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 2
Bits = np.ndarray[Any, np.dtype[np.uint16]]


class Kernel:
    """Loops over 16-bit elements; all arrays must be contiguous."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, count, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        self._split, self._merge, self._add = library.delta_split, library.delta_merge, library.delta_add
        self._split.argtypes = [pointer, pointer, count, number, number, pointer, pointer, pointer]
        self._merge.argtypes = [pointer, pointer, pointer, count, number, number, pointer, pointer]
        self._add.argtypes = [pointer, pointer, count, number, ctypes.c_float, pointer]
        for function in (self._split, self._merge, self._add):
            function.restype = None

    def split(self, target: Bits, base: Bits, shift: int, mask: int) -> list[np.ndarray[Any, Any]]:
        """Zigzag-encoded differences grouped by the base's exponent: low bytes, high bytes."""
        _check(target.size, base.size)
        grouped = np.empty(target.size, np.uint16)
        planes = [np.empty(target.size, np.uint8) for _ in range(2)]
        self._split(*_places(target, base), target.size, shift, mask, *_places(grouped, *planes))
        return planes

    def merge(self, low: bytes, high: bytes, base: Bits, shift: int, mask: int) -> Bits:
        """The inverse of `split`."""
        _check(len(low), len(high), base.size)
        grouped, target = np.empty(base.size, np.uint16), np.empty(base.size, np.uint16)
        self._merge(low, high, *_places(base), base.size, shift, mask, *_places(grouped, target))
        return target

    def add(self, half: Bits, base: Bits, *, base_is_bf16: bool, sign: int) -> Bits:
        """Sums or differences in fp16, rounded once."""
        _check(half.size, base.size)
        total = np.empty(half.size, np.uint16)
        self._add(*_places(half, base), half.size, base_is_bf16, sign, *_places(total))
        return total


@cache
def kernel() -> Kernel | None:
    """The compiled functions; None if there are none, or they are for another version or machine."""
    return load(Path(__file__).with_name("libkernel.so"))


def load(path: Path) -> Kernel | None:
    """The functions of a compiled file, or None if it cannot be used."""
    if not path.is_file():
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # compiled on another kind of machine
        return None
    return Kernel(library) if library.delta_kernel_version() == VERSION else None


def _check(*lengths: int) -> None:
    """ValueError if the lengths differ: C would read past the end of the shorter array."""
    if len(set(lengths)) > 1:
        raise ValueError(f"arrays of {lengths} elements")


def _places(*arrays: np.ndarray[Any, Any]) -> list[int]:
    return [array.ctypes.data for array in arrays]
