"""Packed corpora on disk: the same bytes as Megatron's, read back exactly, and refused when damaged."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from data.packing.indexed_dataset import Documents, Writer

SMALL, LARGE = 2**16, 2**16 + 1
"""The largest vocabulary that fits uint16, and the smallest that does not."""

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the examples of one property may share."""
    return tmp_path_factory.mktemp("indexed")


def write(name: Path, documents: Sequence[Sequence[int]], vocabulary_size: int = SMALL) -> Path:
    with Writer(name, vocabulary_size) as writer:
        for ids in documents:
            writer.add(ids)
    return name


def part(name: Path, ending: str) -> Path:
    return name.with_name(name.name + ending)


@settings(deadline=None)
@given(
    data=st.data(),
    kind=st.sampled_from([(SMALL, np.uint16, 2**16), (LARGE, np.int32, 2**31)]),
)
def test_documents_come_back_as_they_were_written(
    scratch: Path, data: st.DataObject, kind: tuple[int, type[np.generic], int]
) -> None:
    vocabulary_size, dtype, limit = kind
    lists = st.lists(st.lists(st.integers(0, limit - 1), max_size=8), max_size=8)
    documents = data.draw(lists)
    name = write(scratch / f"round-{next(NUMBERS)}", documents, vocabulary_size)
    found = Documents(name)
    assert len(found) == len(documents)
    assert found.lengths.tolist() == [len(ids) for ids in documents]
    for i, ids in enumerate(documents):
        assert found[i].tolist() == ids
        assert found[i].dtype == dtype
        start = data.draw(st.integers(0, len(ids)))
        stop = data.draw(st.integers(start, len(ids)))
        assert found.slice(i, start, stop).tolist() == ids[start:stop]


HEADER_UINT16 = b"MMIDIDX\0\0" + bytes([1, 0, 0, 0, 0, 0, 0, 0]) + bytes([8])
HEADER_INT32 = b"MMIDIDX\0\0" + bytes([1, 0, 0, 0, 0, 0, 0, 0]) + bytes([4])
COUNTS = bytes([3, 0, 0, 0, 0, 0, 0, 0]) + bytes([4, 0, 0, 0, 0, 0, 0, 0])
LENGTHS = bytes([2, 0, 0, 0]) + bytes([0, 0, 0, 0]) + bytes([1, 0, 0, 0])
BOUNDARIES = b"".join(bytes([i, 0, 0, 0, 0, 0, 0, 0]) for i in range(4))


@pytest.mark.parametrize(
    ("vocabulary_size", "binary", "header", "offsets"),
    [
        (SMALL, bytes([1, 0, 2, 1, 255, 255]), HEADER_UINT16, [0, 4, 4]),
        (LARGE, bytes([1, 0, 0, 0, 2, 1, 0, 0, 255, 255, 0, 0]), HEADER_INT32, [0, 8, 8]),
    ],
)
def test_every_byte_is_where_megatron_has_it(
    tmp_path: Path, vocabulary_size: int, binary: bytes, header: bytes, offsets: list[int]
) -> None:
    name = write(tmp_path / "small", [[1, 258], [], [65535]], vocabulary_size)
    assert part(name, ".bin").read_bytes() == binary
    places = b"".join(bytes([offset, 0, 0, 0, 0, 0, 0, 0]) for offset in offsets)
    assert part(name, ".idx").read_bytes() == header + COUNTS + LENGTHS + places + BOUNDARIES


FOREIGN = [[0, 1, 65535], [7], [], [258, 65534]]
"""Documents whose ids fit both dtypes; every reader must give them back."""


@pytest.mark.filterwarnings("ignore:::megatron")  # it asks for Transformer Engine, which no reading needs
@pytest.mark.parametrize(
    ("documents", "vocabulary_size", "dtype"),
    [(FOREIGN, SMALL, np.uint16), ([*FOREIGN, [2**31 - 1, 65536]], LARGE, np.int32)],
)
def test_megatron_core_reads_both_kinds_of_files(
    tmp_path: Path, documents: list[list[int]], vocabulary_size: int, dtype: type[np.generic]
) -> None:
    """No skip where it is not installed: the development environment has it, and this must be known."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    for mmap in (True, False):
        theirs = IndexedDataset(str(write(tmp_path / "corpus", documents, vocabulary_size)), mmap=mmap)
        assert theirs.index.dtype == dtype
        assert [theirs[i].tolist() for i in range(len(theirs))] == documents
        assert {theirs[i].dtype for i in range(len(theirs))} == {np.dtype(dtype)}
        assert theirs.sequence_lengths.tolist() == [len(ids) for ids in documents]
        assert theirs.document_indices.tolist() == list(range(len(documents) + 1))
        assert theirs.get(3, offset=1, length=1).tolist() == [65534]


@pytest.mark.filterwarnings("ignore:::megatron")
@pytest.mark.parametrize(("vocabulary_size", "dtype"), [(SMALL, np.uint16), (LARGE, np.int32)])
def test_our_files_are_those_of_megatron_cores_own_builder(
    tmp_path: Path, vocabulary_size: int, dtype: type[np.generic]
) -> None:
    """Then what holds of theirs, as merging by `add_index`, holds of ours."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=dtype)
    for ids in FOREIGN:
        builder.add_document(np.array(ids, np.int64), [len(ids)])
    builder.add_index(str(write(tmp_path / "more", [[1, 2], [3]], vocabulary_size)))
    builder.finalize(str(tmp_path / "theirs.idx"))
    ours = write(tmp_path / "ours", [*FOREIGN, [1, 2], [3]], vocabulary_size)
    for ending in (".bin", ".idx"):
        assert part(tmp_path / "theirs", ending).read_bytes() == part(ours, ending).read_bytes()


def test_deepspeeds_reader_reads_the_int32_files(tmp_path: Path) -> None:
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import MMapIndexedDataset

    documents = [*FOREIGN, [2**31 - 1, 65536]]
    theirs = MMapIndexedDataset(str(write(tmp_path / "corpus", documents, LARGE)), skip_warmup=True)
    assert [theirs[i].tolist() for i in range(len(theirs))] == documents
    assert theirs.sizes.tolist() == [len(ids) for ids in documents]
    assert theirs.doc_idx.tolist() == list(range(len(documents) + 1))


def test_a_dataset_of_several_sequences_a_document_is_read_by_its_sequences(tmp_path: Path) -> None:
    name = write(tmp_path / "theirs", [[1, 2], [3], [4, 5, 6]])
    index = bytearray(part(name, ".idx").read_bytes())
    index[26:34] = (3).to_bytes(8, "little")  # two documents: sequences 0 and 1, and sequence 2
    index[-32:] = b"".join(i.to_bytes(8, "little") for i in (0, 2, 3))
    part(name, ".idx").write_bytes(bytes(index))
    found = Documents(name)
    assert [found[i].tolist() for i in range(len(found))] == [[1, 2], [3], [4, 5, 6]]


def test_an_empty_dataset_has_no_documents(tmp_path: Path) -> None:
    assert len(Documents(write(tmp_path / "empty", []))) == 0
    assert Documents(write(tmp_path / "hollow", [[], []]))[1].tolist() == []


@pytest.mark.parametrize("name", ["corpus", "v1.0", "llama.2.text_document", ".hidden"])
def test_a_name_may_have_dots(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, [[1], [2, 3]])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.bin", f"{name}.idx"]
    assert Documents(tmp_path / name)[1].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("ids", "vocabulary_size"),
    [([65536], SMALL), (np.array([65536]), SMALL), ([-1], SMALL), ([2**31], LARGE), (np.array([-1]), LARGE)],
)
def test_an_id_that_does_not_fit_is_never_written_as_another(
    tmp_path: Path, ids: list[int], vocabulary_size: int
) -> None:
    with pytest.raises(AssertionError), Writer(tmp_path / "corpus", vocabulary_size) as writer:
        writer.add(ids)
    assert not (tmp_path / "corpus.idx").exists()


def test_a_writer_that_fails_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "corpus", SMALL) as writer:
        writer.add([1, 2])
        raise KeyboardInterrupt
    with pytest.raises(UserError, match=r"corpus\.idx: no packed corpus found"):
        Documents(tmp_path / "corpus")


@pytest.mark.parametrize("ending", [".idx", ".bin"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, ending: str) -> None:
    file = part(write(tmp_path / "corpus", [[1, 2, 3], [4], []]), ending)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError, match=rf"corpus\{ending} .*Pack the corpus again"):
            Documents(tmp_path / "corpus")
    file.write_bytes(whole + b"\0")
    with pytest.raises(UserError, match="Pack the corpus again"):
        Documents(tmp_path / "corpus")
    file.unlink()
    with pytest.raises(UserError, match=r"corpus"):
        Documents(tmp_path / "corpus")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, ord("X"), "is not a supported indexed dataset"),
        (9, 2, "version 2"),
        (17, 6, "dtype 6"),  # float64; DeepSpeed's uint16
        (17, 0, "dtype 0"),
        (18, 200, "truncated"),
        (34, 9, "its index expects"),
    ],
)
def test_an_index_of_another_kind_is_refused(tmp_path: Path, place: int, value: int, words: str) -> None:
    name = write(tmp_path / "corpus", [[1, 2], [3]])
    index = bytearray(part(name, ".idx").read_bytes())
    index[place] = value
    part(name, ".idx").write_bytes(bytes(index))
    with pytest.raises(UserError, match=words):
        Documents(name)
