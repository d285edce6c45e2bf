"""Greedy decoding of a batch. Finished rows leave the batch, so that the others do not wait for them.

ids, mask ──prefill──▶ KV cache ──one token per row──▶ drop finished rows ──▶ … ──▶ tokens of each row
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

NOT_NUMBERS = "the model's logits are not numbers. Its weights are damaged, or its numbers overflow."
DROP_SHARE = 1 / 8
"""Finished rows are dropped once they are this share of the batch, because dropping copies the cache."""


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
    cache, position = out.past_key_values, positions[:, -1:]
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
