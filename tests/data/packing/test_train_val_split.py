"""All texts of one invention stand on one side, in every office, language and month."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.executor import EngineConfig, open_executor
from data.packing.train_val_split import NO_FAMILIES, Families, SplitConfig, link_families, split_of
from data.record import Record
from tests.data.records import record, write_shards

SEEDS = range(64)


def sides(found: Record, families: Families = NO_FAMILIES) -> list[str]:
    """The side of a record by each of many seeds, half of all inventions held out."""
    return [split_of(found, SplitConfig(validation_share=0.5, seed=seed), families) for seed in SEEDS]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_about_the_asked_share_of_inventions_is_held_out(share: float, seed: int) -> None:
    config = SplitConfig(validation_share=share, seed=seed)
    held_out = sum(split_of(record(number), config) == "validation" for number in range(5000))
    assert held_out == pytest.approx(5000 * share, abs=4 * (5000 * share * (1 - share)) ** 0.5)


def named(name: str, application: str | None = None, family: str | None = None) -> Record:
    return record(1, id=name, application_id=application, family_id=family)


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param([named("US-8930553-B2", "US-1"), named("CN-104-A", "US-1")], id="application"),
        pytest.param([named("US-8930553-B2", "US-1", "F"), named("EP-1-A", "EP-2", "F")], id="family"),
        pytest.param([named("US-8930553-B2", "US-1", "F"), named("X", "US-1")], id="family-in-one-source"),
        pytest.param([named("US-8930553-A1", "US-1"), named("US-08930553-B2")], id="kind-codes"),
        pytest.param([named("US-8930553-A1", "US-1"), named("US8930553")], id="another-way-to-write-it"),
        pytest.param(
            [named("US-8930553-A1", "US-1", "F"), named("US-8930553-B2", "EP-2"), named("CN-7-A", "EP-2")],
            id="link-of-a-link",
        ),
        pytest.param(
            [named("A", "1", "F"), named("B", "1"), named("JP-5551234-A", "1"), named("JP-5551234-B", "2"),
             named("D", "2", "G"), named("E", "3", "G"), named("H", "3")],
            id="a-long-chain",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shards", [1, 3])
def test_all_texts_of_one_invention_stand_on_one_side(
    texts: list[Record], shards: int, tmp_path: Path
) -> None:
    others = [record(number) for number in range(100, 140)]
    spread = [(texts + others)[i::shards] for i in range(shards)]
    families = link_families([write_shards(spread, tmp_path / "records")], None)
    first, *rest = [sides(text, families) for text in texts]
    assert all(one == first for one in rest)
    assert set(first) == {"train", "validation"}, "which side, the seed decides"
    assert len({tuple(sides(each, families)) for each in [texts[0], *others]}) == 41, "strangers are apart"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12)), max_size=14),
    st.integers(1, 4),
)
def test_links_are_those_of_a_graph_walked_by_hand(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[tuple[int, int, int]], shards: int
) -> None:
    """0 is a name that is not given."""
    texts = [
        named(f"US-{1000 + a}-A", f"A-{b}" if b else None, f"F-{c}" if c else None) for a, b, c in numbers
    ]
    groups: list[set[str]] = []
    for each in texts:
        names = {name for name in (each["id"], each["application_id"], each["family_id"]) if name}
        met = [group for group in groups if group & names]
        groups = [group for group in groups if not group & names] + [names.union(*met)]
    spread = [texts[i::shards] for i in range(shards)]
    files = write_shards(spread, tmp_path_factory.mktemp("split") / "records")
    families = link_families([files], None)
    found: dict[int, set[tuple[str, ...]]] = {}
    for each in texts:
        group = next(number for number, names in enumerate(groups) if each["id"] in names)
        found.setdefault(group, set()).add(tuple(sides(each, families)))
    assert [len(each) for each in found.values()] == [1] * len(groups)
    assert len(set().union(*found.values())) == len(groups)


@pytest.mark.parametrize(
    "new",
    [
        [named("EP-7654321-A1", "EP-5", "F-5"), named("US-1234-B2", "EP-5")],
        [named("US-1234-B2", "EP-5", "F-5")],
        [named("DE-1111-A", "US-1", "A-first-by-name")],
    ],
)
def test_an_invention_stays_where_an_earlier_corpus_had_it(new: list[Record], tmp_path: Path) -> None:
    old = [named("US-1234-A1", "US-1"), *(record(number) for number in range(100, 110))]
    january = write_shards([old], tmp_path / "january")
    february = write_shards([new], tmp_path / "february")
    before = link_families([january], None)
    now = link_families([january, february], None)
    assert [sides(each, now) for each in new] == [sides(old[0], before)] * len(new)
    march = write_shards([[named("US-1234-C1", "US-9", "G")]], tmp_path / "march")
    later = link_families([january, february, march], None)
    assert sides(named("US-1234-C1", "US-9", "G"), later) == sides(old[0], before)


def test_workers_and_the_order_of_shards_do_not_matter(tmp_path: Path) -> None:
    texts = [
        named(f"US-{1000 + i % 30}-A", f"A-{i % 40}", f"F-{i % 7}" if i % 3 else None) for i in range(90)
    ]
    files = write_shards([texts[i::4] for i in range(4)], tmp_path / "records")
    alone = link_families([files], None)
    with open_executor(EngineConfig(workers=2)) as executor:
        found = link_families([files[::-1]], executor)
    for ours, theirs in zip(alone, found, strict=True):
        assert ours.tolist() == theirs.tolist()
    assert len(alone.keys) > 0


@pytest.mark.parametrize(
    "settings", [{"validation_share": 1}, {"validation_share": -0.1}, {"seed": -1}, {"seed": 2**64}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SplitConfig(**settings)
