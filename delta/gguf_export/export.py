"""Write a model's folder as one GGUF file: checked, streamed in pieces, read back and compared.

    python -m delta gguf --model RUN/model --output model.gguf --type q8_0

Matrices get the type that is asked for; everything with one dimension is float32, as llama.cpp computes with
it. The file appears under its name only once each tensor in it has been compared with the folder's.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.provenance.atomic_io import lock, sync_folder, write_text
from delta import safetensors_io
from delta.codec import ITEMSIZE
from delta.gguf_export import architecture, tokenizer
from delta.lora_merge import as_float32, from_float32

TYPES = ("bf16", "f16", "f32", "q8_0")
SOURCES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
"""The names of these types in safetensors."""
PIECE_BYTES = 1 << 22
BLOCK = 32
"""Elements that share a scale in q8_0."""
F16_MAX = 65504.0
HALF_STEP = {"f32": 0.0, "bf16": 2.0**-8, "f16": 2.0**-11}
"""How far rounding may move a value, relative to it."""
SMALLEST = {"f32": 0.0, "bf16": 2.0**-134, "f16": 2.0**-25}
"""The same for the smallest values, absolute."""
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Planned:
    """A tensor of the file."""

    name: str
    source: safetensors_io.Tensor
    kind: str
    head_rows: int
    """Rows of one head, if they have to be permuted, else 0."""

    @property
    def columns(self) -> int:
        """Elements of a row; a vector is one row per element if it is permuted, and else one row."""
        return 1 if self.head_rows and len(self.source.shape) == 1 else self.source.shape[-1]

    @property
    def stored_bytes(self) -> int:
        """Size in the file, without padding."""
        size = {"q8_0": (BLOCK + 2) / BLOCK, "f32": 4, "f16": 2, "bf16": 2}[self.kind]
        return int(self.source.elements * size)

    def read(self) -> Iterator[bytes]:
        """The source's bytes, some whole rows (and whole heads) at a time."""
        step = self.columns * ITEMSIZE[self.source.dtype] * (self.head_rows or 1)
        return safetensors_io.read_pieces(self.source, max(1, PIECE_BYTES // step) * step)


@dataclass(frozen=True)
class Written:
    """What `export` did, for the user."""

    tensors: int
    bytes: int
    kinds: dict[str, int]
    """Number of tensors by type."""
    modelfile: Path
    notes: list[str]


def export(model: Path, output: Path, *, kind: str | None = None, force: bool = False) -> Written:
    """Write `output` and a Modelfile for Ollama beside it; UserError if llama.cpp cannot be given the
    model."""
    modelfile = output.with_name("Modelfile")
    _check_places(model, output, modelfile, force=force)
    described = architecture.read(model)
    source = safetensors_io.ModelFolder(model)
    kind = kind or ("bf16" if _most_common(source) == "BF16" else "f16")
    notes: list[str] = []
    plan = _plan(source, described, kind, notes)
    vocabulary = tokenizer.read(model, described.vocabulary)
    notes += vocabulary.notes
    if described.window and described.window == described.context:
        notes.append(
            f"llama.cpp attends to all positions: the context is {described.context:,}, the sliding window"
        )
    partial = output.with_name(f".{output.name}.unfinished")
    with lock(output.with_name(f".{output.name}.lock"), f"{output} is already being written"):
        size = sum(each.stored_bytes for each in plan)
        if (free := shutil.disk_usage(output.parent).free) < size:
            raise UserError(
                f"{output.parent}: not enough disk space: {size / 1e9:.2f} GB needed, {free / 1e9:.2f} free."
            )
        try:
            _write(partial, plan, model, described, vocabulary, kind)
            _compare(partial, plan, described)
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
        write_text(modelfile, _modelfile(output, vocabulary, described.context))
        sync_folder(output.parent)
    kinds = [each.kind for each in plan]
    counts = {name: kinds.count(name) for name in TYPES if name in kinds}
    return Written(len(plan), output.stat().st_size, counts, modelfile, notes)


def _check_places(model: Path, output: Path, modelfile: Path, *, force: bool) -> None:
    if not model.is_dir():
        raise UserError(f"--model {model}: no such folder.")
    if (model / "adapter_config.json").is_file():
        raise UserError(
            f"--model {model}: this is an adapter. Merge it first: `python -m sft merge --adapter {model}"
            " --output FOLDER`, and give FOLDER as --model."
        )
    if output.suffix != ".gguf":
        raise UserError(f"--output {output}: give a file that ends in .gguf, as llama.cpp expects.")
    for place in (output, modelfile):
        if place.is_symlink() or place.is_dir():
            raise UserError(
                f"{place} is a {'link' if place.is_symlink() else 'folder'}. Choose another name."
            )
        if place.exists() and not force:
            raise UserError(
                f"{place} already exists and is not overwritten. Choose another folder, or pass --force."
            )


def _most_common(source: safetensors_io.ModelFolder) -> str:
    kinds = [tensor.dtype for tensor in source.tensors.values()]
    return max(kinds, key=kinds.count, default="")


def _plan(
    source: safetensors_io.ModelFolder, described: architecture.Architecture, kind: str, notes: list[str]
) -> list[Planned]:
    """Every tensor of the file; UserError if the folder's are not those of its configuration."""
    expected = described.tensors()
    found = {name: t for name, t in source.tensors.items() if not safetensors_io.is_computed(t)}
    if described.tied:
        found.pop("lm_head.weight", None)
    if lost := [name for name in expected if name not in found]:
        raise UserError(f"{source.path}: tensor {lost[0]} is missing. config.json belongs to another model.")
    if more := [name for name in found if name not in expected]:
        raise UserError(
            f"{source.path}: tensor {more[0]} has no place in a {described.name} of llama.cpp. A quantised"
            " model, or one with other layers, cannot be written."
        )
    plan, narrow = [], []
    for name, (renamed, shape, head_rows) in expected.items():
        tensor = found[name]
        if tensor.shape != shape:
            raise UserError(
                f"{tensor.file}: tensor {name} has shape {tensor.shape}, but config.json says {shape}."
            )
        if tensor.dtype not in ("F32", "F16", "BF16"):
            raise UserError(f"{tensor.file}: tensor {name} is {tensor.dtype}. Give the model in BF16 or F32.")
        of_tensor = kind if len(shape) > 1 else "f32"
        if of_tensor == "q8_0" and shape[-1] % BLOCK:
            of_tensor = "f16"
            narrow.append(name)
        plan.append(Planned(renamed, tensor, of_tensor, head_rows))
    if narrow:
        notes.append(
            f"{len(narrow):,} tensors have rows that are not a multiple of {BLOCK} and are f16,"
            f" e.g. {narrow[0]}"
        )
    return plan


def _write(
    path: Path,
    plan: list[Planned],
    model: Path,
    described: architecture.Architecture,
    vocabulary: tokenizer.Vocabulary,
    kind: str,
) -> None:
    """The whole file, one piece of a tensor in memory at a time."""
    import gguf

    writer = gguf.GGUFWriter(path, described.name)
    writer.add_type("model")
    name, licence = architecture.model_card(model)
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    file_types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[file_types[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    described.write(writer)
    vocabulary.write(writer)
    factors = described.rope_factors
    if factors is not None:
        _declare(writer, "rope_freqs.weight", factors.shape, "f32", factors.nbytes)
    for each in plan:
        _declare(writer, each.name, each.source.shape, each.kind, each.stored_bytes)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        file = writer.fout[0]
        writer.write_padding(file, file.tell())
        if factors is not None:
            file.write(factors.tobytes())
            writer.write_padding(file, factors.nbytes)
        for each in _shown(plan, "writing"):
            for piece in each.read():
                file.write(encode(piece, each))
            writer.write_padding(file, each.stored_bytes)
        file.flush()
        os.fsync(file.fileno())
    finally:
        writer.close()


def _declare(writer: Any, name: str, shape: tuple[int, ...], kind: str, size: int) -> None:
    import gguf

    raw = gguf.GGMLQuantizationType[kind.upper()]
    writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=raw)


def _shown(plan: list[Planned], what: str) -> Iterator[Planned]:
    """The tensors, with a progress bar on a terminal."""
    from tqdm import tqdm

    total = sum(each.stored_bytes for each in plan)
    bar = tqdm(
        total=total, desc=what, unit="B", unit_scale=True, delay=1, leave=False,
        dynamic_ncols=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bar:
        for each in plan:
            yield each
            bar.update(each.stored_bytes)


def encode(piece: bytes, each: Planned) -> bytes:
    """Some whole rows of a tensor as they are in the file; UserError for a value that its type cannot
    hold."""
    if each.head_rows:
        width = ITEMSIZE[each.source.dtype]
        rows = np.frombuffer(piece, f"<u{width}").reshape(-1, each.columns)
        piece = permuted(rows, each.head_rows).tobytes()
    if SOURCES.get(each.kind) == each.source.dtype:
        return piece
    values = as_float32(piece, each.source.dtype)
    if each.kind in ("f16", "q8_0"):
        _refuse_values(values, each)
    if each.kind == "q8_0":
        import gguf

        rows = values.reshape(-1, each.columns)
        return bytes(gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q8_0).tobytes())
    return from_float32(values, SOURCES[each.kind])


def _refuse_values(values: Array, each: Planned) -> None:
    """UserError for what would become infinite in f16 (in q8_0, a block's scale is f16)."""
    finite = np.isfinite(values)
    largest = float(np.max(np.abs(values), where=finite, initial=0))
    if each.kind == "q8_0" and not finite.all():
        raise UserError(
            f"{each.source.file}: tensor {each.source.name} has a NaN or an infinity, which q8_0 cannot hold."
            " The model is damaged; --type f16 keeps it as it is."
        )
    if largest > (F16_MAX if each.kind == "f16" else 127 * F16_MAX):
        raise UserError(
            f"{each.source.file}: tensor {each.source.name} has a value of {largest:g}, which is above"
            f" {F16_MAX:g}, the largest of f16. Use --type bf16 or f32."
        )


def permuted(rows: Array, head_rows: int) -> Array:
    """Rows of heads from transformers' order (first halves, then second halves) to neighbouring pairs."""
    heads = rows.reshape(-1, 2, head_rows // 2, rows.shape[-1])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def restored(rows: Array, head_rows: int) -> Array:
    """The inverse of `permuted`."""
    heads = rows.reshape(-1, head_rows // 2, 2, rows.shape[-1])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def _compare(path: Path, plan: list[Planned], described: architecture.Architecture) -> None:
    """Read the file with gguf's reader and compare each tensor with the folder's; RuntimeError if one
    differs by more than its type's rounding, which is a bug here or a failing disk."""
    import gguf

    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    factors = described.rope_factors
    expected = {each.name for each in plan} | ({"rope_freqs.weight"} if factors is not None else set())
    if stored.keys() != expected:
        raise RuntimeError(f"{path}: tensors are missing or too many: {sorted(stored.keys() ^ expected)[:3]}")
    if factors is not None and not np.array_equal(stored["rope_freqs.weight"].data, factors):
        raise RuntimeError(f"{path}: rope_freqs.weight differs from what was written.")
    with path.open("rb") as file:  # the reader's arrays are mapped: their pages would count as memory
        for each in _shown(plan, "comparing"):
            tensor = stored[each.name]
            kind, shape = tensor.tensor_type.name.lower(), tuple(reversed(tensor.shape.tolist()))
            if (kind, shape, tensor.n_bytes) != (each.kind, each.source.shape, each.stored_bytes):
                raise RuntimeError(f"{path}: {each.name} is {kind} of shape {shape}.")
            file.seek(tensor.data_offset)
            for piece in each.read():
                original = as_float32(piece, each.source.dtype)
                data = file.read(each.stored_bytes * original.size // each.source.elements)
                if not _same(np.frombuffer(data, np.uint8), each, original):
                    raise RuntimeError(
                        f"{path}: {each.name} differs from {each.source.name} in {each.source.file}."
                    )


def _same(data: Array, each: Planned, original: Array) -> bool:
    """Whether stored rows are `original` within the rounding of their type; NaN is NaN."""
    values, bound = decode(data, each, original)
    with np.errstate(invalid="ignore"):  # an infinity less an infinity
        same = (np.abs(values - original) <= bound) | (values == original)
    return bool((same | (np.isnan(values) & np.isnan(original))).all())


def decode(data: Array, each: Planned, original: Array) -> tuple[Array, Array]:
    """Stored rows as float32 in the source's order, and how far each may be from `original`, its values."""

    def ordered(part: Array) -> Array:
        if not each.head_rows:
            return part.reshape(-1)
        return restored(part.reshape(-1, each.columns), each.head_rows).reshape(-1)

    if each.kind == "q8_0":
        blocks = data.reshape(-1, BLOCK + 2)
        scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
        # Half a step of the scale (the largest of 32 over 127), which itself is rounded to f16.
        bound = scale * (0.5 + 127 * 2 * HALF_STEP["f16"]) + 127 * SMALLEST["f16"]
        return ordered(scale * blocks[:, 2:].view(np.int8)), ordered(np.repeat(bound, BLOCK, axis=1))
    values = as_float32(data.tobytes(), SOURCES[each.kind])
    exact = SOURCES[each.kind] == each.source.dtype
    with np.errstate(invalid="ignore", over="ignore"):
        bound = np.abs(original) * HALF_STEP[each.kind] + SMALLEST[each.kind]
    return ordered(values), np.zeros_like(bound) if exact else bound


def _modelfile(output: Path, vocabulary: tokenizer.Vocabulary, context: int) -> str:
    """What `ollama create` reads. The template is the one in the file itself."""
    stops = [f'PARAMETER stop "{stop}"\n' for stop in vocabulary.stops if '"' not in stop]
    return f"FROM ./{output.name}\n{''.join(stops)}PARAMETER num_ctx {context}\n"
