"""Bulk files: many XML documents in one file, split while streaming.

Weekly files contain one document after the other, each with its declaration. A file of DOCDB or of full texts
is one XML document of any length around its publications; each becomes a document of its own, inside the
root's start and end tags, which declare the namespaces.
"""

import io
import re
from collections.abc import Iterator

from data.readers.offices.patent_xml import PROLOGUE, Document
from data.record import Rejected
from data.stream import CHUNK_BYTES, HEAD_BYTES

DOCUMENT_BYTES = 256 << 20
"""The longest document that is read: libxml2 takes about ten times its size in memory."""

MARK_BYTES = 256
"""Longer than any mark at which a document begins."""

START = re.compile(rb"<\?xml\s")  # <?xml-stylesheet …?> belongs to its document
COLLECTION = re.compile(rb"<((?:[\w.-]+:)?(exchange-document|fulltext-document)s)[\s>]")
"""The root around many publications, whose elements have its name without the `s`."""
SGML_START = re.compile(rb"<!DOCTYPE\s")

MISLABELLED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']utf-?16", re.IGNORECASE)
"""A declaration of UTF-16 that can be read as ASCII is wrong, or was right before `stream.as_utf8`."""


def split(name: str, file: io.BufferedReader) -> Iterator[Document | Rejected]:
    """Yield a file's documents, each from one XML declaration to the next, and each publication of a
    collection; memory holds one at a time.

    If there is no declaration at all, as in SGML, documents begin at their DOCTYPE. A document longer than
    DOCUMENT_BYTES is skipped and rejected.
    """
    head = file.peek(HEAD_BYTES)[:HEAD_BYTES]
    prologue = PROLOGUE.match(head)
    collection = COLLECTION.match(head, prologue.start(1) - 1) if prologue else None
    if collection:
        root, item = collection[1], collection[1].removesuffix(b"s")
        item_start = re.compile(rb"<" + item + rb"[\s/>]")
        mark = re.compile(rb"<(?:\?xml\s|" + item + rb"[\s/>])")
        yield from _publications(_cut(name, file, mark), root, item_start)
    else:
        mark = START if START.search(head) or not SGML_START.search(head) else SGML_START
        yield from _cut(name, file, mark)


def _publications(
    pieces: Iterator[Document | Rejected], root: bytes, item: re.Pattern[bytes]
) -> Iterator[Document | Rejected]:
    """The publications of collections, each inside its root; other pieces unchanged."""
    before: Document | None = None
    used = True
    end = b"</" + root + b">"
    for piece in pieces:
        if isinstance(piece, Rejected):
            yield piece
        elif before and item.match(piece.data):
            data = before.data + piece.data + (b"" if end in piece.data else end)
            yield piece._replace(data=data, offset=piece.offset - len(before.data))
            used = True
        else:
            if before and not used:
                yield before
            before, used = piece, False
    if before and not used:
        yield before


def _cut(name: str, file: io.BufferedReader, mark: re.Pattern[bytes]) -> Iterator[Document | Rejected]:
    """The pieces between the marks, each beginning with its mark."""
    buffer = bytearray()
    offset = 0  # of the buffer's first byte in the file
    searched = 1  # the buffer's own declaration is not the next one
    passed = 0  # bytes of a document that is too long
    several = False
    while chunk := file.read1(CHUNK_BYTES):
        buffer += chunk
        while found := mark.search(buffer, searched):
            end = found.start()
            if passed or offset or buffer[:end].strip(b"\xef\xbb\xbf \t\r\n"):
                yield _document(f"{name}#{offset - passed}", offset - passed, bytes(buffer[:end]), passed)
                several = True
            del buffer[:end]
            offset, searched, passed = offset + end, 1, 0
        searched = max(1, len(buffer) - MARK_BYTES)  # a mark may begin in this chunk
        if len(buffer) > DOCUMENT_BYTES:
            offset, passed = offset + searched, passed + searched
            del buffer[:searched]
            searched = 0
    if buffer:
        start = offset - passed
        yield _document(f"{name}#{start}" if several else name, start, bytes(buffer), passed)


def _document(source: str, offset: int, data: bytes, passed: int) -> Document | Rejected:
    if passed:
        return Rejected(source, "too-long", f"the document has {passed + len(data):,} bytes")
    if MISLABELLED.match(data):
        data = b'<?xml version="1.0"' + data[data.index(b"?>") :]
    return Document(source, offset, data)
