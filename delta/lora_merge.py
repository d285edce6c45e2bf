"""A base model with a LoRA adapter that is merged in while the weights are read.

W + scale * B A is computed in float32 for the rows that a piece needs and rounded once to the base's dtype
(to nearest, ties to even), as peft's `merge_and_unload` does for a base in float32. The layout is the base's.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from delta import codec, safetensors_io

PREFIX = "base_model.model."
UNSUPPORTED = ("use_dora", "lora_bias", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern")


class Merged:
    """The weights of a base and an adapter, merged."""

    def __init__(self, base: safetensors_io.ModelFolder, adapter: Path) -> None:
        self.base = base
        self.tensors, self.headers = base.tensors, base.headers
        path = adapter / "adapter_config.json"
        try:
            config = json.loads(path.read_text("utf-8"))
            rank, alpha = config["r"], config["lora_alpha"]
            self.scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise UserError(f"{path} is damaged ({error!r}).") from None
        if config.get("peft_type") != "LORA" or any(config.get(key) for key in UNSUPPORTED):
            used = [key for key in UNSUPPORTED if config.get(key)] or [config.get("peft_type")]
            raise UserError(
                f"{path}: {', '.join(map(str, used))} is not supported: only plain LoRA can be merged here."
                " Merge the adapter with `python -m sft merge` and give the result as --target."
            )
        self.pairs = _pairs(adapter / "adapter_model.safetensors", base)
        self.files = [*base.files, path, adapter / "adapter_model.safetensors"]

    def read(self, name: str, piece_bytes: int) -> Iterator[bytes]:
        """The merged tensor's bytes, piece by piece; the base's bytes if the adapter does not change it."""
        if name not in self.pairs:
            yield from self.base.read(name, piece_bytes)
            return
        tensor = self.tensors[name]
        down, up = (
            as_float32(b"".join(safetensors_io.read_pieces(t, 1 << 20)), t.dtype) for t in self.pairs[name]
        )
        down = down.reshape(-1, tensor.shape[1])
        up = up.reshape(tensor.shape[0], -1)
        first = 0
        for piece in self.base.read(name, piece_bytes):
            values = as_float32(piece, tensor.dtype)
            start_row, last_row = first // tensor.shape[1], -(-(first + values.size) // tensor.shape[1])
            change = (self.scale * (up[start_row:last_row] @ down)).reshape(-1)
            offset = first - start_row * tensor.shape[1]
            yield from_float32(values + change[offset : offset + values.size], tensor.dtype)
            first += values.size


def as_float32(data: bytes, dtype: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Elements of a float type as float32 (exact for bf16 and fp16)."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32)


def from_float32(values: np.ndarray[Any, np.dtype[np.float32]], dtype: str) -> bytes:
    """Rounded to nearest, ties to even; NaN stays NaN."""
    if dtype == "BF16":
        bits = values.view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()


def _pairs(
    file: Path, base: safetensors_io.ModelFolder
) -> dict[str, tuple[safetensors_io.Tensor, safetensors_io.Tensor]]:
    """The matrices A and B of each tensor that the adapter changes."""
    tensors = {tensor.name: tensor for tensor in safetensors_io.read_header(file)[1]}
    pairs = {}
    for name, down in tensors.items():
        if name.endswith(".lora_B.weight"):
            continue
        changed = name.removeprefix(PREFIX).removesuffix(".lora_A.weight") + ".weight"
        up = tensors.get(name.replace(".lora_A.", ".lora_B."))
        of_base = base.tensors.get(changed)
        if ".lora_A.weight" not in name or of_base is None or up is None:
            raise UserError(f"{file}: tensor {name} does not match any tensor of {base.path}.")
        fits = len(of_base.shape) == 2 and (up.shape[0], down.shape[1]) == of_base.shape
        if not fits or down.shape[0] != up.shape[1]:
            raise UserError(
                f"{file}: tensor {name} has shapes {down.shape} (A) and {up.shape} (B), which do not fit"
                f" {changed} with shape {of_base.shape}."
            )
        if odd := {of_base.dtype, up.dtype, down.dtype} - (codec.EXPONENT.keys() - {"F64"}):
            raise UserError(
                f"{file}: tensor {name}: {', '.join(sorted(odd))} weights cannot be merged. Only F16,"
                " BF16 and F32 can (no quantised base)."
            )
        pairs[changed] = (down, up)
    return pairs
