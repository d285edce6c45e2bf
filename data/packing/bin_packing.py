"""Which pieces of which documents share a block: the plans of data/packing/packed_dataset.py.

Each takes the positions of every document, (documents,), and a block's capacity, and returns pieces
(document, start, length), (pieces, 3), and the first piece of each block and the end, (blocks + 1,).
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Packing = Literal["best-fit", "concat", "none"]
Array = npt.NDArray[np.int64]


def plan_concat(places: Array, capacity: int) -> tuple[Array, Array]:
    """Pieces (document, start, length) in corpus order, and the first piece of each block and the end,
    (blocks + 1,)."""
    ends = np.cumsum(places)
    total = int(ends[-1])
    cuts = np.union1d(np.concatenate([[0], ends]), np.arange(0, total, capacity))
    begins, lengths = cuts[:-1], np.diff(cuts)
    documents = np.searchsorted(ends, begins, side="right")
    pieces = np.stack([documents, begins - (ends - places)[documents], lengths], axis=1)
    first = np.searchsorted(begins, np.arange(0, total, capacity))
    return pieces, np.append(first, len(pieces))


def plan_best_fit(places: Array, capacity: int) -> tuple[Array, Array]:
    """As `plan_concat`, by best-fit decreasing.

    Open blocks are grouped by free space; one big integer has a bit for each free space that occurs, so that
    the smallest sufficient one is the lowest bit at or above the length.
    """
    full = places // capacity
    document = np.repeat(np.arange(len(places)), full)
    start = (np.arange(len(document)) - np.repeat(np.cumsum(full) - full, full)) * capacity
    whole = np.stack([document, start, np.full(len(document), capacity)], axis=1)

    rests = places - full * capacity
    order = np.argsort(-rests, kind="stable")
    order = order[rests[order] > 0]
    block_of = np.empty(len(order), np.int64)
    open_blocks_by_space: dict[int, list[int]] = {}
    spaces, blocks = 0, 0
    for i, length in enumerate(rests[order].tolist()):
        above = spaces >> length
        if above:
            space = length + (above & -above).bit_length() - 1
            waiting = open_blocks_by_space[space]
            block = waiting.pop()
            if not waiting:
                spaces &= ~(1 << space)
        else:
            space, block = capacity, blocks
            blocks += 1
        block_of[i] = block
        if left := space - length:
            open_blocks_by_space.setdefault(left, []).append(block)
            spaces |= 1 << left
    packed = np.stack([order, full[order] * capacity, rests[order]], axis=1)
    by_block = np.argsort(block_of, kind="stable")
    pieces = np.concatenate([whole, packed[by_block]])
    first = len(whole) + np.searchsorted(block_of[by_block], np.arange(blocks))
    return pieces, np.concatenate([np.arange(len(whole)), first, [len(pieces)]])


def plan_none(places: Array, capacity: int) -> tuple[Array, Array]:
    """As `plan_concat`, but with one document per block."""
    pieces_of = -(-places // capacity)
    document = np.repeat(np.arange(len(places)), pieces_of)
    start = (np.arange(len(document)) - np.repeat(np.cumsum(pieces_of) - pieces_of, pieces_of)) * capacity
    lengths = np.minimum(capacity, places[document] - start)
    return np.stack([document, start, lengths], axis=1), np.arange(len(document) + 1)


PLANS = {"best-fit": plan_best_fit, "concat": plan_concat, "none": plan_none}
