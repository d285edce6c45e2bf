"""Several packed corpora as one dataset: a domain corpus, what extends it, and general text to replay.

Shares are of tokens. Corpora without a share divide the rest in proportion to their tokens, so a corpus and
its later extensions train together like one corpus. Blocks of a less tightly packed corpus have fewer tokens
and are drawn more often to compensate. An epoch of the mixture is one pass over its first corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import UserError
from core.train.sampler import Part
from data.packing.bin_packing import Array
from data.packing.packed_dataset import Blocks


@dataclass(frozen=True)
class Component:
    """One corpus of a mixture."""

    name: str
    blocks: Blocks
    share: float | None
    """Its share of the tokens; None for a share in proportion to its tokens."""
    max_epochs: float | None = None
    """Maximum number of epochs; None for no limit."""


class Mixture:
    """A dataset for `core.train.loop`: the blocks of all corpora, one corpus after the other, and their
    `parts`."""

    def __init__(self, components: Sequence[Component]) -> None:
        """UserError if the shares leave nothing for a corpus, or do not sum to 1."""
        self.blocks = [component.blocks for component in components]
        tokens = token_shares(components)
        per_block = np.array([blocks.trained_tokens / len(blocks) for blocks in self.blocks])
        shares = (tokens / per_block) / (tokens / per_block).sum()
        self.parts = [
            Part(component.name, len(component.blocks), float(share), component.max_epochs)
            for component, share in zip(components, shares, strict=True)
        ]
        self._first = np.cumsum([0, *map(len, self.blocks)])

    def __len__(self) -> int:
        return round(self.parts[0].samples / self.parts[0].share)

    def __getitem__(self, index: int) -> dict[str, Array]:
        part = int(np.searchsorted(self._first, index, side="right")) - 1
        return self.blocks[part][index - int(self._first[part])]


def token_shares(components: Sequence[Component]) -> np.ndarray:
    """The share of the tokens of each corpus, (corpora,); their sum is 1."""
    given = sum(component.share or 0.0 for component in components)
    open_tokens = sum(c.blocks.trained_tokens for c in components if c.share is None)
    if given > 1 + 1e-9 or (open_tokens and given > 1 - 1e-9) or (not open_tokens and given < 1 - 1e-9):
        rest = "which leaves nothing for the others" if open_tokens else "not 1"
        raise UserError(f"the shares of the mixture sum to {given:g}, {rest}. Change `share`.")
    return np.array(
        [
            c.share if c.share is not None else (1 - given) * c.blocks.trained_tokens / open_tokens
            for c in components
        ]
    )
