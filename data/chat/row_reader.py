"""Files of instruction data as rows, streamed: JSON lines, JSON documents, CSV, Parquet, XLSX, hub data sets.

A file is recognised by what it holds, as patents are (data/formats), and may be compressed or in an archive.
A JSON list is read item by item, so that a file of gigabytes needs the memory of its longest item. What gives
no row is a `Rejected` with its line.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.readers.archives import members
from data.readers.column_mapping import Options
from data.readers.formats import format_of
from data.readers.json_csv import TOO_LONG, csv_table, is_lines
from data.readers.xlsx_parquet_hub import load_dataset
from data.record import Rejected
from data.stream import (
    CHUNK_BYTES,
    LINE_BYTES,
    Content,
    FileSplit,
    Line,
    Unreadable,
    as_utf8,
    is_of_the_machine,
    lines,
    open_file,
    seekable,
)

Row = tuple[str, dict[str, Any] | Rejected]
"""Where a row stands, `FILE#LINE` (in a JSON list `FILE#LINE.ITEM`), and its values by key, or why it has
none."""


def rows(path: Path, part: FileSplit | None = None) -> Iterator[Row]:
    """The rows of a file, or of a part of it, and of the members of an archive."""
    opened = open_file(path, part)
    with opened.file:
        for content in members(opened):
            if isinstance(content, Rejected):
                yield content.source, content
                continue
            try:
                yield from _read(as_utf8(content))
            except Unreadable as error:  # what came before it was read
                yield content.name, Rejected(content.name, error.reason, error.detail)
            except Exception as error:  # whatever a file holds, the others are read
                if is_of_the_machine(error):
                    raise
                detail = f"{type(error).__name__}: {error}"
                yield content.name, Rejected(content.name, "reader-error", detail)


def dataset_rows(dataset: str, revision: str | None, split: str | None) -> Iterator[Row]:
    """The rows of a data set of the hub, from its cache where the hub is offline, or of a local folder."""
    for name, found in load_dataset(dataset, revision, split).items():
        place = "/".join(filter(None, (f"{dataset}@{revision}" if revision else dataset, name)))
        yield from ((f"{place}#{number}", dict(row)) for number, row in enumerate(found, start=1))


def _read(content: Content) -> Iterator[Row]:
    kind = format_of(content, Options())
    head = content.head().removeprefix(codecs.BOM_UTF8).lstrip()
    if kind == "JSON" and content.part is None and head.startswith(b"["):
        yield from _list_items(content)
    elif kind == "JSON" and (content.part or is_lines(head)):
        for line in lines(content):
            yield from _of_line(line, content.name)
    elif kind == "JSON":
        yield from _document(content)
    elif kind == "CSV" or content.suffix in (".csv", ".tsv"):
        yield from _csv(content)
    elif kind == "XLSX":
        yield from _xlsx(content)
    elif kind == "Parquet":
        yield from _parquet(content)
    else:
        reason = "empty-file" if kind == "nothing" else "unknown-format"
        yield content.name, Rejected(content.name, reason, kind)


def _of_line(line: Line, name: str) -> Iterator[Row]:
    place = f"{name}#{line.number}"
    if line.data is None:
        yield place, Rejected(place, "too-long", f"line {line.number} is {TOO_LONG}")
        return
    try:
        text = line.data.decode("utf-8").removeprefix("\ufeff").strip()
        if text:  # an empty line is no record
            yield place, _object(json.loads(text), place)
    except UnicodeDecodeError as error:
        detail = f"line {line.number}: byte {line.offset + error.start} of the file is not UTF-8"
        yield place, Rejected(place, "bad-encoding", detail)
    except (ValueError, RecursionError) as error:
        yield place, Rejected(place, "bad-json", f"line {line.number}: {error}")


def _object(value: Any, place: str) -> dict[str, Any] | Rejected:
    if isinstance(value, dict):
        return value
    return Rejected(place, "bad-json", f"not an object but {type(value).__name__}")


def _document(content: Content) -> Iterator[Row]:
    """An object: lists of records by name, as Safety-Prompts' scenarios, or one record."""
    data = content.file.read(LINE_BYTES + 1)
    if len(data) > LINE_BYTES:
        yield content.name, Rejected(content.name, "too-long", f"the document is {TOO_LONG}")
        return
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "bad-encoding" if isinstance(error, UnicodeDecodeError) else "bad-json"
        yield content.name, Rejected(content.name, reason, str(error))
        return
    named = {name: items for name, items in value.items() if isinstance(items, list)}
    if len(named) < len(value) or not all(isinstance(i, dict) for items in named.values() for i in items):
        yield content.name, value
        return
    numbered = ((name, item) for name, items in named.items() for item in items)
    for number, (name, item) in enumerate(numbered, start=1):
        yield f"{content.name}#{name}.{number}", {"type": name, **item}


def _list_items(content: Content) -> Iterator[Row]:
    """The items of a JSON list, each with its line and its number, and no more than one in memory."""
    decoder = json.JSONDecoder()
    stream = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    buffer, at, line, number, ended = "", 0, 1, 1, False
    tried = CHUNK_BYTES
    while True:
        separators = len(buffer[at:]) - len(buffer[at:].lstrip(" \t\r\n,[")) if at < len(buffer) else 0
        line += buffer.count("\n", at, at + separators)
        at += separators
        place = f"{content.name}#{line}.{number}"
        if buffer.startswith("]", at):
            return
        if at < len(buffer) and (ended or len(buffer) - at >= tried or len(buffer) - at > LINE_BYTES):
            try:
                value, stop = decoder.raw_decode(buffer, at)
            except (ValueError, RecursionError) as error:
                if ended or len(buffer) - at > LINE_BYTES:
                    reason = "bad-json" if len(buffer) - at <= LINE_BYTES else "too-long"
                    raise Unreadable(
                        reason, f"the item at line {line}: {error}; nothing behind it is read"
                    ) from None
                tried = 2 * (len(buffer) - at)
            else:
                tried, number = 1, number + 1
                text, line = buffer[at:stop], line + buffer.count("\n", at, stop)
                at = stop
                yield (
                    place,
                    _object(value, place)
                    if _is_utf8(text)
                    else Rejected(
                        place, "bad-encoding", f"the item at line {place.rpartition('#')[2]} is not UTF-8"
                    ),
                )
                continue
        elif ended and at >= len(buffer):
            raise Unreadable("bad-json", f"the list ends at line {line} without its bracket")
        data = content.file.read1(CHUNK_BYTES)
        ended = not data
        buffer, at = buffer[at:] + stream.decode(data, ended), 0


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _csv(content: Content) -> Iterator[Row]:
    header, found = csv_table(content)
    if isinstance(header, Rejected):
        yield content.name, header
        return
    for place, row in found:
        yield f"{content.name}#{place}", dict(row) if not isinstance(row, Rejected) else row


def _xlsx(content: Content) -> Iterator[Row]:
    """The rows of each sheet under its first row that is not empty."""
    import openpyxl

    book = openpyxl.load_workbook(seekable(content), read_only=True, data_only=True)
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # many exports declare a size that they do not have
        header: list[str] = []
        for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
            if not any(cell is not None for cell in cells):
                continue
            if not header:
                header = ["" if cell is None else str(cell).strip() for cell in cells]
                continue
            named = zip(header, cells, strict=False)
            yield f"{content.name}#{sheet.title}!{number}", {name: cell for name, cell in named if name}
    book.close()


def _parquet(content: Content) -> Iterator[Row]:
    import pyarrow.parquet as pq

    number = 0
    for batch in pq.ParquetFile(seekable(content)).iter_batches(batch_size=64):
        for row in batch.to_pylist():
            number += 1
            yield f"{content.name}#{number}", row
