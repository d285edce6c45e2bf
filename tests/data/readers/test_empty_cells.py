"""A cell that is empty in any form of an export is absent: its row is read."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.readers.reading import only, records

ROW: dict[str, Any] = {
    "publication_number": "JP-2021999040-A",
    "title_localized": [{"text": "Umbrella stand", "language": "en"}],
    "abstract_localized": [{"text": "A stand for umbrellas.", "language": "en"}],
}
EMPTY: list[Any] = [None, "", " ", [], [None], [""], [{}], {}, {"text": None}, {"text": "", "language": "en"},
                    [{"text": None, "language": None}], "[]", "null", float("nan")]  # fmt: skip


@pytest.mark.parametrize("empty", EMPTY, ids=repr)
@pytest.mark.parametrize(
    "column", ["description_localized", "claims_localized", "ipcr", "application_number", "filing_date"]
)
def test_a_row_with_an_empty_cell_is_read(column: str, empty: Any, tmp_path: Path) -> None:
    (tmp_path / "bq.jsonl").write_text(json.dumps(ROW | {column: empty}) + "\n")
    record = only(tmp_path / "bq.jsonl")
    assert (record["title"], record["abstract"]) == ("Umbrella stand", "A stand for umbrellas.")
    assert (record["description"], record["claims"], record["ipc"], record["family_id"]) == (None,) * 4


def test_empty_lists_of_parquet_are_absent(tmp_path: Path) -> None:
    localised = pa.list_(pa.struct([("text", pa.string()), ("language", pa.string())]))
    table = pa.table({
        "publication_number": ["JP-1999040-A", "US-9990042-B2"],
        "title_localized": pa.array([ROW["title_localized"], []], localised),
        "description_localized": pa.array([[], [{"text": "Umbrellas drip.", "language": "en"}]], localised),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "bq.parquet")
    found = records(tmp_path / "bq.parquet")
    assert [(r["title"], r["description"]) for r in found] == [
        ("Umbrella stand", None), (None, "Umbrellas drip."),
    ]  # fmt: skip


def test_texts_without_a_language_are_read(tmp_path: Path) -> None:
    row = ROW | {"description_localized": {"text": "Umbrellas drip."}}
    (tmp_path / "bq.jsonl").write_text(json.dumps(row) + "\n")
    record = only(tmp_path / "bq.jsonl")
    assert record["description"] == "Umbrellas drip."
