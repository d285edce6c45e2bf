"""Tables as text: JSON lines, JSON documents, CSV (also with tabs or semicolons). All are UTF-8.

A row is a document; `columns` says which of its columns are which fields, `cells` what a cell means. A row
without an id is named after its file, its line and a digest of what it says. A JSON document is a row, a list
of rows, or an object with one list of objects, as a search service answers.
"""

import csv
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data.readers.cell_values import records
from data.readers.column_mapping import Fields, Options, is_known, map_columns
from data.record import Record, Rejected
from data.stream import LINE_BYTES, Content, Line, Unreadable, encoding, lines

if TYPE_CHECKING:
    from _csv import Reader

CELL_CHARACTERS = 1 << 26
"""The longest cell that is taken: a forgotten quotation mark must not pull the rest of the file into one."""

SAMPLE_ROWS = 20
"""How many rows are looked at where no column's name says that it holds text."""

TOO_LONG = f"longer than {LINE_BYTES >> 20} MiB"

Row = tuple[str | int, Mapping[str, Any] | Rejected]
"""A row's place in its file (line, or sheet and row), and its cells by column."""


def read_objects(
    content: Content, rows: Iterator[Row], options: Options
) -> Iterator[list[Record] | Rejected]:
    """Rows that each bring their own columns, as JSON lines do."""
    rows, sample = _sample(rows)
    known: dict[tuple[str, ...], Fields | Rejected] = {}
    for place, row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        names = tuple(row)
        source = f"{content.name}#{place}" if place else content.name
        if names not in known and len(known) < 10_000:
            alike = [item for item in sample if names == tuple(item)]
            known[names] = _noted(names, map_columns(names, options, source, alike), options)
        fields = known.get(names) or map_columns(names, options, source)
        if isinstance(fields, Rejected):
            yield Rejected(source, fields.reason, fields.detail)
        else:
            yield records(row, fields, options, source, _name(content, place))


def read_table(
    content: Content, header: Sequence[str], rows: Iterator[Row], options: Options
) -> Iterator[list[Record] | Rejected]:
    """Rows under one header; where it cannot be used, the whole table is one rejected document."""
    rows, sample = _sample(rows)
    fields = _noted(header, map_columns(header, options, content.name, sample), options)
    if isinstance(fields, Rejected):
        yield fields
        return
    empty = True
    for place, row in rows:
        empty = False
        if isinstance(row, Rejected):
            yield row
        else:
            yield records(row, fields, options, f"{content.name}#{place}", _name(content, place))
    if empty:
        yield Rejected(content.name, "empty-file", "a header without a row")


def json_rows(content: Content, options: Options) -> Iterator[Row]:
    """A file of JSON: one object a line, or one document over several lines (up to LINE_BYTES).

    An empty line is rejected as `empty-row`, so that nothing goes uncounted.
    """
    if content.part is None and not is_lines(content.head()):
        data = content.file.read(LINE_BYTES + 1)
        whole = Line(0, 0, data if len(data) <= LINE_BYTES else None)
        yield from _parse(whole, content.name, options)
        return
    for line in lines(content):
        yield from _parse(line, content.name, options)


def is_lines(head: bytes) -> bool:
    """Whether a file of JSON is one object a line, and not one document over several lines."""
    first, _, second = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    begun = not first.strip(b"[{ \t\r")
    return not begun and (not second or second.lstrip().startswith(b"{") or _is_json(first))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(line: Line, name: str, options: Options) -> Iterator[Row]:
    """The rows of one line (number 0: of a whole file)."""
    source = f"{name}#{line.number}" if line.number else name
    where = f"line {line.number}" if line.number else "the document"
    if line.data is None:
        yield "", Rejected(source, "too-long", f"{where} is {TOO_LONG}; write one object a line")
        return
    data = line.data.removeprefix(b"\xef\xbb\xbf") if not line.offset else line.data
    if not data.strip():
        yield "", Rejected(source, "empty-row", f"{where} is empty")
        return
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        place = line.offset + len(line.data) - len(data) + error.start
        yield "", Rejected(source, "bad-encoding", f"byte {place} of the file is not UTF-8")
        return
    except (ValueError, RecursionError) as error:
        yield "", Rejected(source, "bad-json", f"{where}: {error}")
        return
    rows = _rows_of(value, options)
    if rows is None:
        yield "", Rejected(source, "bad-json", f"{where}: not an object but {type(value).__name__}")
    elif rows == [value]:
        yield line.number or "", value
    else:
        prefix = f"{line.number}." if line.number else ""
        yield from ((f"{prefix}{number}", row) for number, row in enumerate(rows, start=1))


def _rows_of(value: Any, options: Options) -> list[dict[str, Any]] | None:
    if isinstance(value, dict):
        lists = [rows for item in value.values() if (rows := _objects(item))]
        return lists[0] if len(lists) == 1 and not is_known(value, options) else [value]
    return _objects(value)


def _objects(value: Any) -> list[dict[str, Any]] | None:
    """A list of objects, and nothing else."""
    return value if isinstance(value, list) and value and all(isinstance(v, dict) for v in value) else None


def is_csv(head: bytes, options: Options) -> bool:
    """Whether a file's first line names a column that is known."""
    header = head.partition(b"\n")[0].decode(encoding(head), "replace").strip()
    return is_known((cell.strip(' "') for cell in header.split(_delimiter(header))), options)


def read_csv(content: Content, options: Options) -> Iterator[list[Record] | Rejected]:
    """Yield once for each row under the header; a row of empty cells is rejected as `empty-row`.

    Where the header cannot be used, the whole file is one rejected document.
    """
    header, rows = csv_table(content)
    if isinstance(header, Rejected):
        yield header
    else:
        yield from read_table(content, header, rows, options)


def csv_table(content: Content) -> tuple[list[str] | Rejected, Iterator[Row]]:
    """The header of a CSV file, or why it cannot be used, and the rows under it."""
    csv.field_size_limit(CELL_CHARACTERS)
    wrong: list[Rejected] = []
    decoded = _decode(content, wrong)
    first = next(decoded).removeprefix("\ufeff")
    reader = csv.reader(itertools.chain([first], decoded), delimiter=_delimiter(first), strict=True)
    header = next(_cells(reader))[1]
    if wrong:
        detail = f"{wrong[0].detail}, in the header"
        return Rejected(content.name, wrong[0].reason, detail), iter(())
    if isinstance(header, csv.Error):
        return Rejected(content.name, "bad-csv", f"header: {header}"), iter(())
    return header, _csv_rows(reader, header, content.name, wrong)


def _csv_rows(reader: "Reader", header: list[str], name: str, wrong: list[Rejected]) -> Iterator[Row]:
    for number, cells in _cells(reader):
        source = f"{name}#{number}"
        if wrong:
            yield number, Rejected(source, wrong[0].reason, wrong[0].detail)
            wrong.clear()
        elif isinstance(cells, csv.Error):
            yield number, Rejected(source, "bad-csv", f"row at line {number}: {cells}")
        elif not any(map(str.strip, cells)):
            yield number, Rejected(source, "empty-row", f"all cells of the row at line {number} are empty")
        elif len(cells) != len(header):
            counts = f"{len(cells)} cells under {len(header)} columns"
            yield number, Rejected(source, "bad-csv", f"row at line {number}: {counts}")
        else:
            yield number, dict(zip(header, cells, strict=True))


def _cells(reader: "Reader") -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each row, or what is wrong with it, and the line it begins at."""
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, error
        else:
            yield number, cells


def _decode(content: Content, wrong: list[Rejected]) -> Iterator[str]:
    """Decode line by line; what cannot be read in a line goes to `wrong`."""
    name = encoding(content.head())
    for line in lines(content):
        if line.data is None:
            wrong.append(Rejected("", "too-long", f"line {line.number} is {TOO_LONG}"))
            yield "\n"
            continue
        try:
            yield line.data.decode(name)
        except UnicodeDecodeError as error:
            place = line.offset + error.start
            wrong.append(Rejected("", "bad-encoding", f"byte {place} of the file is not {name.upper()}"))
            yield line.data.decode(name, "replace")


def _delimiter(header: str) -> str:
    return max(",\t;", key=header.count)


def _noted(names: Sequence[str], fields: Fields | Rejected, options: Options) -> Fields | Rejected:
    found = {} if isinstance(fields, Rejected) else {name: f for f, taken in fields.items() for name in taken}
    options.notes.update({name: found.get(name) for name in names})
    return fields


def _sample(rows: Iterator[Row]) -> tuple[Iterator[Row], list[Mapping[str, Any]]]:
    """The rows as they were, and the cells of some of the first."""
    first: list[Row] = []
    try:
        first.extend(itertools.islice(rows, SAMPLE_ROWS))
    except Unreadable as error:  # a file that is cut short in its first rows: it ends behind them
        rows = _ending(error)
    return itertools.chain(first, rows), [row for _, row in first if not isinstance(row, Rejected)]


def _ending(error: Unreadable) -> Iterator[Row]:
    yield from ()
    raise error


def _name(content: Content, place: str | int) -> str:
    """What the id of a row that has none of its own begins with."""
    return "-".join(filter(None, (content.stem, f"{place:06d}" if isinstance(place, int) else place)))
