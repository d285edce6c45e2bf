"""A delta's folder: what `delta.json` says, and the checks that nothing in the folder escapes.

    DELTA/delta.json                        the plan: every tensor, file and hash; it hashes itself too
    DELTA/delta-00001-of-00002.safetensors  payloads, one U8 tensor each, named as the tensor that they make
    DELTA/files/                            the target's configuration, tokenizer and template, as they are
    DELTA/README.md, manifest.json          for people; where it came from

Nothing in it can be loaded as a model: the configuration is a folder further down. docs/delta.md has
the format byte by byte.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import UserError
from delta import codec, safetensors_io

NAME = "delta.json"
VERSION = 2
SHARD_BYTES = 5_000_000_000
STORED = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".md", ".py")
"""What is stored of the target's folder besides its weights, by the end of the name."""
DELTA_JSON_LIMIT = 256 * 2**20

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """Unknown keys and types that only look alike are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Entry(Strict):
    """A tensor of the target."""

    dtype: str
    shape: list[Count]
    sha256: Hash
    mode: Literal["same", "delta", "full"]
    """As the base's; a difference to it; whole."""
    base_shape: list[Count] | None = None
    """Only the first dimension may differ from the target's: rows were added or taken away."""
    base_sha256: Hash | None = None
    payload: str | None = None
    """The file that the payload is in."""
    payload_bytes: Count | None = None
    payload_sha256: Hash | None = None


class File(Strict):
    """A file of the delta's folder, all of it."""

    bytes: Count
    sha256: Hash


class Delta(Strict):
    """The content of delta.json."""

    format: Literal["patent-llama delta"] = "patent-llama delta"
    version: Literal[2] = 2
    base: str
    """Name of the base's folder, for people."""
    target: str
    chunk_elements: Literal[1048576] = 1048576
    shards: dict[str, str]
    """The target's safetensors files: name to the header as it stands."""
    tensors: dict[str, Entry]
    files: dict[str, File]
    """Files that are stored as they are: those in files/ belong to the target."""
    sha256: Hash = "0" * 64
    """Of this object without this key, as `canonical` writes it."""


def canonical(delta: Delta) -> bytes:
    """The bytes that `sha256` is taken of: JSON, keys sorted, no spaces, UTF-8."""
    content = delta.model_dump(mode="json", exclude={"sha256"})
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write(folder: Path, delta: Delta) -> None:
    """Write delta.json with its own hash."""
    from core.provenance.atomic_io import write_text

    sealed = delta.model_copy(update={"sha256": hashlib.sha256(canonical(delta)).hexdigest()})
    write_text(folder / NAME, json.dumps(sealed.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def read(folder: Path) -> Delta:
    """The checked content of delta.json; UserError says what does not hold."""
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"{folder} is not a delta: {NAME} is missing.")
    if path.stat().st_size > DELTA_JSON_LIMIT:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes are more than any delta needs.")
    try:
        content = json.loads(path.read_text("utf-8"), object_pairs_hook=safetensors_io.no_repeats)
        if isinstance(content, dict) and content.get("version", VERSION) != VERSION:
            raise UserError(
                f"{path}: version {content['version']!r} of the format; this program reads {VERSION}."
            )
        delta = Delta.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is damaged: {place}: {first['msg']}. Get the delta again.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}). Get the delta again.") from None
    if hashlib.sha256(canonical(delta)).hexdigest() != delta.sha256:
        raise UserError(f"{path} was changed since it was written: its hash differs. Get the delta again.")
    _check(path, delta)
    return delta


def layout(delta: Delta, place: Path) -> dict[str, list[safetensors_io.Tensor]]:
    """The target's files, each with its tensors in the order of their bytes."""
    return {
        name: safetensors_io.parse_header(header, place / name, 8 + len(header.encode()))
        for name, header in delta.shards.items()
    }


def payloads(folder: Path, delta: Delta) -> dict[str, safetensors_io.Tensor]:
    """Where each payload lies; UserError where the files are not as delta.json says."""
    found: dict[str, safetensors_io.Tensor] = {}
    for name in sorted({entry.payload for entry in delta.tensors.values() if entry.payload}):
        for tensor in safetensors_io.read_header(folder / name)[1]:
            entry = delta.tensors.get(tensor.name)
            if entry is None or (entry.payload, entry.payload_bytes) != (name, tensor.size):
                raise UserError(f"{folder / name}: tensor {tensor.name} is not as {NAME} says. Get it again.")
            found[tensor.name] = tensor
    for name, entry in delta.tensors.items():
        if entry.payload and name not in found:
            raise UserError(f"{folder / entry.payload}: tensor {name} is missing. Get the file again.")
    return found


def check_files(folder: Path, delta: Delta) -> None:
    """Every stored file's size and hash."""
    for name, file in delta.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing, or is not a file. Get the delta again.")
        if path.stat().st_size != file.bytes or hash_file(path) != file.sha256:
            raise UserError(f"{path} was changed since the delta was made: its hash differs. Get it again.")


def check_base(base: safetensors_io.Source, delta: Delta) -> None:
    """Names, types and shapes, before any byte is read; UserError names the first tensor that differs."""
    for name, entry in delta.tensors.items():
        if entry.mode == "full":
            continue
        there = base.tensors.get(name)
        if there is None:
            raise UserError(f"the base has no tensor {name}. The delta was made from {delta.base}.")
        if (there.dtype, list(there.shape)) != (entry.dtype, entry.base_shape):
            raise UserError(
                f"{there.file}: tensor {name} is {there.dtype} {list(there.shape)}; the delta was made from"
                f" {entry.dtype} {entry.base_shape} ({delta.base}). This is another base."
            )


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, delta: Delta) -> None:
    """What must hold between the parts of delta.json."""
    for name in (*delta.shards, *(entry.payload for entry in delta.tensors.values() if entry.payload)):
        if not safetensors_io.is_plain_name(name) or not name.endswith(".safetensors"):
            raise UserError(f"{path}: {name!r} is not a name of a weights file.")
    for name in delta.files:
        if not safetensors_io.is_plain_name(name.removeprefix("files/")):
            raise UserError(f"{path}: {name!r} is not the name of a file in the delta.")
        if name.removeprefix("files/") in delta.shards:
            raise UserError(f"{path}: {name!r} is stored and is one of the weights files too.")
    try:
        tensors = [tensor for shard in layout(delta, Path()).values() for tensor in shard]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: a header of the target is damaged ({error}).") from None
    if sorted(tensor.name for tensor in tensors) != sorted(delta.tensors):
        raise UserError(f"{path}: the headers of the target name other tensors than the plan does.")
    for tensor in tensors:
        entry = delta.tensors[tensor.name]
        given = (entry.payload, entry.payload_bytes, entry.payload_sha256)
        least, most = codec.payload_bounds(tensor.elements, tensor.dtype)
        with_base = entry.mode != "full"
        if (
            (entry.dtype, entry.shape) != (tensor.dtype, list(tensor.shape))
            or with_base != (entry.base_shape is not None and entry.base_sha256 is not None)
            or any((value is None) != (entry.mode == "same") for value in given)
            or (entry.payload_bytes is not None and not least <= entry.payload_bytes <= most)
            or (entry.mode == "same" and (entry.base_shape, entry.base_sha256) != (entry.shape, entry.sha256))
            or (with_base and not can_differ(tensor.shape, tuple(entry.base_shape or ())))
        ):
            raise UserError(f"{path}: what it says about tensor {tensor.name} contradicts itself.")


def can_differ(target: tuple[int, ...], base: tuple[int, ...]) -> bool:
    """Whether a difference can be taken: equal shapes, or a different number of rows."""
    return target == base or (len(target) == len(base) > 0 and target[1:] == base[1:])
