"""Tables and plain text: JSON lines, CSV (also with tabs or semicolons), one text a file. All are UTF-8.

A row is a document. A column named as one of the record's fields is that field; `columns` maps other names to
fields and comes first; a column named `text` is the description where no other is. A cell of white space only
is a missing value. `claims` and `ipc` are lists in JSON; in a CSV cell they are written as a JSON list (IPC
symbols also with `|` or `;` between them), and a plain text is a list of one. A row without an id is named
after its file and line.
"""

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from data.formats import Rejected
from data.record import Record

if TYPE_CHECKING:
    from _csv import Reader

FIELDS = tuple(Record.__annotations__)
LISTS = ("claims", "ipc")
TEXTS = ("title", "abstract", "claims", "description")
CELL_CHARACTERS = 1 << 26
"""The longest cell that is taken: a forgotten quotation mark must not pull the rest of the file into one."""


def read_jsonl(path: Path, columns: Mapping[str, str]) -> Iterator[list[Record] | Rejected]:
    """Yield once for each line; an empty line is rejected as `empty-row`, so that nothing goes uncounted."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield _read_line(line, path, number, offset, columns)
            offset += len(line)


def _read_line(
    line: bytes, path: Path, number: int, offset: int, columns: Mapping[str, str]
) -> list[Record] | Rejected:
    source = f"{path}#{number}"
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if not line.strip():
        return Rejected(source, "empty-row", f"line {number} is empty")
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Rejected(source, "bad-encoding", f"byte {offset + error.start} of the file is not UTF-8")
    except (ValueError, RecursionError) as error:
        return Rejected(source, "bad-json", f"line {number}: {error}")
    if not isinstance(row, dict):
        return Rejected(source, "bad-json", f"line {number}: not an object but {type(row).__name__}")
    fields = _fields(list(row), columns, source)
    return fields if isinstance(fields, Rejected) else _record(row, fields, path, number)


def is_csv(head: bytes, columns: Mapping[str, str]) -> bool:
    """Whether a file's first line names a field of the record."""
    header = head.partition(b"\n")[0].decode("utf-8", "replace").strip()
    cells = {cell.strip('"') for cell in header.split(_delimiter(header))}
    return not cells.isdisjoint({*FIELDS, *columns, "text"})


def read_csv(path: Path, columns: Mapping[str, str]) -> Iterator[list[Record] | Rejected]:
    """Yield once for each row under the header; a row of empty cells is rejected as `empty-row`.

    Where the header cannot be used, the whole file is one rejected document.
    """
    csv.field_size_limit(CELL_CHARACTERS)
    wrong_bytes: list[int] = []
    with path.open("rb") as file:
        lines = _decode(file, wrong_bytes)
        first = next(lines).removeprefix("\ufeff")
        rows = csv.reader(itertools.chain([first], lines), delimiter=_delimiter(first), strict=True)
        header = next(_rows(rows))[1]
        if isinstance(header, csv.Error):
            yield Rejected(str(path), "bad-csv", f"header: {header}")
            return
        if wrong_bytes:
            yield Rejected(str(path), "bad-encoding", f"byte {wrong_bytes[0]}, in the header, is not UTF-8")
            return
        fields = _fields(header, columns, str(path))
        if isinstance(fields, Rejected):
            yield fields
            return
        for number, cells in _rows(rows):
            source = f"{path}#{number}"
            if wrong_bytes:
                yield Rejected(source, "bad-encoding", f"byte {wrong_bytes[0]} of the file is not UTF-8")
                wrong_bytes.clear()
            elif isinstance(cells, csv.Error):
                yield Rejected(source, "bad-csv", f"row at line {number}: {cells}")
            elif not any(map(str.strip, cells)):
                yield Rejected(source, "empty-row", f"all cells of the row at line {number} are empty")
            elif len(cells) != len(header):
                counts = f"{len(cells)} cells under {len(header)} columns"
                yield Rejected(source, "bad-csv", f"row at line {number}: {counts}")
            else:
                yield _record(dict(zip(header, cells, strict=True)), fields, path, number)


def read_text(path: Path) -> Iterator[list[Record] | Rejected]:
    """One document a file: the description, named after the file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Rejected(str(path), "bad-encoding", f"byte {error.start} of the file is not UTF-8")
        return
    yield [_fill({"id": path.stem, "description": text.replace("\r\n", "\n").strip(), "source": str(path)})]


def _fields(names: Sequence[str], columns: Mapping[str, str], source: str) -> dict[str, str] | Rejected:
    """Which column holds which field, or why the columns cannot be used."""
    pairs = [(columns[name], name) for name in names if name in columns]
    mapped = {field for field, _ in pairs}
    pairs += [(name, name) for name in names if name in FIELDS and name not in columns and name not in mapped]
    if "description" not in dict(pairs):
        pairs += [("description", name) for name in names if name == "text" and name not in columns]
    fields = dict(pairs)
    if len(fields) < len(pairs):
        found = [field for field, _ in pairs]
        twice = ", ".join(field for field in fields if found.count(field) > 1)
        return Rejected(source, "duplicate-column", f"several columns give {twice}: {_shown(names)}")
    if not fields.keys() & set(TEXTS):
        known = f"none is {', '.join(TEXTS)} or text; say under `columns` which one is"
        return Rejected(source, "unknown-columns", f"{known}: {_shown(names)}")
    return fields


def _record(
    row: Mapping[str, Any], fields: Mapping[str, str], path: Path, number: int
) -> list[Record] | Rejected:
    values: dict[str, Any] = {}
    source = f"{path}#{number}"
    for field, column in fields.items():
        try:
            values[field] = _value(field, row[column])
        except UnicodeEncodeError:
            return Rejected(source, "bad-encoding", f"column {column!r}: half of a surrogate pair (\\ud800…)")
        except ValueError as error:
            return Rejected(source, "bad-value", f"column {column!r}: {error}")
    if not any(values.get(field) for field in TEXTS):
        return Rejected(source, "missing-text", "no title, abstract, claim or description")
    values["id"] = values.get("id") or f"{path.stem}-{number:06d}"
    values["source"] = values.get("source") or source
    return [_fill(values)]


def _value(field: str, value: Any) -> str | list[str] | None:
    """A cell as the field's type; ValueError where it is of another one."""
    if field in LISTS and isinstance(value, str):
        value = _listed(field, value)
    if field in LISTS and value is not None:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"a list of texts is expected, not {_shown([value])}")
        return [_encodable(item) for item in value if item.strip()] or None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a publication number without letters
    if value is not None and not isinstance(value, str):
        raise ValueError(f"a text is expected, not {_shown([value])}")
    return _encodable(value) if value and value.strip() else None


def _listed(field: str, cell: str) -> Any:
    if cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            pass  # a text that begins with a bracket
    return re.split(r"\s*[|;]\s*", cell) if field == "ipc" else [cell]


def _encodable(text: str) -> str:
    text.encode("utf-8")  # JSON can write half of a surrogate pair, which no file may hold
    return text


def _fill(values: Mapping[str, Any]) -> Record:
    return cast(Record, {field: values.get(field) for field in FIELDS})


def _rows(rows: "Reader") -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each row, or what is wrong with it, and the line it begins at."""
    while True:
        number = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, error
        else:
            yield number, cells


def _decode(lines: Iterable[bytes], wrong_bytes: list[int]) -> Iterator[str]:
    """Decode line by line; the offset of the first wrong byte of a line goes to `wrong_bytes`."""
    offset = 0
    for line in lines:
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            wrong_bytes.append(offset + error.start)
            yield line.decode("utf-8", "replace")
        offset += len(line)


def _delimiter(header: str) -> str:
    return max(",\t;", key=header.count)


def _shown(values: Sequence[Any]) -> str:
    shown = ", ".join(map(repr, values))
    return shown if len(shown) <= 200 else f"{shown[:199]}…"
