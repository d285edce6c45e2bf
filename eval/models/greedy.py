"""Greedy decoding of a batch. Finished rows leave the batch, so that the others do not wait for them.

ids, mask ──prefill──▶ KV cache ──one token per row──▶ drop finished rows ──▶ … ──▶ tokens of each row
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

NOT_NUMBERS = "the model's logits are not numbers. Its weights are damaged, or its numbers overflow."
DROP_SHARE = 1 / 8
"""Finished rows are dropped once they are this share of the batch, because dropping copies the cache."""
ROOM = 128
"""The cache gets room for this many more tokens at a time, because that copies it."""


def greedy(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    limits: Sequence[int],
    ended: Callable[[int, list[int]], bool],
    cache: Any = None,
) -> list[list[int]]:
    """Up to `limits` most likely tokens after each row of `ids` (rows x longest, left-padded).

    `ended` is called after each token with the row number and its tokens so far. A `cache` has what comes
    before `ids`, and `mask` covers both. Raises FloatingPointError if a logit is NaN.
    """
    tokens: list[list[int]] = [[] for _ in limits]
    rows = list(range(len(limits)))  # those in the cache; some may have ended
    live = [limit > 0 for limit in limits]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache, position = with_room(out.past_key_values), positions[:, -1:]
    while True:
        likeliest, chosen = out.logits[:, -1].max(-1)
        if likeliest.isnan().any():  # NaN is the largest of all
            raise FloatingPointError(NOT_NUMBERS)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            if live[row]:
                tokens[row].append(token)
                live[row] = len(tokens[row]) < limits[row] and not ended(row, tokens[row])
        kept = [index for index, row in enumerate(rows) if live[row]]
        if not kept:
            return tokens
        if len(rows) - len(kept) >= DROP_SHARE * len(rows):
            rows = [rows[index] for index in kept]
            selected = torch.tensor(kept, device=ids.device)
            cache.batch_select_indices(selected)
            chosen, mask, position = chosen[selected], mask[selected], position[selected]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], -1)
        position = position + 1
        out = model(
            input_ids=chosen[:, None],
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        )


class Roomy(DynamicLayer):  # type: ignore[misc]
    """A layer of a KV cache with room for the next tokens: transformers' copies the whole for each token."""

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = self._keys, self._values = layer.keys, layer.values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values (rows x heads x tokens x size), after these are added."""
        self._keys, self.keys = _added(self._keys, self.keys.shape[-2], key_states)
        self._values, self.values = _added(self._values, self.values.shape[-2], value_states)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        used = self.keys.shape[-2]
        self._keys, self._values = self._keys[indices], self._values[indices]
        self.keys, self.values = self._keys[..., :used, :], self._values[..., :used, :]


def with_room(cache: Any) -> Any:
    """The cache, with layers that have room for the next tokens where they keep all tokens."""
    layers = getattr(cache, "layers", [])
    for number, layer in enumerate(layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            layers[number] = Roomy(layer)
    return cache


def _added(whole: torch.Tensor, used: int, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A tensor with the first `used` tokens of `whole`, the `new` ones and perhaps room for more, and the
    part of it without that room."""
    end = used + new.shape[-2]
    if end > whole.shape[-2]:
        larger = whole.new_empty(*whole.shape[:-2], end + ROOM, whole.shape[-1])
        larger[..., :used, :] = whole[..., :used, :]
        whole = larger
    whole[..., used:end, :] = new
    return whole, whole[..., :end, :]
