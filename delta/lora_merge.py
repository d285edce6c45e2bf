"""A base model with a LoRA adapter that is merged in while the weights are read.

W + scale * B A is computed in float32 for the rows that a piece needs and rounded once to the base's dtype
(to nearest, ties to even), as peft's `merge_and_unload` does for a base in float32. The layout is the base's.

This is what peft computes only for a plain adapter on the unchanged base. So every key of adapter_config.json
must be one that is known to say nothing else, or have no value: PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA begin
by changing the base, DoRA and others compute something else, and what peft adds one day is refused until it
is known here.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.errors import UserError
from delta import safetensors_io

PREFIX = "base_model.model."
USED = (
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
)
"""Keys of adapter_config.json that the merge depends on."""
WITHOUT_EFFECT = (
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_ga_config",
    "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "task_type",
)  # fmt: skip
"""Keys that matter in training only, or together with one that is refused."""
STARTS = (True, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base as it is; so do False and none."""
NEUTRAL = ("none", "None")
"""Values that mean that a feature is off, besides those that are false."""
TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
"""Types of models whose matrices are stored with inputs as rows."""
TORCH = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


class Pair(NamedTuple):
    """What is added to a tensor of the base: scale * up @ down."""

    down: safetensors_io.Tensor
    up: safetensors_io.Tensor
    scale: float


class Merged:
    """The weights of a base and an adapter, merged."""

    def __init__(self, base: safetensors_io.ModelFolder, adapter: Path) -> None:
        self.base = base
        self.tensors, self.headers = base.tensors, base.headers
        path = adapter / "adapter_config.json"
        config = _read(path)
        about_base = _config_of(base.path)
        if odd := _unsupported(config, about_base.get("model_type")):
            raise UserError(
                f"{path}: {', '.join(odd)}: this adapter cannot be merged here exactly. {_advice(base)}"
            )
        self.pairs = _pairs(adapter / "adapter_model.safetensors", base, config, path)
        for name in self.pairs:
            if other := _tied_to(name, base, about_base):
                raise UserError(f"{path}: {name} is one weight with {other} in this base. {_advice(base)}")
        self.files = [*base.files, path, adapter / "adapter_model.safetensors"]

    def read(self, name: str, piece_bytes: int) -> Iterator[bytes]:
        """The merged tensor's bytes, piece by piece; the base's bytes if the adapter does not change it."""
        if name not in self.pairs:
            yield from self.base.read(name, piece_bytes)
            return
        tensor = self.tensors[name]
        *matrices, scale = self.pairs[name]
        down, up = (as_float32(b"".join(safetensors_io.read_pieces(t, 1 << 20)), t.dtype) for t in matrices)
        down = down.reshape(-1, tensor.shape[1])
        up = up.reshape(tensor.shape[0], -1)
        first = 0
        for piece in self.base.read(name, piece_bytes):
            values = as_float32(piece, tensor.dtype)
            start_row, last_row = first // tensor.shape[1], -(-(first + values.size) // tensor.shape[1])
            change = (scale * (up[start_row:last_row] @ down)).reshape(-1)
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


def _read(path: Path) -> dict[str, Any]:
    """adapter_config.json; UserError if a value that the merge needs is missing or of another type."""
    try:
        config: dict[str, Any] = json.loads(
            path.read_text("utf-8"), object_pairs_hook=safetensors_io.no_repeats
        )
        for key in ("rank_pattern", "alpha_pattern"):
            config[key] = dict(config.get(key) or {})
        ranks = [config["r"], *config["rank_pattern"].values()]
        alphas = [config["lora_alpha"], *config["alpha_pattern"].values()]
        if not all(type(rank) is int and rank > 0 for rank in ranks):
            raise ValueError(f"r and rank_pattern: {ranks}")
        if not all(type(alpha) in (int, float) and math.isfinite(alpha) for alpha in alphas):
            raise ValueError(f"lora_alpha and alpha_pattern: {alphas}")
        for pattern in (*config["rank_pattern"], *config["alpha_pattern"]):
            re.compile(pattern)
        for key in ("target_modules", "exclude_modules"):
            names = config.get(key) or []
            if isinstance(names, str):
                re.compile(names) if names != "all-linear" else None
            elif not all(isinstance(name, str) for name in names):
                raise ValueError(f"{key}: {names!r}")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is no adapter in peft's layout.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, re.error) as error:
        raise UserError(f"{path} is damaged ({error!r}).") from None
    return config


def _config_of(base: Path) -> dict[str, Any]:
    """The base's configuration; empty if it has none."""
    try:
        return dict(json.loads((base / "config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _unsupported(config: dict[str, Any], kind: Any) -> list[str]:
    """Every setting with which peft computes something else than W + scale * B A."""
    odd = [f"peft_type={config.get('peft_type')!r}"] if config.get("peft_type") != "LORA" else []
    for key, value in config.items():
        known = key in USED or key in WITHOUT_EFFECT or key.endswith("_dropout")
        known = known or (key == "init_lora_weights" and value in STARTS)
        if value and value not in NEUTRAL and not known:
            text = json.dumps(value)
            odd.append(f"{key}={text if len(text) < 60 else text[:60] + '…'}")
    return [*odd, f"a base of type {kind}"] if kind in TRANSPOSED else odd


def _tied_to(name: str, base: safetensors_io.ModelFolder, config: dict[str, Any]) -> str | None:
    """The embedding that is the same weight as this tensor, which merging into one of the two would part."""
    tensor = base.tensors[name]
    for other in base.tensors.values():
        alike = (other.dtype, other.shape) == (tensor.dtype, tensor.shape) and other.name != name
        if alike and re.search("emb|wte", other.name):
            pieces = zip(base.read(name, 1 << 20), base.read(other.name, 1 << 20), strict=True)
            if config.get("tie_word_embeddings") or all(one == two for one, two in pieces):
                return other.name
    return None


def _advice(base: safetensors_io.ModelFolder) -> str:
    """How to merge an adapter otherwise, so that the result has the base's type."""
    kinds = [tensor.dtype for tensor in base.tensors.values()]
    kind = max(kinds, key=kinds.count, default="")
    if kind not in TORCH:
        return "Give a base in F16, BF16 or F32."
    return (
        f"Merge it with `python -m sft merge --dtype {TORCH[kind]}`, or with peft: load the base with"
        f" from_pretrained in {TORCH[kind]}, the adapter with PeftModel.from_pretrained, and save what"
        " merge_and_unload() returns. Give the result as --target."
    )


def _pairs(
    file: Path, base: safetensors_io.ModelFolder, config: dict[str, Any], path: Path
) -> dict[str, Pair]:
    """What is added to each tensor that the adapter changes."""
    if not file.is_file() and file.with_suffix(".bin").is_file():
        raise UserError(
            f"{file.with_suffix('.bin')}: load the adapter with peft and save it again, as safetensors."
        )
    tensors = {tensor.name: tensor for tensor in safetensors_io.read_header(file)[1]}
    if not tensors:
        raise UserError(f"{file}: there are no weights in the adapter.")
    pairs = {}
    for name in tensors:
        module, _, kind = name.removeprefix(PREFIX).rpartition(".lora_")
        down, up = (tensors.get(f"{PREFIX}{module}.lora_{letter}.weight") for letter in "AB")
        changed = f"{module}.weight"
        of_base = base.tensors.get(changed)
        if kind not in ("A.weight", "B.weight") or of_base is None or down is None or up is None:
            raise UserError(
                f"{file}: tensor {name} does not match any tensor of {base.path}, or one of lora_A and lora_B"
                " is missing."
            )
        fits = len(of_base.shape) == 2 and (up.shape[:1], down.shape[1:]) == (
            of_base.shape[:1],
            of_base.shape[1:],
        )
        if not fits or len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1]:
            raise UserError(
                f"{file}: tensor {name} has shapes {down.shape} (A) and {up.shape} (B), which do not fit"
                f" {changed} with shape {of_base.shape}."
            )
        if odd := {of_base.dtype, up.dtype, down.dtype} - TORCH.keys():
            raise UserError(
                f"{file}: tensor {name}: {', '.join(sorted(odd))} weights cannot be merged. Only F16,"
                " BF16 and F32 can (no quantised base)."
            )
        if not _is_target(module, config):
            raise UserError(
                f"{file}: tensor {name}: target_modules in {path} leaves this layer out, and peft too."
            )
        rank = _by_pattern(module, config["rank_pattern"], config["r"])
        if rank != down.shape[0]:
            raise UserError(f"{file}: tensor {name} has rank {down.shape[0]}, but {path} says {rank}.")
        alpha = _by_pattern(module, config["alpha_pattern"], config["lora_alpha"])
        pairs[changed] = Pair(down, up, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
    return pairs


def _by_pattern(module: str, patterns: dict[str, Any], default: Any) -> Any:
    """The value of the first pattern that matches the end of a layer's name, as in peft."""
    return next((v for key, v in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _is_target(module: str, config: dict[str, Any]) -> bool:
    """Whether peft puts an adapter on the layer."""
    targets, excluded = config.get("target_modules"), config.get("exclude_modules")
    if excluded and _is_named(module, excluded):
        return False
    return not targets or targets == "all-linear" or _is_named(module, targets)


def _is_named(module: str, names: str | list[str]) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)
