"""Inexact deltas published by other projects: sums, by FastChat's rule, Patent-LLaMA's or Stanford Alpaca's.

FastChat's apply_delta adds every tensor of the base to the delta's, both read as fp16, and its make_delta
subtracts. Patent-LLaMA's rule takes tensors of three kinds from the delta unchanged. Stanford Alpaca's
weight_diff reads both as fp32, and gives the base a row for a padding token, the mean of the others. The
results equal those of the scripts byte for byte. Only names and shapes can show that the base is the wrong
one, so each tensor of either must have its counterpart in the other, but for buffers that transformers
computes.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from functools import partial as bind
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.errors import UserError
from core.model import weight_files
from core.provenance.atomic_io import refuse_overlap, resumable_folder
from delta import safetensors_io, whole
from delta.codec import ITEMSIZE
from delta.kernel import kernel
from delta.lora_merge import as_float32
from delta.mean_row import with_mean_row
from delta.meta_llama.torch_pickle import read_pickled
from delta.safetensors_io import Tensor
from delta.threads import in_order, workers


class Rule(NamedTuple):
    """How a project's script adds base and delta."""

    dtype: str = "F16"
    """Both are rounded to it first, and the sum after that."""
    whole: tuple[str, ...] = ()
    """Tensors with one of these in their names are stored in full."""
    padded: tuple[str, ...] = ()
    """Tensors with these endings may have a row more than the base's, which gets the mean of its rows."""


RULES = {
    "fastchat": Rule(),
    "patent-llama": Rule(whole=("embed_tokens", "lm_head.weight", "rotary_emb.inv_freq")),
    "alpaca": Rule(dtype="F32", padded=("embed_tokens.weight", "lm_head.weight")),
}
FLOATS = ("F16", "BF16", "F32", "F64")
PIECE_ELEMENTS = 1 << 19


class Pairs(NamedTuple):
    """Every tensor of the result, with the base's that is added to it; None for those stored in full."""

    tensors: list[tuple[Tensor, Tensor | None]]
    base: dict[str, Tensor]
    notes: list[str]
    """What the user should know about the files and the tensors that are not used."""


def combine(
    base: Path,
    other: Path,
    result: Path,
    files: dict[str, Path],
    *,
    rule: str,
    sign: int,
    force: bool = False,
    allow_whole: bool = False,
) -> Pairs:
    """Write `other` plus (`sign` 1) or minus (-1) the base, with one file for each file of `other`.

    UserError names the first tensor that is missing or whose shape does not match.
    """
    refuse_overlap(result, (base, other))
    pairs = pair(base, other, rule)
    if sign < 0 and (warning := whole.check(pairs.tensors, pairs.base, allow_whole=allow_whole)):
        pairs.notes.append(f"warning: {warning}")
    dtype = RULES[rule].dtype
    unfinished = resumable_folder(result, None, resume=False, force=force, discard_rejected=True)
    with unfinished as folder, workers() as pool:
        for file in sorted({tensor.file for tensor, _ in pairs.tensors}):
            part = [(tensor, of_base) for tensor, of_base in pairs.tensors if tensor.file == file]
            # The names that save_pretrained uses for both kinds of files.
            name = file.name.replace("pytorch_model", "model").removesuffix(".bin")
            writer = safetensors_io.Writer(folder / f"{name.removesuffix('.safetensors')}.safetensors")
            writer.write(safetensors_io.header_bytes(_header([tensor for tensor, _ in part], dtype)))
            for tensor, of_base in part:
                for piece in in_order(pool, _sums(tensor, of_base, sign, dtype)):
                    writer.write(piece)
            writer.close()
        for stored, source in files.items():
            if not stored.endswith(".index.json"):
                (folder / stored).parent.mkdir(exist_ok=True)
                (folder / stored).write_bytes(source.read_bytes())
        _write_index(folder)
    return pairs


def pair(base: Path, other: Path, rule: str) -> Pairs:
    """Match the tensors of two folders by name, before any is read; UserError if they do not fit."""
    (bases, note), (others, of_other) = _tensors(base), _tensors(other)
    notes = [each for each in (note, of_other) if each]
    alone = [bases.get(name) or others[name] for name in sorted(bases.keys() ^ others.keys())]
    lone = [tensor for tensor in alone if tensor.name in bases or not _whole(tensor, rule)]
    if buffers := [tensor.name for tensor in lone if safetensors_io.is_computed(tensor)]:
        notes.append(
            f"{len(buffers):,} buffers that transformers computes are in only one of {base} and {other},"
            f" and are left out: {buffers[0]}{' …' if buffers[1:] else ''}"
        )
    left_out = set(buffers)
    if lost := [tensor for tensor in lone if tensor.name not in left_out]:
        there, gone = (base, other) if lost[0].name in bases else (other, base)
        raise UserError(
            f"{gone}: tensor {lost[0].name}{f' (and {len(lost) - 1:,} more)' if lost[1:] else ''} is missing,"
            f" which {there} has. They do not belong together, or a file is missing: download it again."
        )
    matched = [
        (tensor, None if _whole(tensor, rule) else bases[tensor.name])
        for tensor in others.values()
        if tensor.name not in left_out
    ]
    for tensor, of_base in matched:
        padded = of_base and tensor.name.endswith(RULES[rule].padded) and _has_row_more(tensor, of_base)
        if of_base and of_base.shape != tensor.shape and not padded:
            raise UserError(
                f"{tensor.file}: tensor {tensor.name} has shape {tensor.shape}, but {of_base.shape} in the"
                " base. This is another base, or the vocabulary was extended: extend the base's embedding"
                " first, as the publisher did."
            )
    return Pairs(matched, bases, notes)


def _tensors(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a folder's safetensors or pickled files, and a note about files that are not read."""
    found = weight_files.find(folder)
    if not found.pickled:
        return safetensors_io.ModelFolder(folder).tensors, found.note
    tensors: dict[str, Tensor] = {}
    for tensor in (tensor for file in found.files for tensor in read_pickled(file)):
        if tensor.name in tensors:
            raise UserError(
                f"{tensor.file}: tensor {tensor.name} is also in {tensors[tensor.name].file.name}."
            )
        tensors[tensor.name] = tensor
    found.check(tensors)
    return tensors, found.note


def _whole(tensor: Tensor, rule: str) -> bool:
    return any(part in tensor.name for part in RULES[rule].whole)


def _has_row_more(tensor: Tensor, of_base: Tensor) -> bool:
    return len(of_base.shape) == 2 and tensor.shape == (of_base.shape[0] + 1, of_base.shape[1])


def _sums(tensor: Tensor, base: Tensor | None, sign: int, dtype: str) -> Iterator[Callable[[], bytes]]:
    size = PIECE_ELEMENTS * tensor.size // max(1, tensor.elements)
    pieces: Iterator[bytes] = iter(())
    base_dtype = base.dtype if base else ""
    if base and base.shape != tensor.shape:
        pieces, base_dtype = with_mean_row(base, PIECE_ELEMENTS), "F32"
    elif base:
        pieces = safetensors_io.read_pieces(base, PIECE_ELEMENTS * base.size // max(1, base.elements))
    for piece in safetensors_io.read_pieces(tensor, size):
        yield bind(_sum, piece, tensor.dtype, next(pieces, None), base_dtype, sign, dtype)


def _sum(piece: bytes, dtype: str, base: bytes | None, base_dtype: str, sign: int, result: str) -> bytes:
    if dtype not in FLOATS or (dtype == result and base is None):
        return piece
    compiled = kernel()
    halves = result == dtype == "F16" and base_dtype in ("F16", "BF16")
    if compiled and base is not None and halves:
        bits, bases = np.frombuffer(piece, "<u2"), np.frombuffer(base, "<u2")
        return compiled.add(bits, bases, base_is_bf16=base_dtype == "BF16", sign=sign).tobytes()
    return add(piece, dtype, base, base_dtype, sign, result)


def add(
    piece: bytes, dtype: str, base: bytes | None, base_dtype: str, sign: int, result: str = "F16"
) -> bytes:
    """Round both to the `result` type and return their sum or difference; without a base, only the first."""
    rounded = _half if result == "F16" else _single
    values = rounded(piece, dtype)
    if base is not None:
        # Two fp16 numbers are added in float32 and rounded once, as torch does.
        values = values + np.float32(sign) * rounded(base, base_dtype)
    with np.errstate(over="ignore"):
        return values.astype("<f2" if result == "F16" else "<f4").tobytes()


def _single(data: bytes, dtype: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The elements as float32."""
    if dtype != "F64":
        return as_float32(data, dtype)
    with np.errstate(over="ignore"):
        return np.frombuffer(data, "<f8").astype(np.float32)


def _half(data: bytes, dtype: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The elements rounded to fp16, as float32."""
    if dtype in ("F16", "BF16"):
        return _table(dtype).take(np.frombuffer(data, "<u2"))
    with np.errstate(over="ignore"):
        return np.frombuffer(data, "<f4" if dtype == "F32" else "<f8").astype(np.float16).astype(np.float32)


@cache
def _table(dtype: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The fp16 value of each bit pattern; numpy converts subnormal numbers slowly."""
    patterns = np.arange(1 << 16, dtype=np.uint32)
    with np.errstate(over="ignore"):
        if dtype == "BF16":
            return (patterns << 16).view(np.float32).astype(np.float16).astype(np.float32)
        return patterns.astype(np.uint16).view(np.float16).astype(np.float32)


def _header(tensors: list[Tensor], dtype: str) -> str:
    """A safetensors header for the result, with floats of the type."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        is_float = tensor.dtype in FLOATS
        end = position + (ITEMSIZE[dtype] * tensor.elements if is_float else tensor.size)
        header[tensor.name] = {
            "dtype": dtype if is_float else tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":"))
    return text + " " * (-len(text.encode()) % 8)


def _write_index(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        files[0].rename(folder / "model.safetensors")
        return
    tensors = [tensor for file in files for tensor in safetensors_io.read_header(file)[1]]
    index = {
        "metadata": {"total_size": sum(tensor.size for tensor in tensors)},
        "weight_map": {tensor.name: tensor.file.name for tensor in tensors},
    }
    (folder / weight_files.INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
