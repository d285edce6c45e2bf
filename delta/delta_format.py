"""A delta's folder: the contents of `delta.json`, and the checks that every delta has to pass.

    DELTA/delta.json                        the plan: every tensor, file and hash, and its own hash
    DELTA/delta-00001-of-00002.safetensors  payloads, one U8 tensor each, named after the tensor it rebuilds
    DELTA/files/                            the target's configuration, tokenizer and template, unchanged
    DELTA/README.md, manifest.json          for readers; where the delta came from

A delta cannot be loaded as a model, because the configuration is in a subfolder. docs/delta.md describes the
format byte by byte.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import UserError, printable_name
from core.model.weight_files import is_plain_name
from delta import codec, safetensors_io

NAME = "delta.json"
VERSION = 2
SHARD_BYTES = 5_000_000_000
STORED = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".md", ".py", ".spm", ".bpe", ".codes", ".vocab")
"""Endings of the files that are stored from the target's folder in addition to its weights."""
TERMS = re.compile(r"licen[cs]e|notice|copying|copyright|use_policy|citation", re.IGNORECASE)
"""In names of files with the terms of use, which have endings of many kinds."""
TERMS_ENDINGS = ("", ".rst", ".html", ".pdf", ".cff")
TEMPLATES = "additional_chat_templates"
"""The one subfolder that is stored: transformers keeps a model's further templates there."""
DELTA_JSON_LIMIT = 256 * 2**20

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """Unknown keys and values of the wrong type are rejected, not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Entry(Strict):
    """A tensor of the target."""

    dtype: str
    shape: list[Count]
    sha256: Hash
    mode: Literal["same", "delta", "full"]
    """Equal to the base's tensor; stored as a difference to it; stored in full."""
    base_shape: list[Count] | None = None
    """Only the first dimension may differ from the target's (rows added or removed)."""
    base_sha256: Hash | None = None
    payload: str | None = None
    """The file that contains the payload."""
    payload_bytes: Count | None = None
    payload_sha256: Hash | None = None


class File(Strict):
    """A file that the delta stores unchanged."""

    bytes: Count
    sha256: Hash


class Delta(Strict):
    """The contents of delta.json."""

    format: Literal["patent-llama delta"] = "patent-llama delta"
    version: Literal[2] = 2
    base: str
    """Name of the base's folder, for information only."""
    target: str
    chunk_elements: Literal[1048576] = 1048576
    shards: dict[str, str]
    """The target's safetensors files: name to header, byte for byte."""
    tensors: dict[str, Entry]
    files: dict[str, File]
    """Files that are stored unchanged: below files/ by their names in the target."""
    sha256: Hash = "0" * 64
    """Hash of this object without this key, as written by `canonical`."""


def canonical(delta: Delta) -> bytes:
    """The bytes that `sha256` is the hash of: JSON with sorted keys, no spaces, UTF-8."""
    content = delta.model_dump(mode="json", exclude={"sha256"})
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write(folder: Path, delta: Delta) -> None:
    """Write delta.json, including its own hash."""
    from core.provenance.atomic_io import write_text

    sealed = delta.model_copy(update={"sha256": hashlib.sha256(canonical(delta)).hexdigest()})
    write_text(folder / NAME, json.dumps(sealed.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def read(folder: Path) -> Delta:
    """The contents of delta.json, checked; UserError names the check that fails."""
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"{folder} is not a delta: it has no {NAME}.")
    if path.stat().st_size > DELTA_JSON_LIMIT:
        raise UserError(
            f"{path}: {path.stat().st_size:,} bytes is too large for a delta.json. Download the delta again."
        )
    try:
        content = json.loads(path.read_text("utf-8"), object_pairs_hook=safetensors_io.no_repeats)
        if isinstance(content, dict) and content.get("version", VERSION) != VERSION:
            raise UserError(
                f"{path}: format version {content['version']!r} is not supported; this program reads version"
                f" {VERSION}."
            )
        delta = Delta.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = printable_name(".".join(map(str, first["loc"])))
        raise UserError(f"{path} is damaged: {place}: {first['msg']}. Download the delta again.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}). Download the delta again.") from None
    if hashlib.sha256(canonical(delta)).hexdigest() != delta.sha256:
        raise UserError(
            f"{path} has changed since it was written: its hash differs. Download the delta again."
        )
    _check(path, delta)
    return delta.model_copy(
        update={"base": printable_name(delta.base), "target": printable_name(delta.target)}
    )


def is_stored(name: str) -> bool:
    """Whether a file of this name, in a target's folder, belongs in a delta."""
    ending = Path(name).suffix
    terms = ending in TERMS_ENDINGS and TERMS.search(name)
    return is_plain_name(name) and (ending in STORED or bool(terms) or name.startswith("tokenizer.model"))


def layout(delta: Delta, place: Path) -> dict[str, list[safetensors_io.Tensor]]:
    """The target's weights files, each with its tensors in the order of their bytes."""
    return {
        name: safetensors_io.parse_header(header, place / name, 8 + len(header.encode()))
        for name, header in delta.shards.items()
    }


def payloads(folder: Path, delta: Delta) -> dict[str, safetensors_io.Tensor]:
    """The location of each payload; UserError if a file does not agree with delta.json."""
    found: dict[str, safetensors_io.Tensor] = {}
    for name in sorted({entry.payload for entry in delta.tensors.values() if entry.payload}):
        for tensor in safetensors_io.read_header(folder / name)[1]:
            entry = delta.tensors.get(tensor.name)
            if entry is None or (entry.payload, entry.payload_bytes) != (name, tensor.size):
                raise UserError(
                    f"{folder / name}: tensor {tensor.name} does not agree with {NAME}. Download it again."
                )
            found[tensor.name] = tensor
    for name, entry in delta.tensors.items():
        if entry.payload and name not in found:
            raise UserError(f"{folder / entry.payload}: tensor {name} is missing. Download the file again.")
    return found


def check_files(folder: Path, delta: Delta) -> None:
    """Check the size and hash of every stored file."""
    for name, file in delta.files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing or not a file. Download the delta again.")
        if path.stat().st_size != file.bytes or hash_file(path) != file.sha256:
            raise UserError(
                f"{path} has changed since the delta was made: its hash differs. Download it again."
            )


def check_base(base: safetensors_io.Source, delta: Delta) -> None:
    """Check names, dtypes and shapes before any tensor is read; UserError names the first that differs."""
    for name, entry in delta.tensors.items():
        if entry.mode == "full":
            continue
        tensor = base.tensors.get(name)
        if tensor is None:
            why = "this is another base"
            if safetensors_io.COMPUTED.search(name):
                why = "newer conversions leave it out, and this delta needs a base that has it"
            raise UserError(f"the base has no tensor {name}: {why}. The delta was made from {delta.base}.")
        if (tensor.dtype, list(tensor.shape)) != (entry.dtype, entry.base_shape):
            raise UserError(
                f"{tensor.file}: tensor {name} is {tensor.dtype} {list(tensor.shape)}, but the delta was made"
                f" from {entry.dtype} {entry.base_shape} ({delta.base}). This is another base."
            )


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, delta: Delta) -> None:
    """Check that the parts of delta.json are consistent."""
    for name in (*delta.shards, *(entry.payload for entry in delta.tensors.values() if entry.payload)):
        if not is_plain_name(name) or not name.endswith(".safetensors"):
            raise UserError(f"{path}: {name!r} is not a valid name for a weights file.")
    for name in delta.files:
        parts = name.removeprefix("files/").split("/")
        if not all(map(is_plain_name, parts)) or parts[:-1] not in ([], [TEMPLATES]):
            raise UserError(f"{path}: {name!r} is not a valid name for a file in a delta.")
        if name.removeprefix("files/") in (*delta.shards, *(delta.files.keys() - {name})):
            raise UserError(f"{path}: {name!r} is stored twice, or is a weights file too.")
    try:
        tensors = [tensor for shard in layout(delta, Path()).values() for tensor in shard]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: a header of the target is damaged ({error}). Download the delta again."
        ) from None
    if sorted(tensor.name for tensor in tensors) != sorted(delta.tensors):
        raise UserError(f"{path}: the target's headers and the plan list different tensors.")
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
            raise UserError(f"{path}: the entry of tensor {tensor.name} is inconsistent.")


def counterpart(tensor: safetensors_io.Tensor, base: safetensors_io.Source) -> safetensors_io.Tensor | None:
    """The base's tensor that the target's is stored as a difference to; None if it is stored in full.

    So are the buffers that transformers computes: they are small, and a base of another year lacks them.
    """
    of_base = base.tensors.get(tensor.name)
    if of_base is None or of_base.dtype != tensor.dtype or safetensors_io.is_computed(tensor):
        return None
    return of_base if can_differ(tensor.shape, of_base.shape) else None


def can_differ(target: tuple[int, ...], base: tuple[int, ...]) -> bool:
    """Whether a difference can be stored: equal shapes, or a different number of rows."""
    return target == base or (len(target) == len(base) > 0 and target[1:] == base[1:])
