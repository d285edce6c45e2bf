"""Which side an invention stands on: all of it, in every language and office, in every corpus."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from data.extend import check_split
from data.record import SCHEMA, Record
from data.split import SplitConfig, link_families, split_of
from tests.data.test_extends import SETTINGS, make
from tests.data.test_pack import record


def shard(path: Path, records: list[Record]) -> Path:
    pq.write_table(pa.Table.from_pylist(records, SCHEMA), path)
    return path


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_about_the_asked_share_of_inventions_is_held_out(share: float, seed: int) -> None:
    config = SplitConfig(validation_share=share, seed=seed)
    held_out = sum(split_of(record(number), config) == "validation" for number in range(5000))
    assert held_out == pytest.approx(5000 * share, abs=4 * (5000 * share * (1 - share)) ** 0.5)


@pytest.mark.parametrize(
    "texts",
    [
        [record(1, "en"), record(1, "zh")],
        [record(1, "en", family_id="F"), record(2, "zh", family_id="F")],
        [record(1, "en", application_id=None), record(1, "zh", application_id=None, id="US-1-A")],
        # Publication and grant of one number; a source that knows the family, one that knows the application.
        [
            record(1, application_id=None, id="EP-1000009-A1"),
            record(2, application_id=None, id="EP-1000009-B1"),
        ],
        [record(1, family_id="F"), record(1, "zh")],
        [
            record(1, family_id="F"),
            record(2, family_id="F", application_id="X"),
            record(3, application_id="X"),
        ],
        [
            record(1, family_id="F", id="US-1000001-A1"),
            record(2, id="US-1000001-B2", application_id="Y"),
            record(3, application_id="Y"),
        ],
    ],
)
def test_all_texts_of_one_invention_stand_on_one_side(tmp_path: Path, texts: list[Record]) -> None:
    families = link_families([[shard(tmp_path / f"{i}", [text]) for i, text in enumerate(texts)]], None)
    sides: list[str] = []
    for seed in range(64):
        config = SplitConfig(validation_share=0.5, seed=seed)
        found = {split_of(text, config, families) for text in texts}
        assert len(found) == 1
        sides += found
    assert set(sides) == {"train", "validation"}, "which side, the seed decides"


def test_others_are_not_drawn_together(tmp_path: Path) -> None:
    texts = [record(number) for number in range(200)]
    families = link_families([[shard(tmp_path / "a", texts)]], None)
    assert len(families.keys) == 0


def test_an_invention_keeps_the_side_that_it_had_in_an_earlier_corpus(tmp_path: Path) -> None:
    """The newcomer brings a family number, which links what was known by its application."""
    old = [record(number) for number in range(200)]
    new = [record(number, "zh", family_id=f"F{number}") for number in range(200)]
    before = link_families([[shard(tmp_path / "old", old)]], None)
    after = link_families([[tmp_path / "old"], [shard(tmp_path / "new", new)]], None)
    config = SplitConfig(validation_share=0.5)
    sides = [split_of(one, config, before) for one in old]
    assert [split_of(one, config, after) for one in old] == sides
    assert [split_of(one, config, after) for one in new] == sides
    assert set(sides) == {"train", "validation"}


def test_a_corpus_that_is_split_otherwise_cannot_be_extended(tmp_path: Path) -> None:
    make(tmp_path / "corpus", Path(), "sources=[]", "synthetic.inventions=20", *SETTINGS)
    check_split(SplitConfig(validation_share=0.1), [tmp_path / "corpus"])
    with pytest.raises(UserError, match=r"pack\.validation_share=0\.2, but .* was packed with 0\.1"):
        check_split(SplitConfig(validation_share=0.2), [tmp_path / "corpus"])
