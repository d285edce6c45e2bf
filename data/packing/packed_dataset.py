"""Blocks of equal length for training, planned over whole documents.

A document of n tokens gives n - 1 places to learn from: token t is the input, token t + 1 its label.
`best-fit` cuts only documents that are longer than a block, into full blocks and a rest, then puts rests and
short documents, longest first, each into the fullest block that still has room (best-fit decreasing, as in
arXiv:2404.10830). `concat` runs all documents together and cuts anywhere, for comparison. Either way no token
is lost, position ids restart with every piece, and no label crosses from one document to the next.

`none` gives every document blocks of its own. Where `trained` marks tokens, the others are read but not
learnt.

    .bin/.idx ──plan──▶ pieces (document, start, length) by block ──[i]──▶ input_ids, position_ids, labels
"""

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
    ) -> None:
        """Plan the blocks, a function of the documents' lengths alone, so that every process makes the same
        plan.

        `chosen` are the numbers of the documents to take; None takes all. `trained`, one a token of all
        documents in their order, is 0 for tokens that are no labels; None trains on all.
        """
        self.documents, self.sequence_length, self.padding_id = documents, sequence_length, padding_id
        self.chosen = np.arange(len(documents)) if chosen is None else chosen
        places = np.maximum(documents.lengths[self.chosen].astype(np.int64) - 1, 0)
        if not places.any():
            raise UserError(f"{documents.name}: there is no document with two tokens or more to train on.")
        self.pieces, self.first = PLANS[packing](places, sequence_length)
        self.places = self.trained_tokens = int(places.sum())
        self.trained = trained
        if trained is not None:
            self.trained_tokens = self._count_trained(trained)

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def fill(self) -> float:
        """The share of all places in all blocks that holds a document's tokens."""
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

    def _count_trained(self, trained: npt.NDArray[np.uint8]) -> int:
        """How many labels there are; a document's first token is none."""
        total = int(self.documents.lengths.sum(dtype=np.int64))
        if len(trained) != total:
            raise UserError(
                f"{self.documents.name}: {total} tokens, {len(trained)} marks. Make the data again."
            )
        full = np.flatnonzero(self.documents.lengths)
        starts = np.cumsum(self.documents.lengths, dtype=np.int64) - self.documents.lengths
        counts = np.zeros(len(self.documents), np.int64)
        counts[full] = np.add.reduceat(trained, starts[full], dtype=np.int64) - trained[starts[full]]
        found = int(counts[self.chosen].sum())
        if not found:
            raise UserError(f"{self.documents.name}: no token of it is trained on.")
        return found


def choose_documents(documents: Documents, max_tokens: int | None, seed: int) -> Array:
    """Whole documents, drawn by `seed`, with at most `max_tokens` tokens together (at least one document)."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(documents))
    if max_tokens is None or not len(documents):
        return order
    running = np.cumsum(documents.lengths[order].astype(np.int64))
    return order[: max(1, int(np.searchsorted(running, max_tokens, side="right")))]
