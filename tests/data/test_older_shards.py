"""Shards that an older version wrote, without the newer columns, are read: their values are null."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.claim_numbers import of_record
from data.packing.document_text import LayoutConfig, layout
from data.record import SCHEMA, with_all_columns
from data.record_store import read_shard
from tests.data.records import record

NEWER = ["filed", "priority", "cites", "claim_numbers"]


def test_a_shard_without_the_newer_columns_is_read(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([record(7)], SCHEMA).drop_columns(NEWER)
    pq.write_table(table, tmp_path / "shard-00000.parquet")
    (found,) = read_shard(tmp_path / "shard-00000.parquet")
    assert {**record(7)} == {**found}
    assert list(of_record(found)) == [1, 2]
    assert "1. A pump 7." in layout(found, LayoutConfig())
    assert with_all_columns(table).schema.names[-len(NEWER) :] == NEWER
