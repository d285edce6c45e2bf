"""Cleaning: each rule takes its part, can be switched off and is counted; workers do not matter."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from data import steps
from data.boilerplate import LEAST_DOCUMENTS, LineCounts, count_lines, frequent_lines
from data.clean import clean, clean_shard
from data.engine import EngineConfig, open_executor, sum_rows
from data.ingest import read_records
from data.record import SCHEMA, Record
from data.steps import CleanConfig, clean_record
from tests.conftest import run

ENGLISH = (
    "The housing of the pump is sealed against the shaft by a ring of rubber, so that no water can leave."
)
GERMAN = "Das Gehäuse der Pumpe ist gegen die Welle durch einen Gummiring abgedichtet, kein Wasser tritt aus."
CHINESE = "本发明涉及一种离心泵，其壳体与轴之间通过橡胶圈密封，因此水不会漏出，结构简单，使用方便。"
TRADITIONAL = "本發明涉及一種離心泵，其殼體與軸之間通過橡膠圈密封，因此水不會漏出，結構簡單，使用方便。"
OFF = {
    **dict.fromkeys(
        ("regular", "full_width", "paragraph_numbers", "claim_numbers", "sequences", "people", "language"),
        False,
    ),
    **dict.fromkeys(
        (
            "boilerplate_share", "max_odd_share", "max_broken_share", "min_script_share",
            "max_repeated_lines", "max_repeated_ngrams",
        ),
        None,
    ),
    "tag_traditional": False,
    "min_characters": 0,
}  # fmt: skip
"""Every rule switched off."""


def record(number: int = 1, **fields: Any) -> Record:
    """A record with a long enough description of its own."""
    whole: Record = {
        "id": f"US-{number}-B2",
        "office": "US",
        "kind": "B2",
        "language": "en",
        "date": "2015-01-06",
        "application_id": None,
        "family_id": None,
        "title": f"Pump {number}",
        "abstract": None,
        "claims": None,
        "description": f"Invention {number} moves water.\n{ENGLISH}",
        "ipc": ["F04B 1/00"],
        "source": f"a.xml#{number}",
    }
    return {**whole, **fields}  # type: ignore[typeddict-item]


def prose(text: str, times: int = 12) -> str:
    """A longer text that does not repeat itself: there is a number after every fourth word or comma."""
    words = text.replace("，", "， ").split()
    every = 1 if "，" in text else 4
    return "\n".join(
        " ".join(f"{word} {i}" if j % every == 0 else word for j, word in enumerate(words))
        for i in range(times)
    )


BAD = record(
    title="Ａ  pump",
    abstract=prose(GERMAN),
    claims=["1. A pump.", "2. The pump of claim 1."],
    description="\n".join(
        [
            "[0001] TECHNICAL FIELD",
            prose(ENGLISH),
            "BACKGROUND",
            prose(GERMAN),
            "SUMMARY",
            "\ufffd" * 300,
            "BRIEF DESCRIPTION OF THE DRAWINGS",
            "o n e l e t t e r " * 30,
            "DETAILED DESCRIPTION",
            "Inventor: Jane Roe",
            "All of this is said by everybody and always.",
            prose(f"{ENGLISH} It works."),
            "SEQUENCE LISTING",
            "acgtacgtac ggtacgtacg acgtacgtag 30",
        ]
    ),
)
SAID_BY_ALL = frozenset({"All of this is said by everybody and always."})
TEXT_RULES = {
    "regular": "regular",
    "full_width": "full-width",
    "paragraph_numbers": "paragraph-numbers",
    "claim_numbers": "claim-numbers",
    "sequences": "sequences",
    "people": "people",
    "max_odd_share": "odd-characters",
    "max_broken_share": "broken-words",
    "language": "language",
}
"""Key of the configuration to the rule's name in the counts."""


def test_every_rule_takes_its_part_and_the_good_text_is_left() -> None:
    outcome = clean_record(CleanConfig(), BAD, SAID_BY_ALL)
    assert outcome.record == {
        **BAD,
        "title": "A pump",
        "abstract": None,
        "claims": ["A pump.", "The pump of claim 1."],
        "description": f"TECHNICAL FIELD\n{prose(ENGLISH)}\nDETAILED DESCRIPTION\n"
        + prose(f"{ENGLISH} It works."),
    }
    assert outcome.changed.keys() == {"boilerplate", *TEXT_RULES.values()}
    assert outcome.changed["paragraph-numbers"] == len("[0001] ")
    assert outcome.changed["boilerplate"] == len("All of this is said by everybody and always.\n")
    assert outcome.changed["full-width"] == 0
    assert sum(outcome.changed.values()) == steps.size(BAD) - steps.size(outcome.record)
    again = clean_record(CleanConfig(), outcome.record, SAID_BY_ALL)
    assert again == steps.Outcome(outcome.record, "", {}), "cleaning again changes nothing"


@pytest.mark.parametrize("key", TEXT_RULES)
def test_every_rule_can_be_switched(key: str) -> None:
    default = CleanConfig().model_dump()
    off = CleanConfig.model_validate({**default, key: OFF[key]})
    assert TEXT_RULES[key] not in clean_record(off, BAD).changed
    alone = CleanConfig.model_validate({**OFF, key: default[key]})
    assert clean_record(alone, BAD).changed.keys() <= {TEXT_RULES[key]}
    assert clean_record(CleanConfig.model_validate(OFF), BAD).record is BAD


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("too-short", {"title": None, "description": "short"}),
        ("too-short", {"title": None, "description": None}),
        ("too-long", {"description": prose(ENGLISH, 2000)}),
        ("script", {"language": "zh", "description": ENGLISH}),
        ("repeated-lines", {"description": f"{ENGLISH}\n" * 3}),
        ("repeated-ngrams", {"description": f"{ENGLISH} " * 30}),
    ],
)
def test_records_are_dropped_by_their_rule(rule: str, fields: dict[str, Any]) -> None:
    config = CleanConfig(max_characters=100_000, language=False)
    assert clean_record(config, record(**fields)).dropped_by == rule
    assert clean_record(CleanConfig.model_validate(OFF), record(**fields)).record is not None


def test_a_record_keeps_what_is_not_text_and_loses_empty_parts() -> None:
    config = CleanConfig(min_characters=0)
    raw = record(title=" A  pump ", abstract=" \n", claims=["1\u00a0m", " ", "2"], description=None)
    cleaned = clean_record(config, raw).record
    assert cleaned == record(title="A pump", abstract=None, claims=["1 m", "2"], description=None)
    empty = clean_record(config, record(claims=["\x00", ""])).record
    assert empty is not None
    assert empty["claims"] is None


def test_a_record_without_a_language_gets_its_own() -> None:
    for language, text in (("en", ENGLISH), ("de", GERMAN), ("zh", CHINESE), ("zh-Hant", TRADITIONAL)):
        found = clean_record(CleanConfig(), record(language=None, title=None, description=prose(text))).record
        assert found is not None
        assert found["language"] == language


def test_chinese_is_tagged_and_converted() -> None:
    raw = record(language="zh", title="離心泵", description=prose(TRADITIONAL))
    tagged = clean_record(CleanConfig(), raw).record
    assert tagged == {**raw, "language": "zh-Hant"}
    converted = clean_record(CleanConfig(convert="simplified"), raw).record
    assert converted == {**raw, "title": "离心泵", "description": prose(CHINESE)}
    back = clean_record(CleanConfig(convert="traditional"), converted).record
    assert back == tagged


def test_boilerplate_is_counted_by_documents_and_headings_are_exempt(tmp_path: Path) -> None:
    often = "以上所述仅为本发明的较佳实施例，并不用以限制本发明。"
    lines = ["BRIEF DESCRIPTION OF THE DRAWINGS", "FIG. 1 shows it.", often, f"[0009] {often}"]
    documents = [[*lines, f"{CHINESE}{i}"] for i in range(3 * LEAST_DOCUMENTS)]
    records = [record(i, description="\n".join(found)) for i, found in enumerate(documents)]
    shards = sorted(ingested(tmp_path / "ingest", records[:70], records[70:]).iterdir())
    counts = [count_lines(shard, 0.5) for shard in shards]
    assert frequent_lines(counts, 0.5).keys() == {often}
    assert frequent_lines(counts[:1], 0.5).keys() == {often}, "in 70 documents"
    assert frequent_lines([count_lines(ingested_one(tmp_path, records[:40]), 0.5)], 0.5) == {}, "in too few"


def ingested_one(folder: Path, records: list[Record]) -> Path:
    (shard,) = ingested(folder / "one", records).iterdir()
    return shard


def test_forgetting_rare_lines_never_loses_a_frequent_one() -> None:
    share, shards = 0.01, 20
    found = []
    for shard in range(shards):
        lines = {"frequent": 10, "nearly": 6, **{f"{shard} {i}": 1 for i in range(500)}}
        found.append(LineCounts(1000, steps_counter(lines)))
    assert frequent_lines(found, share) == {"frequent": 200}


def steps_counter(lines: dict[str, int]) -> Any:
    from collections import Counter

    return Counter(lines)


def ingested(folder: Path, *shards: list[Record]) -> Path:
    """A folder of shards as ingest writes it."""
    folder.mkdir()
    for number, records in enumerate(shards):
        pq.write_table(pa.Table.from_pylist(records, SCHEMA), folder / f"shard-{number:05}.parquet")
    return folder


def test_records_in_are_records_out_and_dropped_ones_by_their_rule(tmp_path: Path) -> None:
    source = ingested(
        tmp_path / "ingest",
        [record(1), record(2), record(3, title=None, description="short")],
        [
            record(4, title="Pump 1", description=f"  {record(1)['description']}\x00"),
            record(5, office=None, language="zh", title=None, description=CHINESE * 3),
        ],
        [
            record(6, title=None, description=None),
            record(7, title="Pump 2", description=record(2)["description"]),
        ],
    )
    (tmp_path / "clean").mkdir()
    counts = clean(CleanConfig(min_characters=50), source, tmp_path / "clean")
    kept = list(read_records(tmp_path / "clean"))
    assert [found["id"] for found in kept] == ["US-1-B2", "US-2-B2", "US-4-B2", "US-5-B2", "US-7-B2"]
    assert counts["dropped"] == {"too-short": 2}
    assert counts["records_in"] == 7
    assert counts["records_out"] == len(kept)
    assert counts["records_in"] == counts["records_out"] + sum(counts["dropped"].values())
    assert counts["by_office_language"] == {"US": {"en": 4}, "unknown": {"zh": 1}}
    assert counts["characters"] == sum(map(steps.size, kept))
    assert counts["lengths"] == {"en": {"100": 4}, "zh": {"100": 1}}
    assert counts["changed"] == {"regular": {"records": 1, "characters": 3}}
    dropped = [json.loads(line) for line in (tmp_path / "clean" / "dropped.jsonl").read_text().splitlines()]
    assert [(found["id"], found["rule"]) for found in dropped] == [
        ("US-3-B2", "too-short"),
        ("US-6-B2", "too-short"),
    ]
    assert {path.name for path in (tmp_path / "clean").iterdir()} == {
        "shard-00000.parquet", "shard-00001.parquet", "shard-00002.parquet",
        "dropped.jsonl", "boilerplate.json",
    }  # fmt: skip


def test_results_are_the_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    said = "All of this is said by everybody and always."
    shards = [
        [
            record(n, description=prose(ENGLISH).replace("\n", f" {n}\n") + f" {n}\n{said}")
            for n in (100 * i + j % 25 for j in range(30))
        ]
        for i in range(3)
    ]
    source = ingested(tmp_path / "ingest", *shards, [{**BAD, "id": "bad"}])
    results = []
    for workers in (1, 2):
        folder = tmp_path / f"clean-{workers}"
        folder.mkdir()
        with open_executor(EngineConfig(workers=workers)) as executor:
            counts = clean(CleanConfig(boilerplate_share=0.5), source, folder, executor)
        assert counts["changed"]["boilerplate"]["records"] == 91
        results.append((counts, {path.name: path.read_bytes() for path in folder.iterdir()}))
    assert results[0] == results[1]


def test_no_record_is_lost_between_batches(tmp_path: Path) -> None:
    records = [record(i) for i in range(2001)]
    source = ingested(tmp_path / "ingest", records)
    (tmp_path / "clean").mkdir()
    counts = clean(CleanConfig(boilerplate_share=None), source, tmp_path / "clean")
    assert counts["records_out"] == 2001
    assert list(read_records(tmp_path / "clean")) == records


def test_text_of_exactly_the_least_length_is_kept(tmp_path: Path) -> None:
    source = ingested(tmp_path / "ingest", [record(i, title=None, description="x" * i) for i in (9, 10, 11)])
    (tmp_path / "clean").mkdir()
    clean(CleanConfig(min_characters=10), source, tmp_path / "clean")
    assert [found["id"] for found in read_records(tmp_path / "clean")] == ["US-10-B2", "US-11-B2"]


def test_a_record_on_which_a_rule_fails_does_not_end_the_run(tmp_path: Path) -> None:
    source = ingested(tmp_path / "ingest", [record(1), record(2), record(3)])
    table = pq.read_table(source / "shard-00000.parquet")
    claims = pa.array([None, ["a pump", None], None], pa.list_(pa.string()))
    broken = table.set_column(table.column_names.index("claims"), "claims", claims)
    pq.write_table(broken, source / "shard-00000.parquet")
    counts = sum_rows([clean_shard(CleanConfig(), frozenset(), source / "shard-00000.parquet", tmp_path)])
    assert counts["out", "records"] == 2
    assert counts["dropped", "error"] == 1
    line = json.loads((tmp_path / "dropped.jsonl").read_text())
    assert (line["id"], line["rule"]) == ("US-2-B2", "error")
    assert line["detail"]


def test_a_corpus_of_which_nothing_is_left_is_refused_with_the_reasons(tmp_path: Path) -> None:
    source = ingested(tmp_path / "ingest", [record(description="short")])
    (tmp_path / "clean").mkdir()
    with pytest.raises(UserError, match=r"no record is left of 1: \{'too-short': 1\}.*rejected\.jsonl"):
        clean(CleanConfig(), source, tmp_path / "clean")


def test_show_prints_a_record_before_and_after_with_what_each_rule_took(tmp_path: Path) -> None:
    records = [{**BAD, "id": "bad"}, record(1), record(2, description="short")]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(found) + "\n" for found in records))
    corpus = tmp_path / "corpus"
    run_clean(tmp_path / "records.jsonl", corpus)
    shown = run("data", "show", corpus, "bad").stdout
    assert "before\n  bad  en  " in shown
    for expected in ("people: -19 characters", "- Inventor: Jane Roe", "- [0001] TECHNICAL FIELD", "after\n"):
        assert expected in shown
    before, after = shown.split("after\n")
    assert "background  " in before
    assert "background  " not in after
    assert "too-short: dropped" in run("data", "show", corpus, "US-2-B2").stdout
    missing = run("data", "show", corpus, "US-9-B2")
    assert missing.returncode == 2
    assert "holds no record 'US-9-B2'" in missing.stderr


def run_clean(file: Path, corpus: Path) -> None:
    """Ingest and clean a file as the pipeline does."""
    from core import manifest
    from data.ingest import ingest
    from data.source import Source

    with manifest.build(corpus / "ingest", step="ingest", config={}, inputs={}) as built:
        built.counts = ingest([Source(path=str(file))], built.path, None)
    config = CleanConfig()
    settings = {"clean": config.model_dump(mode="json")}
    with manifest.build(corpus / "clean", step="clean", config=settings, inputs={}) as built:
        built.counts = clean(config, corpus / "ingest", built.path)
