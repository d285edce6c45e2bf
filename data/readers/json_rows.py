"""Rows of JSON: an object a line (JSON lines), a list of objects, or one object over several lines.

A list is read item by item, so that a file of gigabytes needs the memory of its longest item. A line of JSON
lines may also hold a list of objects. The caller decides what an object with lists of
objects means.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from data.readers.row import Place, Row
from data.record import Rejected
from data.stream import CHUNK_BYTES, LINE_BYTES, TOO_LONG, Content, Line, Unreadable, lines

SPACE = re.compile(r"[ \t\r\n]*")


def is_lines(head: bytes) -> bool:
    """Whether a file of JSON is one value a line, and not one document over several lines."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    first, _, second = text.partition(b"\n")
    if text.startswith(b"["):
        return bool(second.strip()) and _is_json(first)
    opens = not first.strip(b"{ \t\r")
    return not opens and (not second or second.lstrip().startswith(b"{") or _is_json(first))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def json_rows(content: Content) -> Iterator[Row]:
    """The rows of a file, or of a part of JSON lines."""
    head = content.head()
    if content.part is not None or is_lines(head):
        for line in lines(content):
            yield from _line_rows(line, content.name)
    elif head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        yield from _list_items(content, one_line=b"\n" not in head.strip())
    else:
        data = content.file.read(LINE_BYTES + 1)
        whole = Line(0, 0, data if len(data) <= LINE_BYTES else None)
        yield from _line_rows(whole, content.name)


def _line_rows(line: Line, name: str) -> Iterator[Row]:
    """The rows of one line (number 0: of a whole file)."""
    place = Place(line.number or "")
    source = place.in_file(name)
    where = f"line {line.number}" if line.number else "the document"
    if line.data is None:
        yield place, Rejected(source, "too-long", f"{where} is {TOO_LONG}; write one object per line")
        return
    try:
        text = line.data.decode("utf-8").removeprefix("\ufeff").strip()
        value = json.loads(text) if text else None
    except UnicodeDecodeError as error:
        detail = f"{where}: byte {line.offset + error.start} of the file is not UTF-8"
        yield place, Rejected(source, "bad-encoding", detail)
        return
    except (ValueError, RecursionError) as error:
        yield place, Rejected(source, "bad-json", f"{where}: {error}")
        return
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
    buffer.at += 1  # the opening bracket
    number, comma = 1, True
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
        place = Place(f"{line}.{number}") if one_line else Place(str(number), line)
        where = f"the item at line {line}"
        if _is_utf8(text):
            yield place, _object(value, place.in_file(content.name), where)
        else:
            yield place, Rejected(place.in_file(content.name), "bad-encoding", f"{where} is not UTF-8")
        number, comma = number + 1, False
    buffer.at += 1
    if buffer.skip_space():
        raise Unreadable("bad-json", f"line {buffer.line}: text after the end of the list is not read")
    if number == 1:
        yield Place(""), Rejected(content.name, "bad-json", "the list has no items")


class _Buffer:
    """The text of a file from where it is read, one item at a time; bytes that are not UTF-8 become lone
    surrogates."""

    def __init__(self, content: Content) -> None:
        self.file = content.file
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self.text, self.at, self.line, self.ended = "", 0, 1, False
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
                    value, stop = json.JSONDecoder().raw_decode(self.text, self.at)
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


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
