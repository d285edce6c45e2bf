"""The exact codec: encode one chunk of a tensor against the same chunk of its base, and decode it.

Floats are mapped to integers that have the order of the floats, so a small change of a value is a small
difference whatever its sign and exponent. The difference wraps around and is zigzag-encoded (0, -1, 1, -2 …
to 0, 1, 2, 3 …). The size of the difference for a given relative change depends only on the exponent, so
elements are sorted stably by the exponent of the *base*; the decoder has the base and needs no extra data.
The bytes are then split into planes (all lowest bytes, all second lowest …), each compressed as one zstd
frame.

Every bit pattern is preserved: -0.0, infinities and NaNs with their payloads are integers like any other.
"""

import struct
import threading
from typing import Any

import numpy as np
import zstandard

from core.errors import UserError
from delta.kernel import kernel

CHUNK_ELEMENTS = 1 << 20
"""For elements of at most 16 bits; a chunk of larger elements has as many bytes."""
ITEMSIZE = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes per element, by the dtype's name in safetensors."""
EXPONENT = {"BF16": (7, 0xFF), "F16": (10, 0x1F), "F32": (23, 0xFF), "F64": (52, 0x7FF)}
"""Position of a float's exponent: number of bits below it, and mask."""
COMPILED = ("BF16", "F16")
"""Dtypes that kernel.c supports."""
LEVEL = 1
FAST = {"hash_log": 6, "min_match": 7}
"""Noise has no matches worth encoding. A hash table of 64 entries finds the runs a third faster than level
1's own, and the matches that it misses would make the frame longer."""
SPARSE = (5, 50)
"""Range of compression ratios at level 1 for which a slower search is tried: such a plane is mostly zeros. At
a higher ratio there is too little left to gain."""

Array = np.ndarray[Any, np.dtype[Any]]
_local = threading.local()


def encode(target: bytes, base: bytes, dtype: str) -> bytes:
    """A chunk's payload: the length of each byte plane's zstd frame (u32, little-endian), then the frames.

    Both are little-endian elements of `dtype`. If the base is shorter (new rows), it is padded with zeros.
    """
    size = ITEMSIZE[dtype]
    now = np.frombuffer(target, f"<i{size}")
    before = _padded(base, now.size, size)
    compiled = kernel() if dtype in COMPILED else None
    planes = compiled.split(now, before, *EXPONENT[dtype]) if compiled else split(now, before, dtype)
    frames = [_compress(plane) for plane in planes]
    return struct.pack(f"<{size}I", *map(len, frames)) + b"".join(frames)


def decode(payload: bytes, base: bytes, elements: int, dtype: str) -> bytes:
    """The target's chunk; the inverse of `encode`. UserError if the payload is not valid for this size."""
    size = ITEMSIZE[dtype]
    before = _padded(base, elements, size)
    if len(payload) < 4 * size:
        raise UserError("a chunk is too short for the lengths of its planes")
    lengths = struct.unpack_from(f"<{size}I", payload)
    planes = []
    position = 4 * size
    for length in lengths:
        planes.append(_decompress(payload[position : position + length], elements))
        position += length
    compiled = kernel() if dtype in COMPILED else None
    if compiled:
        low, high = planes
        return compiled.merge(low, high, before, *EXPONENT[dtype]).tobytes()
    return merge(planes, before, dtype).tobytes()


def split(now: Array, before: Array, dtype: str) -> list[Array]:
    """Zigzag-encoded differences, grouped by the base's exponent, as byte planes, the lowest first."""
    size = ITEMSIZE[dtype]
    difference = _monotone(now, dtype) - _monotone(before, dtype)
    zigzag = (difference << 1) ^ (difference >> (8 * size - 1))
    order = _order(before, dtype)
    grouped = zigzag if order is None else zigzag.take(order)
    return [np.ascontiguousarray(plane) for plane in grouped.view(np.uint8).reshape(-1, size).T]


def merge(planes: list[bytes], before: Array, dtype: str) -> Array:
    """The inverse of `split`."""
    size = ITEMSIZE[dtype]
    grouped = np.empty((before.size, size), np.uint8)
    for number, plane in enumerate(planes):
        grouped[:, number] = np.frombuffer(plane, np.uint8)
    zigzag = grouped.reshape(-1).view(f"<u{size}")
    # Odd numbers have all bits inverted, even ones none.
    difference = ((zigzag >> 1) ^ -(zigzag & 1)).view(f"<i{size}")
    order = _order(before, dtype)
    if order is not None:
        scattered = np.empty_like(difference)
        scattered[order] = difference
        difference = scattered
    return _monotone(_monotone(before, dtype) + difference, dtype)


def chunk_elements(dtype: str) -> int:
    """The number of elements in a chunk."""
    return CHUNK_ELEMENTS * 2 // max(2, ITEMSIZE[dtype])


def payload_bounds(elements: int, dtype: str) -> tuple[int, int]:
    """The minimum and maximum size in bytes of the payload of `elements` elements."""
    chunks = -(-elements // chunk_elements(dtype))
    planes = chunks * ITEMSIZE[dtype]
    # Upper bound on the size of a zstd frame (ZSTD_COMPRESSBOUND).
    return 4 * planes, elements * ITEMSIZE[dtype] * 257 // 256 + planes * (4 + 512)


def _padded(base: bytes, elements: int, size: int) -> Array:
    missing = elements * size - len(base)
    return np.frombuffer(base + bytes(missing) if missing else base, f"<i{size}")


def _monotone(bits: Array, dtype: str) -> Array:
    """Signed integers in the order of the floats; its own inverse. Integer dtypes are returned unchanged."""
    if dtype not in EXPONENT:
        return bits
    size = ITEMSIZE[dtype]
    ordered: Array = bits ^ ((bits >> (8 * size - 1)) & np.iinfo(bits.dtype).max)
    return ordered


def _order(base: Array, dtype: str) -> Array | None:
    """The stable order of the elements by the base's exponent; None for dtypes without one."""
    if dtype not in EXPONENT:
        return None
    shift, mask = EXPONENT[dtype]
    # numpy uses a radix sort for integers of up to 16 bits.
    exponents = ((base >> shift) & mask).astype(np.uint16 if mask > 0xFF else np.uint8)
    order: Array = np.argsort(exponents, kind="stable")
    return order


def _compress(plane: Array) -> bytes:
    if not hasattr(_local, "compressors"):
        settings = (FAST, {"strategy": zstandard.STRATEGY_GREEDY, "min_match": 6})
        _local.compressors = [
            zstandard.ZstdCompressor(
                compression_params=zstandard.ZstdCompressionParameters.from_level(LEVEL, **changed)
            )
            for changed in settings
        ]
    first, second = _local.compressors
    frame: bytes = first.compress(plane)
    if SPARSE[0] * len(frame) < len(plane) < SPARSE[1] * len(frame):
        frame = min(frame, second.compress(plane), key=len)
    return frame


def _decompress(frame: bytes, length: int) -> bytes:
    """Decompress one zstd frame of exactly `length` bytes; the size it claims is checked first."""
    try:
        claimed = zstandard.get_frame_parameters(frame).content_size
        if claimed != length:
            raise UserError(f"a zstd frame claims to contain {claimed:,} bytes instead of {length:,}")
        if not hasattr(_local, "decompressor"):
            _local.decompressor = zstandard.ZstdDecompressor()
        content: bytes = _local.decompressor.decompress(frame, max_output_size=length)
    except zstandard.ZstdError as error:
        raise UserError(f"a zstd frame is damaged ({error})") from None
    if len(content) != length:
        raise UserError(f"a zstd frame contains {len(content):,} bytes instead of {length:,}")
    return content
