"""Beginnings that many prompts share (examples, a system prompt), computed once for all of them.

    prompts ──sorted──▶ groups of the largest saving ──the beginning once──▶ KV cache ──copies──▶ the rests

A tiny model of the same configuration proves first that this gives the logits of whole prompts. Caches that
do not keep every token (sliding windows, recurrent states) take whole prompts without a trial.
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from core.model import proof

STEP = 64
"""Shared tokens count in steps of this many; a shorter beginning is not worth its cache."""
TOLERANCE = 1e-4
"""Relative difference of logits in fp32 that counts as none."""


def groups(rows: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Number of shared first tokens (0 or a multiple of 64), and the indices of the rows that share them.

    Of nested beginnings those are taken that save the most tokens, if they save a quarter of a group's. Rows
    that share nothing are one group.
    """
    order = sorted(range(len(rows)), key=lambda i: list(rows[i]))
    shared = [_shared(rows[a], rows[b]) for a, b in pairwise(order)]
    found: list[tuple[int, list[int]]] = []
    alone: list[int] = []
    for first, last, length in _best(shared, 0, len(order)):
        indices = order[first:last]
        if length and length * (len(indices) - 1) * 4 >= sum(len(rows[i]) for i in indices):
            found.append((length, indices))
        else:
            alone += indices
    return [*found, (0, alone)] if alone else found


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return n // STEP * STEP


def _best(shared: Sequence[int], first: int, last: int) -> list[tuple[int, int, int]]:
    """(first, last, shared tokens) of the groups of sorted rows first to last-1 that save the most."""
    if last - first < 2:
        return [(first, last, 0)]
    least = min(shared[first : last - 1])
    cuts = [i + 1 for i in range(first, last - 1) if shared[i] == least]
    parts = [part for a, b in pairwise([first, *cuts, last]) for part in _best(shared, a, b)]
    apart = sum(length * (b - a - 1) for a, b, length in parts)
    return [(first, last, least)] if least * (last - first - 1) >= max(apart, 1) else parts


class Prefix:
    """The KV cache of the beginning that the last batches shared."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._tokens: list[int] = []
        self._cache: Any = None

    def copies(self, tokens: list[int], n: int) -> Any:
        """The cache of these tokens for a batch of n rows."""
        if tokens != self._tokens or self._cache is None:
            self._tokens, self._cache = tokens, None  # not two at a time
            ids = torch.tensor([tokens], device=self.model.device)
            self._cache = self.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        cache = deepcopy(self._cache)
        cache.batch_repeat_interleave(n)
        return cache


def proven(config: Any, attention: str) -> bool:
    """Whether a tiny model of this configuration, with this attention, has the same logits after a shared
    beginning as after the same tokens in whole prompts, padded on either side of the rest."""
    with proof.aside(), torch.inference_mode():
        try:
            trial = proof.Trial(config, False)
            model = trial.build(attention).eval()
            model.load_state_dict(trial.model.state_dict(), strict=False)
            ids = trial.batch["input_ids"][0]
            begin, rests = ids[:19], (ids[19:26], ids[26:40])
            prefix = Prefix(model)
            longest = max(map(len, rests))
            for left in (True, False):
                rows, seen = torch.zeros(2, longest, dtype=ids.dtype), torch.ones(2, len(begin) + longest)
                seen[:, len(begin) :] = 0
                for row, rest in enumerate(rests):
                    place = slice(longest - len(rest), longest) if left else slice(0, len(rest))
                    rows[row, place] = rest
                    seen[row, len(begin) :][place] = 1
                cache = prefix.copies(begin.tolist(), 2)
                if any(type(layer) is not DynamicLayer for layer in cache.layers):
                    return False
                positions = (seen.long().cumsum(-1) - 1)[:, len(begin) :]
                found = model(
                    input_ids=rows, attention_mask=seen, position_ids=positions, past_key_values=cache
                ).logits
                for row, rest in enumerate(rests):
                    expected = model(input_ids=torch.cat([begin, rest])[None], use_cache=False).logits
                    expected = expected[0, len(begin) :]
                    place = slice(longest - len(rest), longest) if left else slice(0, len(rest))
                    if (found[row, place] - expected).abs().max() > TOLERANCE * expected.abs().max():
                        return False
        except Exception:  # of any library: whole prompts need no proof
            return False
    return True
