"""Read and write safetensors files in pieces, without torch.

A file is a u64 (little-endian) with the header's length, the header (JSON: name to dtype, shape and offsets),
and the tensors' bytes without gaps. Nothing is used before it is checked: the header's length, its JSON, that
the tensors fill the file exactly, and that their sizes fit their shapes.

https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from core.errors import DiskError, UserError
from core.model import weight_files
from core.model.weight_files import has_control
from delta.codec import ITEMSIZE

HEADER_LIMIT = 100_000_000
UNSUPPORTED = ("F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64")
"""Types of safetensors that the format of deltas does not have."""
COMPUTED = re.compile(
    r"(^|[._])((original_)?inv_freq|cos_cached|sin_cached|masked_bias|position_ids|rope\.freqs)$"
)
"""Buffers that checkpoints of some years have. transformers computes them, and no longer saves them."""
CAUSAL_MASK = re.compile(r"(^|\.)(attn|attention)\.bias$")
"""In GPT-2 and GPT-NeoX such a buffer too, if its shape is 1 x 1 x length x length."""


@dataclass(frozen=True)
class Tensor:
    """The location of a tensor: `start` and `size` are bytes in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size: int

    @property
    def elements(self) -> int:
        """The number of elements; 1 for a scalar."""
        return math.prod(self.shape)


class Source(Protocol):
    """Where weights are read from: a model's folder, alone or with an adapter merged in."""

    tensors: dict[str, Tensor]
    headers: dict[str, str]
    files: list[Path]

    def read(self, name: str, piece_bytes: int) -> Iterator[bytes]:
        """The tensor's bytes, piece by piece."""
        ...


class ModelFolder:
    """The safetensors files of a model's folder. UserError names a file that is missing or invalid."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, Tensor] = {}
        self.headers: dict[str, str] = {}
        """The header of each file, in the files' order, byte for byte (with its padding)."""
        found = weight_files.find(path)
        if found.pickled:
            raise UserError(
                f"{path}: the weights are in {found.files[0].name}. Convert them to safetensors in their own"
                " type: load the model with from_pretrained(…, dtype='auto') and call save_pretrained."
            )
        self.files = found.files
        for file in self.files:
            self.headers[file.name], tensors = read_header(file)
            for tensor in tensors:
                if tensor.name in self.tensors:
                    raise UserError(
                        f"{file}: tensor {tensor.name} is also in {self.tensors[tensor.name].file.name}."
                    )
                self.tensors[tensor.name] = tensor
        found.check(self.tensors)

    def read(self, name: str, piece_bytes: int) -> Iterator[bytes]:
        """The tensor's bytes, piece by piece."""
        return read_pieces(self.tensors[name], piece_bytes)


def is_computed(tensor: Tensor) -> bool:
    """Whether a tensor is a buffer that transformers computes, and that says nothing about the model."""
    mask = len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1) and CAUSAL_MASK.search(tensor.name)
    return bool(mask or COMPUTED.search(tensor.name))


def read_header(file: Path) -> tuple[str, list[Tensor]]:
    """A file's header as text, and its tensors in the order of their bytes."""
    if not file.is_file():
        raise UserError(f"{file} is missing or not a file.")
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_LIMIT):
            raise UserError(
                f"{file}: the header claims {length:,} bytes, but the file has {size:,}. It is truncated or"
                " not a safetensors file. Download it again."
            )
        raw = opened.read(length)
    try:
        text = raw.decode()
        tensors = parse_header(text, file, 8 + length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: the header is damaged ({error}). Download the file again.") from None
    end = tensors[-1].start + tensors[-1].size if tensors else 8 + length
    if end != size:
        raise UserError(
            f"{file}: the tensors end at byte {end:,}, but the file has {size:,} bytes. Download it again."
        )
    return text, tensors


def parse_header(text: str, file: Path, offset: int) -> list[Tensor]:
    """The tensors in a header, in the order of their bytes; ValueError if they leave gaps or overlap,
    UserError for a type that is not supported."""
    tensors = []
    for name, entry in json.loads(text, object_pairs_hook=no_repeats).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
            raise ValueError(f"tensor {name}: shape {shape} at {start}-{end}")
        if has_control(name):
            raise ValueError(f"tensor {name!a}: control characters in its name")
        if entry["dtype"] in UNSUPPORTED:
            raise UserError(
                f"{file}: tensor {name} has the type {entry['dtype']}, which is not supported. Give the model"
                f" in one that is: {', '.join(ITEMSIZE)}."
            )
        if entry["dtype"] not in ITEMSIZE:
            raise ValueError(f"tensor {name}: unknown dtype {entry['dtype']!r}")
        if math.prod(shape) * ITEMSIZE[entry["dtype"]] != end - start:
            raise ValueError(f"tensor {name}: {end - start:,} bytes do not fit shape {shape}")
        tensors.append(Tensor(name, entry["dtype"], shape, file, offset + start, end - start))
    tensors.sort(key=lambda tensor: (tensor.start, tensor.size))
    position = offset
    for tensor in tensors:
        if tensor.start != position:
            raise ValueError(f"tensor {tensor.name} starts at {tensor.start:,}, not at {position:,}")
        position += tensor.size
    return tensors


def read_pieces(tensor: Tensor, piece_bytes: int, start: int = 0) -> Iterator[bytes]:
    """The tensor's bytes from `start` on; UserError if the file is too short."""
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.start + start)
        left = tensor.size - start
        while left:
            yield (piece := read_exactly(file, min(piece_bytes, left), tensor))
            left -= len(piece)


def read_exactly(file: BinaryIO, size: int, tensor: Tensor) -> bytes:
    """Read `size` bytes of a tensor's file; UserError if the file has been truncated since."""
    piece = file.read(size)
    if len(piece) != size:
        raise UserError(f"{tensor.file}: the file ends within tensor {tensor.name}. Download it again.")
    return piece


class Writer:
    """A file under construction. A failed write is a DiskError that names the file."""

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        """Open `path` and keep its first `keep_bytes` bytes; the rest is cut off."""
        self.path = path
        self.file = path.open("r+b" if keep_bytes else "wb", buffering=0)
        self.file.truncate(keep_bytes)
        self.position = self.file.seek(keep_bytes)

    def write(self, data: bytes) -> None:
        """Append."""
        view = memoryview(data)
        try:
            while view:
                written = self.file.write(view)
                view = view[written:]
                self.position += written
        except OSError as error:
            raise DiskError(
                f"{self.path}: {error.strerror} at byte {self.position:,}. Free some space and run the same"
                " command again; for an exact delta it continues from here with --resume."
            ) from None

    def truncate(self, size: int) -> None:
        """Cut the file off at `size` bytes."""
        self.file.truncate(size)
        self.position = self.file.seek(size)

    def close(self) -> None:
        """Sync the file to disk and close it."""
        os.fsync(self.file.fileno())
        self.file.close()


def header_bytes(text: str) -> bytes:
    """A header preceded by its length, as in a file."""
    raw = text.encode()
    return len(raw).to_bytes(8, "little") + raw


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: ValueError if an object has a key twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found
