"""Readers of patent files: a file goes in, documents come out, each as records or as one rejection.

`read` recognises a file by what it holds (first bytes, root element, column names), never by its name; the
extension decides only among plain text, CSV and JSON lines that look alike. It then hands the file to the
module of its family: `xml` splits and parses for the modules that know an office's vocabulary (`cn`, `epo`,
`jp`, `kipo`, `uspto`, `uspto_…`), `aps` and `brs` read the USPTO's text files, `ops` JSON answers of the EPO,
`tables` JSON lines, CSV and text. A document that cannot be read becomes a `Rejected` that says why, and the
next one is read.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from data.record import Record

if TYPE_CHECKING:
    from lxml import etree

    from data.formats.xml import Document, Names

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
    from data.formats import aps, brs, ops, tables

    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        yield Rejected(str(path), "empty-file", "the file is empty, or begins with white space only")
    elif head.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield Rejected(str(path), "bad-encoding", "byte 0: the file is UTF-16; convert it to UTF-8")
    elif aps.BEGINNING.match(text):
        for document in aps.split(path, aps.MARK):
            yield _outcome(partial(aps.read, document), document.source)
    elif brs.BEGINNING.match(text):
        for document in aps.split(path, brs.MARK):
            yield _outcome(partial(brs.read, document), document.source)
    elif ops.BEGINNING.match(text):
        for publication in ops.publications(path):
            yield _outcome(publication, str(path))
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


Publication = Callable[[], list[Record] | Rejected]
"""A publication that was found and is still to be read."""


class Vocabulary(NamedTuple):
    """How documents of one root element are read."""

    read: "Callable[[etree._Element, str], list[Record]]"
    """Takes an element and the source, gives its records."""
    names: "Names" = MappingProxyType({})
    """The vocabulary's own names for what `xml` writes as layout."""
    items: tuple[str, ...] = ()
    """The elements to read where the root holds several publications; empty where it is one."""
    prepare: "Callable[[Document], Document] | None" = None
    """What is done to the document before it is parsed."""


def _read_xml(path: Path) -> Iterator[list[Record] | Rejected]:
    from data.formats import xml

    for document in xml.split(path):
        source = document.source
        try:
            publications = _publications(document)
        except Exception as error:
            publications = Rejected(source, "reader-error", f"{type(error).__name__}: {error}")
        if isinstance(publications, Rejected):
            yield publications
        else:
            for publication in publications:
                yield _outcome(publication, source)


def _outcome(publication: Publication, source: str) -> list[Record] | Rejected:
    """What came of a publication: records that have what every record has, or why there are none."""
    try:
        records = publication()
    except Exception as error:  # whatever a document holds, a run over millions of them goes on
        return Rejected(source, "reader-error", f"{type(error).__name__}: {error}")
    if isinstance(records, Rejected):
        return records
    if not records:
        return Rejected(source, "missing-text", "no title, abstract, claim or description")
    if records[0]["id"] == "":
        return Rejected(source, "missing-id", "no publication number")
    return records


def _publications(document: "Document") -> list[Publication] | Rejected:
    """The publications of an XML document, one or, in the answer of a service, several, not yet read."""
    from data.formats import xml

    root = xml.root_name(document.data)
    if root is None:
        return Rejected(document.source, "malformed-xml", "no root element")
    vocabulary = _vocabulary(root)
    if vocabulary is None:
        return Rejected(document.source, "unknown-format", f"root element {root}")
    prepared = vocabulary.prepare(document) if vocabulary.prepare else document
    tree = xml.parse(prepared, vocabulary.names)
    if isinstance(tree, Rejected):
        return tree
    items = list(tree.iter(*vocabulary.items)) if vocabulary.items else [tree]
    if not items:
        return Rejected(document.source, "missing-text", f"an answer without {' or '.join(vocabulary.items)}")
    return [partial(vocabulary.read, item, document.source) for item in items]


def _vocabulary(root: str) -> Vocabulary | None:
    from data.formats import cn, epo, jp, kipo, uspto, uspto_pap, uspto_st32, uspto_st96

    match root:
        case "us-patent-grant" | "us-patent-application":
            return Vocabulary(uspto.read)
        case "patent-application-publication":
            return Vocabulary(uspto_pap.read, uspto_pap.NAMES)
        case "PATDOC":
            return Vocabulary(uspto_st32.read, uspto_st32.NAMES, prepare=uspto_st32.as_xml)
        case "ClaimsDocument" | "SpecificationDocument":
            return Vocabulary(uspto_st96.read, uspto_st96.NAMES)
        case "cn-patent-document":
            return Vocabulary(cn.read_old, cn.OLD_NAMES, prepare=cn.with_marked_lines)
        case "PatentDocumentAndRelated":
            return Vocabulary(cn.read_new, cn.NEW_NAMES)
        case "jp-official-gazette":
            return Vocabulary(jp.read, jp.NAMES)
        case "patent-document" | "wo-published-application":
            return Vocabulary(epo.read)
        case "ep-patent-document":
            return Vocabulary(epo.read_weekly)
        case "world-patent-data" | "exchange-documents" | "fulltext-documents" | "fulltext-document":
            return Vocabulary(epo.read, items=epo.ITEMS)
        case "response":
            return Vocabulary(kipo.read, items=(kipo.ITEM,))
        case _:
            return None
