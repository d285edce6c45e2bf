"""Weights on disk in safetensors files, read and written in pieces, without torch.

A file is a u64 (little-endian) with the header's length, the header (JSON: name to dtype, shape and place),
and the tensors' bytes without gaps. Nothing of it is believed before it is checked: the header's length, its
JSON, that the tensors tile the file exactly, and that their bytes fit their shapes.

https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from core.errors import UserError
from delta.codec import ITEMSIZE

HEADER_LIMIT = 100_000_000
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: `start` and `size` are bytes in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size: int

    @property
    def elements(self) -> int:
        """How many numbers it has; a scalar has one."""
        return math.prod(self.shape)


class Source(Protocol):
    """What weights are taken from: a folder, or one with an adapter merged in."""

    tensors: dict[str, Tensor]
    headers: dict[str, str]
    files: list[Path]

    def read(self, name: str, piece_bytes: int) -> Iterator[bytes]:
        """The tensor's bytes, piece by piece."""
        ...


class Folder:
    """The safetensors files of a model's folder. UserError names the file that cannot be trusted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, Tensor] = {}
        self.headers: dict[str, str] = {}
        """Of each file, in the files' order, the header as it stands, spaces at its end included."""
        self.files = _files(path)
        for file in self.files:
            self.headers[file.name], tensors = read_header(file)
            for tensor in tensors:
                if tensor.name in self.tensors:
                    raise UserError(
                        f"{file}: tensor {tensor.name} is in {self.tensors[tensor.name].file.name} already."
                    )
                self.tensors[tensor.name] = tensor

    def read(self, name: str, piece_bytes: int) -> Iterator[bytes]:
        """The tensor's bytes, piece by piece."""
        return read_pieces(self.tensors[name], piece_bytes)


def read_header(file: Path) -> tuple[str, list[Tensor]]:
    """A file's header, as text, and its tensors in the order of their bytes."""
    if not file.is_file():
        raise UserError(f"{file} is missing, or is not a file.")
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_LIMIT):
            raise UserError(
                f"{file}: its header claims {length:,} bytes, the file has {size:,}. It is cut short, or not"
                " in the safetensors format. Get it again."
            )
        raw = opened.read(length)
    try:
        text = raw.decode()
        tensors = parse_header(text, file, 8 + length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: its header is damaged ({error}). Get the file again.") from None
    end = tensors[-1].start + tensors[-1].size if tensors else 8 + length
    if end != size:
        raise UserError(f"{file}: its tensors end at byte {end:,}, the file at {size:,}. Get it again.")
    return text, tensors


def parse_header(text: str, file: Path, offset: int) -> list[Tensor]:
    """The tensors that a header names, in the order of their bytes; ValueError where they leave gaps or
    overlap."""
    tensors = []
    for name, entry in json.loads(text, object_pairs_hook=no_repeats).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
            raise ValueError(f"tensor {name}: shape {shape} at {start}-{end}")
        if entry["dtype"] not in ITEMSIZE:
            raise ValueError(f"tensor {name}: type {entry['dtype']} is not known")
        if math.prod(shape) * ITEMSIZE[entry["dtype"]] != end - start:
            raise ValueError(f"tensor {name}: {end - start:,} bytes do not fit its shape {shape}")
        tensors.append(Tensor(name, entry["dtype"], shape, file, offset + start, end - start))
    tensors.sort(key=lambda tensor: (tensor.start, tensor.size))
    position = offset
    for tensor in tensors:
        if tensor.start != position:
            raise ValueError(f"tensor {tensor.name} starts at {tensor.start:,}, not at {position:,}")
        position += tensor.size
    return tensors


def read_pieces(tensor: Tensor, piece_bytes: int, start: int = 0) -> Iterator[bytes]:
    """The tensor's bytes from `start` on; UserError where the file ends before them."""
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.start + start)
        left = tensor.size - start
        while left:
            yield (piece := read_exactly(file, min(piece_bytes, left), tensor))
            left -= len(piece)


def read_exactly(file: BinaryIO, size: int, tensor: Tensor) -> bytes:
    """So many bytes of a tensor's file; UserError where it has become shorter meanwhile."""
    piece = file.read(size)
    if len(piece) != size:
        raise UserError(f"{tensor.file}: it ends within tensor {tensor.name}. Get the file again.")
    return piece


class DiskError(UserError):
    """The disk is full or failed: what has been written can be gone on with."""


class Writer:
    """A file under construction. What the system refuses is a UserError that names the file."""

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        """Open `path` and keep its first bytes; what is behind them is cut off."""
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
                f"{self.path}: {error.strerror} at byte {self.position:,}. Free some space, then run the same"
                " command again; make and apply go on where they were with --resume."
            ) from None

    def truncate(self, size: int) -> None:
        """Cut off what is behind `size`."""
        self.file.truncate(size)
        self.position = self.file.seek(size)

    def close(self) -> None:
        """Have it all on the disk."""
        os.fsync(self.file.fileno())
        self.file.close()


def header_bytes(text: str) -> bytes:
    """A header with its length before it, as it stands in a file."""
    raw = text.encode()
    return len(raw).to_bytes(8, "little") + raw


def is_plain_name(name: str) -> bool:
    """Whether a name from a file is a name in a folder and nothing else."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0") and not name.startswith(".")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder.")
    index = path / INDEX
    if not index.exists():
        if files := sorted(path.glob("*.safetensors")):
            return files
        raise UserError(
            f"{path}: there are no safetensors files. Where the weights are pytorch_model.bin, load the model"
            " with transformers and save_pretrained it."
        )
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        odd = [name for name in names if not is_plain_name(name)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is damaged ({error!r}). Get it again.") from None
    if odd:
        raise UserError(f"{index}: {odd[0]!r} is not the name of a file beside it.")
    return [path / name for name in names]


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found
