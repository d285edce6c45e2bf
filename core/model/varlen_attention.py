"""Attention within documents: several documents share a block, and none sees another.

    position ids, restarting at each document ──boundaries──▶ first token of each document
    query, key, value of a block ──attend──▶ torch's varlen kernel (GPU), or SDPA per document

Given restarting position ids, transformers would build a mask of length x length for SDPA. `register` adds
`attend` to transformers as the attention "documents", for which no mask is built. Models that it does not
suit (core/model/proof.py finds out) keep their own attention: `passes` gives each document a row of its own.
"""

import inspect
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch.distributed import ProcessGroup
from torch.nn.functional import pad, scaled_dot_product_attention

from core.model.labels import IGNORED
from core.model.sequence_parallel import all_to_all, exchange, repeated

NAME = "documents"
HARMLESS = {
    "cu_seq_lens_k", "max_length_k", "position_ids", "cache_position", "use_cache", "deterministic",
    "output_attentions", "output_hidden_states", "output_router_logits", "num_items_in_batch",
    "logits_to_keep",
}  # fmt: skip
"""Arguments of transformers' attention functions that `attend` may ignore: they do not change the result of
causal attention within documents. Any other one that is set would be lost, so it is an error."""

_apart: WeakSet[torch.nn.Module] = WeakSet()
"""Models whose documents have rows of their own; see `keep_apart`."""
_sharing: WeakKeyDictionary[torch.nn.Module, ProcessGroup] = WeakKeyDictionary()
"""The processes that share each row of a model; see `share_rows`."""


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


def arguments(batch: dict[str, torch.Tensor], group: ProcessGroup | None = None) -> dict[str, Any]:
    """Arguments of the model's forward pass that describe a batch's documents, under transformers' names for
    flash-attention, which accepts them too. `group` shares the batch's rows.

    `max_length` is the length of a block: the kernels only need a bound, a constant causes no recompilation,
    and the true maximum would have to be fetched from the GPU.
    """
    starts, longest = batch["boundaries"], batch["input_ids"].shape[1]
    shared: dict[str, Any] = {}
    if group is not None:
        shared, longest = {"sequence_group": group}, longest * group.size()
    lengths = dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), starts)
    return {**shared, **lengths, **dict.fromkeys(("max_length_q", "max_length_k"), longest)}


def keep_apart(model: torch.nn.Module) -> None:
    """From now on give each document of this model's batches a row of its own."""
    _apart.add(model)


def share_rows(model: torch.nn.Module, group: ProcessGroup | None) -> None:
    """From now on this model's batches are parts of rows, the others of which the processes of `group` have
    (core/model/sequence_parallel.py)."""
    if group is not None:
        _sharing[model] = group


def passes(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """The batches of this micro-batch's forward passes: itself, or its documents as rows (`keep_apart`).

    Rows are padded behind the document, which a causal model does not see. Documents without labels are left
    out. Documents of similar length share a pass, with no more places than the batch, or than its longest
    document; all share one at ZeRO 3, where every process must make as many passes.
    """
    if model not in _apart:
        return [batch]
    starts = boundaries(batch["position_ids"]).long()
    lengths = starts.diff()
    numbers = torch.repeat_interleave(lengths)
    learnt = torch.zeros_like(lengths).index_add(0, numbers, (batch["labels"] != IGNORED).flatten().long())
    kept = sorted(((n, i) for i, n in enumerate(lengths.tolist()) if learnt[i]), reverse=True) or [(1, 0)]
    places = batch["input_ids"].numel()
    partitioned = hasattr(next(model.parameters()), "ds_id")
    groups: list[list[tuple[int, int]]] = [[]]
    for document in kept:
        first = (groups[-1] or [document])[0]
        if groups[-1] and not partitioned and (len(groups[-1]) + 1) * first[0] > places:
            groups.append([])
        groups[-1].append(document)
    return [_as_rows(batch, starts, [i for _, i in group], group[0][0]) for group in groups]


def _as_rows(
    batch: dict[str, torch.Tensor], starts: torch.Tensor, documents: list[int], longest: int
) -> dict[str, torch.Tensor]:
    """What `batch` holds for each place (B, L) of these documents, as rows (D, longest)."""
    chosen = torch.tensor(documents, device=starts.device)
    place = torch.arange(longest, device=starts.device)
    first, last = starts[chosen, None], starts[chosen + 1, None] - 1
    index = torch.minimum(first + place, last)
    shape = batch["input_ids"].shape
    rows = {
        name: tensor.flatten()[index]
        for name, tensor in batch.items()
        if tensor.shape == shape and name != "position_ids"
    }
    rows["labels"] = rows["labels"].masked_fill(first + place > last, IGNORED)
    rows["learnt"] = (rows["labels"] != IGNORED).flatten().nonzero().flatten()
    return rows


def forward(engine: Any, batch: dict[str, torch.Tensor]) -> Any:
    """What the output layer gives for a batch of `passes`.

    With the boundaries of documents, without an attention mask and without a cache, documents do not see each
    other. With a cache or an all-ones mask they would.
    """
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "use_cache": False}
    if "position_ids" in batch:
        inputs["position_ids"] = batch["position_ids"]
    if "boundaries" in batch:
        inputs |= arguments(batch, _sharing.get(getattr(engine, "module", engine)))
    return engine(**inputs).logits


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
    is_causal: bool | None = None,
    sequence_group: ProcessGroup | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of query (B, H, L, D), key and value (B, G, L, D) within each document: (B, L, H, D).

    Without boundaries, as in generation, it is transformers' SDPA attention. NotImplementedError for what it
    would leave out, e.g. soft-capped scores or attention sinks. With a group, L is the length of this
    process's part of the rows, and each process attends in the whole rows for some of the heads.
    """
    lost = [name for name, value in rest.items() if value is not None and name not in HARMLESS]
    if lost:
        raise NotImplementedError(f"{type(module).__name__} uses {', '.join(lost)}")
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        rest |= {"dropout": dropout, "scaling": scaling, "is_causal": is_causal}
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **rest
        )
        return found
    if attention_mask is not None or is_causal is False or not getattr(module, "is_causal", True):
        raise NotImplementedError(f"{type(module).__name__} uses a mask of its own, or is not causal")
    size = 1 if sequence_group is None else sequence_group.size()
    send = partial(all_to_all, group=sequence_group)
    if size > 1:
        heads = query, repeated(key, size), repeated(value, size)
        query, key, value = (exchange(tensor, size, send) for tensor in heads)
    rows, length = query.shape[0], query.shape[2]
    assert length == max_length_q, "the boundaries are not those of these rows"
    query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    window = -1 if sliding_window is None else sliding_window - 1
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout:
        out = _varlen(query, key, value, cu_seq_lens_q, max_length_q, scaling, window)
    else:
        out = _one_by_one(query, key, value, cu_seq_lens_q, dropout, scaling, window)
    out = out.unflatten(0, (rows, length))
    return (exchange(out, size, send) if size > 1 else out).contiguous(), None


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int,
) -> torch.Tensor:
    """All documents in one call of torch's flash attention; tensors are (tokens, heads, D).

    The kernel takes values as wide as queries: narrower ones (multi-head latent attention) are padded.
    """
    from torch.nn.attention.varlen import varlen_attn

    width = value.shape[-1]
    value = pad(value, (0, query.shape[-1] - width)) if width < query.shape[-1] else value

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
    return found[..., :width] if width < found.shape[-1] else found


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
