"""Blocks of equal length for training, planned over whole documents.

A document of n tokens has n - 1 training positions: token t is the input, token t + 1 its label. `best-fit`
only cuts documents that are longer than a block, into full blocks and a rest, then puts rests and short
documents, longest first, each into the fullest block with enough space (best-fit decreasing, as in
arXiv:2404.10830). `concat` concatenates all documents and cuts anywhere, for comparison. In both, no token is
lost, position ids restart with every piece, and no label crosses a document boundary.

`none` puts every document into blocks of its own. If `trained` is given, the other tokens are inputs but not
labels.

    .bin/.idx ──plan──▶ pieces (document, start, length) by block ──[i]──▶ input_ids, position_ids, labels
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from core.errors import UserError
from core.model.labels import IGNORED
from data.packing.bin_packing import PLANS, Array, Packing
from data.packing.indexed_dataset import Documents


class Blocks:
    """Block i of a packed corpus as arrays of shape (sequence_length,): a dataset for `core.train.loop`."""

    def __init__(
        self,
        documents: Documents,
        sequence_length: int,
        *,
        packing: Packing,
        padding_id: int,
        chosen: Array | None = None,
        trained: npt.NDArray[np.uint8] | None = None,
        sources: tuple[Array, Sequence[str]] | None = None,
    ) -> None:
        """Plan the blocks; the plan only depends on the documents' lengths, so every process makes the same.

        `chosen` are the numbers of the documents to use; None for all. `trained`, one value per token of all
        documents in order, is 0 for tokens that are not labels; None trains on all. `sources` are the number
        of each document's source and the names of all; None for one source.
        """
        self.documents, self.sequence_length, self.padding_id = documents, sequence_length, padding_id
        self.chosen = np.arange(len(documents)) if chosen is None else chosen
        places = np.maximum(documents.lengths[self.chosen].astype(np.int64) - 1, 0)
        if not places.any():
            raise UserError(f"{documents.name}: no document has two tokens or more to train on.")
        self.pieces, self.first = PLANS[packing](places, sequence_length)
        self.places = self.trained_tokens = int(places.sum())
        self._sources = sources
        self.source_counts: dict[str, int] = {}
        if sources is not None:
            counts = np.bincount(sources[0][self.chosen], minlength=len(sources[1]))
            self.source_counts = dict(zip(sources[1], counts.tolist(), strict=True))
        self.trained = trained
        if trained is not None:
            self.trained_tokens = self._count_trained(trained)

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def fill(self) -> float:
        """The share of all positions in all blocks that are filled with tokens."""
        return self.places / (len(self) * self.sequence_length)

    def __getitem__(self, index: int) -> dict[str, Array]:
        ids = np.full(self.sequence_length, self.padding_id, np.int64)
        labels = np.full(self.sequence_length, IGNORED, np.int64)
        positions = np.empty(self.sequence_length, np.int64)
        at = 0
        for document, start, length in self.pieces[self.first[index] : self.first[index + 1]]:
            tokens = self.documents.slice(int(self.chosen[document]), start, start + length + 1)
            ids[at : at + length], labels[at : at + length] = tokens[:-1], tokens[1:]
            if self.trained is not None:
                first = self.documents.first_token(int(self.chosen[document])) + int(start) + 1
                labels[at : at + length][self.trained[first : first + length] == 0] = IGNORED
            positions[at : at + length] = np.arange(length)
            at += length
        positions[at:] = np.arange(self.sequence_length - at)
        return {"input_ids": ids, "position_ids": positions, "labels": labels}

    def sources_at(self, index: int) -> Counter[str]:
        """The documents of each source in a block; of a document that was cut, the first piece counts."""
        assert self._sources is not None
        numbers, names = self._sources
        pieces = self.pieces[self.first[index] : self.first[index + 1]]
        documents = self.chosen[pieces[pieces[:, 1] == 0, 0]]
        return Counter(names[number] for number in numbers[documents])

    def _count_trained(self, trained: npt.NDArray[np.uint8]) -> int:
        """The number of labels; a document's first token is not one."""
        total = int(self.documents.lengths.sum(dtype=np.int64))
        if len(trained) != total:
            raise UserError(
                f"{self.documents.name}: {total} tokens, but a mask of {len(trained)}. Make the data again."
            )
        full = np.flatnonzero(self.documents.lengths)
        starts = np.cumsum(self.documents.lengths, dtype=np.int64) - self.documents.lengths
        counts = np.zeros(len(self.documents), np.int64)
        counts[full] = np.add.reduceat(trained, starts[full], dtype=np.int64) - trained[starts[full]]
        found = int(counts[self.chosen].sum())
        if not found:
            raise UserError(f"{self.documents.name}: no token is trained on.")
        return found


def choose_documents(documents: Documents, max_tokens: int | None, seed: int) -> Array:
    """Whole documents, drawn by `seed`, with at most `max_tokens` tokens in total (at least one document)."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(documents))
    if max_tokens is None or not len(documents):
        return order
    running = np.cumsum(documents.lengths[order].astype(np.int64))
    return order[: max(1, int(np.searchsorted(running, max_tokens, side="right")))]
