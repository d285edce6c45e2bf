"""Files of instruction data as rows, each with its place: `FILE#LINE`, in a JSON list `FILE#LINE.ITEM`.

Rows are read by `data.readers.rows`; this file only has what is specific to chats: the column names of a
header, and JSON objects that are lists of records by name.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data.chat.record_formats import COLUMNS
from data.readers.archives import members
from data.readers.formats import format_of
from data.readers.row import Place
from data.readers.rows import CONTAINERS, dataset_tables, tables
from data.record import Rejected
from data.stream import (
    Content,
    FileSplit,
    Unreadable,
    as_utf8,
    is_of_the_machine,
    open_file,
)

ChatRow = tuple[str, dict[str, Any] | Rejected]
"""A row's place as text, and its values by key or its error."""


def rows(path: Path, part: FileSplit | None = None) -> Iterator[ChatRow]:
    """The rows of a file, or of a part of it, and of the members of an archive."""
    opened = open_file(path, part)
    with opened.file:
        for content in members(opened):
            if isinstance(content, Rejected):
                yield content.source, content
                continue
            try:
                yield from _rows(as_utf8(content))
            except Unreadable as error:  # the rows before it are read
                yield content.name, Rejected(content.name, error.reason, error.detail)
            except Exception as error:  # one bad file must not end the run
                if is_of_the_machine(error):
                    raise
                detail = f"{type(error).__name__}: {error}"
                yield content.name, Rejected(content.name, "reader-error", detail)


def dataset_rows(dataset: str, revision: str | None, split: str | None) -> Iterator[ChatRow]:
    """The rows of a data set of the hub, from its cache if the hub is offline, or of a local folder."""
    for name, table in dataset_tables(dataset, revision, split):
        yield from ((place.in_file(name), row) for place, row in table.rows)


def knows(names: Iterable[str]) -> bool:
    """Whether one of these is a key of a layout."""
    return any(name in COLUMNS for name in names)


def _rows(content: Content) -> Iterator[ChatRow]:
    container = format_of(content, knows)
    if container not in CONTAINERS:
        reason = "empty-file" if container == "nothing" else "unknown-format"
        yield content.name, Rejected(content.name, reason, container)
        return
    for table in tables(content, container, knows):
        for place, row in table.rows:
            if isinstance(row, Rejected):
                if row.reason != "empty-row":  # an empty line is not a record
                    yield _place(content, place), row
            elif container == "JSON" and place.number == "" and (named := _named_items(row)):
                yield from ((f"{content.name}#{name}.{number}", item) for name, number, item in named)
            else:
                yield _place(content, place), row


def _place(content: Content, place: Place) -> str:
    number = f"{place.line}.{place.number}" if place.line is not None else place.number
    return Place(number).in_file(content.name)


def _named_items(row: dict[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """The items of lists by name, such as Safety-Prompts' scenarios: the name is their type."""
    if not all(isinstance(items, list) and all(isinstance(i, dict) for i in items) for items in row.values()):
        return []
    numbered = ((name, item) for name, items in row.items() for item in items)
    return [(name, number, {"type": name, **item}) for number, (name, item) in enumerate(numbered, start=1)]
