"""Files of instruction data as rows, each with its place: `FILE#LINE`, in a JSON list `FILE#LINE.ITEM`.

Rows are read by `data.readers.rows`; this file only has what is specific to chats: the column names of a
header, and JSON objects that are lists of records by name.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data.chat.record_formats import COLUMNS
from data.readers.archives import attachment, members
from data.readers.formats import format_of
from data.readers.row import Place
from data.readers.rows import CONTAINERS, dataset_tables, tables
from data.record import Noted, Rejected
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
            if attachment(content, inside=content.name != opened.name):
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
        damaged: Place | None = None
        for place, row in table.rows:
            if isinstance(row, Noted):  # an answer is learnt letter by letter: one that is damaged is not
                damaged = place
                yield _place(content, place), Rejected(row.source, "bad-encoding", row.detail)
            elif place == damaged:
                continue
            elif isinstance(row, Rejected):
                if row.reason != "empty-row":  # an empty line is not a record
                    yield _place(content, place), row
            elif container == "JSON" and not knows(row) and (named := _named_items(row)):
                yield from ((_item_place(content, place, name, number), item) for name, number, item in named)
            else:
                yield _place(content, place), row


def _place(content: Content, place: Place) -> str:
    number = f"{place.line}.{place.number}" if place.line is not None else place.number
    return Place(number).in_file(content.name)


def _item_place(content: Content, place: Place, name: str, number: int) -> str:
    """The place of an item of a list by name: `FILE#NAME.NUMBER`, with the line if there are several."""
    at = str(place.number)
    if at.startswith(f"{name}."):  # one item of a document that was too long to be read whole
        return _place(content, place)
    return Place(f"{name}.{number}" if at in ("", "1") else f"{at}.{name}.{number}").in_file(content.name)


def _named_items(row: dict[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """The items of lists by name, such as Safety-Prompts' scenarios: the name is their type. Other values,
    such as a version, say something about the file."""
    lists = {name: items for name, items in row.items() if isinstance(items, list)}
    of_objects = {name: items for name, items in lists.items() if all(isinstance(i, dict) for i in items)}
    numbered = ((name, item) for name, items in of_objects.items() for item in items)
    return [(name, number, {"type": name, **item}) for number, (name, item) in enumerate(numbered, start=1)]
