"""Make a delta from a base and a target, tensor by tensor, chunk by chunk.

Both are read once, hashed as they are read, and encoded by threads. Payloads are appended to files in the
order of the target's tensors, and each finished tensor gets a line in a journal, so an interrupted run can
resume.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial as bind
from pathlib import Path
from typing import Any

from core.errors import UserError, printable_name
from core.provenance import manifest
from core.provenance.atomic_io import complete_lines, refuse_overlap, resumable_folder
from delta import codec, delta_format, readme, safetensors_io, whole
from delta.delta_format import Delta, Entry, File
from delta.threads import hashed, in_order, workers

JOURNAL = ".journal.jsonl"


def make(
    base: safetensors_io.Source,
    target: safetensors_io.Source,
    base_path: Path,
    target_path: Path,
    delta_path: Path,
    files: dict[str, Path],
    *,
    resume: bool = False,
    force: bool = False,
    shard_bytes: int = delta_format.SHARD_BYTES,
    allow_whole: bool = False,
) -> Delta:
    """Write the delta's folder. `files` are stored unchanged; the names of both paths are recorded.

    UserError if most of the target would be stored whole, unless `allow_whole`.
    """
    refuse_overlap(delta_path, (base_path, target_path))
    pairs = [(tensor, delta_format.counterpart(tensor, base)) for tensor in target.tensors.values()]
    whole.check(pairs, base.tensors, allow_whole=allow_whole)
    made_from = [_identity(base), _identity(target), [str(file) for file in files.values()], shard_bytes]
    with resumable_folder(delta_path, made_from, resume=resume, force=force, discard_rejected=True) as folder:
        payloads = _Payloads(folder, target, shard_bytes)
        payloads.restore()
        codings = [_Coding(name, base, target) for name in target.tensors if name not in payloads.entries]
        with workers() as pool:
            for coding, payload in in_order(pool, _chunks(codings, pool)):
                coding.append(payload or b"", payloads)
                if payload is None:
                    payloads.add(coding.name, coding.entry())
        entries = payloads.finish()
        stored = {f"files/{name}": file for name, file in files.items()}
        for name, file in stored.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
        delta = Delta(
            base=printable_name(base_path.resolve().name),
            target=printable_name(target_path.resolve().name),
            shards=target.headers,
            tensors=entries,
            files={
                name: File(bytes=(folder / name).stat().st_size, sha256=delta_format.hash_file(folder / name))
                for name in stored
            },
        )
        delta_format.write(folder, delta)
        (folder / "README.md").write_text(readme.publishing(delta), "utf-8")
        _write_manifest(folder, base_path, target_path, delta)
    return delta


def stored_files(*folders: Path) -> dict[str, Path]:
    """The files that a delta stores unchanged, by their names in the target: its configuration, tokenizer,
    templates, card and terms.

    If several folders have a file of the same name, the last one is used.
    """
    found = {}
    for folder in folders:
        templates = (folder / delta_format.TEMPLATES).glob("*.jinja")
        for file in sorted([*folder.iterdir(), *templates]):
            if delta_format.is_stored(file.name) and file.is_file():
                found[file.relative_to(folder).as_posix()] = file
    return dict(sorted(found.items()))


def left_out(folder: Path, weights: list[Path], stored: dict[str, Path]) -> list[str]:
    """What a folder has besides its weights and the stored files; hidden files do not count."""
    kept = {file.name for file in weights} | {name.partition("/")[0] for name in stored}
    others = [file for file in folder.iterdir() if file.name not in kept and not file.name.startswith(".")]
    return sorted(f"{file.name}/" if file.is_dir() else file.name for file in others)


class _Payloads:
    """The payload files under construction: `.payload-1`, `.payload-2` …, each with space for its header."""

    def __init__(self, folder: Path, target: safetensors_io.Source, shard_bytes: int) -> None:
        self.folder, self.target, self.shard_bytes = folder, target, shard_bytes
        # A header is written once its file is full. No entry is longer than its name plus 150 characters.
        length = sum(len(json.dumps(name)) + 150 for name in target.tensors)
        self.header_bytes = -(-length // 8) * 8
        self.entries: dict[str, Entry] = {}
        self.numbers: dict[str, int] = {}
        self.number = 0
        self.writer: safetensors_io.Writer | None = None

    def restore(self) -> None:
        """Keep what an interrupted run finished: the tensors in the journal whose payloads have their
        hash."""
        journal = self.folder / JOURNAL
        lines = complete_lines(journal)
        position = 8 + self.header_bytes
        for line in lines:
            name, number, fields = json.loads(line)
            entry = Entry.model_validate(fields)
            if number != self.number:
                self.number, position = number, 8 + self.header_bytes
            if entry.payload_bytes is not None:
                file = self.folder / f".payload-{number}"
                place = safetensors_io.Tensor(name, "U8", (), file, position, entry.payload_bytes)
                if not file.is_file() or file.stat().st_size < position + place.size:
                    break
                if _hash(safetensors_io.read_pieces(place, 1 << 20)) != entry.payload_sha256:
                    break
                position += place.size
            self.entries[name], self.numbers[name] = entry, number
        journal.write_text("".join(f"{line}\n" for line in lines[: len(self.entries)]), "utf-8")
        for file in self.folder.glob("delta-*"):
            file.unlink()
        if self.number and (self.folder / f".payload-{self.number}").is_file():
            self.writer = safetensors_io.Writer(self.folder / f".payload-{self.number}", position)

    def writer_for(self, name: str) -> safetensors_io.Writer:
        """The file that the tensor's payload is appended to; a new one if the current one would grow too
        large."""
        tensor = self.target.tensors[name]
        most = codec.payload_bounds(tensor.elements, tensor.dtype)[1]
        start = 8 + self.header_bytes
        if self.writer and start < self.writer.position and self.writer.position + most > self.shard_bytes:
            self._close()
        if self.writer is None:
            self.number += 1
            self.writer = safetensors_io.Writer(self.folder / f".payload-{self.number}")
            self.writer.write(bytes(start))
        return self.writer

    def add(self, name: str, entry: Entry) -> None:
        """Record that a tensor is finished."""
        self.entries[name], self.numbers[name] = entry, self.number
        journal = safetensors_io.Writer(self.folder / JOURNAL, _size(self.folder / JOURNAL))
        journal.write((json.dumps([name, self.number, entry.model_dump()]) + "\n").encode())
        journal.file.close()

    def finish(self) -> dict[str, Entry]:
        """Close the last file, rename all files, and return the entries with the file of each payload."""
        self._close()
        names = {
            number: f"delta-{number:05d}-of-{self.number:05d}.safetensors"
            for number in range(1, self.number + 1)
        }
        for number, name in names.items():
            (self.folder / f".payload-{number}").rename(self.folder / name)
        (self.folder / JOURNAL).unlink(missing_ok=True)
        return {
            name: entry if entry.mode == "same" else entry.model_copy(update={"payload": names[number]})
            for (name, entry), number in zip(self.entries.items(), self.numbers.values(), strict=True)
        }

    def _close(self) -> None:
        if self.writer is None:
            return
        header: dict[str, Any] = {}
        position = 0
        for name, entry in self.entries.items():
            if self.numbers[name] == self.number and entry.payload_bytes is not None:
                end = position + entry.payload_bytes
                header[name] = {"dtype": "U8", "shape": [end - position], "data_offsets": [position, end]}
                position = end
        text = json.dumps(header, separators=(",", ":"))
        self.writer.file.seek(0)
        self.writer.write(safetensors_io.header_bytes(text.ljust(self.header_bytes)))
        self.writer.close()
        self.writer = None


class _Coding:
    """A tensor that is being encoded."""

    def __init__(self, name: str, base: safetensors_io.Source, target: safetensors_io.Source) -> None:
        self.name, self.base, self.target = name, base, target
        self.tensor = target.tensors[name]
        self.of_base = delta_format.counterpart(self.tensor, base)
        self.hashes = {part: hashlib.sha256() for part in ("base", "target", "payload")}
        self.file: safetensors_io.Writer | None = None
        self.start = 0

    def pieces(self, pool: ThreadPoolExecutor) -> Iterator[tuple[bytes, bytes]]:
        """Each chunk of the target and of the base. Both are hashed on the way, the base to its end."""
        size = codec.chunk_elements(self.tensor.dtype) * codec.ITEMSIZE[self.tensor.dtype]
        read = self.base.read(self.name, size) if self.of_base else iter(())
        of_base = hashed(read, self.hashes["base"], pool)
        for piece in hashed(self.target.read(self.name, size), self.hashes["target"], pool):
            yield piece, next(of_base, b"")[: len(piece)]
        for _ in of_base:
            pass

    def encode(self, piece: bytes, of_base: bytes) -> tuple["_Coding", bytes]:
        """A chunk's payload."""
        return self, codec.encode(piece, of_base, self.tensor.dtype)

    def end(self) -> tuple["_Coding", None]:
        """Marks the end of the last chunk."""
        return self, None

    def append(self, payload: bytes, payloads: _Payloads) -> None:
        """Write the payload of the next chunk (no bytes for an empty tensor)."""
        if self.file is None:
            self.file = payloads.writer_for(self.name)
            self.start = self.file.position
        self.hashes["payload"].update(payload)
        self.file.write(payload)

    def entry(self) -> Entry:
        """The tensor's entry, once all of its chunks are written. If the tensor turns out to equal the
        base's, its payload is removed again."""
        tensor, of_base = self.tensor, self.of_base
        digest = {part: value.hexdigest() for part, value in self.hashes.items()}
        same = of_base is not None and of_base.shape == tensor.shape and digest["base"] == digest["target"]
        assert self.file
        size = self.file.position - self.start
        if same:
            self.file.truncate(self.start)
        return Entry(
            dtype=tensor.dtype,
            shape=list(tensor.shape),
            sha256=digest["target"],
            mode="same" if same else "delta" if of_base else "full",
            base_shape=list(of_base.shape) if of_base else None,
            base_sha256=digest["base"] if of_base else None,
            payload_bytes=None if same else size,
            payload_sha256=None if same else digest["payload"],
        )


def _chunks(
    codings: list[_Coding], pool: ThreadPoolExecutor
) -> Iterator[Callable[[], tuple[_Coding, bytes | None]]]:
    """The work of all tensors as one sequence, so that no thread waits for the end of a tensor."""
    for coding in codings:
        for piece, of_base in coding.pieces(pool):
            yield bind(coding.encode, piece, of_base)
        yield coding.end


def _identity(source: safetensors_io.Source) -> list[list[Any]]:
    """What must be unchanged for a run to resume: headers, sizes and modification times of the files."""
    times = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in source.files]
    return [times, sorted(source.headers.items())]


def _write_manifest(folder: Path, base: Path, target: Path, delta: Delta) -> None:
    """Write manifest.json, which records what the delta was made from."""
    of_base = {name: entry.base_sha256 for name, entry in delta.tensors.items()}
    of_target = {name: entry.sha256 for name, entry in delta.tensors.items()}
    inputs = _input(base, of_base) | _input(target, of_target)
    config = {"chunk_elements": codec.CHUNK_ELEMENTS, "zstd_level": codec.LEVEL}
    manifest.write(folder, step="delta", config=config, inputs=inputs, counts=readme.counts(delta))


def _input(model: Path, tensors: dict[str, Any]) -> dict[str, str]:
    """The hashes of a model: those in its manifest, or, without a manifest, one hash of its tensors'
    hashes."""
    try:
        found = manifest.outputs_of(model)
    except (UserError, OSError):
        digest = hashlib.sha256(json.dumps(tensors, sort_keys=True).encode()).hexdigest()
        found = {model.as_posix(): f"tensors:{digest}"}
    return {printable_name(name): digest for name, digest in found.items()}


def _hash(pieces: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
