"""Readers of patent files: a file goes in, documents come out, each as records or as one rejection.

`read` recognises a file by what it holds (first bytes, root element, column names), never by its name; the
extension decides only among plain text, CSV and JSON lines that look alike. `archives` opens what is packed.
Then the module of its family reads it: `xml` splits and parses, `uspto` and `epo` know their offices'
vocabularies, `tables` takes JSON and CSV, `sheets` XLSX and Parquet, `texts` plain text. A document that
cannot be read becomes a `Rejected` that says why, and the next one is read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.formats.content import Content, Unreadable, as_utf8, is_of_the_disk, open_file
from data.record import Record

if TYPE_CHECKING:
    from data.formats.columns import Options
    from data.formats.xml import Document

STARTS = {
    rb"PAR1": "Parquet",
    rb"PK\x03\x04": "XLSX",
    rb"<": "XML",
    rb"[\[{]": "JSON",
    rb"%PDF": "a PDF file",
    rb"PATN\s|HHHHHT": "USPTO full text of 1976 to 2001 (APS, green book)",
    rb".{0,2000}\*\*\* BRS DOCUMENT BOUNDARY": "a BRS export of the USPTO",
    rb"\xd0\xcf\x11\xe0": "an Office file of before 2007; save it as XLSX or CSV",
    rb".{0,64}\x00": "a binary file",
}
"""First bytes of formats; of those that are not read, with what a person should know about them."""


@dataclass(frozen=True)
class Rejected:
    """A document that gave no record."""

    source: str
    """The file and, in a file of many documents, `#` and the document's offset (bytes, or line)."""
    reason: str
    """Short category, as `unknown-format`, `malformed-xml`, `missing-text`, `bad-encoding`."""
    detail: str
    """What a person needs to mend it: line, offset, root element, exception."""


def read(path: Path, options: "Options | None" = None) -> Iterator[list[Record] | Rejected]:
    """Yield once for each document of a file: its records (one a language) or why there are none.

    The members of an archive are read like files. `options` say what a table's columns are. A file that is
    not recognised counts as one document. Raises OSError where the file cannot be read.
    """
    from data.formats import archives
    from data.formats.columns import Options

    opened = open_file(path)
    with opened.file:
        for content in archives.members(opened):
            if isinstance(content, Rejected):
                yield content
            else:
                yield from read_content(content, options or Options())


def read_content(content: Content, options: "Options") -> Iterator[list[Record] | Rejected]:
    """The documents of one file that is no archive; what ends it early is the last one, as a rejection."""
    try:
        content = as_utf8(content)
        yield from _read(content, format_of(content, options), options)
    except Unreadable as error:  # what came before it was read
        yield Rejected(content.name, error.reason, error.detail)
    except Exception as error:  # whatever a file holds, a run over thousands of them goes on
        if is_of_the_disk(error):
            raise  # it is the disk's, not the file's
        yield Rejected(content.name, "reader-error", f"{type(error).__name__}: {error}")


def format_of(content: Content, options: "Options") -> str:
    """What a file is: `XML`, `JSON`, `CSV`, `XLSX`, `Parquet`, `text`, `nothing`, or, where it is not read,
    what a person should know about it."""
    from data.formats import tables

    text = content.head().removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return "nothing"
    known = next((name for start, name in STARTS.items() if re.match(start, text, re.DOTALL)), None)
    if known is not None:
        return known
    if content.suffix in (".jsonl", ".ndjson"):
        return "JSON"
    if content.suffix in (".txt", ".text", ".md"):
        return "text"
    if content.suffix in (".csv", ".tsv") or tables.is_csv(text, options):
        return "CSV"
    return f"begins with {bytes(text[:40])!r}"


def _read(content: Content, name: str, options: "Options") -> Iterator[list[Record] | Rejected]:
    from data.formats import sheets, tables, texts

    match name:
        case "XML":
            yield from _read_xml(content)
        case "JSON":
            yield from tables.read_objects(content, tables.json_rows(content, options), options)
        case "CSV":
            yield from tables.read_csv(content, options)
        case "XLSX":
            yield from sheets.read_xlsx(content, options)
        case "Parquet":
            yield from sheets.read_parquet(content, options)
        case "text":
            yield from texts.read_text(content, options)
        case "nothing":
            yield Rejected(content.name, "empty-file", "it is empty, or begins with white space only")
        case _:
            yield Rejected(content.name, "unknown-format", name)


def _read_xml(content: Content) -> Iterator[list[Record] | Rejected]:
    from data.formats import xml

    for document in xml.split(content.name, content.file):
        if isinstance(document, Rejected):
            yield document
            continue
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
