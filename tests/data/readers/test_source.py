"""A source's terms, a corpus's selection, and data sets: what is taken, what is refused, what is counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.config.loader import load
from core.errors import UserError
from data.pipeline import DataConfig, run
from data.readers.ingest import ingest
from data.readers.record_filter import SelectConfig, rule_that_drops
from data.readers.source import Source, check_sources
from data.readers.source_files import input_hashes
from data.record import Record
from data.record_store import read_records

RECORD = Record(
    id="CN-1-A", office="CN", kind="A", language="zh", date="2015-01-06", application_id=None, family_id=None,
    filed=None, priority=None, cites=None, claim_numbers=None,
    title="泵", abstract=None, claims=None, description=None, ipc=["F04D 13/06", "G06F 15/16"], source="a",
)  # fmt: skip


def rows(path: Path, *changes: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({**RECORD, **change}) + "\n" for change in changes))
    return path


@pytest.mark.parametrize(
    ("select", "change", "rule"),
    [
        ({}, dict.fromkeys(("office", "kind", "language", "date", "ipc")), None),
        ({"offices": ["US", "CN"]}, {}, None),
        ({"offices": ["US"]}, {}, "office"),
        ({"offices": ["US"]}, {"office": None}, "office-unknown"),
        ({"kinds": ["A"]}, {"kind": "A1"}, None),
        ({"kinds": ["A2"]}, {"kind": "A1"}, "kind"),
        ({"kinds": ["granted"]}, {"kind": "B2"}, None),
        ({"kinds": ["granted"]}, {}, "kind"),
        ({"kinds": ["granted"]}, {"office": "US"}, None),
        ({"kinds": ["published"]}, {"office": "US"}, "kind"),
        ({"kinds": ["utility-model", "design"]}, {"kind": "S"}, None),
        ({"kinds": ["invention"]}, {"kind": "U"}, "kind"),
        ({"kinds": ["invention"]}, {"kind": None}, "kind-unknown"),
        ({"languages": ["en"]}, {}, "language"),
        ({"languages": ["zh"]}, {"language": "zh-Hant"}, None),
        ({"languages": ["zh-Hant"]}, {}, "language"),
        ({"languages": ["zh-Hant"]}, {"language": "zh-Hant"}, None),
        ({"languages": ["en"]}, {"language": None}, "language-unknown"),
        ({"date_from": "2015", "date_to": "2015"}, {}, None),
        ({"date_from": 2015, "date_to": "2015-01"}, {}, None),
        ({"date_from": "2015-01-06", "date_to": "2015-01-06"}, {}, None),
        ({"date_from": "2015-02"}, {}, "date"),
        ({"date_to": "2014"}, {}, "date"),
        ({"date_to": "2014"}, {"date": None}, "date-unknown"),
        ({"ipc_prefixes": ["G06"]}, {}, None),
        ({"ipc_prefixes": ["F04D13/"]}, {}, None),
        ({"ipc_prefixes": ["H"]}, {}, "ipc"),
        ({"ipc_prefixes": ["H"]}, {"ipc": None}, "ipc-unknown"),
    ],
)
def test_a_record_is_taken_or_dropped_by_a_rule(
    select: dict[str, Any], change: dict[str, Any], rule: str | None
) -> None:
    record: Any = {**RECORD, **change}
    assert rule_that_drops(SelectConfig.model_validate(select), record) == rule


@pytest.mark.parametrize("wrong", [{"kinds": ["patent"]}, {"date_from": "06.01.2015"}])
def test_a_selection_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SelectConfig.model_validate(wrong)


def test_every_drop_is_counted_and_terms_travel(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "a.jsonl", {}, {"office": "US"}, {"office": None}, {"date": "1999"}, {"title": None}
    )
    source = Source(path=str(path), licence="CC0-1.0", use="any")
    select = SelectConfig(offices=("CN",), date_from="2000")
    counts = ingest([source], tmp_path / "out", None, select=select)
    assert counts["dropped"] == {"date": 1, "office": 1, "office-unknown": 1}
    assert counts["sources"] == {
        str(path): {
            "licence": "CC0-1.0",
            "use": "any",
            "documents": 5,
            "rejected": 1,
            "dropped": 3,
            "records": 1,
        }
    }
    assert [record["id"] for record in read_records(tmp_path / "out")] == ["CN-1-A"]


@pytest.mark.parametrize(
    ("required", "refused"),
    [
        (None, []),
        ("research", ["unknown"]),
        ("non-commercial", ["research", "unknown"]),
        ("commercial", ["non-commercial", "research", "unknown"]),
    ],
)
def test_a_use_that_is_not_permitted_is_refused(required: str | None, refused: list[str]) -> None:
    for use in ("any", "non-commercial", "research", "unknown"):
        source = Source.model_validate({"path": "some/place", "use": use})
        if use in refused:
            with pytest.raises(UserError, match=f"some/place: use {use}"):
                check_sources([source], required)
        else:
            check_sources([source], required)


def test_a_source_that_is_named_twice_has_the_same_terms_or_is_refused() -> None:
    source = Source(path="a", licence="CC-BY-4.0", use="any")
    check_sources([source, source])
    with pytest.raises(UserError, match="source a is listed twice with different terms"):
        check_sources([source, Source(path="a", licence="CC-BY-4.0", use="research")])


def test_a_corpus_for_commercial_use_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text(
        f"output_dir: {tmp_path}/corpus\nsources:\n- path: {tmp_path}/absent\n  use: research\n"
        "tokenizer: {vocabulary_size: 300}\nrequire_use: commercial\n"
    )
    with pytest.raises(UserError, match="absent: use research"):
        run(load(DataConfig, config))
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "either `path` or `dataset`"),
        ({"path": "a", "dataset": "b"}, "either `path` or `dataset`"),
        ({"path": "a", "revision": "b"}, "require `dataset`"),
        ({"dataset": "somebody/patents"}, "needs a `revision`"),
        ({"path": "a", "use": "maybe"}, "unknown"),
        ({"path": "a", "layout": "lines"}, "paragraphs"),
    ],
)
def test_a_source_that_means_nothing_is_refused(source: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Source.model_validate(source)
    with pytest.raises(UserError, match="`defaults` cannot set"):
        check_sources([Source(path="a", defaults={"title": "x"})])


def test_a_data_set_is_read_row_by_row(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    rows(folder / "train.jsonl", {"id": "a"}, {"id": "b", "title": None})
    rows(folder / "test.jsonl", {"id": "c"})
    source = Source(dataset=str(folder), defaults={"office": "CN"})
    counts = ingest([source], tmp_path / "out", None)
    assert (counts["documents"], counts["records"]) == (3, 2)
    assert {record["id"] for record in read_records(tmp_path / "out")} == {"a", "c"}
    assert len(input_hashes([source])) == 2
    ingest([Source(dataset=str(folder), split="test")], tmp_path / "test", None)
    assert [record["id"] for record in read_records(tmp_path / "test")] == ["c"]


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    source = Source(dataset="somebody/patents", revision="abc")
    assert input_hashes([source]) == {"somebody/patents@abc": "revision:abc"}
    with pytest.raises(
        UserError, match="data set somebody/patents, revision abc, split all: not found in the cache"
    ):
        ingest([source], tmp_path / "out", None)
