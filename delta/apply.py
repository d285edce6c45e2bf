"""Rebuild a target from its base and a delta, and check every part of it.

First delta.json, the headers of all files and the stored files are checked; then, for each tensor, the hash
of its payload, the hash of the base as it is read, and the hash of the target as it is written. The folder
gets its name only if all of them match.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial as bind
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.model import weight_files
from core.provenance.atomic_io import refuse_overlap, resumable_folder
from delta import codec, delta_format, safetensors_io
from delta.delta_format import Delta, Entry
from delta.threads import in_order, workers

PIECE_BYTES = 1 << 20


class Checked(NamedTuple):
    """A delta whose plan, headers and stored files have passed their checks, with its base."""

    folder: Path
    delta: Delta
    base: safetensors_io.Source
    payloads: dict[str, safetensors_io.Tensor]


def apply(base: Path, delta_path: Path, target: Path, *, resume: bool = False, force: bool = False) -> Delta:
    """Write the target's folder. UserError names the tensor or file that fails a check."""
    refuse_overlap(target, (base, delta_path))
    checked = check(base, delta_path)
    delta = checked.delta
    with resumable_folder(target, delta.sha256, resume=resume, force=force, discard_rejected=True) as folder:
        check_space(target, delta, written=sum(file.stat().st_size for file in folder.iterdir()))
        with workers() as pool:
            for name, tensors in delta_format.layout(delta, folder).items():
                _write_shard(folder / name, tensors, checked, pool)
        for name in delta.files:
            copy = folder / name.removeprefix("files/")
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(delta_path / name, copy)
            if delta_format.hash_file(copy) != delta.files[name].sha256:
                raise UserError(f"{delta_path / name} changed while it was being copied.")
    return delta


def check(base: Path, delta_path: Path) -> Checked:
    """Check everything that can be checked without reading weights."""
    delta = delta_format.read(delta_path)
    source = safetensors_io.ModelFolder(base)
    delta_format.check_base(source, delta)
    payloads = delta_format.payloads(delta_path, delta)
    delta_format.check_files(delta_path, delta)
    return Checked(delta_path, delta, source, payloads)


def verify_base(base: Path, delta_path: Path) -> Delta:
    """Rebuild every tensor without writing it."""
    checked = check(base, delta_path)
    with workers() as pool:
        for tensors in delta_format.layout(checked.delta, Path()).values():
            for tensor in tensors:
                for _ in rebuild(tensor, checked, pool):
                    pass
    return checked.delta


def verify_target(target: Path, delta_path: Path) -> Delta:
    """Compare a folder with the delta's target: headers, tensors and stored files."""
    delta = delta_format.read(delta_path)
    found: dict[str, safetensors_io.Tensor] = {}
    for name, header in delta.shards.items():
        text, tensors = safetensors_io.read_header(target / name)
        if text != header:
            raise UserError(f"{target / name} does not have the header that the delta gives it.")
        found |= {tensor.name: tensor for tensor in tensors}
    loaded = weight_files.find_any(target)
    if loaded and {file.name for file in loaded.files} != delta.shards.keys():
        raise UserError(f"{target}: transformers loads {loaded.files[0].name}, which is not of this delta.")
    for name, entry in delta.tensors.items():
        digest = hashlib.sha256()
        for piece in safetensors_io.read_pieces(found[name], PIECE_BYTES):
            digest.update(piece)
        if digest.hexdigest() != entry.sha256:
            raise UserError(f"{found[name].file}: tensor {name} differs from the delta's target.")
    for name, file in delta.files.items():
        path = target / name.removeprefix("files/")
        if not path.is_file():
            raise UserError(f"{path} is missing.")
        if delta_format.hash_file(path) != file.sha256:
            raise UserError(f"{path} differs from the delta's target.")
    return delta


def rebuild(tensor: safetensors_io.Tensor, checked: Checked, pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The bytes of one tensor of the target. UserError if a hash differs, possibly after the last byte."""
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
        file = checked.base.tensors[tensor.name].file
        raise UserError(
            f"{file}: tensor {tensor.name} is not the one the delta was made from ({checked.delta.base}): its"
            " hash differs. This is another base, or the file is damaged."
        )
    if of_target.hexdigest() != entry.sha256:
        raise UserError(
            f"tensor {tensor.name} was rebuilt incorrectly: its hash differs. Download the delta again."
        )


def _chunks(
    tensor: safetensors_io.Tensor,
    payload: safetensors_io.Tensor,
    pieces: Iterator[bytes],
    of_base: "hashlib._Hash",
) -> Iterator[Callable[[], bytes]]:
    """The decoding of each chunk, from its payload and its part of the base, which is hashed on the way."""
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
        raise UserError(f"{payload.file}: tensor {tensor.name}: {left:,} extra bytes after the last chunk.")
    for piece in pieces:
        of_base.update(piece)


def _decode(chunk: bytes, base: bytes, elements: int, tensor: safetensors_io.Tensor, file: Path) -> bytes:
    try:
        return codec.decode(chunk, base, elements, tensor.dtype)
    except UserError as error:
        raise UserError(f"{file}: tensor {tensor.name}: {error}. Download the delta again.") from None


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
            f"{payload.file}: tensor {payload.name} has changed since the delta was made: its hash differs."
            " Download the file again."
        )


def _write_shard(
    path: Path, tensors: list[safetensors_io.Tensor], checked: Checked, pool: ThreadPoolExecutor
) -> None:
    """Write one file of the target, resuming where an interrupted run stopped."""
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
    """How many tensors and bytes of a file are already written correctly, by their hashes."""
    if not path.is_file() or path.is_symlink():
        path.unlink(missing_ok=True)
        return 0, 0
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            return 0, 0
        written = path.stat().st_size
    done, kept = 0, len(header)
    for tensor in tensors:
        if tensor.start + tensor.size > written:
            break
        digest = hashlib.sha256()
        for piece in safetensors_io.read_pieces(tensor, PIECE_BYTES):
            digest.update(piece)
        if digest.hexdigest() != delta.tensors[tensor.name].sha256:
            break
        done, kept = done + 1, tensor.start + tensor.size
    return done, kept


def check_space(target: Path, delta: Delta, written: int = 0) -> None:
    """UserError if the disk is too small, before hours of work rather than after."""
    folder = next(up for up in target.absolute().parents if up.is_dir())
    shards = delta_format.layout(delta, folder).values()
    needed = sum(tensors[-1].start + tensors[-1].size for tensors in shards if tensors)
    needed += sum(file.bytes for file in delta.files.values())
    missing = needed - written
    free = shutil.disk_usage(folder).free
    if free < missing:
        raise UserError(
            f"{folder}: not enough disk space: {missing / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free."
        )
