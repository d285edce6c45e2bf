"""Blocks: nothing of the corpus is lost or learnt twice, and no document sees another."""

import itertools
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.model.labels import IGNORED
from data.packing.bin_packing import Packing, plan_best_fit
from data.packing.indexed_dataset import Documents, Writer
from data.packing.packed_dataset import Blocks, choose_documents

PADDING = 999_999
NUMBERS = itertools.count()
LENGTHS = st.lists(st.integers(0, 45) | st.integers(0, 6), min_size=1, max_size=25)
CAPACITIES = st.integers(1, 20)
PACKINGS = st.sampled_from(["best-fit", "concat"])


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the examples of one property may share."""
    return tmp_path_factory.mktemp("blocks")


def corpus(folder: Path, lengths: Sequence[int]) -> Documents:
    """Documents of these lengths; no id occurs twice, and the ids of a document follow one another by 2."""
    name = folder / f"corpus-{next(NUMBERS)}"
    first = 0
    with Writer(name, 1_000_000) as writer:
        for length in lengths:
            writer.add(range(first, first + 2 * length, 2))
            first += 2 * length + 1
    return Documents(name)


def every(documents: Documents) -> list[npt.NDArray[np.integer]]:
    """The ids of all documents."""
    return [documents[i] for i in range(len(documents))]


def trainable(lengths: Sequence[int]) -> bool:
    return max(lengths, default=0) > 1


def blocks_of(documents: Documents, capacity: int, packing: Packing) -> Blocks:
    return Blocks(documents, capacity, packing=packing, padding_id=PADDING)


def pairs(blocks: Blocks) -> list[tuple[int, int]]:
    """Every (input, label) that is trained on, in the order of the blocks."""
    found = []
    for block in (blocks[i] for i in range(len(blocks))):
        trained = block["labels"] != IGNORED
        found += list(
            zip(block["input_ids"][trained].tolist(), block["labels"][trained].tolist(), strict=True)
        )
    return found


@settings(deadline=None)
@given(lengths=LENGTHS.filter(trainable), capacity=CAPACITIES, packing=PACKINGS)
def test_every_place_of_every_document_is_learnt_exactly_once_and_none_beside(
    scratch: Path, lengths: list[int], capacity: int, packing: Packing
) -> None:
    documents = corpus(scratch, lengths)
    blocks = blocks_of(documents, capacity, packing)
    expected = [
        pair
        for document in every(documents)
        for pair in zip(document[:-1].tolist(), document[1:].tolist(), strict=True)
    ]
    found = pairs(blocks)
    assert sorted(found) == expected
    assert blocks.trained_tokens == len(expected)
    assert blocks.fill == pytest.approx(len(expected) / (len(blocks) * capacity))
    if packing == "concat":
        assert found == expected, "concat keeps the order of the corpus"
        assert len(blocks) == -(-len(expected) // capacity), "and leaves no room but in the last block"


@settings(deadline=None)
@given(lengths=LENGTHS.filter(trainable), capacity=CAPACITIES, packing=PACKINGS)
def test_positions_count_up_inside_a_piece_and_restart_with_every_other(
    scratch: Path, lengths: list[int], capacity: int, packing: Packing
) -> None:
    documents = corpus(scratch, lengths)
    blocks = blocks_of(documents, capacity, packing)
    beginnings = [int(document[0]) for document in every(documents) if len(document)]
    for block in (blocks[i] for i in range(len(blocks))):
        ids, positions, labels = block["input_ids"], block["position_ids"], block["labels"]
        assert ids.shape == positions.shape == labels.shape == (capacity,)
        assert ids.dtype == positions.dtype == labels.dtype == np.int64
        assert positions[0] == 0
        for j in range(1, capacity):
            if positions[j]:
                assert positions[j] == positions[j - 1] + 1
                assert ids[j] == ids[j - 1] == PADDING or ids[j] == ids[j - 1] + 2, (
                    "one document, without a gap"
                )
            else:
                assert ids[j] != ids[j - 1] + 2, "a piece goes on counting to its end"
        assert (positions[np.isin(ids, beginnings)] == 0).all()
        padding = labels == IGNORED
        assert (ids[padding] == PADDING).all()
        assert (np.diff(padding.astype(int)) >= 0).all(), "padding stands at the end only"


@settings(deadline=None)
@given(lengths=LENGTHS.filter(trainable), capacity=CAPACITIES, packing=PACKINGS)
def test_a_plan_fills_every_block_and_none_beyond_its_length(
    scratch: Path, lengths: list[int], capacity: int, packing: Packing
) -> None:
    blocks = blocks_of(corpus(scratch, lengths), capacity, packing)
    assert blocks.first[0] == 0
    assert blocks.first[-1] == len(blocks.pieces)
    assert (np.diff(blocks.first) > 0).all(), "no block is empty"
    fills = np.add.reduceat(blocks.pieces[:, 2], blocks.first[:-1])
    assert (blocks.pieces[:, 2] > 0).all()
    assert (fills <= capacity).all()


@settings(deadline=None)
@given(lengths=LENGTHS.filter(trainable), capacity=CAPACITIES)
def test_best_fit_cuts_only_what_is_longer_than_a_block_and_into_full_blocks(
    scratch: Path, lengths: list[int], capacity: int
) -> None:
    blocks = blocks_of(corpus(scratch, lengths), capacity, "best-fit")
    for document, length in enumerate(lengths):
        places = max(length - 1, 0)
        mine = sorted(blocks.pieces[blocks.pieces[:, 0] == document][:, 1:].tolist())
        starts = range(0, places, capacity)
        assert mine == [[start, min(capacity, places - start)] for start in starts]


def naive_best_fit(places: Sequence[int], capacity: int) -> list[int]:
    """How full each block is by the textbook: longest first, each into the fullest block that has room."""
    blocks = [capacity for n in places for _ in range(n // capacity)]
    for rest in sorted((n % capacity for n in places if n % capacity), reverse=True):
        fits = [i for i, fill in enumerate(blocks) if fill + rest <= capacity]
        if fits:
            blocks[max(fits, key=lambda i: blocks[i])] += rest
        else:
            blocks.append(rest)
    return sorted(blocks)


@settings(deadline=None)
@given(places=st.lists(st.integers(0, 100), min_size=1, max_size=60), capacity=st.integers(1, 40))
def test_best_fit_fills_blocks_as_the_textbook_does_and_leaves_no_two_that_would_fit_in_one(
    places: list[int], capacity: int
) -> None:
    pieces, first = plan_best_fit(np.array(places, dtype=np.int64), capacity)
    fills = sorted(int(pieces[i:j, 2].sum()) for i, j in pairwise(first))
    assert fills == naive_best_fit(places, capacity)
    assert len(fills) >= -(-sum(places) // capacity)
    assert len(fills) < 2 or fills[0] + fills[1] > capacity


def test_best_fit_fills_nearly_all_on_lengths_like_those_of_patents() -> None:
    lengths = np.random.default_rng(0).lognormal(7, 1, 20_000).astype(np.int64)
    pieces, first = plan_best_fit(lengths, 4096)
    assert pieces[:, 2].sum() == lengths.sum()
    assert lengths.sum() / ((len(first) - 1) * 4096) > 0.995


@pytest.mark.parametrize("packing", ["best-fit", "concat"])
def test_the_plan_is_the_same_every_time(tmp_path: Path, packing: Packing) -> None:
    lengths = np.random.default_rng(1).integers(0, 90, 300).tolist()
    one, two = (blocks_of(corpus(tmp_path, lengths), 32, packing) for _ in range(2))
    assert np.array_equal(one.pieces, two.pieces)
    assert np.array_equal(one.first, two.first)


@pytest.mark.parametrize("packing", ["best-fit", "concat", "none"])
def test_every_document_is_counted_once_by_its_source(tmp_path: Path, packing: Packing) -> None:
    documents = corpus(tmp_path, [3, 9, 30, 5, 8, 4])
    sources = (np.array([0, 1, 1, 0, 1, 2]), ["a", "b", "c"])
    chosen = np.array([0, 1, 2, 4, 5])
    blocks = Blocks(documents, 7, packing=packing, padding_id=PADDING, chosen=chosen, sources=sources)
    found: Counter[str] = sum((blocks.sources_at(i) for i in range(len(blocks))), Counter())
    assert found == blocks.source_counts == {"a": 1, "b": 3, "c": 1}


@pytest.mark.parametrize("packing", ["best-fit", "concat"])
def test_only_the_chosen_documents_are_taken(tmp_path: Path, packing: Packing) -> None:
    documents = corpus(tmp_path, [4, 9, 3, 7])
    blocks = Blocks(documents, 5, packing=packing, padding_id=PADDING, chosen=np.array([3, 1]))
    expected = [
        pair
        for i in (1, 3)
        for pair in zip(documents[i][:-1].tolist(), documents[i][1:].tolist(), strict=True)
    ]
    assert sorted(pairs(blocks)) == expected


@pytest.mark.parametrize("packing", ["best-fit", "concat"])
@pytest.mark.parametrize("lengths", [[], [0, 0], [1, 0, 1]])
def test_a_corpus_with_nothing_to_learn_is_refused(
    tmp_path: Path, lengths: list[int], packing: Packing
) -> None:
    with pytest.raises(UserError, match="no document has two tokens or more"):
        blocks_of(corpus(tmp_path, lengths), 8, packing)


@settings(deadline=None)
@given(lengths=LENGTHS, limit=st.integers(1, 400), seed=st.integers(0, 2**64))
def test_chosen_documents_are_whole_different_within_the_limit_and_as_many_as_fit(
    scratch: Path, lengths: list[int], limit: int, seed: int
) -> None:
    documents = corpus(scratch, lengths)
    chosen = choose_documents(documents, limit, seed).tolist()
    order = choose_documents(documents, None, seed).tolist()
    assert sorted(order) == list(range(len(lengths))), "without a limit, all"
    assert chosen == order[: len(chosen)]
    assert len(chosen) >= 1
    assert len(chosen) == 1 or sum(lengths[i] for i in chosen) <= limit
    if len(chosen) < len(order):
        assert sum(lengths[i] for i in order[: len(chosen) + 1]) > limit
    assert choose_documents(documents, limit, seed).tolist() == chosen, "the same every time"


def test_another_seed_chooses_other_documents(tmp_path: Path) -> None:
    documents = corpus(tmp_path, [10] * 100)
    assert len({tuple(choose_documents(documents, 50, seed).tolist()) for seed in range(10)}) == 10


def test_of_an_empty_corpus_nothing_is_chosen(tmp_path: Path) -> None:
    assert choose_documents(corpus(tmp_path, []), 50, 0).tolist() == []
