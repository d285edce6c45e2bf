"""Faults of real files as small inputs: `cases/NAME` holds the input, and what must become of it.

`expected.json` has `records` (some fields of each, in order), and, if there are any, the reasons of what is
`rejected` and `noted`, texts that the packed records have (`packed`), and texts that none has (`absent`).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from data.cleaning.record_cleaner import CleanConfig, clean_record
from data.packing.document_text import LayoutConfig, layout
from data.readers import formats
from data.record import Noted, Record, Rejected

CASES = Path(__file__).with_name("cases")
CLEAN = CleanConfig(min_characters=0)


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir()))
def test_a_fault_of_real_files_stays_mended(name: str) -> None:
    expected = json.loads((CASES / name / "expected.json").read_text("utf-8"))
    (file,) = (path for path in (CASES / name).iterdir() if path.name != "expected.json")
    records: list[Record] = []
    rejected, noted = [], []
    for outcome in formats.read(file):
        if isinstance(outcome, Noted):
            noted.append(outcome.reason)
        elif isinstance(outcome, Rejected):
            rejected.append(outcome.reason)
        else:
            cleaned = (clean_record(CLEAN, record).record for record in outcome)
            records += [record for record in cleaned if record is not None]
    found: list[dict[str, Any]] = [dict(record) for record in records]
    assert len(found) == len(expected["records"])
    for record, wanted in zip(found, expected["records"], strict=True):
        assert {field: record[field] for field in wanted} == wanted
    assert (rejected, noted) == (expected.get("rejected", []), expected.get("noted", []))
    texts = [layout(record, LayoutConfig()) for record in records]
    assert all(any(text in whole for whole in texts) for text in expected.get("packed", []))
    assert not [text for text in expected.get("absent", []) for whole in texts if text in whole]
