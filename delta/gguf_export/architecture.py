"""What llama.cpp must know about a model besides its weights, and what it calls each tensor.

A setting that llama.cpp has no counterpart for is refused by name: the file would load, and compute something
else. Keys and tensor names are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError

FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Family in transformers, and architecture in llama.cpp."""
OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
YARN_DEFAULTS = {
    "attention_factor": None,
    "mscale": None,
    "mscale_all_dim": None,
    "beta_fast": 32,
    "beta_slow": 1,
    "truncate": True,
}
"""llama.cpp has these values, and no key for others."""
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Architecture:
    """Sizes and settings of a model that llama.cpp can compute."""

    name: str
    """Of the architecture in llama.cpp."""
    width: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    """Elements of a head."""
    vocabulary: int
    context: int
    window: int | None
    """Positions that attention reaches back, if that is limited."""
    eps: float
    rope: dict[str, Any]
    tied: bool
    biased: frozenset[str]
    """The matrices that have a bias."""

    @property
    def rope_factors(self) -> Array | None:
        """What each rotary frequency is divided by (LLaMA 3.1 and later), float32 of shape head / 2."""
        return llama3_factors(self.rope, self.head) if self.rope["rope_type"] == "llama3" else None

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...], int]]:
        """Each tensor of the folder: its name in the file, its shape, and the rows of a head if those have to
        be permuted (else 0).

        transformers rotates the first half of a head's elements with the second, llama.cpp neighbours; for
        the Qwen architectures it has transformers' order.
        """
        q, kv = self.heads * self.head, self.kv_heads * self.head
        shapes = {
            "q_proj": (q, self.width), "k_proj": (kv, self.width), "v_proj": (kv, self.width),
            "o_proj": (self.width, q), "gate_proj": (self.inner, self.width),
            "up_proj": (self.inner, self.width), "down_proj": (self.width, self.inner),
        }  # fmt: skip
        rows = (self.vocabulary, self.width)
        outer = {name: (self.width,) if "norm" in name else rows for name in OUTER}
        found: dict[str, tuple[str, tuple[int, ...], int]] = {
            name: (OUTER[name], shape, 0)
            for name, shape in outer.items()
            if not (self.tied and name == "lm_head.weight")
        }
        for layer in range(self.layers):
            start, short = f"model.layers.{layer}", f"blk.{layer}"
            for name, renamed in NORMS.items():
                found[f"{start}.{name}.weight"] = (f"{short}.{renamed}.weight", (self.width,), 0)
            if self.name == "qwen3":
                for letter in "qk":
                    of_head = f"{start}.self_attn.{letter}_norm.weight"
                    found[of_head] = (f"{short}.attn_{letter}_norm.weight", (self.head,), 0)
            for name, renamed in MATRICES.items():
                kind = name.partition(".")[2]
                permuted = self.head if self.name == "llama" and kind in ("q_proj", "k_proj") else 0
                found[f"{start}.{name}.weight"] = (f"{short}.{renamed}.weight", shapes[kind], permuted)
                if kind in self.biased:
                    found[f"{start}.{name}.bias"] = (f"{short}.{renamed}.bias", shapes[kind][:1], permuted)
        return found

    def write(self, writer: Any) -> None:
        """Add the keys to a GGUFWriter."""
        writer.add_vocab_size(self.vocabulary)
        writer.add_context_length(self.context)
        writer.add_embedding_length(self.width)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.inner)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head)
        writer.add_value_length(self.head)
        writer.add_layer_norm_rms_eps(self.eps)
        writer.add_rope_dimension_count(self.head)
        writer.add_rope_freq_base(float(self.rope["rope_theta"]))
        if self.window:
            writer.add_sliding_window(self.window)
        if self.rope["rope_type"] in ("linear", "yarn"):
            writer.add_string(f"{self.name}.rope.scaling.type", self.rope["rope_type"])
            writer.add_rope_scaling_factor(float(self.rope["factor"]))
        if self.rope["rope_type"] == "yarn":
            writer.add_rope_scaling_orig_ctx_len(int(self.rope["original_max_position_embeddings"]))


def read(folder: Path) -> Architecture:
    """The architecture that config.json describes; UserError for one that llama.cpp cannot be given
    exactly."""
    from transformers import AutoConfig

    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: {folder} is not a model in the Hugging Face layout.")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever transformers makes of a damaged file
        raise UserError(f"{path} cannot be read: {str(error).strip().partition(chr(10))[0]}") from None
    if config.model_type not in FAMILIES:
        raise UserError(
            f"{path}: model_type={config.model_type!r} cannot be written as GGUF here. Supported:"
            f" {', '.join(FAMILIES)}. llama.cpp's own convert_hf_to_gguf.py knows more."
        )
    if quantized := getattr(config, "quantization_config", None):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise UserError(
            f"{path}: quantization_config ({method}): this model is quantised already. Give the model in"
            " F16, BF16 or F32."
        )
    _refuse_settings(config, path)
    window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
    rope = _rope(config, path)
    biased = ["q_proj", "k_proj", "v_proj"] if config.model_type == "qwen2" else []
    if config.model_type == "llama" and config.attention_bias:
        biased += ["q_proj", "k_proj", "v_proj", "o_proj"]
    if config.model_type == "llama" and config.mlp_bias:
        biased += ["gate_proj", "up_proj", "down_proj"]
    length = config.max_position_embeddings
    return Architecture(
        name=FAMILIES[config.model_type],
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
        context=min(length, window) if window else length,
        window=window,
        eps=config.rms_norm_eps,
        rope=rope,
        tied=bool(config.tie_word_embeddings),
        biased=frozenset(biased),
    )


def _refuse_settings(config: Any, path: Path) -> None:
    """UserError for a setting that llama.cpp's architecture does not have."""
    odd = []
    if config.hidden_act not in ("silu", "swish"):
        odd.append(f"hidden_act={config.hidden_act!r} (only silu)")
    if config.model_type == "qwen3" and config.attention_bias:
        odd.append("attention_bias=true (not for qwen3)")
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        odd.append("layer_types with sliding_attention (llama.cpp attends to all positions)")
    if odd:
        raise UserError(f"{path}: {', '.join(odd)}: llama.cpp would compute something else.")


def _rope(config: Any, path: Path) -> dict[str, Any]:
    """The settings of the rotary positions; UserError for those that llama.cpp does not compute alike."""
    rope = dict(config.rope_parameters)
    kind = rope["rope_type"]
    odd = []
    if (share := rope.get("partial_rotary_factor") or 1) != 1:
        odd.append(f"partial_rotary_factor={share}")
    if kind not in ("default", "linear", "yarn", "llama3"):
        odd.append(f"rope_type={kind!r}")
    if kind == "llama3" and FAMILIES[config.model_type] != "llama":
        odd.append(f"rope_type='llama3' in a {config.model_type} model")
    if kind == "yarn":
        given = {key: rope[key] for key in YARN_DEFAULTS if rope.get(key) is not None}
        odd += [f"{key}={value!r} of yarn" for key, value in given.items() if value != YARN_DEFAULTS[key]]
    if odd:
        raise UserError(f"{path}: rope_parameters: {', '.join(odd)}: llama.cpp computes other positions.")
    if kind == "yarn":
        rope.setdefault("original_max_position_embeddings", config.max_position_embeddings)
    return rope


def llama3_factors(rope: dict[str, Any], head: int) -> Array:
    """What LLaMA 3.1's scaling divides the frequency of each rotary pair by, float32.

    Waves longer than the original context over `low_freq_factor` are slowed by `factor`, those shorter than
    the context over `high_freq_factor` stay, and between the two the frequency is interpolated.
    """
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    length = float(rope["original_max_position_embeddings"])
    frequency = float(rope["rope_theta"]) ** (-np.arange(0, head, 2) / head)
    waves = length * frequency / (2 * math.pi)
    """How often a wave fits into the original context."""
    kept = np.clip((waves - low) / (high - low), 0, 1)
    scaled = (1 - kept) * frequency / factor + kept * frequency
    result: Array = (frequency / scaled).astype(np.float32)
    return result


def model_card(folder: Path) -> tuple[str, str | None]:
    """The model's name (its folder's, or that of the run), and the licence that README.md gives, if any."""
    import yaml

    place = folder.resolve()
    name = place.parent.name if place.name == "model" and place.parent.name else place.name
    try:
        text = (folder / "README.md").read_text("utf-8")
        found = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        card = yaml.safe_load(found[1]) if found else {}
    except (OSError, ValueError, yaml.YAMLError):
        card = {}
    licence = card.get("license") if isinstance(card, dict) else None
    return name, licence if isinstance(licence, str) else None
