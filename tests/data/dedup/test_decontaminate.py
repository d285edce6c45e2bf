"""What training must not see: samples are found in texts by what they say, and only by that."""

import csv
import json
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.planted import synthetic_records
from core.errors import UserError
from data.dedup.decontaminate import DecontaminateConfig, EvaluationSet, decontaminate
from data.dedup.ngram_index import EvalSample, Index
from data.patent_numbers import publication_key
from data.record import SCHEMA
from tests.data.dedup.test_dedup import TEXTS, lines, record, write

SENTENCE = "an electric motor which drives the pump as soon as the sensor reports that the tank is full"


def passages(text: str, n: int) -> set[str]:
    return {text[i : i + n] for i in range(len(text) - n + 1)}


def word_passages(text: str, n: int) -> set[str]:
    words = text.split()
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (TEXTS[0], "exact"),
        (f"背景技术\n{TEXTS[0][50:80]}等", "overlap"),
        (f"背景技术\n{TEXTS[0][50:60]}，\n {TEXTS[0][60:80]}", "overlap"),
        (TEXTS[0][50:79], None),
        (TEXTS[0][50:79] + "一" + TEXTS[0][79:108], None),
        (SENTENCE.upper().replace(" ", "\n"), "exact"),
        (f"It has {' '.join(SENTENCE.split()[:13])}.", "overlap"),
        (" ".join(SENTENCE.split()[:12]), None),
        (f"pre{SENTENCE}"[:70] + "x", None),
        ("", None),
    ],
)
def test_a_sample_is_found_by_its_text(text: str, rule: str | None) -> None:
    index = Index(
        [
            EvalSample("zh", "a", TEXTS[0]),
            EvalSample("en", "b", SENTENCE),
            EvalSample("zh", "c", TEXTS[1]),
        ]
    )
    found = index.overlaps(text)
    assert {hit.rule for hit in found} == ({"exact", "overlap"} if rule == "exact" else {rule} - {None})
    assert len({hit.sample for hit in found}) <= 1


def test_a_hit_says_what_and_how_much() -> None:
    index = Index([EvalSample("zh", "a", TEXTS[0]), EvalSample("zh", "b", TEXTS[0][:100])])
    first, second = index.overlaps("一二三" + TEXTS[0][:65])
    assert (first.sample, second.sample) == ("a", "b")
    assert first.passage is not None
    assert len(first.passage) == 30
    assert first.share == pytest.approx(36 / 271)
    assert second.share == pytest.approx(36 / 71)


def test_traditional_text_is_found_by_a_simplified_sample() -> None:
    sample = "本发明涉及一种车辆的控制装置，其特征在于包括传感器与处理单元，所述处理单元根据检测结果"
    text = "如下：本發明涉及一種車輛的控制裝置，其特徵在於包括傳感器與處理單元，所述處理單元根據檢測結果。"
    assert [hit.rule for hit in Index([EvalSample("s", "1", sample)]).overlaps(text)] == ["overlap"]


LETTERS = st.text(st.sampled_from("一二三"), max_size=40)
WORDS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=24).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(LETTERS, min_size=1, max_size=4), LETTERS, st.integers(1, 8))
def test_overlaps_of_characters_are_those_of_sets(samples: list[str], text: str, n: int) -> None:
    found = Index([EvalSample("s", str(i), each) for i, each in enumerate(samples)], n, 3).overlaps(text)
    expected = {str(i) for i, each in enumerate(samples) if passages(each, n) & passages(text, n)}
    assert {hit.sample for hit in found if hit.rule == "overlap"} == expected
    for hit in found:
        if hit.rule == "overlap":
            sample = passages(samples[int(hit.sample)], n)
            assert hit.share == pytest.approx(len(sample & passages(text, n)) / len(sample))


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), WORDS, st.integers(1, 6))
def test_overlaps_of_words_are_those_of_sets(samples: list[str], text: str, n: int) -> None:
    found = Index([EvalSample("s", str(i), each) for i, each in enumerate(samples)], 5, n).overlaps(text)
    expected = {str(i) for i, each in enumerate(samples) if word_passages(each, n) & word_passages(text, n)}
    assert {hit.sample for hit in found if hit.rule == "overlap"} == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("CN-114081026-A", "CN114081026B", True),
        ("US-2005/0004437-A1", "us20050004437", True),
        ("US08926509", "US-8926509-B2", True),
        ("EP-1116605-B1", "EP-1116606-B1", False),
        ("patents-000001", "patents-000001", False),
        ("7", "7", False),
    ],
)
def test_publications_are_compared_without_kind(one: str, other: str, same: bool) -> None:
    assert (publication_key(one) is not None and publication_key(one) == publication_key(other)) is same
    found = Index([EvalSample("s", "1", "text", one)]).overlaps("another text", other)
    assert [hit.rule for hit in found] == (["publication"] if same else [])


def test_nothing_to_find_finds_nothing() -> None:
    assert Index([]).overlaps(TEXTS[0]) == []
    index = Index([EvalSample("s", "1", "。"), EvalSample("s", "2", "装置")])
    assert index.short_samples == 2
    assert index.overlaps("！") == []
    assert [hit.rule for hit in index.overlaps("裝置")] == ["exact"]


def evaluation_sets(folder: Path) -> tuple[EvaluationSet, ...]:
    (folder / "qa.jsonl").write_text(
        json.dumps({"q": TEXTS[0][:90], "choices": [TEXTS[1][:40], "短"], "n": "CN-77777-A"}) + "\n", "utf-8"
    )
    with (folder / "b.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["text", "label"], [SENTENCE, "1"], ["", ""]])
    return (
        EvaluationSet(path=str(folder / "qa.jsonl"), text_fields=("q", "choices"), publication_field="n"),
        EvaluationSet(path=str(folder / "b.csv"), text_fields=("text",)),
    )


@pytest.mark.parametrize("action", ["drop", "flag"])
def test_records_that_hold_samples_go(action: str, tmp_path: Path) -> None:
    shards = write(
        tmp_path / "in",
        [record("CN-1-A", TEXTS[0]), record("CN-2-A", TEXTS[2]), record("CN-77777-B", TEXTS[3])],
        [record("CN-4-A", TEXTS[4], claims=[TEXTS[1]]), record("US-5-A", f"So {SENTENCE}", language="en")],
    )
    (tmp_path / "out").mkdir()
    config = DecontaminateConfig.model_validate({"sets": evaluation_sets(tmp_path), "action": action})
    counts = decontaminate(config, shards, tmp_path / "out")
    kept = [
        name for shard in shards for name in pq.read_table(tmp_path / "out" / shard.name)["id"].to_pylist()
    ]
    everyone = ["CN-1-A", "CN-2-A", "CN-77777-B", "CN-4-A", "US-5-A"]
    assert kept == (["CN-2-A"] if action == "drop" else everyone)
    assert (counts["records"], counts["kept"]) == (5, len(kept))
    assert counts["contaminated"] == {"publication": 1, "exact": 0, "overlap": 3}
    assert counts["samples"] == {str(tmp_path / "qa.jsonl"): 3, str(tmp_path / "b.csv"): 1}
    assert counts["samples_in_corpus"] == {str(tmp_path / "qa.jsonl"): 1, str(tmp_path / "b.csv"): 1}
    assert counts["short_samples"] == 1
    found = lines(tmp_path / "out" / "contaminated.jsonl")
    assert [line["id"] for line in found if line["rule"] == "overlap"] == ["CN-1-A", "CN-4-A", "US-5-A"]


def test_common_wording_is_no_contamination(tmp_path: Path) -> None:
    closing = "凡在本发明的精神和原则之内所作的任何修改等同替换改进等均应包含在本发明的保护范围之内"
    rng = Random(3)
    rows = []
    for number in range(40):
        own = "".join(chr(rng.randrange(0x4E00, 0x5E00)) for _ in range(200))
        rows.append(record(f"CN-{number}-A", own + closing))
    leaked = str(rows[7]["description"])
    (tmp_path / "e.jsonl").write_text(json.dumps({"text": leaked[30:]}) + "\n", "utf-8")
    config = DecontaminateConfig(sets=(EvaluationSet(path=str(tmp_path / "e.jsonl"), text_fields=("text",)),))
    for limit, kept in ((10, 39), (None, 0)):
        (tmp_path / str(limit)).mkdir()
        limited = config.model_copy(update={"common_records": limit})
        counts = decontaminate(limited, write(tmp_path / "in", rows), tmp_path / str(limit))
        assert counts["kept"] == kept
    assert counts["common_passages"] == 0


def test_made_up_abstracts_share_long_passages_by_template_only(tmp_path: Path) -> None:
    rows = synthetic_records(tmp_path / "source", 400, "zh")
    held, corpus = rows[:40], rows[40:]
    index = Index([EvalSample("s", row["id"], str(row["abstract"])) for row in held])
    found = [hit for row in corpus for hit in index.overlaps(str(row["abstract"]))]
    # Templates and a small lexicon fill some sentences alike, never most of an abstract.
    assert len({hit.sample for hit in found}) < 40
    assert max((hit.share for hit in found), default=0) < 0.8
    assert all(
        hit.share == 1
        for row in held
        for hit in index.overlaps(str(row["abstract"]))
        if hit.sample == row["id"]
    )
    shards = [tmp_path / "shard-00000.parquet"]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), shards[0])
    (tmp_path / "e.jsonl").write_text(
        "".join(json.dumps({"abstract": row["abstract"]}) + "\n" for row in held), "utf-8"
    )
    sets = (EvaluationSet(path=str(tmp_path / "e.jsonl"), text_fields=("abstract",)),)
    counts = decontaminate(DecontaminateConfig(sets=sets, least_share=0.8), shards, tmp_path / "source")
    assert counts["contaminated"]["overlap"] == 40


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"other": 1}\n', "sample 1: no field `text`"),
        ("a.jsonl", "{broken\n", "is not UTF-8 JSON lines or CSV"),
        ("a.csv", "other\nx\n", "sample 1: no field `text`"),
        (None, "", "not found"),
    ],
)
def test_a_users_mistakes_are_named(name: str | None, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / (name or "missing.jsonl")
    if name:
        path.write_text(content, "utf-8")
    config: Any = DecontaminateConfig(sets=(EvaluationSet(path=str(path), text_fields=("text",)),))
    with pytest.raises(UserError, match=message):
        decontaminate(config, [], tmp_path)
