"""The order of documents is that of their keys, however they lie in parts and buckets."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.dedup import training_index
from data.packing.indexed_dataset import Documents, Writer
from data.packing.shuffle import ROWS, merge_parts, order_key, sort_part

Document = tuple[int, list[int]]
"""Its key and ids."""


def write_part(documents: list[Document], part: Path, vocabulary_size: int) -> Path:
    """A sorted part; the id of a row is the document's ids, its bytes are three times as many."""
    with Writer(part.with_name("unsorted"), vocabulary_size) as writer:
        for _, ids in documents:
            writer.add(ids)
    rows = [{"key": key, "bytes": 3 * len(ids), "id": str(ids)} for key, ids in documents]
    batches = [pa.RecordBatch.from_pylist(rows[i : i + 3], ROWS) for i in range(0, len(rows), 3)]
    sort_part(part.with_name("unsorted"), batches, part, vocabulary_size)
    return part


KEYS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 2**63 - 1, 2**63, 2**64 - 1]))
IDS = st.lists(st.integers(0, 65535), max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(st.tuples(KEYS, IDS), max_size=12), min_size=1, max_size=4),
    st.sampled_from([1, 2, 7, 40, 1 << 20]),
    st.sampled_from([65536, 65537]),
)
def test_merging_sorts_by_key_whatever_the_parts_and_buckets(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[Document]], bucket_bytes: int, size: int
) -> None:
    folder = tmp_path_factory.mktemp("shuffle")
    written = [write_part(part, folder / f"part-{i}", size) for i, part in enumerate(parts)]
    assert not list(folder.glob("unsorted*"))
    merge_parts(written, folder / "all", size, folder / "seen.parquet", bucket_bytes)
    wanted = [ids for _, ids in sorted((d for part in parts for d in part), key=lambda each: each[0])]
    documents = Documents(folder / "all")
    assert [documents[i].tolist() for i in range(len(documents))] == wanted
    assert np.load(folder / "all.bytes.npy").tolist() == [3 * len(ids) for ids in wanted]
    table = pq.read_table(folder / "seen.parquet")
    assert table.schema.names == training_index.SCHEMA.names
    assert table["id"].to_pylist() == list(map(str, wanted))


def test_a_key_is_drawn_from_all_that_it_should_be() -> None:
    first = order_key("US-1-A", "en", b"text", 0)
    others = [("US-2-A", "en", b"text", 0), ("US-1-A", None, b"text", 0), ("US-1-A", "en", b"", 0)]
    keys = {first, *(order_key(*each) for each in [*others, ("US-1-A", "en", b"text", 1)])}
    assert len(keys) == 5
    assert order_key("US-1-A", "en", b"text", 0) == first
    spread = np.array([order_key("X", "en", str(i).encode(), 7) / 2**64 for i in range(4000)])
    assert np.histogram(spread, 4, (0, 1))[0] == pytest.approx([1000] * 4, abs=110)
