"""The shuffle: documents by key, whatever parts and buckets they came in; and the rows that go with them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import shuffle
from data.indexed import Documents, Writer
from data.shuffle import ROWS, merge_parts, sort_part

DOCUMENTS = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 999), max_size=9)), max_size=40
)


def part(folder: Path, name: str, documents: list[tuple[int, list[int]]]) -> Path:
    with Writer(folder / "unsorted", 1000) as writer:
        for _, ids in documents:
            writer.add(np.array(ids, np.int64))
    rows = [
        {**dict.fromkeys(ROWS.names), "key": key, "bytes": len(ids), "id": f"{key}:{ids}"}
        for key, ids in documents
    ]
    sort_part(folder / "unsorted", [pa.RecordBatch.from_pylist(rows, ROWS)], folder / name, 1000)
    return folder / name


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(DOCUMENTS, min_size=1, max_size=4), bucket_bytes=st.sampled_from([50, 1000, 1 << 20]))
def test_parts_merge_to_all_documents_in_the_order_of_their_keys(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[int, list[int]]]], bucket_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("shuffle")
    paths = [part(folder, f"part{number}", documents) for number, documents in enumerate(parts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "BUCKET_BYTES", bucket_bytes)
        merge_parts(paths, folder / "all", 1000, folder / "seen.parquet")
    expected = sorted((each for documents in parts for each in documents), key=lambda each: each[0])
    found = Documents(folder / "all")
    assert [found[i].tolist() for i in range(len(found))] == [ids for _, ids in expected]
    assert np.load(folder / "all.bytes.npy").tolist() == [len(ids) for _, ids in expected]
    seen = pq.read_table(folder / "seen.parquet")["id"].to_pylist()
    assert seen == [f"{key}:{ids}" for key, ids in expected]
