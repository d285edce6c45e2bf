"""What a model has seen: a sample of an evaluation is found by its number, its family and its text."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from data.overlap import Sample
from data.record import SCHEMA as RECORD
from data.seen import NAME, SCHEMA, find_seen, seen_rows
from tests.data.test_pack import record

RECORDS = [
    record(1, family_id="F1", id="CN-1000001-A", application_id="CN-2020"),
    record(2, "zh", id="CN-1000002-B", application_id=None),
    record(3, claims=None, description=None),
]


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    batch = pa.RecordBatch.from_pylist(RECORDS, RECORD)
    pq.write_table(pa.Table.from_batches([seen_rows(batch)], SCHEMA), tmp_path / NAME)
    return tmp_path


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"publication": "CN1000001A"}, [("publication", 0)]),
        ({"publication": "CN-1000001-B"}, [("publication", 0)]),  # the grant of a publication that was seen
        ({"application": "CN-2020"}, [("application", 0)]),
        ({"family": "F1"}, [("family", 0)]),
        ({"family": "F1", "publication": "CN-1000002-B"}, [("family", 0), ("publication", 1)]),
        ({"text": "A PUMP 1 moves\nwater"}, [("abstract", 0)]),
        ({"text": "一種水泵2，用於輸送水"}, [("abstract", 1)]),  # Traditional
        ({"text": "It pumps 1 l. Well."}, [("description", 0)]),
        ({"text": "A pump 1."}, [("first_claim", 0)]),
        ({"text": "A pump 1. The pump of claim 1."}, [("claims", 0)]),
        ({"text": "Pump 3. A pump 3 moves water."}, [("text", 2)]),
        ({"text": "A pump 4 moves water."}, []),
        ({"text": " ,; "}, []),
        ({"publication": "CN1000003A", "application": "X-9", "family": "F9"}, []),
    ],
)
def test_what_was_seen_is_found_and_nothing_else(pack: Path, fields: dict[str, Any], expected: Any) -> None:
    samples = [Sample("set", "other", "unseen text"), Sample("set", "wanted", **{"text": "", **fields})]
    found = list(find_seen(pack, samples))
    assert sorted((met.rule, met.document) for met in found) == sorted(expected)
    assert {(met.dataset, met.sample) for met in found} <= {("set", "wanted")}
    assert all(met.id == RECORDS[met.document]["id"] for met in found)


def test_a_corpus_of_an_older_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seen\.parquet does not exist"):
        list(find_seen(tmp_path, []))
