"""One record of each invention and language, one of texts that say the same: what stays, what goes, and
why."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.planted import character_grams, plant, score, synthetic_records
from core.errors import UserError
from data.dedup.dedup import DedupConfig, dedup
from data.dedup.fingerprints import is_grant
from data.record import SCHEMA, Record

RNG = Random(0)
TEXTS = ["".join(chr(RNG.randrange(0x4E00, 0x5E00)) for _ in range(300)) for _ in range(12)]


def record(name: str, text: str, **fields: Any) -> Record:
    office, _, kind = name.split("-")
    values = {"id": name, "office": office, "kind": kind, "language": "zh", "source": name}
    row: Record = {**dict.fromkeys(SCHEMA.names), **values, "description": text, **fields}  # type: ignore[typeddict-item]
    return row


def write(folder: Path, *shards: Sequence[Record]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"shard-{number:05d}.parquet" for number in range(len(shards))]
    for path, rows in zip(paths, shards, strict=True):
        pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), path, row_group_size=2)
    return paths


def run(folder: Path, shards: list[Path], **options: Any) -> tuple[dict[str, Any], list[str]]:
    """The counts, and the ids that are kept, in order."""
    folder.mkdir()
    counts = dedup(options.pop("config", DedupConfig()), shards, folder, **options)
    kept = [
        name for shard in sorted(folder.glob("*.parquet")) for name in pq.read_table(shard)["id"].to_pylist()
    ]
    return counts, kept


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_grant_stands_for_its_application_and_other_offices_and_languages_stay(tmp_path: Path) -> None:
    invention = {"application_id": "CN-2010", "family_id": "7"}
    shards = write(
        tmp_path / "in",
        [
            record("CN-1-A", TEXTS[0] + TEXTS[5], **invention),
            record("CN-1-B", TEXTS[1], **invention),
            record("CN-1-B", "the same in other words " * 9, **invention | {"language": "en"}),
            record("US-2-A1", "an invention told at another office", family_id="7", language="en"),
            record("CN-3-A", TEXTS[2], application_id="CN-2011"),
            record("CN-4-A", TEXTS[3]),
            record("KR-5-A", TEXTS[4], application_id="CN-2010"),  # a number of another office
        ],
    )
    counts, kept = run(tmp_path / "out", shards)
    assert kept == ["CN-1-B", "CN-1-B", "US-2-A1", "CN-3-A", "CN-4-A", "KR-5-A"]
    assert (counts["records"], counts["kept"]) == (7, 6)
    assert counts["dropped"] == {"family": 1, "exact": 0, "near": 0}
    dropped = {"id": "CN-1-A", "language": "zh", "kept": "CN-1-B", "rule": "family", "jaccard": None}
    assert lines(tmp_path / "out" / "duplicates.jsonl") == [dropped]
    [family] = lines(tmp_path / "out" / "families.jsonl")
    assert family["family"] == "7"
    assert sorted(family["members"]) == [["CN-1-B", "en"], ["CN-1-B", "zh"], ["US-2-A1", "en"]]


def test_a_grant_in_the_other_script_stands_for_its_application(tmp_path: Path) -> None:
    """Whether a text of a few words is Traditional is not to be known: its language may be told as `zh`."""
    invention = {"application_id": "TW-2010"}
    rows = [
        record("TW-1-A", "一種水泵", **invention),
        record("TW-1-B", "一種離心水泵，包括殼體", **invention, language="zh-Hant"),
        record("TW-1-C", "a pump", **invention, language="en"),
    ]
    _, kept = run(tmp_path / "out", write(tmp_path / "in", rows))
    assert kept == ["TW-1-B", "TW-1-C"]


def test_rows_stay_whole(tmp_path: Path) -> None:
    rows = [record(f"CN-{n}-A", TEXTS[n % 3], claims=["一种", "二"], ipc=["G06F 1/00"]) for n in range(7)]
    _, kept = run(tmp_path / "out", write(tmp_path / "in", rows[:4], rows[4:]))
    assert kept == ["CN-0-A", "CN-1-A", "CN-2-A"]
    assert pq.read_table(tmp_path / "out" / "shard-00000.parquet").to_pylist() == rows[:3]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda text: f"\n{text[:20]}，{text[20:]}。", "exact"),
        (lambda text: text + TEXTS[11][:100], "near"),
        (lambda text: text[40:], "near"),
        (lambda text: text + TEXTS[11] + TEXTS[10], None),
        (lambda text: "".join(letter if n % 6 else "一" for n, letter in enumerate(text)), None),
    ],
)
def test_texts_that_say_the_same(change: Callable[[str], str], rule: str | None, tmp_path: Path) -> None:
    shards = write(tmp_path / "in", [record("CN-1-A", TEXTS[0])], [record("CN-2-A", change(TEXTS[0]))])
    _, kept = run(tmp_path / "out", shards)
    found = lines(tmp_path / "out" / "duplicates.jsonl")
    assert [line["rule"] for line in found] == ([rule] if rule else [])
    assert len(kept) == (1 if rule else 2)
    assert all(line["jaccard"] >= 0.6 for line in found)


def test_traditional_and_simplified_are_one_text(tmp_path: Path) -> None:
    simplified = (
        "本发明涉及一种车辆的控制装置，其特征在于包括传感器与处理单元，所述处理单元根据检测结果调节电机转速"
    )
    traditional = (
        "本發明涉及一種車輛的控制裝置，其特徵在於包括傳感器與處理單元，所述處理單元根據檢測結果調節電機轉速"
    )
    rows = [record("CN-1-A", simplified), record("TW-2-A", traditional + "及溫度")]
    _, kept = run(tmp_path / "out", write(tmp_path / "in", rows))
    assert kept == ["TW-2-A"]
    [line] = lines(tmp_path / "out" / "duplicates.jsonl")
    assert line["rule"] == "near"
    assert line["jaccard"] > 0.9


DESIGN = (
    "The ornamental design for a {0}, as shown and described. FIG. 1 is a perspective view of a {0}; FIG. 2"
    " is a front elevational view thereof; FIG. 3 is a rear elevational view thereof; FIG. 4 is a left side"
    " elevational view thereof; FIG. 5 is a top plan view thereof; and FIG. 6 is a bottom plan view thereof."
)
"""The claim and the description of nearly every design patent."""


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (("Bottle", DESIGN.format("bottle")), ("Chair", DESIGN.format("chair")), False),
        (("Bottle", DESIGN.format("bottle")), ("BOTTLE.", DESIGN.format("bottle")[:-30]), True),
        ((None, DESIGN.format("bottle")), (None, DESIGN.format("bottle")[:-30]), True),
        (("水泵", TEXTS[0][:180]), ("阀门", TEXTS[0][:180]), False),
        (("水泵", TEXTS[0]), ("阀门", TEXTS[0]), True),  # long enough that the title is a detail
    ],
)
def test_short_texts_are_alike_only_under_one_title(
    one: tuple[str | None, str], other: tuple[str | None, str], alike: bool, tmp_path: Path
) -> None:
    rows = [
        record(f"US-{n}-S", text, title=title, language="en") for n, (title, text) in enumerate((one, other))
    ]
    _, kept = run(tmp_path / "out", write(tmp_path / "in", rows))
    assert len(kept) == (1 if alike else 2)


def test_a_record_goes_only_for_one_that_stays_and_is_alike(tmp_path: Path) -> None:
    # a ~ b ~ c ~ d, but a and c have little in common: b goes for a, c is not b's to take along.
    whole = "".join(TEXTS)
    rows = [record(f"CN-{n}-A", whole[300 * n : 300 * n + 1300]) for n in range(4)]
    _, kept = run(tmp_path / "out", write(tmp_path / "in", rows))
    assert kept == ["CN-0-A", "CN-2-A"]
    pairs = [(line["id"], line["kept"]) for line in lines(tmp_path / "out" / "duplicates.jsonl")]
    assert pairs == [("CN-1-A", "CN-0-A"), ("CN-3-A", "CN-2-A")]


def test_the_kept_one_is_really_kept(tmp_path: Path) -> None:
    # The publication goes for its grant, the grant for its copy, the copy for a longer text.
    rows = [
        record("CN-1-A", TEXTS[1], application_id="CN-9"),
        record("CN-1-B", TEXTS[0], application_id="CN-9"),
        record("CN-0-B", TEXTS[0]),
        record("CN-3-B", TEXTS[0] + TEXTS[5][:50]),
    ]
    _, kept = run(tmp_path / "out", write(tmp_path / "in", rows))
    assert kept == ["CN-3-B"]
    found = {line["id"]: line for line in lines(tmp_path / "out" / "duplicates.jsonl")}
    assert {name: line["kept"] for name, line in found.items()} == dict.fromkeys(found, "CN-3-B")
    assert {name: line["rule"] for name, line in found.items()} == {
        "CN-1-A": "family", "CN-1-B": "exact", "CN-0-B": "near",
    }  # fmt: skip
    assert found["CN-1-B"]["jaccard"] == found["CN-0-B"]["jaccard"] < 1


def test_records_without_letters_are_not_alike(tmp_path: Path) -> None:
    rows = [record("CN-1-A", "……"), record("CN-2-A", "……"), record("CN-3-A", "")]
    assert run(tmp_path / "out", write(tmp_path / "in", rows))[1] == ["CN-1-A", "CN-2-A", "CN-3-A"]


def test_rules_can_be_switched_off(tmp_path: Path) -> None:
    rows = [
        record("CN-1-A", TEXTS[0], application_id="CN-9"),
        record("CN-1-B", TEXTS[0], application_id="CN-9"),
    ]
    config = DedupConfig(family=False, exact=False, near=False)
    assert len(run(tmp_path / "out", write(tmp_path / "in", rows), config=config)[1]) == 2


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("planted")
    return plant(synthetic_records(folder / "source", 600, "zh"), folder, character_grams)


def test_planted_copies_are_found_and_decoys_are_left(planted: Any, tmp_path: Path) -> None:
    counts, kept = run(tmp_path / "out", planted.shards)
    found = lines(tmp_path / "out" / "duplicates.jsonl")
    result = score(planted, set(kept), {line["id"]: line["kept"] for line in found})
    hits, pairs = result.recall["0.6-1.0"]
    assert pairs > 100
    assert hits >= 0.98 * pairs
    assert result.precision >= 0.99
    assert all(line["jaccard"] >= 0.6 for line in found)
    assert counts["kept"] + sum(counts["dropped"].values()) == counts["records"] == len(planted.family)


def test_neither_order_nor_workers_decide_what_is_kept(planted: Any, tmp_path: Path) -> None:
    rows = [row for shard in planted.shards for row in pq.read_table(shard).to_pylist()]
    half = len(rows) // 2
    first = run(tmp_path / "a", write(tmp_path / "in-a", rows[:half], rows[half:]))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        same = run(tmp_path / "b", write(tmp_path / "in-b", rows[:half], rows[half:]), executor=pool)
    turned = run(tmp_path / "c", write(tmp_path / "in-c", rows[half:], rows[:99], rows[99:half]))
    assert first == same
    assert set(first[1]) == set(turned[1])
    reports = [(tmp_path / name / "duplicates.jsonl").read_bytes() for name in "abc"]
    assert reports[0] == reports[1] == reports[2]
    for name in ("shard-00000.parquet", "shard-00001.parquet", "shard-00000.keys"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_later_shards_are_compared_with_what_was_kept_before(tmp_path: Path) -> None:
    old = write(
        tmp_path / "old",
        [record("CN-1-A", TEXTS[0], application_id="CN-9"), record("CN-2-A", TEXTS[1])],
        [record("CN-3-A", TEXTS[2])],
    )
    run(tmp_path / "kept", old)
    before = {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    new = write(
        tmp_path / "new",
        [
            record("CN-1-B", TEXTS[5], application_id="CN-9"),  # a grant, but the publication was trained on
            record("CN-5-B", TEXTS[1]),
            record("CN-6-B", TEXTS[2] + TEXTS[6][:100]),
            record("CN-7-B", TEXTS[7]),
        ],
    )
    counts, kept = run(tmp_path / "out", new, known=[tmp_path / "kept"])
    assert kept == ["CN-7-B"]
    assert (counts["records"], counts["known"], counts["kept"]) == (4, 3, 1)
    assert counts["dropped"] == {"family": 1, "exact": 1, "near": 1}
    assert before == {path: path.read_bytes() for path in before}
    strict = DedupConfig(threshold=0.9)  # another threshold than that of the older corpus
    _, kept = run(tmp_path / "strict", new, known=[tmp_path / "kept"], config=strict)
    assert kept == ["CN-6-B", "CN-7-B"]
    again, kept = run(tmp_path / "third", new, known=[tmp_path / "kept", tmp_path / "out"])
    assert (again["kept"], kept) == (0, [])


def test_boilerplate_in_a_full_bucket_is_counted_and_hides_no_copy(tmp_path: Path) -> None:
    rng = Random(1)
    rows = []
    for number in range(120):
        own = "".join(chr(rng.randrange(0x4E00, 0x5E00)) for _ in range(260))
        rows.append(record(f"CN-{number}-A", TEXTS[0] + own))
        if number % 10 == 0:
            rows.append(record(f"CN-{number}-B", TEXTS[0] + own[:-9]))
    config = DedupConfig(bucket_cap=4)
    counts, kept = run(tmp_path / "out", write(tmp_path / "in", rows), config=config)
    assert counts["capped_buckets"] > 0
    assert counts["skipped_pairs"] > 0
    names = {name.rpartition("-")[0] for name in kept}
    assert len(names) == 120
    assert len(kept) <= 121


@pytest.mark.parametrize(
    ("number", "granted"),
    [("CN A", False), ("CN B", True), ("CN U", True), ("CN Y", True), ("JP U", False), ("US A", True),
     ("US A1", False), ("US B2", True), ("US P1", False), ("US P3", True), ("EP A2", False), ("EP B8", False),
     ("WO A1", False), (" ", False)],
)  # fmt: skip
def test_kinds_of_publication(number: str, granted: bool) -> None:
    assert is_grant(*number.split(" ")) is granted


def test_a_users_mistakes_are_named(tmp_path: Path) -> None:
    shards = write(tmp_path / "in", [record("CN-1-A", TEXTS[0])])
    with pytest.raises(UserError, match="is not a deduplicated corpus"):
        run(tmp_path / "a", shards, known=[tmp_path / "in"])
    run(tmp_path / "kept", shards)
    with pytest.raises(UserError, match="Use the same settings"):
        run(tmp_path / "b", shards, known=[tmp_path / "kept"], config=DedupConfig(characters=9))


def test_an_empty_shard_is_no_error(tmp_path: Path) -> None:
    counts, kept = run(tmp_path / "out", write(tmp_path / "in", []))
    assert (counts["records"], kept) == (0, [])
