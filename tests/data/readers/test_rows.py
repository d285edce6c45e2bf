"""One reader of rows: patents and chats read the same rows from every container, by the same rules."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from data.chat.row_reader import dataset_rows, rows
from data.readers.column_mapping import Options
from data.readers.formats import read
from data.readers.table_records import read_dataset
from data.record import Rejected
from tests.data.readers.reading import write

ROWS = [
    {
        "id": f"US-{number}-A",
        "title": f"泵, “{number}”\nround",
        "question": f"{number}?",
        "answer": f"\t{number}.",
    }
    for number in range(1, 4)
]
"""Rows with columns that patents know and columns that chats know."""

CONTAINERS = [
    # file, where patents and chats find its rows
    ("a.jsonl", ["1", "2", "3"], ["1", "2", "3"]),
    ("one-line.json", ["1.1", "1.2", "1.3"], ["1.1", "1.2", "1.3"]),
    ("list.json", ["1", "2", "3"], ["2.1", "8.2", "14.3"]),
    ("lines-of-lists.jsonl", ["1", "2.1", "2.2"], ["1", "2.1", "2.2"]),
    ("a.csv", ["2", "4", "6"], ["2", "4", "6"]),
    ("a.tsv", ["2", "4", "6"], ["2", "4", "6"]),
    ("a.xlsx", ["Sheet!2", "Sheet!3", "Sheet!4"], ["Sheet!2", "Sheet!3", "Sheet!4"]),
    ("titled.xlsx", ["Sheet!4", "Sheet!6", "Sheet!7"], ["Sheet!4", "Sheet!6", "Sheet!7"]),
    ("a.parquet", ["1", "2", "3"], ["1", "2", "3"]),
]


@pytest.mark.parametrize(("name", "patent_places", "chat_places"), CONTAINERS)
def test_patents_and_chats_read_the_same_rows(
    tmp_path: Path, name: str, patent_places: list[str], chat_places: list[str]
) -> None:
    path = container(tmp_path, name)
    assert list(rows(path)) == [
        (f"{path}#{place}", row) for place, row in zip(chat_places, ROWS, strict=True)
    ]
    assert [
        (record["source"], record["id"], record["title"])
        for outcome in read(path)
        if isinstance(outcome, list)
        for record in outcome
    ] == [
        (f"{path}#{place}", row["id"], row["title"]) for place, row in zip(patent_places, ROWS, strict=True)
    ]


def test_a_data_set_gives_both_the_same_rows(tmp_path: Path) -> None:
    container(tmp_path, "train.parquet")
    found = list(dataset_rows(str(tmp_path), None, "train"))
    assert found == [(f"{tmp_path}/train#{number}", row) for number, row in enumerate(ROWS, start=1)]
    outcomes = [
        each for each in read_dataset(str(tmp_path), None, "train", Options()) if isinstance(each, list)
    ]
    assert [(record["source"], record["id"]) for (record,) in outcomes] == [
        (place, row["id"]) for place, row in found if isinstance(row, dict)
    ]


GOOD = b'{"title": "a", "question": "b", "answer": "c"}'


@pytest.mark.parametrize(
    ("name", "data", "read_rows", "reasons"),
    [
        ("a.jsonl", GOOD + b"\n\n" + GOOD, 2, ["empty-row"]),
        ("a.jsonl", GOOD + b'\n{"title": "\xff"}\n' + GOOD, 2, ["bad-encoding"]),
        ("a.jsonl", GOOD + b'\n{"title"', 1, ["bad-json"]),
        ("a.jsonl", GOOD + b"\n[1]", 1, ["bad-json"]),
        ("a.json", b"[" + GOOD + b",\n" + GOOD + b"]", 2, []),
        ("a.json", b"[" + GOOD + b",\n" + GOOD[:20], 1, ["bad-json"]),  # cut off
        ("a.json", b"[" + GOOD + b",\n" + GOOD, 2, ["bad-json"]),
        ("a.json", b"[" + GOOD + b"\n" + GOOD + b"]", 1, ["bad-json"]),  # no comma
        ("a.json", b"[" + GOOD + b",\n" + GOOD + b"]\n" + GOOD, 2, ["bad-json"]),
        ("a.json", b"[" + GOOD + b',\n{"title": "\xff"},\n' + GOOD + b"]", 2, ["bad-encoding"]),
        ("a.json", b"[\n" + GOOD + b",\n[1]\n]", 1, ["bad-json"]),
        ("a.json", b"[\n]", 0, ["bad-json"]),
        ("a.csv", b"title,question,answer\na,b,c\n,,\na,b\na,b,c\n", 2, ["empty-row", "bad-csv"]),
        ("a.csv", b"title,question,answer\n", 0, ["empty-file"]),
        ("a.csv", b"title,question,answer\na,\xff,c\na,b,c\n", 1, ["bad-encoding"]),
        ("a.csv", b"title,question,answer,\na,b,c,1\n", 1, []),  # a column without a name
        ("a.csv", "标题,question,answer\n一种泵用于输送水,b,c\n".encode("gb18030"), 1, []),
        ("a.csv", "title,question,answer\na,b,c\n".encode("utf-16"), 1, []),
        ("a.parquet", b"PAR1" + b"rubbish" * 9, 0, ["reader-error"]),
        ("a.xlsx", b"PK\x03\x04" + b"rubbish" * 9, 0, ["damaged-archive"]),
    ],
)
def test_broken_rows_are_rejected_alike(
    tmp_path: Path, name: str, data: bytes, read_rows: int, reasons: list[str]
) -> None:
    path = write(tmp_path, name, data)
    patents = list(read(path))
    assert sum(isinstance(outcome, list) for outcome in patents) == read_rows
    assert [outcome.reason for outcome in patents if isinstance(outcome, Rejected)] == reasons
    chats = [row for _, row in rows(path)]
    assert sum(isinstance(row, dict) for row in chats) == read_rows
    rejected = [row.reason for row in chats if isinstance(row, Rejected)]
    assert rejected == [reason for reason in reasons if reason != "empty-row"]  # no record, no error


def test_a_sheet_without_a_known_column_has_its_first_row_as_header(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    save_sheet(
        path, [["no", "judgment"], [1, "The appeal is dismissed. " * 9], [None, None], [2, "Allowed. " * 9]]
    )
    assert [record["source"] for (record,) in filter(None, map(as_list, read(path)))] == [
        f"{path}#Sheet!2", f"{path}#Sheet!4",
    ]  # fmt: skip
    assert [row for _, row in rows(path)][1] == {"no": 2, "judgment": "Allowed. " * 9}


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx"])
def test_a_column_name_used_twice_is_refused_where_it_decides_a_field(tmp_path: Path, name: str) -> None:
    table = [["title", "answer", "question", "question"], ["a", "b", "c", "d"]]
    path = tmp_path / name
    if name == "a.csv":
        write(tmp_path, name, "\n".join(map(",".join, table)))
    else:
        save_sheet(path, table)
    assert [row for _, row in rows(path)] == [{"title": "a", "answer": "b", "question": "d"}]
    assert [isinstance(outcome, list) for outcome in read(path)] == [True]
    (twice,) = read(path, Options({"question": "abstract"}))
    assert isinstance(twice, Rejected)
    assert twice.reason == "duplicate-column"


def as_list(outcome: list[Any] | Rejected) -> list[Any]:
    return outcome if isinstance(outcome, list) else []


def container(folder: Path, name: str) -> Path:
    """ROWS in a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / name
    match name:
        case "a.jsonl":
            write(folder, name, "\n".join(map(json.dumps, ROWS)))
        case "lines-of-lists.jsonl":
            write(folder, name, f"{json.dumps(ROWS[0])}\n{json.dumps(ROWS[1:])}\n")
        case "one-line.json":
            write(folder, name, json.dumps(ROWS))
        case "list.json":
            write(folder, name, json.dumps(ROWS, indent=1))
        case "a.csv" | "a.tsv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(ROWS[0]), delimiter="," if name == "a.csv" else "\t")
                writer.writeheader()
                writer.writerows(ROWS)
        case "a.xlsx":
            save_sheet(path, [list(ROWS[0]), *(list(row.values()) for row in ROWS)])
        case "titled.xlsx":
            first, *others = [list(row.values()) for row in ROWS]
            save_sheet(path, [["An export"], [], list(ROWS[0]), first, [], *others])
        case _:
            pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def save_sheet(path: Path, table: list[list[Any]]) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet: Any = book.active
    for row in table:
        sheet.append(row)
    book.save(path)
