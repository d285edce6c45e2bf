"""From Meta's params.json to config.json: the sizes, the version of LLaMA, transformers' names."""

import json
from pathlib import Path
from typing import Any

from core.errors import UserError

SIZES = {
    "1B": (2048, 16), "3B": (3072, 28), "7B": (4096, 32), "8B": (4096, 32), "13B": (5120, 40),
    "30B": (6656, 60), "33B": (6656, 60), "34B": (8192, 48), "65B": (8192, 80),
    "70B": (8192, 80), "405B": (16384, 126),
}  # fmt: skip
"""Hidden size and number of layers of each size that Meta has published."""
CONTEXT = {"1": 2048, "2": 4096, "3": 8192, "3.1": 131072, "3.2": 131072}
"""Context length in tokens of each version of LLaMA (3.3 has the architecture of 3.1)."""
SCALED = {"3.1": 8.0, "3.2": 32.0}
"""Versions with scaled rotary frequencies, and the scaling factor."""


def read_params(source: Path, model_size: str | None) -> dict[str, Any]:
    """Read params.json and check it against `model_size`; a missing `n_kv_heads` is filled in."""
    path = source / "params.json"
    if not path.is_file():
        raise UserError(f"{path} is missing. Give the folder with params.json and consolidated.00.pth.")
    try:
        params: dict[str, Any] = json.loads(path.read_text("utf-8"))
        params = params.get("model", params)
        params["n_kv_heads"] = params.get("n_kv_heads") or params["n_heads"]
        sizes = [params[key] for key in ("dim", "n_layers", "n_heads", "n_kv_heads")]
        if not all(type(size) is int and size > 0 for size in sizes) or sizes[0] % (2 * sizes[2]):
            raise ValueError(f"dim, n_layers, n_heads, n_kv_heads are {sizes}")
        params["norm_eps"] = float(params["norm_eps"])
        params["rope_theta"] = float(params.get("rope_theta", 10000.0))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}). Download it again.") from None
    if model_size is None:
        return params
    # "7Bf" is the chat model of that size, "405B-MP16" the same weights in 16 parts.
    expected = SIZES.get(model_size.partition("-")[0].removesuffix("f").upper())
    if expected is None:
        raise UserError(
            f"--model_size {model_size}: unknown size. Choose one of {', '.join(SIZES)}, or omit it."
        )
    if expected != (params["dim"], params["n_layers"]):
        raise UserError(
            f"{path}: dim {params['dim']} and {params['n_layers']} layers are not LLaMA {model_size}, which"
            f" has {expected[0]} and {expected[1]}. Give the right folder, or omit --model_size."
        )
    return params


def guess_version(params: dict[str, Any], vocabulary: int) -> str:
    """LLaMA 1 and 2 have the same files, but LLaMA 1 (except 65B) has a smaller norm_eps."""
    if vocabulary >= 128_000:
        scaled = "3.2" if params["dim"] < 4096 else "3.1"
        return scaled if params.get("use_scaled_rope") else "3"
    first_65b = params["dim"] == 8192 and params["n_kv_heads"] == params["n_heads"]
    return "1" if params["norm_eps"] < 1e-5 or first_65b else "2"


def config(
    params: dict[str, Any], version: str, *, inner: int, vocabulary: int, tied: bool, dtype: str
) -> dict[str, Any]:
    """The contents of config.json; `dtype` is torch's name for it."""
    third = version >= "3"
    content = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": params["dim"],
        "intermediate_size": inner,
        "num_hidden_layers": params["n_layers"],
        "num_attention_heads": params["n_heads"],
        "num_key_value_heads": params["n_kv_heads"],
        "vocab_size": vocabulary,
        "rms_norm_eps": params["norm_eps"],
        "rope_theta": params["rope_theta"],
        # Code Llama, a version 2 model, has a longer context than the others.
        "max_position_embeddings": 16384 if not third and params["rope_theta"] > 1e4 else CONTEXT[version],
        "bos_token_id": 128000 if third else 1,
        "eos_token_id": 128001 if third else 2,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
    }
    if version in SCALED:
        content["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": SCALED[version],
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    return content
