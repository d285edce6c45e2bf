"""Cleaning: text becomes regular and loses nothing that means something; every dropped record is counted."""

import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.clean import CleanConfig, clean, clean_record, clean_text
from data.ingest import read_records
from data.record import SCHEMA, Record


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
        "description": f"Invention {number} moves water. " * 10,
        "ipc": ["F04B 1/00"],
        "source": f"a.xml#{number}",
    }
    return {**whole, **fields}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("raw", "regular"),
    [
        ("A pump.", "A pump."),
        ("10³ m², H₂O, x½, ①", "10³ m², H₂O, x½, ①"),
        ("Ａ ﬁ ㎏ ｶ", "Ａ ﬁ ㎏ ｶ"),
        ("一种  半导体", "一种 半导体"),
        ("全角\u3000空格", "全角\u3000空格"),
        ("e\u0301 \u212b", "\u00e9 \u00c5"),
        ("e\u200b\u0301", "\u00e9"),
        ("a\u00a0\u2009 \tb", "a b"),
        ("a \n b", "a\nb"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("a\n \n\t\n \nb", "a\n\nb"),
        ("\ufeff  a  ", "a"),
        ("a\x00b\x0cc\x85d\u200be\u2060f", "abcdef"),
        ("क्\u200dष", "क्\u200dष"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("  \n ", None),
        ("\x00\u200b", None),
        ("", None),
        (None, None),
    ],
)
def test_text_becomes_regular(raw: str | None, regular: str | None) -> None:
    assert clean_text(raw) == regular


NASTY = st.text(
    st.sampled_from(
        "ab \t\n\r\x00\x0b\x85\u00a0\u0301\u0323\u200b\u2003\u2028\u3000\ufeff\u212be가각\u11a8三三"
    )
)


@settings(deadline=None)
@given(text=st.text() | NASTY)
def test_cleaning_again_changes_nothing(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    if once is not None:
        assert once == once.strip()
        assert unicodedata.is_normalized("NFC", once)
        assert "  " not in once
        assert "\n\n\n" not in once


@settings(deadline=None)
@given(text=st.text())
def test_no_letter_digit_or_sign_is_lost(text: str) -> None:
    def signs(value: str) -> list[str]:
        return [c for c in unicodedata.normalize("NFD", value) if unicodedata.category(c)[0] in "LNPS"]

    assert signs(clean_text(text) or "") == signs(text)


def test_a_record_keeps_what_is_not_text_and_loses_empty_parts() -> None:
    cleaned = clean_record(
        record(title=" A  pump ", abstract=" \n", claims=["1\u00a0m", " ", "2"], description=None)
    )
    assert cleaned == record(title="A pump", abstract=None, claims=["1 m", "2"], description=None)
    assert clean_record(record(claims=["\x00", ""]))["claims"] is None


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
            record(5, office=None, language="zh"),
        ],
        [record(6, title=None, description=None)],
    )
    (tmp_path / "clean").mkdir()
    counts = clean(CleanConfig(min_characters=50), source, tmp_path / "clean")
    kept = list(read_records(tmp_path / "clean"))
    assert [found["id"] for found in kept] == ["US-1-B2", "US-2-B2", "US-5-B2"]
    assert counts["dropped"] == {"duplicate": 1, "too-short": 2}
    assert counts["records_in"] == 6
    assert counts["records_out"] == len(kept)
    assert counts["records_in"] == counts["records_out"] + sum(counts["dropped"].values())
    assert counts["by_office_language"] == {"US": {"en": 2}, "unknown": {"zh": 1}}
    assert counts["characters"] == sum(len(f"{found['title']}\n{found['description']}") for found in kept)


def test_no_record_is_lost_between_batches(tmp_path: Path) -> None:
    records = [record(i) for i in range(2001)]
    source = ingested(tmp_path / "ingest", records)
    (tmp_path / "clean").mkdir()
    counts = clean(CleanConfig(min_characters=0), source, tmp_path / "clean")
    assert counts["records_out"] == 2001
    assert list(read_records(tmp_path / "clean")) == [clean_record(found) for found in records]


def test_text_of_exactly_the_least_length_is_kept(tmp_path: Path) -> None:
    source = ingested(tmp_path / "ingest", [record(i, title=None, description="x" * i) for i in (9, 10, 11)])
    (tmp_path / "clean").mkdir()
    clean(CleanConfig(min_characters=10), source, tmp_path / "clean")
    assert [found["id"] for found in read_records(tmp_path / "clean")] == ["US-10-B2", "US-11-B2"]
