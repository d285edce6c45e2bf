"""Greedy decoding of a batch: who has ended leaves it, so that the others are not kept waiting.

ids, mask ──prefill──▶ cache ──one token for all──▶ ended rows leave the cache ──▶ … ──▶ tokens of each row
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

LEAVE_SHARE = 1 / 8
"""Rows leave when so many have ended: each time, the others' cache is copied."""


def greedy(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, limits: Sequence[int],
    ended: Callable[[int, list[int]], bool],
) -> list[list[int]]:  # fmt: skip
    """Most likely tokens after each row of `ids` (rows x longest, padded on the left), at most `limits`.

    `ended` is asked after each token, with the row's number and its tokens so far.
    """
    found: list[list[int]] = [[] for _ in limits]
    rows = list(range(len(limits)))  # of the cache, some may have ended
    live = [limit > 0 for limit in limits]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
    cache, position = out.past_key_values, positions[:, -1:]
    while True:
        chosen = out.logits[:, -1].argmax(-1)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            if live[row]:
                found[row].append(token)
                live[row] = len(found[row]) < limits[row] and not ended(row, found[row])
        kept = [place for place, row in enumerate(rows) if live[row]]
        if not kept:
            return found
        if len(rows) - len(kept) >= LEAVE_SHARE * len(rows):
            rows = [rows[place] for place in kept]
            index = torch.tensor(kept, device=ids.device)
            cache.batch_select_indices(index)
            chosen, mask, position = chosen[index], mask[index], position[index]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], -1)
        position = position + 1
        out = model(
            input_ids=chosen[:, None], attention_mask=mask, position_ids=position, past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
