"""A target from its base and a delta, each part checked before it is used and again after.

First delta.json, the headers of all files and the stored files; then, tensor by tensor, the payload's hash,
the base's hash as it streams by, and the target's hash as it is written. Only when all of them hold does the
folder get its name.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial as bind
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from delta import codec, delta_format, safetensors_io
from delta.delta_format import Delta, Entry
from delta.resumable_folder import in_order, unfinished, workers

PIECE_BYTES = 1 << 20


class Checked(NamedTuple):
    """A delta whose plan, headers and stored files hold, and the base that goes with it."""

    folder: Path
    delta: Delta
    base: safetensors_io.Source
    payloads: dict[str, safetensors_io.Tensor]


def apply(base: Path, delta_path: Path, target: Path, *, resume: bool = False, force: bool = False) -> Delta:
    """Make the target's folder. UserError names the tensor or file that a check has refused."""
    checked = check(base, delta_path)
    delta = checked.delta
    with unfinished(target, delta.sha256, resume=resume, force=force) as folder:
        _check_space(folder, delta)
        with workers() as pool:
            for name, tensors in delta_format.layout(delta, folder).items():
                _write_shard(folder / name, tensors, checked, pool)
        for name in delta.files:
            shutil.copyfile(delta_path / name, folder / Path(name).name)
            if delta_format.hash_file(folder / Path(name).name) != delta.files[name].sha256:
                raise UserError(f"{delta_path / name} changed while it was copied.")
    return delta


def check(base: Path, delta_path: Path) -> Checked:
    """All that can be known without reading weights."""
    delta = delta_format.read(delta_path)
    source = safetensors_io.Folder(base)
    delta_format.check_base(source, delta)
    payloads = delta_format.payloads(delta_path, delta)
    delta_format.check_files(delta_path, delta)
    return Checked(delta_path, delta, source, payloads)


def verify_base(base: Path, delta_path: Path) -> Delta:
    """Rebuild every tensor, write none."""
    checked = check(base, delta_path)
    with workers() as pool:
        for tensors in delta_format.layout(checked.delta, Path()).values():
            for tensor in tensors:
                for _ in rebuild(tensor, checked, pool):
                    pass
    return checked.delta


def verify_target(target: Path, delta_path: Path) -> Delta:
    """Compare a folder with what the delta makes: headers, tensors and stored files."""
    delta = delta_format.read(delta_path)
    source = safetensors_io.Folder(target)
    for name, header in delta.shards.items():
        if source.headers.get(name) != header:
            raise UserError(f"{target / name} has another header than the file that the delta makes.")
    for name, entry in delta.tensors.items():
        digest = hashlib.sha256()
        for piece in source.read(name, PIECE_BYTES):
            digest.update(piece)
        if digest.hexdigest() != entry.sha256:
            raise UserError(f"{source.tensors[name].file}: tensor {name} is not what the delta makes.")
    for name, file in delta.files.items():
        path = target / Path(name).name
        if not path.is_file() or delta_format.hash_file(path) != file.sha256:
            raise UserError(f"{path} is missing or not what the delta makes.")
    return delta


def rebuild(tensor: safetensors_io.Tensor, checked: Checked, pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The bytes of one tensor of the target. UserError, at the end at the latest, where a hash differs."""
    entry = checked.delta.tensors[tensor.name]
    payload = checked.payloads.get(tensor.name)
    if payload:
        _check_payload(payload, entry)
    of_base = hashlib.sha256()
    of_target = hashlib.sha256()
    pieces = _base_pieces(tensor, entry, checked.base)
    if payload is None:
        for piece in pieces:
            of_base.update(piece)
            yield piece
        of_target = of_base
    else:
        for piece in in_order(pool, _chunks(tensor, payload, pieces, of_base)):
            of_target.update(piece)
            yield piece
    if entry.base_sha256 not in (None, of_base.hexdigest()):
        there = checked.base.tensors[tensor.name]
        raise UserError(
            f"{there.file}: tensor {tensor.name} is not the one that the delta was made from"
            f" ({checked.delta.base}): its hash differs. This is another base, or the file is damaged."
        )
    if of_target.hexdigest() != entry.sha256:
        raise UserError(f"tensor {tensor.name} came out wrong: its hash differs. Get the delta again.")


def _chunks(
    tensor: safetensors_io.Tensor,
    payload: safetensors_io.Tensor,
    pieces: Iterator[bytes],
    of_base: "hashlib._Hash",
) -> Iterator[Callable[[], bytes]]:
    """What is to be decoded: each chunk's payload with its part of the base, which is hashed on the way."""
    size = codec.ITEMSIZE[tensor.dtype]
    left = payload.size
    most = codec.chunk_elements(tensor.dtype)
    with payload.file.open("rb") as file:
        file.seek(payload.start)
        for first in range(0, tensor.elements, most):
            elements = min(most, tensor.elements - first)
            lengths = safetensors_io.read_exactly(file, min(4 * size, left), payload)
            total = sum(int.from_bytes(lengths[at : at + 4], "little") for at in range(0, len(lengths), 4))
            left -= len(lengths) + total
            if left < 0:
                raise UserError(f"{payload.file}: tensor {tensor.name}: a chunk is longer than the payload.")
            chunk = lengths + safetensors_io.read_exactly(file, total, payload)
            piece = next(pieces, b"")
            of_base.update(piece)
            yield bind(_decode, chunk, piece[: elements * size], elements, tensor, payload.file)
    if left:
        raise UserError(f"{payload.file}: tensor {tensor.name}: {left:,} bytes are left over.")
    for piece in pieces:
        of_base.update(piece)


def _decode(chunk: bytes, base: bytes, elements: int, tensor: safetensors_io.Tensor, file: Path) -> bytes:
    try:
        return codec.decode(chunk, base, elements, tensor.dtype)
    except UserError as error:
        raise UserError(f"{file}: tensor {tensor.name}: {error}. Get the delta again.") from None


def _base_pieces(tensor: safetensors_io.Tensor, entry: Entry, base: safetensors_io.Source) -> Iterator[bytes]:
    if entry.mode == "full":
        return iter(())
    return base.read(tensor.name, codec.chunk_elements(tensor.dtype) * codec.ITEMSIZE[tensor.dtype])


def _check_payload(payload: safetensors_io.Tensor, entry: Entry) -> None:
    digest = hashlib.sha256()
    for piece in safetensors_io.read_pieces(payload, PIECE_BYTES):
        digest.update(piece)
    if digest.hexdigest() != entry.payload_sha256:
        raise UserError(
            f"{payload.file}: tensor {payload.name} was changed since the delta was made: its hash differs."
            " Get the file again."
        )


def _write_shard(
    path: Path, tensors: list[safetensors_io.Tensor], checked: Checked, pool: ThreadPoolExecutor
) -> None:
    """One file of the target, from where an interrupted run left it."""
    header = safetensors_io.header_bytes(checked.delta.shards[path.name])
    done, kept = _kept(path, header, tensors, checked.delta)
    file = safetensors_io.Writer(path, kept)
    if not kept:
        file.write(header)
    for tensor in tensors[done:]:
        for piece in rebuild(tensor, checked, pool):
            file.write(piece)
    file.close()


def _kept(path: Path, header: bytes, tensors: list[safetensors_io.Tensor], delta: Delta) -> tuple[int, int]:
    """How many tensors, and how many bytes, of a file are there already and right: read, not believed."""
    if not path.is_file() or path.is_symlink():
        path.unlink(missing_ok=True)
        return 0, 0
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            return 0, 0
        there = path.stat().st_size
    done, kept = 0, len(header)
    for tensor in tensors:
        if tensor.start + tensor.size > there:
            break
        digest = hashlib.sha256()
        for piece in safetensors_io.read_pieces(tensor, PIECE_BYTES):
            digest.update(piece)
        if digest.hexdigest() != delta.tensors[tensor.name].sha256:
            break
        done, kept = done + 1, tensor.start + tensor.size
    return done, kept


def _check_space(folder: Path, delta: Delta) -> None:
    """Say that the disk is too small before hours of work, not after."""
    shards = delta_format.layout(delta, folder).values()
    needed = sum(tensors[-1].start + tensors[-1].size for tensors in shards if tensors)
    needed += sum(file.bytes for file in delta.files.values())
    there = sum(file.stat().st_size for file in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if free < needed - there:
        raise UserError(
            f"{folder.parent}: {(needed - there) / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free."
        )
