"""Readers of patent files: a file goes in, documents come out, each as records or as one rejection.

`read` recognises a file by what it holds (first bytes, root element, column names), never by its name; the
extension decides only among plain text, CSV and JSON lines that look alike. `archives` opens what is packed.
Then the module of its family reads it: `bulk` cuts it into documents and `xml` parses them for the modules
that know an office's vocabulary (`cn`, `epo`, `jp`, `kipo`, `uspto`, `uspto_…`), `aps` and `brs` read the
USPTO's text files, `ops` JSON answers of the EPO, `tables` JSON and CSV, `sheets` XLSX and Parquet, `texts`
plain text. A document that cannot be read becomes a `Rejected` that says why, and the next one is read.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from data.readers import rows
from data.readers.csv_rows import is_csv
from data.record import Record, Rejected
from data.stream import Content, FileSplit, Unreadable, as_utf8, is_of_the_machine, open_file

if TYPE_CHECKING:
    from lxml import etree

    from data.readers.column_mapping import Options
    from data.readers.offices.patent_xml import Document, Names

STARTS = {
    **rows.STARTS,
    rb"<": "XML",
    rb"%PDF": "a PDF file",
    rb"\xd0\xcf\x11\xe0": "an Office file of before 2007; save it as XLSX or CSV",
    rb".{0,64}\x00": "a binary file",
}
"""First bytes of formats; of those that are not read, with what a person should know about them."""


def read(
    path: Path, options: "Options | None" = None, part: FileSplit | None = None
) -> Iterator[list[Record] | Rejected]:
    """Yield once for each document of a file, or a part: its records (one a language) or why there are none.

    The members of an archive are read like files. `options` say what a table's columns are. A file that is
    not recognised counts as one document. Raises OSError where the file cannot be read.
    """
    from data.readers import archives
    from data.readers.column_mapping import Options

    opened = open_file(path, part)
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
        yield from _read(content, format_of(content, options.knows), options)
    except Unreadable as error:  # what came before it was read
        yield Rejected(content.name, error.reason, error.detail)
    except Exception as error:  # whatever a file holds, a run over thousands of them goes on
        if is_of_the_machine(error):
            raise  # it is not the file's
        yield Rejected(content.name, "reader-error", f"{type(error).__name__}: {error}")


def format_of(content: Content, knows: rows.Knows) -> str:
    """What a file is: `XML`, a container of rows (`rows.CONTAINERS`), `text`, `nothing`, or, if it is not
    read, what a person should know about it. `knows` recognises column names."""
    from data.readers.offices import epo_ops_json, uspto_aps, uspto_brs

    if content.part:
        return "JSON"  # nothing else is read in parts here
    text = content.head().removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return "nothing"
    for name, beginning in (
        ("APS", uspto_aps.BEGINNING),
        ("BRS", uspto_brs.BEGINNING),
        ("OPS", epo_ops_json.BEGINNING),
    ):
        if beginning.match(text):
            return name
    known = next((name for start, name in STARTS.items() if re.match(start, text, re.DOTALL)), None)
    if known is not None:
        return known
    if content.suffix in rows.SUFFIXES:
        return rows.SUFFIXES[content.suffix]
    if content.suffix in (".txt", ".text", ".md"):
        return "text"
    if is_csv(text, knows):
        return "CSV"
    return f"begins with {bytes(text[:40])!r}"


def _read(content: Content, name: str, options: "Options") -> Iterator[list[Record] | Rejected]:
    from data.readers import plain_text, table_records
    from data.readers.offices import epo_ops_json, uspto_aps, uspto_brs

    if name in rows.CONTAINERS:
        yield from table_records.read_table(content, name, options)
        return
    match name:
        case "APS":
            for document in uspto_aps.split(content, uspto_aps.MARK):
                yield _outcome(partial(uspto_aps.read, document), document.source)
        case "BRS":
            for document in uspto_aps.split(content, uspto_brs.MARK):
                yield _outcome(partial(uspto_brs.read, document), document.source)
        case "OPS":
            for publication in epo_ops_json.publications(content):
                yield _outcome(publication, content.name)
        case "XML":
            yield from _read_xml(content)
        case "text":
            yield from plain_text.read_text(content, options)
        case "nothing":
            yield Rejected(content.name, "empty-file", "it is empty, or begins with white space only")
        case _:
            yield Rejected(content.name, "unknown-format", name)


Publication = Callable[[], list[Record]]
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


def _read_xml(content: Content) -> Iterator[list[Record] | Rejected]:
    from data.readers import xml_splitter

    for document in xml_splitter.split(content.name, content.file):
        if isinstance(document, Rejected):
            yield document
            continue
        source = document.source
        try:
            publications = _publications(document)
        except Exception as error:
            if is_of_the_machine(error):
                raise
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
    except Unreadable as error:
        return Rejected(source, error.reason, error.detail)
    except Exception as error:  # whatever a document holds, a run over millions of them goes on
        if is_of_the_machine(error):
            raise
        return Rejected(source, "reader-error", f"{type(error).__name__}: {error}")
    if not records:
        return Rejected(source, "missing-text", "no title, abstract, claim or description")
    if records[0]["id"] == "":
        return Rejected(source, "missing-id", "no publication number")
    return records


def _publications(document: "Document") -> list[Publication] | Rejected:
    """The publications of an XML document, one or, in the answer of a service, several, not yet read."""
    from data.readers.offices import patent_xml

    root = patent_xml.root_name(document.data)
    if root is None:
        return Rejected(document.source, "malformed-xml", "no root element")
    vocabulary = _vocabulary(root)
    if vocabulary is None:
        return Rejected(document.source, "unknown-format", f"root element {root}")
    prepared = vocabulary.prepare(document) if vocabulary.prepare else document
    tree = patent_xml.parse(prepared, vocabulary.names)
    if isinstance(tree, Rejected):
        return tree
    items = list(tree.iter(*vocabulary.items)) if vocabulary.items else [tree]
    if not items:
        return Rejected(document.source, "missing-text", f"an answer without {' or '.join(vocabulary.items)}")
    return [partial(vocabulary.read, item, document.source) for item in items]


def _vocabulary(root: str) -> Vocabulary | None:
    from data.readers.offices import (
        cnipa,
        epo,
        jpo,
        kipo,
        uspto_pap,
        uspto_st32,
        uspto_st96,
        uspto_v4,
    )

    match root:
        case "us-patent-grant" | "us-patent-application":
            return Vocabulary(uspto_v4.read)
        case "patent-application-publication":
            return Vocabulary(uspto_pap.read, uspto_pap.NAMES)
        case "PATDOC":
            return Vocabulary(uspto_st32.read, uspto_st32.NAMES, prepare=uspto_st32.as_xml)
        case "ClaimsDocument" | "SpecificationDocument":
            return Vocabulary(uspto_st96.read, uspto_st96.NAMES)
        case "cn-patent-document":
            return Vocabulary(cnipa.read_old, cnipa.OLD_NAMES, prepare=cnipa.with_marked_lines)
        case "PatentDocumentAndRelated":
            return Vocabulary(cnipa.read_new, cnipa.NEW_NAMES)
        case "jp-official-gazette":
            return Vocabulary(jpo.read, jpo.NAMES)
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
