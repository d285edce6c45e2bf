"""Locate the tensors in a torch.save file (`pytorch_model.bin`, `consolidated.00.pth`), without torch.

Such a file is a ZIP archive: `NAME/data.pkl` describes the tensors, `NAME/data/KEY` are their bytes, not
compressed. The pickle may only call the two functions that rebuild a tensor; any other call is rejected and
nothing is executed. The result is the location of each tensor, so they are read in pieces, as from
safetensors.

`torch.load(weights_only=True, mmap=True)` is as safe, but a conversion has to stay below 100 MB: importing
torch takes 230 MB, mapped pages count as the file is read, and a compressed `data.pkl` is unpacked before any
check.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import UserError
from core.model.weight_files import has_control
from delta.codec import ITEMSIZE
from delta.safetensors_io import Tensor

STORAGES = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
PICKLE_LIMIT = 256 * 2**20


class _Stored(NamedTuple):
    dtype: str
    key: str


class _Place(NamedTuple):
    storage: _Stored
    first: int
    shape: tuple[int, ...]


def read_pickled(file: Path) -> list[Tensor]:
    """The tensors, in the order of the pickle; UserError if it contains anything else."""
    try:
        with zipfile.ZipFile(file) as archive:
            plan = next(info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
            if plan.file_size > PICKLE_LIMIT:
                raise UserError(
                    f"{file}: {plan.filename} claims {plan.file_size:,} bytes, more than any model needs."
                )
            found = _Unpickler(file, archive.read(plan)).load()
            members = {info.filename: info for info in archive.infolist()}
    except UserError:
        raise
    except (zipfile.BadZipFile, StopIteration, OSError, EOFError) as error:
        raise UserError(
            f"{file} was not written by torch.save, or is damaged ({error!r}). Download it again."
        ) from None
    except Exception as error:  # a hostile file can make unpickling fail in any way
        raise UserError(f"{file}: the pickle is damaged ({error!r}). Download the file again.") from None
    # The pickle may have set attributes of the dictionary that hide its methods.
    places = dict.items(found) if isinstance(found, dict) else ()
    named = {name: place for name, place in places if isinstance(name, str) and isinstance(place, _Place)}
    if not isinstance(found, dict) or len(named) != len(places):
        raise UserError(f"{file} contains something other than named tensors.")
    if odd := [name for name in named if has_control(name)]:
        raise UserError(f"{file}: tensor {odd[0]!a}: control characters in its name.")
    root = plan.filename.removesuffix("data.pkl")
    return [
        _tensor(name, place, file, members.get(f"{root}data/{place.storage.key}"))
        for name, place in named.items()
    ]


class _Unpickler(pickle.Unpickler):
    """Resolves the few names that tensors need; imports nothing."""

    def __init__(self, file: Path, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        """The object for a name in the pickle; UserError unless it is on the list."""
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch._utils", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in allowed:
            raise UserError(
                f"{self.file}: its pickle calls {module}.{name}, which may be malicious. Do not load this"
                " file with any program."
            )
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> _Stored:
        """A storage, from ("storage", class, key, device, number of elements)."""
        if pid[1] not in STORAGES.values() or not isinstance(pid[2], str):
            raise ValueError(f"a storage of {pid[1]!r} at {pid[2]!r}")
        return _Stored(pid[1], pid[2])


def _rebuild(
    storage: _Stored, first: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> _Place:
    if not isinstance(storage, _Stored) or any(type(n) is not int or n < 0 for n in (first, *shape, *stride)):
        raise ValueError(f"a tensor of shape {shape} with strides {stride} at {first} of {storage!r}")
    expected = 1
    for length, step in zip(reversed(shape), reversed(stride), strict=True):
        if length > 1 and step != expected:
            raise ValueError(f"a tensor of shape {shape} has non-contiguous strides {stride}")
        expected *= length
    return _Place(storage, first, tuple(shape))


def _tensor(name: str, place: _Place, file: Path, member: zipfile.ZipInfo | None) -> Tensor:
    tensor = Tensor(name, place.storage.dtype, place.shape, file, 0, 0)
    size = tensor.elements * ITEMSIZE[tensor.dtype]
    offset = place.first * ITEMSIZE[tensor.dtype]
    fits = member and member.compress_type == zipfile.ZIP_STORED and offset + size <= member.file_size
    if not member or not fits or member.header_offset > file.stat().st_size:
        raise UserError(f"{file}: the data of tensor {name} is missing, compressed or too short.")
    with file.open("rb") as opened:
        # The bytes follow the local header's name and extra field, whose lengths are at offset 26.
        opened.seek(member.header_offset + 26)
        lengths = opened.read(4)
    if len(lengths) < 4:
        raise UserError(f"{file} ends before tensor {name}. Download it again.")
    name_length, extra_length = struct.unpack("<HH", lengths)
    start = member.header_offset + 30 + name_length + extra_length + offset
    return Tensor(name, tensor.dtype, place.shape, file, start, size)
