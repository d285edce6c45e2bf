"""Cleaning a corpus: nothing is lost or counted twice, and workers do not matter."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from data.cleaning import record_cleaner
from data.cleaning.boilerplate import LEAST_DOCUMENTS, LineCounts, count_lines, frequent_lines
from data.cleaning.clean import clean, clean_shard
from data.cleaning.record_cleaner import CleanConfig
from data.executor import EngineConfig, open_executor, sum_rows
from data.record import Record
from data.record_store import read_records
from tests.conftest import run
from tests.data.cleaning.cleaning import (
    BAD,
    CHINESE,
    ENGLISH,
    ingested,
    prose,
    record,
)


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
    assert counts["characters"] == sum(map(record_cleaner.size, kept))
    assert counts["lengths"] == {"en": {"100": 4}, "zh": {"100": 1}}
    assert counts["changed"] == {"regular": {"records": 1, "characters": 3}}
    dropped = [json.loads(line) for line in (tmp_path / "clean" / "dropped.jsonl").read_text().splitlines()]
    assert [(found["id"], found["rule"]) for found in dropped] == [
        ("US-3-B2", "too-short"),
        ("US-6-B2", "too-short"),
    ]
    assert {path.name for path in (tmp_path / "clean").iterdir()} == {
        "shard-00000.parquet", "shard-00001.parquet", "shard-00002.parquet",
        "dropped.jsonl", "boilerplate.json", "words.json",
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
    counts = sum_rows([clean_shard(CleanConfig(), frozenset(), {}, source / "shard-00000.parquet", tmp_path)])
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
    assert "no record 'US-9-B2'" in missing.stderr


def run_clean(file: Path, corpus: Path) -> None:
    """Ingest and clean a file as the pipeline does."""
    from core.provenance import manifest
    from data.readers.ingest import ingest
    from data.readers.source import Source

    with manifest.build(corpus / "ingest", step="ingest", config={}, inputs={}) as built:
        built.counts = ingest([Source(path=str(file))], built.path, None)
    config = CleanConfig()
    settings = {"clean": config.model_dump(mode="json")}
    with manifest.build(corpus / "clean", step="clean", config=settings, inputs={}) as built:
        built.counts = clean(config, corpus / "ingest", built.path)
