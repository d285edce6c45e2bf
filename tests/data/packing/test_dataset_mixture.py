"""Corpora that train together: shares of tokens, extensions in proportion, the blocks of all of them."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from data.packing.dataset_mixture import Component, Mixture, token_shares
from data.packing.indexed_dataset import Documents, Writer
from data.packing.packed_dataset import Blocks


def blocks(folder: Path, name: str, lengths: list[int]) -> Blocks:
    """Blocks of 16 tokens over documents of these lengths, whose ids tell the corpus."""
    with Writer(folder / name, 1000) as writer:
        for length in lengths:
            writer.add(np.full(length, ord(name[0])))
    return Blocks(Documents(folder / name), 16, packing="best-fit", padding_id=0)


def test_corpora_without_shares_train_as_one_corpus(tmp_path: Path) -> None:
    first, more = blocks(tmp_path, "a", [17] * 30), blocks(tmp_path, "b", [17] * 10)
    mixture = Mixture([Component("a", first, None), Component("b", more, None)])
    assert len(mixture) == 40
    assert [part.share for part in mixture.parts] == pytest.approx([0.75, 0.25])
    assert [int(mixture[i]["input_ids"][0]) for i in (0, 29, 30, 39)] == [97, 97, 98, 98]


def test_shares_are_of_tokens_also_where_a_corpus_packs_badly(tmp_path: Path) -> None:
    """Documents of 10 tokens leave 7 of 16 places empty: their corpus needs more blocks for its tokens."""
    tight, loose = blocks(tmp_path, "a", [17] * 30), blocks(tmp_path, "b", [10] * 30)
    mixture = Mixture([Component("a", tight, None), Component("b", loose, 0.2)])
    tokens = np.array([part.share for part in mixture.parts]) * [16, 9]
    assert tokens / tokens.sum() == pytest.approx([0.8, 0.2])


def test_what_given_shares_leave_goes_to_the_others_by_tokens(tmp_path: Path) -> None:
    parts = [
        Component(n, blocks(tmp_path, n, [17] * k), s)
        for n, k, s in (("a", 6, None), ("b", 2, None), ("c", 9, 0.2))
    ]
    assert token_shares(parts) == pytest.approx([0.6, 0.2, 0.2])


@pytest.mark.parametrize("shares", [[None, 0.6, 0.4], [0.5, 0.4, 0.2], [0.5, 0.2, 0.2]])
def test_shares_that_do_not_add_up_are_refused(tmp_path: Path, shares: list[float | None]) -> None:
    parts = [Component(n, blocks(tmp_path, n, [17]), s) for n, s in zip("abc", shares, strict=True)]
    with pytest.raises(UserError, match="mixture"):
        Mixture(parts)
