"""Rows of CSV, separated by commas, tabs or semicolons, in an encoding that `stream.encoding` recognises."""

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from data.readers.row import Place, Row
from data.record import Rejected, bad_bytes
from data.stream import TOO_LONG, Content, Unreadable, decoded, encoding, lines

if TYPE_CHECKING:
    from _csv import Reader

SEARCH = "search URL:"
"""The first line of Google Patents' download, before the header."""

CELL_CHARACTERS = 1 << 26
"""The longest cell: a missing quotation mark must not pull the rest of the file into one."""


def is_csv(head: bytes, knows: Callable[[Iterable[str]], bool]) -> bool:
    """Whether the first line has a column name that the caller knows."""
    head = head.partition(b"\n")[2] if head.startswith(SEARCH.encode()) else head
    header = head.partition(b"\n")[0].decode(encoding(head), "replace").strip()
    return knows(cell.strip(' "') for cell in header.split(_delimiter(header)))


def csv_rows(content: Content) -> tuple[list[str] | None, Iterator[Row]]:
    """The header and the rows under it; None and one error if the header cannot be read."""
    csv.field_size_limit(CELL_CHARACTERS)
    wrong: list[Rejected] = []
    bad: list[int] = []
    text = _decode(content, wrong, bad)
    first = next(text).removeprefix("\ufeff")
    if first.startswith(SEARCH):
        first = next(text, "")
    reader = csv.reader(itertools.chain([first], text), delimiter=_delimiter(first), strict=True)
    header = next(_cells(reader))[1]
    if wrong:
        rejected = Rejected(content.name, wrong[0].reason, f"{wrong[0].detail}, in the header")
        return None, iter([(Place(""), rejected)])
    if isinstance(header, csv.Error):
        return None, iter([(Place(""), Rejected(content.name, "bad-csv", f"header: {header}"))])
    return header, _rows(reader, header, content.name, wrong, bad)


def _rows(
    reader: "Reader", header: list[str], name: str, wrong: list[Rejected], bad: list[int]
) -> Iterator[Row]:
    if bad:  # in the header
        yield Place(""), bad_bytes(name, sum(bad))
        bad.clear()
    for number, cells in _cells(reader):
        place = Place(number)
        source = place.in_file(name)
        if bad:
            yield place, bad_bytes(source, sum(bad))
            bad.clear()
        if wrong:
            yield place, Rejected(source, wrong[0].reason, wrong[0].detail)
            wrong.clear()
        elif isinstance(cells, csv.Error):
            yield place, Rejected(source, "bad-csv", f"row at line {number}: {cells}")
        elif not any(map(str.strip, cells)):
            yield place, Rejected(source, "empty-row", f"all cells of the row at line {number} are empty")
        elif len(cells) != len(header):
            counts = f"{len(cells)} cells under {len(header)} columns"
            yield place, Rejected(source, "bad-csv", f"row at line {number}: {counts}")
        else:
            yield place, {name: cell for name, cell in zip(header, cells, strict=True) if name}


def _cells(reader: "Reader") -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each row, or its error, and the line on which it begins."""
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


def _decode(content: Content, wrong: list[Rejected], bad: list[int]) -> Iterator[str]:
    """Decode line by line; the error of a line that cannot be read goes to `wrong`, the number of bad bytes
    in one that can to `bad`."""
    name = encoding(content.head())
    for line in lines(content):
        if line.data is None:
            wrong.append(Rejected("", "too-long", f"line {line.number} is {TOO_LONG}"))
            yield "\n"
            continue
        try:
            text, number = decoded(line.data, line.offset, name)
        except Unreadable as error:
            wrong.append(Rejected("", error.reason, f"line {line.number}: {error.detail}"))
            text, number = line.data.decode(name, "replace"), 0
        if number:
            bad.append(number)
        yield text


def _delimiter(header: str) -> str:
    return max(",\t;", key=header.count)
