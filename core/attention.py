"""Attention inside documents: several documents share a row, and none sees another.

A batch of packed rows comes with position ids that restart at every document. From them `boundaries` takes,
on the CPU and before the transfer, where documents begin; the model hands that to every layer under the
names that transformers gives to flash-attention. `inside_documents` then attends to each document by itself:
by torch's or flash-attention's variable-length kernel on a GPU in half precision, and elsewhere by one call
of SDPA a document. A dense mask, with memory and time for length x length, is never built.

    position_ids (B, L) ──▶ cu_seq_lens (documents + 1,) over the flattened B x L places ──▶ every layer
"""

from functools import cache
from itertools import pairwise
from typing import Any

import torch

NAME = "documents"
"""What `model.attention` and transformers' `attn_implementation` call it."""


def register() -> None:
    """Make `attn_implementation="documents"` known to transformers.

    No mask function goes with that name: transformers then builds no mask at all.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, inside_documents)


def boundaries(position_ids: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Where documents begin in the flattened rows, and the end, as int32 (documents + 1,); the longest one.

    `position_ids` is (B, L) and starts with 0 in every row. Given on the CPU, nothing waits for a GPU.
    """
    starts = torch.nonzero(position_ids.flatten() == 0).flatten()
    ends = torch.cat([starts, starts.new_tensor([position_ids.numel()])])
    return ends.to(torch.int32), int(ends.diff().max())


def arguments(cu_seq_lens: torch.Tensor, longest: int) -> dict[str, Any]:
    """Keyword arguments of a model's forward pass that carry the boundaries to its layers."""
    lengths = {"max_length_q": longest, "max_length_k": longest}
    return {"cu_seq_lens_q": cu_seq_lens, "cu_seq_lens_k": cu_seq_lens, **lengths}


def inside_documents(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each document, as transformers calls it.

    `query` is (B, H, L, D), `key` and `value` (B, H_kv, L, D); returns (B, L, H, D). Without boundaries they
    are taken from `position_ids`; while text is generated from a cache, there is one document a row.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    edges, longest = given.pop("cu_seq_lens_q", None), given.pop("max_length_q", None)
    if edges is None and given.get("position_ids") is not None and query.shape[2] == key.shape[2]:
        edges, longest = boundaries(given["position_ids"].expand(query.shape[0], -1))
    if edges is None:
        found, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **given
        )
        return found, None
    kernel = variable_length_kernel() if _fits_kernel(query, dropout) else None
    if kernel is None:
        return _one_by_one(query, key, value, edges, scaling, dropout), None
    flat = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]
    return kernel(*flat, edges, longest, scaling).unflatten(0, (query.shape[0], query.shape[2])), None


@cache
def variable_length_kernel() -> Any:
    """A function of q, k, v (T, H, D), boundaries, longest and scale that attends inside documents on a GPU.

    torch's own (2.10 and newer), else flash-attention's where that is installed, else None.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        try:
            from flash_attn import flash_attn_varlen_func
        except ImportError:
            return None
        return lambda q, k, v, edges, longest, scale: flash_attn_varlen_func(
            q, k, v, edges, edges, longest, longest, softmax_scale=scale, causal=True
        )
    return lambda q, k, v, edges, longest, scale: varlen_attn(
        q, k, v, edges, edges, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=True
    )


def _fits_kernel(query: torch.Tensor, dropout: float) -> bool:
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and dropout == 0.0


def _one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    edges: torch.Tensor,
    scale: float | None,
    dropout: float,
) -> torch.Tensor:
    """One call of SDPA a document; exact on every device and in every precision."""
    length, grouped = query.shape[2], query.shape[1] != key.shape[1]
    places = edges.tolist()
    parts: list[list[torch.Tensor]] = [[] for _ in range(query.shape[0])]
    for first, last in pairwise(places):
        row, start = divmod(first, length)
        stop = start + last - first
        piece = [tensor[row : row + 1, :, start:stop] for tensor in (query, key, value)]
        found = torch.nn.functional.scaled_dot_product_attention(
            *piece, is_causal=True, scale=scale, dropout_p=dropout, enable_gqa=grouped
        )
        parts[row].append(found.transpose(1, 2))
    return torch.cat([torch.cat(row, dim=1) for row in parts])
