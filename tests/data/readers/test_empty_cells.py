"""A cell that is empty in any form of an export is absent: its row is read."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.readers import formats
from data.record import Rejected

ROW: dict[str, Any] = {
    "publication_number": "JP-2021999040-A",
    "title_localized": [{"text": "Umbrella stand", "language": "en"}],
    "abstract_localized": [{"text": "A stand for umbrellas.", "language": "en"}],
}
EMPTY = [None, "", " ", [], [None], [""], [{}], {}, {"text": None}, {"text": "", "language": "en"},
         [{"text": None, "language": None}], "[]", "null", float("nan")]  # fmt: skip


@pytest.mark.parametrize("empty", EMPTY, ids=repr)
@pytest.mark.parametrize(
    "column", ["description_localized", "claims_localized", "ipcr", "application_number", "filing_date"]
)
def test_a_row_with_an_empty_cell_is_read(column: str, empty: Any, tmp_path: Path) -> None:
    (tmp_path / "bq.jsonl").write_text(json.dumps(ROW | {column: empty}) + "\n")
    ((record,),) = formats.read(tmp_path / "bq.jsonl")
    assert not isinstance(record, Rejected)
    assert (record["title"], record["abstract"]) == ("Umbrella stand", "A stand for umbrellas.")
    assert [record[name] for name in ("description", "claims", "ipc", "family_id")] == [None] * 4  # type: ignore[literal-required]


def test_empty_lists_of_parquet_are_absent(tmp_path: Path) -> None:
    localised = pa.list_(pa.struct([("text", pa.string()), ("language", pa.string())]))
    table = pa.table({
        "publication_number": ["JP-1999040-A", "US-9990042-B2"],
        "title_localized": pa.array([ROW["title_localized"], []], localised),
        "description_localized": pa.array([[], [{"text": "Umbrellas drip.", "language": "en"}]], localised),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "bq.parquet")
    records = [record for outcome in formats.read(tmp_path / "bq.parquet") for record in outcome]  # type: ignore[union-attr]
    assert [(r["title"], r["description"]) for r in records] == [
        ("Umbrella stand", None), (None, "Umbrellas drip."),
    ]  # fmt: skip


def test_texts_without_a_language_are_read(tmp_path: Path) -> None:
    row = ROW | {"description_localized": {"text": "Umbrellas drip."}}
    (tmp_path / "bq.jsonl").write_text(json.dumps(row) + "\n")
    ((record,),) = formats.read(tmp_path / "bq.jsonl")
    assert not isinstance(record, Rejected)
    assert record["description"] == "Umbrellas drip."
