"""Attention inside documents: several of them share a block, and none sees another.

    position ids, restarting with each document ──boundaries──▶ first token of each document
    query, key, value of a block ──attend──▶ torch's varlen kernel (GPU), or SDPA document by document

transformers would see the restarting position ids and build a mask of length x length for SDPA. No mask is
ever built here: `register` makes `attend` known to transformers as the attention "documents", for which it
builds none.
"""

import inspect
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "documents"


def register() -> None:
    """Make `attend` known to transformers as `attn_implementation="documents"`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def boundaries(position_ids: torch.Tensor) -> torch.Tensor:
    """Where documents begin in a batch of position ids (B, L) read row after row, and the end: int32,
    (documents + 1,)."""
    flat = position_ids.flatten()
    first = torch.ones_like(flat, dtype=torch.bool)
    first[1:] = flat[1:] != flat[:-1] + 1
    first[:: position_ids.shape[1]] = True
    starts = first.nonzero().flatten()
    return torch.cat([starts, starts.new_tensor([len(flat)])]).to(torch.int32)


def arguments(batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What the model's forward pass is told about the documents of a batch; the names are transformers' own
    for flash-attention, which understands them too.

    The longest document is given as the length of a block: a bound is enough for the kernels, a constant does
    not make a compiler start again, and the true one would have to be fetched from the GPU.
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
    """Causal attention of query (B, H, L, D), key and value (B, G, L, D) inside each document: (B, L, H, D).

    Without boundaries, as when text is generated, it is transformers' own attention.
    """
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return found
    assert attention_mask is None, "boundaries say all that a mask would"
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
    """All documents in one call of torch's flash-attention; tensors are (tokens, heads, D)."""
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


@torch.compiler.disable  # it would be compiled for every row of lengths
def _one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int,
) -> torch.Tensor:
    """A call of SDPA for each document; tensors are (tokens, heads, D)."""
    query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    grouped = query.shape[1] != key.shape[1]
    outs = []
    lengths = starts.diff().tolist()
    # Split, not sliced: the gradient of a slice is as long as the whole row, and there is one a document.
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
