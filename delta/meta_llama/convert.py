"""Convert Meta's original LLaMA weights to the Hugging Face layout, in pieces, without torch.

`consolidated.NN.pth` contains the NN-th part of each matrix (split by rows or by columns for model
parallelism), `params.json` the sizes, `tokenizer.model` the tokenizer. Names and shapes of all parts are
checked first. Then the parts are joined and the rows of the query and key matrices are reordered as
transformers' rotary embedding expects (the first numbers of all pairs of a head, then the second ones). The
values do not change unless another dtype is requested.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.model.weight_files import INDEX
from core.provenance.atomic_io import refuse_overlap, resumable_folder
from delta import safetensors_io
from delta.codec import ITEMSIZE
from delta.lora_merge import as_float32, from_float32
from delta.meta_llama.params import CONTEXT, SCALED, config, guess_version, read_params
from delta.meta_llama.tokenizer import write_tokenizer
from delta.meta_llama.torch_pickle import read_pickled

SHARD_BYTES = 5_000_000_000
PIECE_BYTES = 1 << 22
LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTER = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
BY_COLUMNS = ("attention.wo", "feed_forward.w2")
DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
COMPUTED = "rope.freqs"
"""In Meta's files, but computed by transformers."""


def convert(
    source: Path,
    target: Path,
    *,
    model_size: str | None = None,
    version: str | None = None,
    dtype: str | None = None,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Write the Hugging Face folder and return the number of tensors; UserError if parts or sizes do not
    match."""
    refuse_overlap(target, (source,))
    if model_size and not (source / "params.json").exists() and (source / model_size).is_dir():
        source = source / model_size  # Meta's download has a folder per size, and one tokenizer
    params = read_params(source, model_size)
    tensors = join(source, params)
    first = tensors["model.embed_tokens.weight"]
    kind = DTYPES[dtype] if dtype else first.dtype
    version = version or guess_version(params, first.shape[0])
    if version in SCALED and "lm_head.weight" in tensors and _equal(tensors["lm_head.weight"], first):
        del tensors["lm_head.weight"]  # the small models of 3.2 tie it to the embedding
    with resumable_folder(target, None, resume=False, force=force, discard_rejected=True) as folder:
        write_tokenizer(source, folder, version, CONTEXT[version])
        content = config(
            params,
            version,
            inner=tensors["model.layers.0.mlp.gate_proj.weight"].shape[0],
            vocabulary=first.shape[0],
            tied="lm_head.weight" not in tensors,
            dtype={short: name for name, short in DTYPES.items()}[kind],
        )
        (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        _write(folder, tensors, kind, shard_bytes)
    return len(tensors)


def join(source: Path, params: dict[str, Any]) -> dict[str, "Joined"]:
    """The model's tensors by their names in transformers; UserError names the first that does not fit."""
    files = sorted(source.glob("consolidated.*.pth"))
    if not files:
        raise UserError(
            f"{source}: consolidated.00.pth not found. Give the folder that contains Meta's files."
        )
    parts = [{tensor.name: tensor for tensor in read_pickled(file)} for file in files]
    for file, part in zip(files, parts, strict=True):
        if odd := sorted(part.keys() ^ parts[0].keys()):
            raise UserError(f"{file}: tensor {odd[0]} is not in all {len(files)} parts.")
    dim, head = params["dim"], params["dim"] // params["n_heads"]
    tensors: dict[str, Joined] = {}
    sizes: dict[str, int] = {"dim": dim, "kv": params["n_kv_heads"] * head}
    for name, renamed in _names(params["n_layers"]):
        of_name = [part.pop(name) for part in parts if name in part]
        if not of_name and name == "output.weight":
            continue
        if not of_name:
            raise UserError(f"{files[0]}: tensor {name} is missing: params.json belongs to another model.")
        tensors[renamed] = joined = _joined(name, of_name, dim, head)
        for length, size in zip(joined.shape, _shape(name), strict=False):
            sizes.setdefault(size, length)
        expected = tuple(sizes[size] for size in _shape(name))
        if joined.shape != expected:
            raise UserError(
                f"{of_name[0].file}: tensor {name} has {len(files)} parts of shape {of_name[0].shape}, which"
                f" do not make {expected}. Parts are missing, or params.json belongs to another model."
            )
    if unknown := sorted(parts[0].keys() - {COMPUTED}):
        raise UserError(f"{files[0]}: tensor {unknown[0]} does not belong to a LLaMA with this params.json.")
    return tensors


@dataclass(frozen=True)
class Joined:
    """A tensor that is joined from its parts."""

    parts: list[safetensors_io.Tensor]
    by_columns: bool
    head_rows: int
    """Rows of one head, if they have to be reordered, else 0."""

    @property
    def dtype(self) -> str:
        """The dtype's name in safetensors."""
        return self.parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the joined tensor."""
        shape = list(self.parts[0].shape)
        shape[1 if self.by_columns else 0] *= len(self.parts)
        return tuple(shape)

    def read(self) -> Iterator[bytes]:
        """The bytes in the order that transformers expects, some rows at a time."""
        columns = self.parts[0].shape[-1]
        row_bytes = columns * ITEMSIZE[self.dtype]
        rows = self.head_rows or max(1, PIECE_BYTES // (row_bytes * len(self.parts)))
        pieces = [safetensors_io.read_pieces(part, rows * row_bytes) for part in self.parts]
        of_rows: Iterator[tuple[bytes, ...]] = ((piece,) for of_part in pieces for piece in of_part)
        for group in zip(*pieces, strict=True) if self.by_columns else of_rows:
            arrays = [
                np.frombuffer(piece, f"<u{ITEMSIZE[self.dtype]}").reshape(-1, columns) for piece in group
            ]
            whole = np.concatenate(arrays, axis=1)
            if self.head_rows:
                whole = whole.reshape(-1, 2, columns).swapaxes(0, 1)
            yield whole.tobytes()


def _names(layers: int) -> Iterator[tuple[str, str]]:
    for name, renamed in OUTER.items():
        yield f"{name}.weight", f"{renamed}.weight"
    for layer in range(layers):
        for name, renamed in LAYER.items():
            yield f"layers.{layer}.{name}.weight", f"model.layers.{layer}.{renamed}.weight"


def _joined(name: str, parts: list[safetensors_io.Tensor], dim: int, head: int) -> Joined:
    first = parts[0]
    if any((part.dtype, part.shape) != (first.dtype, first.shape) for part in parts):
        raise UserError(f"{first.file}: tensor {name} has another shape or dtype in another part.")
    if first.dtype not in DTYPES.values() or len(first.shape) != len(_shape(name)) or not first.elements:
        raise UserError(f"{first.file}: tensor {name} is {first.dtype} {first.shape}; no LLaMA has that.")
    if len(first.shape) == 1:  # norms are complete in every part
        return Joined(parts[:1], by_columns=False, head_rows=0)
    by_columns = any(part in name for part in BY_COLUMNS)
    if name == "tok_embeddings.weight":  # split by columns in LLaMA 1 and 2, by rows in LLaMA 3
        by_columns = first.shape[1] != dim
    head_rows = head if "attention.wq" in name or "attention.wk" in name else 0
    if head_rows and first.shape[0] % head_rows:
        raise UserError(f"{first.file}: tensor {name}: parts of {first.shape[0]} rows split a head.")
    return Joined(parts, by_columns, head_rows)


def _shape(name: str) -> tuple[str, ...]:
    """The names of a tensor's dimensions. The first tensor with a dimension of unknown size defines it."""
    kind = name.removesuffix(".weight").rpartition(".")[2]
    shapes = {
        ("wq", "wo"): ("dim", "dim"), ("wk", "wv"): ("kv", "dim"), ("w1", "w3"): ("inner", "dim"),
        ("w2",): ("dim", "inner"), ("tok_embeddings", "output"): ("vocabulary", "dim"),
    }  # fmt: skip
    return next((shape for kinds, shape in shapes.items() if kind in kinds), ("dim",))


def _equal(one: Joined, two: Joined) -> bool:
    return one.shape == two.shape and all(a == b for a, b in zip(one.read(), two.read(), strict=True))


def _write(folder: Path, tensors: dict[str, Joined], kind: str, shard_bytes: int) -> None:
    """Write files of at most `shard_bytes`, unless a tensor is larger, and their index."""
    sizes = {name: int(np.prod(tensors[name].shape)) * ITEMSIZE[kind] for name in sorted(tensors)}
    if (free := shutil.disk_usage(folder).free) < (needed := sum(sizes.values())):
        raise UserError(
            f"{folder.parent}: not enough disk space: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free."
        )
    groups: list[list[str]] = [[]]
    for name, size in sizes.items():
        if groups[-1] and sum(sizes[other] for other in groups[-1]) + size > shard_bytes:
            groups.append([])
        groups[-1].append(name)
    weight_map = {}
    for number, names in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            start, end = end, end + sizes[name]
            header[name] = {"dtype": kind, "shape": tensors[name].shape, "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":"))
        writer = safetensors_io.Writer(folder / (file if len(groups) > 1 else "model.safetensors"))
        writer.write(safetensors_io.header_bytes(text + " " * (-len(text.encode()) % 8)))
        for name in names:
            for piece in tensors[name].read():
                writer.write(_as_type(piece, tensors[name].dtype, kind))
        writer.close()
        weight_map.update(dict.fromkeys(names, file))
    if len(groups) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _as_type(piece: bytes, dtype: str, kind: str) -> bytes:
    if dtype == kind:
        return piece
    with np.errstate(over="ignore"):
        return from_float32(as_float32(piece, dtype), kind)
