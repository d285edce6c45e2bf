"""A document of lists is one document, on one line or on many, whatever its size: chats and patents read the
same items as from JSON lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.chat.row_reader import rows
from data.readers.column_mapping import Options
from data.readers.file_splits import parts
from data.readers.formats import read
from data.record import Rejected
from tests.data.readers.reading import write

ITEMS = [
    {"id": f"US-{number}-A", "title": f"泵 {{[“{number}”", "prompt": f"{number}?", "response": f"{number}"}
    for number in range(1, 21)
]
FORMS: dict[str, Any] = {
    "one-line": lambda tree: json.dumps(tree, ensure_ascii=False),
    "one-line-ended": lambda tree: json.dumps(tree, ensure_ascii=False) + "\n",
    "marked": lambda tree: "\ufeff" + json.dumps(tree),
    "indented": lambda tree: json.dumps(tree, indent=1),
    "item-a-line": lambda tree: json.dumps(tree).replace("[{", "[\n{").replace("}, {", "},\n{"),
}


@pytest.fixture(params=["whole", "streamed"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short documents are read whole, long ones item by item."""
    if request.param == "streamed":
        monkeypatch.setattr("data.readers.json_rows.LINE_BYTES", 250)
        monkeypatch.setattr("data.readers.json_rows.CHUNK_BYTES", 64)
        monkeypatch.setattr("data.stream.LINE_BYTES", 250)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("around", [{}, {"version": "1.0", "license": {"name": "x"}}, {"note": None}])
def test_a_document_of_a_list_gives_its_items_to_both(
    tmp_path: Path, form: str, around: dict[str, Any]
) -> None:
    path = write(tmp_path, "a.json", FORMS[form]({**around, "data": ITEMS}).encode())
    found = list(rows(path))
    assert [row for _, row in found] == [{"type": "data", **item} for item in ITEMS]
    assert [place for place, _ in found] == [f"{path}#data.{number}" for number in range(1, 21)]
    ids = [record["id"] for outcome in read(path) if isinstance(outcome, list) for record in outcome]
    assert ids == [item["id"] for item in ITEMS]
    assert parts(path, Options(), 100) == [None], "it is not cut at its lines"


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("form", FORMS)
def test_lists_by_name_are_read_with_their_names(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, "a.json", FORMS[form]({"Insult": ITEMS[:7], "Empty": [], "Crime": ITEMS[7:]}))
    found = [row for _, row in rows(path)]
    assert [row["type"] for row in found if isinstance(row, dict)] == ["Insult"] * 7 + ["Crime"] * 13


@pytest.mark.parametrize(
    ("text", "good", "reasons"),
    [
        ('{"messages": [{"role": "user"}, {"role": "assistant"}]}', 1, []),  # a row with a list of objects
        ('{\n"messages": [{"role": "user"}, {"role": "assistant"}]\n}', 1, []),
        ('{"messages": [{"role": "user"}]}\n{"messages": [{"role": "user"}]}\n', 2, []),
        ('{"prompt": "a"\n{"prompt": "b"}\n', 1, ["bad-json"]),  # lines, the first one is cut off
        ('{"data": [{"prompt": "a"}, {"prompt": "b"', 0, ["bad-json"]),
    ],
)
def test_rows_with_lists_stay_rows(tmp_path: Path, text: str, good: int, reasons: list[str]) -> None:
    found = [row for _, row in rows(write(tmp_path, "a.json", text))]
    assert sum(isinstance(row, dict) for row in found) == good
    assert [row.reason for row in found if isinstance(row, Rejected)] == reasons


@pytest.mark.parametrize(
    ("text", "good", "reason"),
    [
        ('{"data": [{"prompt": "a"}, {"prompt": "b"}, ' + '{"prompt": "c"}, ' * 30, 32, "bad-json"),
        ('{"data": [' + '{"prompt": "c"}, ' * 30 + '{}]} {"prompt": "d"}', 31, "bad-json"),
        ('{"prompt": "a", "response": "' + "b" * 999 + '"}\n{"prompt": "c"}\n', 1, "too-long"),
        ('{"messages": [' + '{"role": "user"}, ' * 30 + "{}]}\n" + '{"prompt": "c"}\n', 1, "too-long"),
        ('{"x": "' + "b" * 999 + '", "data": [{"prompt": "c"}]}', 0, "too-long"),
    ],
)
def test_a_long_document_that_is_broken_or_a_row_is_named(
    tmp_path: Path, text: str, good: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.readers.json_rows.LINE_BYTES", 250)
    monkeypatch.setattr("data.stream.LINE_BYTES", 250)
    found = [row for _, row in rows(write(tmp_path, "a.json", text))]
    assert sum(isinstance(row, dict) for row in found) == good
    assert [row.reason for row in found if isinstance(row, Rejected)] == [reason]
