"""Attention within documents: several documents share a block, and none sees another.

    position ids, restarting at each document ──boundaries──▶ first token of each document
    query, key, value of a block ──attend──▶ torch's varlen kernel (GPU), or SDPA per document

Given restarting position ids, transformers would build a mask of length x length for SDPA. `register` adds
`attend` to transformers as the attention "documents", for which no mask is built.
"""

import inspect
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "documents"


def register() -> None:
    """Register `attend` with transformers as `attn_implementation="documents"`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def boundaries(position_ids: torch.Tensor) -> torch.Tensor:
    """Offsets at which documents begin in position ids (B, L) flattened row by row, and the total length:
    int32, (documents + 1,)."""
    flat = position_ids.flatten()
    first = torch.ones_like(flat, dtype=torch.bool)
    first[1:] = flat[1:] != flat[:-1] + 1
    first[:: position_ids.shape[1]] = True
    starts = first.nonzero().flatten()
    return torch.cat([starts, starts.new_tensor([len(flat)])]).to(torch.int32)


def arguments(batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Arguments of the model's forward pass that describe a batch's documents, under transformers' names for
    flash-attention, which accepts them too.

    `max_length` is the length of a block: the kernels only need a bound, a constant causes no recompilation,
    and the true maximum would have to be fetched from the GPU.
    """
    starts, longest = batch["boundaries"], batch["input_ids"].shape[1]
    lengths: dict[str, Any] = dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), starts)
    return lengths | dict.fromkeys(("max_length_q", "max_length_k"), longest)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of query (B, H, L, D), key and value (B, G, L, D) within each document: (B, L, H, D).

    Without boundaries, as in generation, it is transformers' SDPA attention.
    """
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return found
    assert attention_mask is None, "boundaries replace the mask"
    shape = query.shape
    query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    window = -1 if sliding_window is None else sliding_window - 1
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout:
        out = _varlen(query, key, value, cu_seq_lens_q, max_length_q, scaling, window)
    else:
        out = _one_by_one(query, key, value, cu_seq_lens_q, dropout, scaling, window)
    return out.view(shape[0], shape[2], shape[1], shape[3]), None


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int,
) -> torch.Tensor:
    """All documents in one call of torch's flash attention; tensors are (tokens, heads, D)."""
    from torch.nn.attention.varlen import varlen_attn

    grouped: dict[str, Any] = {}
    if query.shape[1] != key.shape[1]:
        if "enable_gqa" in inspect.signature(varlen_attn).parameters:  # torch 2.12
            grouped = {"enable_gqa": True}
        else:
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    found: torch.Tensor = varlen_attn(  # type: ignore[assignment]
        query, key, value, starts, starts, longest, longest, scale=scaling, window_size=(window, 0), **grouped
    )
    return found


@torch.compiler.disable  # it would be recompiled for every set of lengths
def _one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int,
) -> torch.Tensor:
    """One SDPA call per document; tensors are (tokens, heads, D)."""
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    outs = []
    lengths = starts.diff().tolist()
    # Split, not sliced: the gradient of every slice would be as long as the whole row.
    parts = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    for length, q, k, v in zip(lengths, *parts, strict=True):
        mask = None
        if 0 <= window < length - 1:
            place = torch.arange(length, device=query.device)
            back = place[:, None] - place
            mask = (back >= 0) & (back <= window)
        outs.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling,
                enable_gqa=grouped,
            )
        )  # fmt: skip
    return torch.cat(outs, dim=2)[0].transpose(0, 1)
