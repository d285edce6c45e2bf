"""A file read in parts gives what the whole file gives: the same documents, under the same names."""

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.executor import EngineConfig, open_executor
from data.readers import formats
from data.readers.column_mapping import Options
from data.readers.file_splits import parts
from data.readers.ingest import ingest
from data.readers.source import Source
from data.record import Record, Rejected
from data.stream import FileSplit
from tests.data.readers.reading import write

LINES = st.sampled_from(
    [
        json.dumps({"id": "CN1A", "title": "一种泵"}, ensure_ascii=False).encode(),
        json.dumps({"id": "EP2A1", "text": "A pump, " * 9}).encode(),
        b'{"broken',
        b"",
        b"\xff\xfe",
        b'[{"id": "x1", "title": "a"}, {"id": "x2", "title": "b"}]',
    ]
)


def in_parts(path: Path, part_bytes: int) -> list[list[Record] | Rejected]:
    return [
        outcome for part in parts(path, Options(), part_bytes) for outcome in formats.read(path, part=part)
    ]


@given(
    lines=st.lists(LINES, max_size=12),
    end=st.sampled_from([b"", b"\n"]),
    newline=st.sampled_from([b"\n", b"\r\n"]),
    part_bytes=st.integers(1, 200),
)
def test_json_lines_in_parts_are_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: bytes, newline: bytes, part_bytes: int
) -> None:
    first = b'{"id": "CN0A", "title": "first"}'
    data = newline.join([first, *lines]) + end
    path = write(tmp_path_factory.mktemp("lines"), "a.jsonl", data)
    assert in_parts(path, part_bytes) == list(formats.read(path))


def test_lines_are_cut_behind_their_ends(tmp_path: Path) -> None:
    line = b'{"id": "CN%d", "title": "a"}\n'
    path = write(tmp_path, "a.jsonl", b"".join(line % number for number in range(8)))
    length = len(line % 0)
    found = parts(path, Options(), 2 * length + 1)
    assert found == [
        FileSplit(0, 3 * length, 1),
        FileSplit(3 * length, 6 * length, 4),
        FileSplit(6 * length, 8 * length, 7),
    ]


@pytest.mark.parametrize("part_bytes", [1, 90, 200])
def test_an_archive_in_parts_is_the_whole_archive(tmp_path: Path, part_bytes: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("empty/", b"")
        for number in range(7):
            archive.writestr(f"{number}.jsonl", b'{"id": "CN%d", "title": "a"}\n{"broken\n' % number)
        archive.writestr("../outside.jsonl", b"{}")
    found = parts(path, Options(), part_bytes)
    assert len(found) > 1
    assert in_parts(path, part_bytes) == list(formats.read(path))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("one.json", b'[\n{"id": "CN1"},\n{"id": "CN2"}\n]'),
        ("table.csv", b"id,title\nCN1,a\nCN2,b\n"),
        ("utf16.jsonl", '{"id": "CN1"}\n{"id": "CN2"}\n'.encode("utf-16")),
        ("broken.zip", b"PK\x03\x04" + b"\0" * 60),
        ("a.xml", b"<?xml version='1.0'?><a/><?xml version='1.0'?><a/>"),
    ],
)
def test_other_files_are_one_part(tmp_path: Path, name: str, data: bytes) -> None:
    assert parts(write(tmp_path, name, data), Options(), 5) == [None]


def test_a_large_file_makes_many_shards_and_the_same_records(tmp_path: Path) -> None:
    rows = [
        {"id": f"CN{number}A", "office": "CN", "title": "一种泵" * (number % 7 + 1)} for number in range(50)
    ]
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    folders = []
    for workers in (1, 2):
        with open_executor(EngineConfig(workers=workers)) as executor:
            folder = tmp_path / f"out{workers}"
            counts = ingest([Source(path=str(tmp_path / "in"))], folder, executor, shard_bytes=500)
            assert counts["records"] == 50
        folders.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert folders[0] == folders[1]
    assert len(folders[0]) > 8
