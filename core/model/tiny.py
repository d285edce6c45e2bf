"""A configuration made tiny: the same class and special fields, but few and narrow layers.

Lists with an entry per layer keep one layer of each kind. Lengths (of a sliding window, of a chunk) become
shorter than the documents of core/model/proof.py, and caps of scores low, so that ignoring one shows in the
loss.
"""

import re
from typing import Any

WIDTH, HEADS, HEAD = 32, 4, 8
POSITIONS = 64
"""Longest document."""
VOCABULARY = 96

CAPS: tuple[tuple[str, float], ...] = (
    (r"(.*_)?vocab_size(_.*)?", VOCABULARY),
    (r"(max|n|max_target)_(position_embeddings|positions|seq_len)|n_ctx|context_length", POSITIONS),
    (r"(mamba_|linear_)?(n|num|num_key|num_value)_heads|mamba_num_heads|index_n_heads", 8),
    (r"(.*_)?(n_head|attention_heads)", HEADS),
    (r"qk_head_dim", 2 * HEAD),
    (r"(.*_)?(v|k|qk|qk_nope|qk_rope|head|key_head|value_head|attention_head|index_head)_(dim|width)", HEAD),
    (r"(.*_)?(head_?dim|d_head|kv_channels|dim_head|rotary_dim|attention_head_size)", HEAD),
    (r"(.*_)?(lora_rank|rank|state_size|d_state|dt_rank)", HEAD),
    (r"attention_hidden_size|mamba_d_ssm", 2 * WIDTH),
    (r"(.*_)?(intermediate_size|ffn_dim|ffn_hidden_size|feed_forward_size|dim_ff|dff|d_inner)(_mlp)?", 48),
    (r"(.*_)?(hidden_size|d_model|n_embd|embedding_size|embed_dim|embedding_dim|emb_dim|lru_width)", WIDTH),
    (r"(.*_)?(num|n)_(local_|routed_)?experts|moe_num_experts", 4),
    (r"num_experts_per_tok|(.*_)?top_?k|moe_k|.*topk_blocks|.*_experts_per_token", 2),
    (r"n_group|topk_group|num_expert_group|(.*_)?n_groups", 1),
    (r"(.*_)?(window|window_size|sliding_window|chunk_size|block_size|window_len|chunk_length)", 8),
    (r"local_attention|sliding_window_size|attention_window_size", 8),
    (r".*softcap.*", 1.0),
    (r".*(dropout|pdrop|layerdrop|jitter).*|drop_path_rate", 0.0),
)  # fmt: skip
"""Patterns of field names and the largest value that a number of this name keeps; the first that fits."""

POWERS = re.compile(
    r"(.*_)?(n_head|(n|num|num_key|num_value|attention|mamba_num)_heads|hidden_size|d_model|n_embd)"
)
"""Numbers of heads, and widths, which heads must divide."""
LAYERS = re.compile(r"(num_|n_|decoder_|encoder_)?(hidden_|encoder_|decoder_)?(layers?|blocks)")
PERIODS = re.compile(r".*(period|interval|offset|every|step)(_.*)?|sliding_window_pattern")
AT_LAYERS = re.compile(r".*_(indices|idxs|ids|layers)|moe_layers")
MOST_LAYERS = 12


def fields(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a configuration, made tiny."""
    layers = max((v for k, v in given.items() if LAYERS.fullmatch(k) and _is_number(v)), default=0)
    kinds, layers_left = _kinds(given, int(layers))
    found = {name: _tiny(name, value, given) for name, value in given.items()}
    for name, value in given.items():
        if LAYERS.fullmatch(name) and _is_number(value):
            found[name] = min(int(value), layers_left)
        elif isinstance(value, list | tuple) and len(value) == layers and layers > 0:
            found[name] = [_tiny(name, value[i], given) for i in kinds]
        elif name == "per_layer_config" and value:
            own = {int(i): fields(each) for i, each in value.items()}
            found[name] = {n: own[i] for n, i in enumerate(kinds) if i in own}
        elif AT_LAYERS.fullmatch(name) and isinstance(value, list) and value:
            found[name] = sorted({min(int(v), layers_left - 1) for v in value if _is_number(v)})
        elif name in (
            "first_k_dense_replace",
            "num_kv_shared_layers",
            "num_dense_layers",
            "max_window_layers",
        ):
            found[name] = min(value or 0, 1)
    return found


def _kinds(given: dict[str, Any], layers: int) -> tuple[list[int], int]:
    """Which layers stay, one of each kind where lists name the kinds, and how many they are."""
    lists = [v for v in given.values() if isinstance(v, list) and len(v) == layers and layers > 1]
    own = {int(i): each for i, each in (given.get("per_layer_config") or {}).items()}
    seen: dict[str, int] = {}
    for i in range(layers if lists else 0):
        seen.setdefault(str([own.get(i), *(each[i] for each in lists)]), i)
    kept = sorted(seen.values())[:MOST_LAYERS]
    periods = [int(v) for k, v in given.items() if PERIODS.fullmatch(k) and _is_number(v)]
    if not lists:
        kept = list(range(min(layers, MOST_LAYERS, 1 + max([1, *periods]))))
    elif len(kept) < min(2, layers):
        kept = [0, 1]
    return kept, len(kept)


def _tiny(name: str, value: Any, given: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return _rope(value) if name.startswith("rope") else fields(value) if "config" in name else value
    if name.endswith("token_id") or name.endswith("token_index"):
        ids = value if isinstance(value, list) else [value]
        kept = [min(i, VOCABULARY - 1) if _is_number(i) else i for i in ids]
        return kept if isinstance(value, list) else kept[0]
    if not _is_number(value) or value < 0:
        return value
    if re.fullmatch(r"(.*_)?(num_key_value_heads|num_kv_heads|num_query_groups|n_kv_heads)", name):
        heads: Any = given.get("num_attention_heads") or given.get("n_head") or value
        own = _power_of_two(min(heads, HEADS))
        return own if value >= heads else max(1, min(value, own // 2))
    for pattern, most in CAPS:
        if re.fullmatch(pattern, name):
            small: Any = min(value, type(value)(most))
            return _power_of_two(small) if POWERS.fullmatch(name) else small
    return value


def _power_of_two(count: int) -> int:
    """The largest one that is not above `count`."""
    return 1 << (max(count, 1).bit_length() - 1)


def _rope(value: dict[str, Any]) -> dict[str, Any]:
    """Rotary settings with as many factors as the tiny heads have angles."""
    share = float(value.get("partial_rotary_factor") or 1)
    angles = int(HEAD * share) // 2
    return {
        k: v[:angles] if isinstance(v, list) else _rope(v) if isinstance(v, dict) else v
        for k, v in value.items()
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
