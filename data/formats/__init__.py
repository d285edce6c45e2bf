"""Readers of patent files: a file goes in, documents come out, each as records or as one rejection.

`read` recognises a file by what it holds (first bytes, root element, column names), never by its name; the
extension decides only among plain text, CSV and JSON lines that look alike. It then hands the file to the
module of its family: `xml` splits and parses, `uspto` and `epo` know their offices' vocabularies, `tables`
takes JSON lines, CSV and text. A document that cannot be read becomes a `Rejected` that says why, and the
next one is read.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.record import Record

if TYPE_CHECKING:
    from data.formats.xml import Document

HEAD_BYTES = 1 << 16
"""How much of a file is looked at to recognise it."""

FOREIGN = {
    rb"PK\x03\x04": "a ZIP archive; unpack it first",
    rb"\x1f\x8b": "a gzip file; unpack it first",
    rb"\x28\xb5\x2f\xfd": "a Zstandard file; unpack it first",
    rb"BZh": "a bzip2 file; unpack it first",
    rb"\xfd7zXZ": "an xz file; unpack it first",
    rb".{257}ustar": "a tar archive; unpack it first",
    rb"PAR1": "a Parquet file",
    rb"%PDF": "a PDF file",
    rb"PATN\s|HHHHHT": "USPTO full text of 1976 to 2001 (APS, green book)",
    rb".{0,2000}\*\*\* BRS DOCUMENT BOUNDARY": "a BRS export of the USPTO",
    rb"\[\s*\{": "a JSON array; write one object a line (JSON lines)",
    rb"\{\s*\n": "one JSON document over several lines; write one object a line (JSON lines)",
    rb".{0,64}\x00": "a binary file",
}
"""First bytes of what is recognised and not read, each with what a person should know about it."""


@dataclass(frozen=True)
class Rejected:
    """A document that gave no record."""

    source: str
    """The file and, in a file of many documents, `#` and the document's offset (bytes, or line)."""
    reason: str
    """Short category, as `unknown-format`, `malformed-xml`, `missing-text`, `bad-encoding`."""
    detail: str
    """What a person needs to mend it: line, offset, root element, exception."""


def read(path: Path, columns: Mapping[str, str] | None = None) -> Iterator[list[Record] | Rejected]:
    """Yield once for each document of a file: its records (one a language) or why there are none.

    `columns` maps a table's own column names to the record's fields, as `{"摘要": "abstract"}`. A file that
    is not recognised counts as one document. Raises OSError where the file cannot be read.
    """
    from data.formats import tables

    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        yield Rejected(str(path), "empty-file", "the file is empty, or begins with white space only")
    elif head.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield Rejected(str(path), "bad-encoding", "byte 0: the file is UTF-16; convert it to UTF-8")
    elif name := next((name for start, name in FOREIGN.items() if re.match(start, text, re.DOTALL)), None):
        yield Rejected(str(path), "unknown-format", name)
    elif text.startswith(b"<"):
        yield from _read_xml(path)
    elif text.startswith(b"{") or path.suffix.lower() in (".jsonl", ".ndjson"):
        yield from tables.read_jsonl(path, columns or {})
    elif path.suffix.lower() in (".txt", ".text", ".md"):
        yield from tables.read_text(path)
    elif path.suffix.lower() in (".csv", ".tsv") or tables.is_csv(text, columns or {}):
        yield from tables.read_csv(path, columns or {})
    else:
        yield Rejected(str(path), "unknown-format", f"begins with {bytes(text[:40])!r}")


def _read_xml(path: Path) -> Iterator[list[Record] | Rejected]:
    from data.formats import xml

    for document in xml.split(path):
        try:
            outcome = _read_document(document)
        except Exception as error:  # whatever a document holds, a run over millions of them goes on
            outcome = Rejected(document.source, "reader-error", f"{type(error).__name__}: {error}")
        yield outcome


def _read_document(document: "Document") -> list[Record] | Rejected:
    from data.formats import epo, uspto, xml

    match xml.root_name(document.data):
        case "us-patent-grant" | "us-patent-application":
            read_tree = uspto.read
        case "patent-document" | "fulltext-document":
            read_tree = epo.read
        case None:
            return Rejected(document.source, "malformed-xml", "no root element")
        case root:
            return Rejected(document.source, "unknown-format", f"root element {root}")
    tree = xml.parse(document)
    if isinstance(tree, Rejected):
        return tree
    records = read_tree(tree, document.source)
    if not records:
        return Rejected(document.source, "missing-text", "no title, abstract, claim or description")
    if records[0]["id"] == "":
        return Rejected(document.source, "missing-id", "no publication number")
    return records
