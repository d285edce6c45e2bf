"""Megatron's indexed dataset: token ids of many documents in `NAME.bin`, their positions in `NAME.idx`.

`NAME.bin` is the ids of all documents, one after the other, little-endian. `NAME.idx`, little-endian:

    9 bytes   magic `MMIDIDX\\0\\0`
    uint64    version, 1
    uint8     dtype code of the ids (megatron-core's: 4 is int32, 8 is uint16)
    uint64    number of sequences S
    uint64    number of document boundaries D + 1
    int32 S   tokens of each sequence
    int64 S   offset of each sequence in the .bin file, in bytes
    int64 D+1 first sequence of each document, then S

Here every document is one sequence. Megatron-LM and GPT-NeoX can read these files; DeepSpeed's version of the
format has another code for uint16, so it can only read int32 files.
"""

import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from core.errors import UserError

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
CODES: dict[int, type[np.integer]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
}


def with_ending(name: Path, ending: str) -> Path:
    """`NAME.bin` or `NAME.idx`, also if NAME has dots, at which `with_suffix` would cut it off."""
    return name.with_name(name.name + ending)


class Writer:
    """Writes `NAME.bin` document by document, and `NAME.idx` at the end; a context manager."""

    def __init__(self, name: Path, vocabulary_size: int) -> None:
        """`name` is the path without suffix; ids are below `vocabulary_size`, which determines their
        dtype."""
        self.name = name
        self.code = 8 if vocabulary_size <= 2**16 else 4
        self._file = with_ending(name, ".bin").open("wb")
        self._lengths = array("i")

    def add(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> None:
        """Append one document."""
        found = np.asarray(ids)
        limit = np.iinfo(CODES[self.code]).max
        assert not found.size or (found.min() >= 0 and found.max() <= limit), "an id outside the vocabulary"
        self._file.write(found.astype(CODES[self.code]).tobytes())
        self._lengths.append(len(found))

    def add_reordered(self, ids: bytes, lengths: npt.NDArray[np.int32], order: npt.NDArray[np.int64]) -> None:
        """Append the concatenated documents in `ids` in another order, without decoding them."""
        ends = np.cumsum(lengths, dtype=np.int64) * np.dtype(CODES[self.code]).itemsize
        begins = np.concatenate([[0], ends[:-1]])
        view = memoryview(ids)
        for begin, end in zip(begins[order].tolist(), ends[order].tolist(), strict=True):
            self._file.write(view[begin:end])
        self._lengths.extend(lengths[order].tolist())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            self._write_index()

    def _write_index(self) -> None:
        lengths = np.array(self._lengths, dtype=np.int32)
        offsets = np.zeros(len(lengths), dtype=np.int64)
        np.cumsum(lengths[:-1].astype(np.int64) * np.dtype(CODES[self.code]).itemsize, out=offsets[1:])
        with with_ending(self.name, ".idx").open("wb") as file:
            file.write(HEADER.pack(MAGIC, 1, self.code, len(lengths), len(lengths) + 1))
            file.write(lengths.tobytes() + offsets.tobytes())
            file.write(np.arange(len(lengths) + 1, dtype=np.int64).tobytes())


class Documents:
    """The documents of an indexed dataset, memory-mapped: `documents[i]` is an array of ids."""

    def __init__(self, name: Path) -> None:
        """Map `NAME.bin` and `NAME.idx`; UserError if they are missing, truncated or in another format."""
        self.name = name
        index = self._read(with_ending(name, ".idx"))
        if len(index) < HEADER.size:
            raise UserError(f"{name}.idx is truncated: {len(index)} bytes. Pack the corpus again.")
        magic, version, code, sequences, boundaries = HEADER.unpack_from(index)
        if magic != MAGIC or version != 1 or code not in CODES:
            raise UserError(
                f"{name}.idx is not a supported indexed dataset (version {version}, dtype {code})."
            )
        if len(index) != HEADER.size + sequences * 12 + boundaries * 8:
            raise UserError(f"{name}.idx is truncated. Pack the corpus again.")
        self.lengths = np.frombuffer(index, np.int32, sequences, HEADER.size)
        self._offsets = np.frombuffer(index, np.int64, sequences, HEADER.size + 4 * sequences)
        self.dtype = np.dtype(CODES[code])
        expected = int(self.lengths.sum(dtype=np.int64)) * self.dtype.itemsize
        binary = with_ending(name, ".bin")
        found = binary.stat().st_size if binary.exists() else 0
        if found != expected:
            raise UserError(
                f"{binary} has {found} bytes, but its index expects {expected}. Pack the corpus again."
            )
        self._ids = np.memmap(binary, np.uint8, "r") if expected else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, document: int) -> npt.NDArray[np.integer]:
        return self.slice(document, 0, int(self.lengths[document]))

    def slice(self, document: int, start: int, stop: int) -> npt.NDArray[np.integer]:
        """Ids `start` to `stop` of one document, without reading the rest."""
        assert 0 <= start <= stop <= self.lengths[document]
        first = int(self._offsets[document]) + start * self.dtype.itemsize
        return self._ids[first : first + (stop - start) * self.dtype.itemsize].view(self.dtype)

    def first_token(self, document: int) -> int:
        """The number of tokens before a document in the .bin file."""
        return int(self._offsets[document]) // self.dtype.itemsize

    def raw(self, first: int, stop: int) -> bytes:
        """The ids of the documents `first` to `stop`, as in the .bin file, read instead of mapped."""
        begin, end = (int(self._offsets[i]) if i < len(self) else self._ids.size for i in (first, stop))
        with with_ending(self.name, ".bin").open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: no packed corpus found.") from None
