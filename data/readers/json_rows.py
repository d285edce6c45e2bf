"""Rows of JSON: an object a line (JSON lines), a list of objects, or one object over several lines.

A list is read item by item, so that a file of gigabytes needs the memory of its longest item. A line of JSON
lines may also hold a list of objects. The caller decides what an object with lists of objects means. An
object that is too long to be a row is read list by list, each item as an object with a list of this item.
"""

import codecs
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from data.readers.row import Place, Row
from data.record import Rejected, bad_bytes
from data.stream import (
    CHUNK_BYTES,
    LINE_BYTES,
    TOO_LONG,
    Content,
    FileSplit,
    Line,
    Unreadable,
    are_few,
    decoded,
    lines,
)

LOOK_BYTES = 8 << 20
"""How much of an object that is too long is looked at to find its first list."""

Knows = Callable[[Iterable[str]], bool]
"""Whether one of these names is a column of a row."""

SPACE = re.compile(r"[ \t\r\n]*")

DECODER = json.JSONDecoder(strict=False)
"""Takes control characters inside a text, such as a tab, which writers forget to escape."""

BAD = re.compile("[\udc80-\udcff]")
"""A byte that is not UTF-8, as `_Buffer` decodes it."""


def is_lines(head: bytes) -> bool:
    """Whether a file of JSON is one value a line, and not one document over several lines."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    first, _, second = text.partition(b"\n")
    if text.startswith(b"["):
        return bool(second.strip()) and _is_json(first)
    if not first.strip(b"{ \t\r"):
        return False
    begins = second.lstrip().startswith(b"{") and first.rstrip()[-1:] not in (b"[", b",", b":")
    return not second or begins or _is_json(first)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def json_rows(content: Content, knows: Knows) -> Iterator[Row]:
    """The rows of a file, or of a part of JSON lines. `knows` tells a row from an object of lists, if it is
    too long to be read whole."""
    head = content.head()
    text = head.removeprefix(codecs.BOM_UTF8).strip()
    if content.part is not None or (is_lines(head) and b"\n" in text):
        for line in lines(content):
            yield from _line_rows(line, content.name)
    elif text.startswith(b"["):
        yield from _list_items(content, one_line=b"\n" not in text)
    else:
        yield from _object_rows(content, knows, one_line=b"\n" not in text)


def _object_rows(content: Content, knows: Knows, one_line: bool) -> Iterator[Row]:
    """One object over several lines, or on one line, which may be the first of JSON lines."""
    read = content.file.readline if one_line else content.file.read
    data = read(LINE_BYTES + 1)
    if len(data) <= LINE_BYTES:
        yield from _line_rows(Line(int(one_line), 0, data), content.name)
    elif _begins_lists(data[:LOOK_BYTES], knows):
        yield from _named_items(_Buffer(content, data), content.name, knows)
        return
    else:
        while one_line and data and not data.endswith(b"\n"):
            data = content.file.readline(CHUNK_BYTES)
        yield from _line_rows(Line(int(one_line), 0, None), content.name)
    if one_line:
        rest = Content(content.name, content.file, FileSplit(content.file.tell(), 0, 2))
        for line in lines(rest):
            yield from _line_rows(line, content.name)


def _begins_lists(data: bytes, knows: Knows) -> bool:
    """Whether an object begins with lists of objects, and not with the columns of a row."""
    content = Content("", io.BufferedReader(cast(io.RawIOBase, io.BytesIO(data))))
    try:
        return any(isinstance(row, dict) for _, row in _named_items(_Buffer(content), "", knows))
    except Unreadable:
        return False


def _named_items(buffer: "_Buffer", name: str, knows: Knows) -> Iterator[Row]:
    """The items of the lists in an object, each as an object with the list's name and the item alone."""
    buffer.skip_space()
    buffer.at += 1  # the opening brace
    while (character := buffer.skip_space()) != "}":
        if character == ",":
            buffer.at += 1
            continue
        key, _ = buffer.next_value()
        if not isinstance(key, str) or buffer.skip_space() != ":":
            raise Unreadable("bad-json", f"line {buffer.line}: not an object; the rest is not read")
        buffer.at += 1
        if knows([key]):
            raise Unreadable("too-long", f"the document, a row with {key!r}, is {TOO_LONG}")
        if buffer.skip_space() != "[":
            buffer.next_value()
            continue
        for number, (line, value, text) in enumerate(_items(buffer), start=1):
            place = Place(f"{key}.{number}")
            where = f"the item at line {line}"
            for row in _item(value, text, place.in_file(name), where):
                yield place, row if isinstance(row, Rejected) else {key: [row]}
    buffer.at += 1
    if buffer.skip_space():
        raise Unreadable("bad-json", f"line {buffer.line}: text after the end of the document is not read")


def _line_rows(line: Line, name: str) -> Iterator[Row]:
    """The rows of one line (number 0: of a whole file)."""
    place = Place(line.number or "")
    source = place.in_file(name)
    where = f"line {line.number}" if line.number else "the document"
    if line.data is None:
        yield place, Rejected(source, "too-long", f"{where} is {TOO_LONG}; write one object per line")
        return
    try:
        text, bad = decoded(line.data, line.offset)
        text = text.removeprefix("\ufeff").strip()
        value = DECODER.decode(text) if text else None
    except Unreadable as error:
        yield place, Rejected(source, error.reason, f"{where}: {error.detail}")
        return
    except (ValueError, RecursionError) as error:
        yield place, Rejected(source, "bad-json", f"{where}: {error}")
        return
    if bad:
        yield place, bad_bytes(source, bad)
    if not text:
        yield place, Rejected(source, "empty-row", f"{where} is empty")
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        yield from ((Place(f"{line.number}.{number}"), item) for number, item in enumerate(value, start=1))
    else:
        yield place, _object(value, source, where)


def _object(value: Any, source: str, where: str) -> dict[str, Any] | Rejected:
    if isinstance(value, dict):
        return value
    return Rejected(source, "bad-json", f"{where}: not an object but {type(value).__name__}")


def _list_items(content: Content, one_line: bool) -> Iterator[Row]:
    """The items of a list, each with its number and line. Unreadable if the list is cut off or malformed: the
    items before that place are read."""
    buffer = _Buffer(content)
    buffer.skip_space()
    number = 0
    for number, (line, value, text) in enumerate(_items(buffer), start=1):
        place = Place(f"{line}.{number}") if one_line else Place(str(number), line)
        where = f"the item at line {line}"
        yield from ((place, row) for row in _item(value, text, place.in_file(content.name), where))
    if buffer.skip_space():
        raise Unreadable("bad-json", f"line {buffer.line}: text after the end of the list is not read")
    if number == 0:
        yield Place(""), Rejected(content.name, "bad-json", "the list has no items")


def _items(buffer: "_Buffer") -> Iterator[tuple[int, Any, str]]:
    """The line, value and text of each item of the list that begins here."""
    buffer.at += 1  # the opening bracket
    comma = True
    while (character := buffer.skip_space()) != "]":
        line = buffer.line
        if character == ",":
            buffer.at, comma = buffer.at + 1, True
            continue
        if not character:
            raise Unreadable("bad-json", f"the list ends at line {line} without its closing bracket")
        if not comma:
            raise Unreadable("bad-json", f"line {line}: no comma before this item; the rest is not read")
        value, text = buffer.next_value()
        yield line, value, text
        comma = False
    buffer.at += 1


class _Buffer:
    """The text of a file from where it is read, one item at a time; bytes that are not UTF-8 become lone
    surrogates."""

    def __init__(self, content: Content, begin: bytes = b"") -> None:
        """`begin` was read before."""
        self.file = content.file
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self.text, self.at, self.line, self.ended = self.decoder.decode(begin), 0, 1, False
        self.tried = CHUNK_BYTES
        """A value is decoded once this much of it is read, so that a long one is not tried at every chunk."""

    def skip_space(self) -> str:
        """Move to the next character that is not white space and return it; "" at the end."""
        while True:
            space = SPACE.match(self.text, self.at)
            assert space is not None
            self._move(space.end())
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._read()

    def next_value(self) -> tuple[Any, str]:
        """The JSON value that begins here, and its text."""
        while True:
            length = len(self.text) - self.at
            if self.ended or length >= self.tried or length > LINE_BYTES:
                try:
                    value, stop = DECODER.raw_decode(self.text, self.at)
                except (ValueError, RecursionError) as error:
                    if self.ended or length > LINE_BYTES:
                        reason = "too-long" if length > LINE_BYTES else "bad-json"
                        detail = f"the item at line {self.line}: {error}; the rest is not read"
                        raise Unreadable(reason, detail) from None
                else:
                    if stop < len(self.text) or self.ended:
                        text = self.text[self.at : stop]
                        self._move(stop)
                        self.tried = 1
                        return value, text
                self.tried = 2 * length
            self._read()

    def _move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def _read(self) -> None:
        data = self.file.read1(CHUNK_BYTES)
        self.ended = not data
        self.text, self.at = self.text[self.at :] + self.decoder.decode(data, self.ended), 0


def _item(value: Any, text: str, source: str, where: str) -> Iterator[dict[str, Any] | Rejected]:
    """The object of an item, whose text may hold bad bytes, or why there is none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text, bad = BAD.subn("\ufffd", text)
        if not are_few(bad, len(text)):
            yield Rejected(source, "bad-encoding", f"{where} is not UTF-8")
            return
        yield bad_bytes(source, bad)
        value = DECODER.decode(text)
    yield _object(value, source, where)
