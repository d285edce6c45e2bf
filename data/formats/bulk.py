"""Weekly bulk files: many XML documents one after the other in one file, cut apart while they stream."""

import io
import re
from collections.abc import Iterator

from data.formats import Rejected
from data.formats.content import CHUNK_BYTES, HEAD_BYTES
from data.formats.xml import Document

DOCUMENT_BYTES = 256 << 20
"""The longest document that is read: libxml2 takes about ten times its size in memory."""

START = re.compile(rb"<\?xml\s")  # <?xml-stylesheet …?> belongs to its document
SGML_START = re.compile(rb"<!DOCTYPE\s")

MISLABELLED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']utf-?16", re.IGNORECASE)
"""A declaration of UTF-16 that can be read as ASCII is wrong, or was right before `content.as_utf8`."""


def split(name: str, file: io.BufferedReader) -> Iterator[Document | Rejected]:
    """Yield a file's documents, each from one XML declaration to the next; memory holds one at a time.

    Where there is no declaration at all, as in SGML, documents begin at their DOCTYPE. A document longer than
    DOCUMENT_BYTES is passed over and rejected.
    """
    head = file.peek(HEAD_BYTES)[:HEAD_BYTES]
    mark = START if START.search(head) or not SGML_START.search(head) else SGML_START
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
        searched = max(1, len(buffer) - 9)  # a mark may begin in this chunk
        if len(buffer) > DOCUMENT_BYTES:
            offset, passed = offset + searched, passed + searched
            del buffer[:searched]
            searched = 0
    if buffer:
        start = offset - passed
        yield _document(f"{name}#{start}" if several else name, start, bytes(buffer), passed)


def _document(source: str, offset: int, data: bytes, passed: int) -> Document | Rejected:
    if passed:
        return Rejected(source, "too-long", f"a document of {passed + len(data):,} bytes")
    if MISLABELLED.match(data):
        data = b'<?xml version="1.0"' + data[data.index(b"?>") :]
    return Document(source, offset, data)
