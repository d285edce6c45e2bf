"""Several packed corpora as one dataset: a domain corpus, what extends it, and general text to replay.

Shares are of tokens. A corpus without a share takes, with the others that have none, what the given shares
leave, in proportion to its tokens: so a corpus and its later extensions train together as if they were one.
Blocks of a corpus that packs less tightly hold fewer tokens and are drawn more often in return. An epoch of
the mixture is one pass over its first corpus.
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
    """Its share of the tokens; None: in proportion to its tokens."""
    max_epochs: float | None = None
    """How often it may be repeated; None for no limit."""


class Mixture:
    """A dataset for `core.train.loop`: the blocks of all corpora, one corpus after the other, and their
    `parts`."""

    def __init__(self, components: Sequence[Component]) -> None:
        """UserError where the shares leave nothing for a corpus, or are not 1 together."""
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
        rest = "leave nothing for the others" if open_tokens else "are to be 1"
        raise UserError(f"the shares of the mixture are {given:g} together and {rest}. Change `share`.")
    return np.array(
        [
            c.share if c.share is not None else (1 - given) * c.blocks.trained_tokens / open_tokens
            for c in components
        ]
    )
