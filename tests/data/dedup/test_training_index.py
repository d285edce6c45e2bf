"""What a model was trained on is found again by number, application, family and text."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from data.dedup import training_index
from data.dedup.ngram_index import EvalSample
from data.dedup.training_index import Met, find_seen, read_seen, seen_rows
from data.record import SCHEMA, Record
from tests.data.records import record

CHINESE = record(1, "zh", id="CN-105123456-A", application_id="CN-2015-1", family_id="F-1")
GRANT = record(2, id="US-8930553-B2", application_id=None, abstract=None)
BARE = record(3, id="judgment 3", application_id=None, title=None, claims=None, abstract=None)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rows of three records."""
    folder = tmp_path_factory.mktemp("seen")
    records = pa.RecordBatch.from_pylist([CHINESE, GRANT, BARE], SCHEMA)
    pq.write_table(pa.Table.from_batches([seen_rows(records)]), folder / training_index.NAME)
    return folder


def whole(of: Record) -> str:
    return "\n".join(
        [of["title"] or "", of["abstract"] or "", *(of["claims"] or ()), of["description"] or ""]
    )


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ({"publication": "CN 105123456 B"}, [("publication", 0)]),
        ({"publication": "US08930553"}, [("publication", 1)]),
        ({"publication": "US-8930554-B2"}, []),
        ({"application": "CN-2015-1"}, [("application", 0)]),
        ({"family": "F-1"}, [("family", 0)]),
        ({"application": "F-1", "family": "CN-2015-1"}, []),
        ({"text": whole(CHINESE)}, [("text", 0)]),
        ({"text": whole(GRANT).upper()}, [("text", 1)]),
        ({"text": "一種水泵１，用於輸送水"}, [("abstract", 0)]),
        ({"text": "一种水泵1。"}, [("first_claim", 0)]),
        ({"text": "一种水泵1。根据权利要求1所述的水泵。"}, [("claims", 0)]),
        ({"text": "it pumps 2 l well"}, [("description", 1)]),
        ({"text": "It pumps 3 l. Well."}, [("text", 2), ("description", 2)]),
        ({"text": "It pumps 2"}, []),
        ({"text": ""}, []),
        (
            {"publication": "US-8930553-A1", "family": "F-1", "text": "It pumps 2 l. Well."},
            [("publication", 1), ("family", 0), ("description", 1)],
        ),
    ],
)
def test_a_sample_is_met_by_its_names_and_texts(
    pack: Path, fields: dict[str, Any], met: list[tuple[str, int]]
) -> None:
    sample = EvalSample("set", "s", **{"text": "", **fields})
    ids = [each["id"] for each in (CHINESE, GRANT, BARE)]
    assert sorted(find_seen(pack, [sample])) == sorted(
        Met("set", "s", rule, document, ids[document]) for rule, document in met
    )


def test_several_samples_are_met_each_by_itself_and_in_every_batch(tmp_path: Path) -> None:
    records = [record(n, id=f"US-{10_000_000 + n}-A") for n in range(20_000)]
    rows = seen_rows(pa.RecordBatch.from_pylist(records, SCHEMA))
    pq.write_table(pa.Table.from_batches([rows]), tmp_path / training_index.NAME, row_group_size=7000)
    samples = [
        EvalSample("a", "1", "", "US-10000003-B"),
        EvalSample("b", "2", "", application="X-19999"),
    ]
    samples.append(EvalSample("b", "3", "", "US-10000003-A"))
    assert [(each.dataset, each.sample, each.document) for each in find_seen(tmp_path, samples)] == [
        ("a", "1", 3), ("b", "3", 3), ("b", "2", 19_999)
    ]  # fmt: skip
    assert sum(len(batch) for batch in read_seen(tmp_path)) == 20_000


def test_a_folder_that_was_not_packed_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seen.parquet not found. Give the folder `pack`"):
        list(find_seen(tmp_path, []))
