"""Read patent files: each document of a file becomes records, or one rejection.

`read` recognises a file by its content (first bytes, root element, column names); its suffix only decides
between plain text, CSV and JSON lines that look the same. `archives` opens archives. XML is split into
documents by `xml_splitter` and parsed by `offices.patent_xml` for the module that knows the office's
vocabulary; `offices.uspto_aps` and `uspto_brs` read the USPTO's text files, `epo_ops_json` JSON answers of
the EPO, `table_records` rows of JSON, CSV, XLSX and Parquet (`rows`), `plain_text` plain text. A document
that cannot be read becomes a `Rejected` with the reason, and the next one is read.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from data.readers import rows
from data.readers.csv_rows import is_csv
from data.readers.json_rows import Knows
from data.record import Noted, Record, Rejected
from data.stream import Content, FileSplit, Unreadable, as_utf8, is_of_the_machine, open_file

if TYPE_CHECKING:
    from lxml import etree

    from data.readers.column_mapping import Options
    from data.readers.offices.patent_xml import Document, Names

STARTS = {
    **rows.STARTS,
    rb"%PDF": "a PDF file",
    rb"\xd0\xcf\x11\xe0": "an Office file from before 2007; save it as XLSX or CSV",
    rb".{0,64}\x00": "a binary file",
}
"""Formats by their first bytes; for those that are not supported, what to tell the user."""


def read(
    path: Path, options: "Options | None" = None, part: FileSplit | None = None
) -> Iterator[list[Record] | Rejected]:
    """Yield once for each document of a file, or a split of it: its records (one per language) or why there
    are none.

    The members of an archive are read like files. `options` describe the columns of tables. An unrecognised
    file counts as one document. Raises OSError if the file cannot be read.
    """
    from data.readers import archives
    from data.readers.column_mapping import Options

    opened = open_file(path, part)
    with opened.file:
        for content in archives.members(opened):
            if isinstance(content, Rejected):
                yield content
            elif attached := archives.attachment(content, inside=content.name != opened.name):
                yield attached
            else:
                yield from read_content(content, options or Options())


def read_content(content: Content, options: "Options") -> Iterator[list[Record] | Rejected]:
    """The documents of one file that is not an archive; an error that ends it early is the last one, as a
    rejection."""
    try:
        content = as_utf8(content, options.encoding)
        yield from _read(content, format_of(content, options.knows), options)
    except Unreadable as error:  # the documents before it are read
        yield Rejected(content.name, error.reason, error.detail)
    except Exception as error:  # one bad file must not end a run over thousands
        if is_of_the_machine(error):
            raise  # not the file's fault
        yield Rejected(content.name, "reader-error", f"{type(error).__name__}: {error}")


def format_of(content: Content, knows: Knows) -> str:
    """What a file is: `XML`, a container of rows (`rows.CONTAINERS`), `text`, `nothing`, or, if it is not
    read, what to tell the user. `knows` recognises column names."""
    from data.readers.offices import epo_ops_json, epo_text, uspto_aps, uspto_brs

    if content.part:
        return "JSON"  # the only format that is read in splits here
    text = content.head().removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return "nothing"
    if text[:1] == b"<":
        return "XML"
    for name, beginning in (
        ("APS", uspto_aps.BEGINNING),
        ("BRS", uspto_brs.BEGINNING),
        ("OPS", epo_ops_json.BEGINNING),
        ("EP-TEXT", epo_text.BEGINNING),
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
    from data.readers.offices import epo_ops_json, epo_text, uspto_aps, uspto_brs

    if name in rows.CONTAINERS:
        yield from table_records.read_table(content, name, options)
        return
    noted: list[Noted] = []
    match name:
        case "APS":
            for document in uspto_aps.split(content, uspto_aps.MARK):
                yield _outcome(partial(uspto_aps.read, document, noted), document.source)
                yield from _taken(noted)
        case "BRS":
            for document in uspto_aps.split(content, uspto_brs.MARK):
                yield _outcome(partial(uspto_brs.read, document, noted), document.source)
                yield from _taken(noted)
        case "OPS":
            for publication in epo_ops_json.publications(content, noted):
                yield _outcome(publication, content.name)
            yield from noted
        case "EP-TEXT":
            for found in epo_text.publications(content):
                if isinstance(found, Rejected):
                    yield found
                else:
                    yield _outcome(partial(epo_text.read, found, noted), found.source)
                    yield from _taken(noted)
        case "XML":
            yield from _read_xml(content)
        case "text":
            yield from plain_text.read_text(content, options)
        case "nothing":
            yield Rejected(
                content.name, "empty-file", "the file is empty, or begins with nothing but white space"
            )
        case _:
            yield Rejected(content.name, "unknown-format", name)


def _taken(noted: list[Noted]) -> list[Noted]:
    """What the last document added to the list, which is then empty."""
    taken = noted.copy()
    noted.clear()
    return taken


Publication = Callable[[], list[Record] | Rejected]
"""A publication that was found but is not read yet."""


class Vocabulary(NamedTuple):
    """How documents with one root element are read."""

    read: "Callable[[etree._Element, str], list[Record]]"
    """Takes an element and the source, returns its records."""
    names: "Names" = MappingProxyType({})
    """The vocabulary's own names for the elements that `patent_xml` writes as layout."""
    items: tuple[str, ...] = ()
    """The elements to read if the root has several publications; empty if it is one."""
    prepare: "Callable[[Document], Document] | None" = None
    """Applied to the document before it is parsed."""


def _read_xml(content: Content) -> Iterator[list[Record] | Rejected]:
    from data.readers import xml_splitter

    for document in xml_splitter.split(content.name, content.file):
        if isinstance(document, Rejected):
            yield document
            continue
        source = document.source
        noted: list[Noted] = []
        try:
            publications = _publications(document, noted)
        except Exception as error:
            if is_of_the_machine(error):
                raise
            publications = Rejected(source, "reader-error", f"{type(error).__name__}: {error}")
        if isinstance(publications, Rejected):
            yield publications
        else:
            for publication in publications:
                yield _outcome(publication, source)
            yield from noted


def _outcome(publication: Publication, source: str) -> list[Record] | Rejected:
    """The records of a publication, each with text and an id, or why there are none."""
    try:
        records = publication()
    except Unreadable as error:
        return Rejected(source, error.reason, error.detail)
    except Exception as error:  # one bad document must not end a run over millions
        if is_of_the_machine(error):
            raise
        return Rejected(source, "reader-error", f"{type(error).__name__}: {error}")
    if isinstance(records, Rejected):
        return records
    if not records:
        return Rejected(source, "missing-text", "no title, abstract, claim or description")
    if records[0]["id"] == "":
        return Rejected(source, "missing-id", "no publication number")
    return records


def _publications(document: "Document", noted: list[Noted]) -> list[Publication] | Rejected:
    """The publications of an XML document, not yet read: one or, in the answer of a service, several."""
    from data.readers.offices import patent_xml

    root = patent_xml.root_name(document.data)
    if root is None:
        return Rejected(document.source, "malformed-xml", "no root element")
    vocabulary = _vocabulary(root)
    if vocabulary is None:
        return Rejected(document.source, "unknown-format", f"root element {root}")
    prepared = vocabulary.prepare(document) if vocabulary.prepare else document
    tree = patent_xml.parse(prepared, vocabulary.names, noted)
    if isinstance(tree, Rejected):
        return tree
    items = list(tree.iter(*vocabulary.items)) if vocabulary.items else [tree]
    if not items:
        return Rejected(
            document.source, "missing-text", f"a response without {' or '.join(vocabulary.items)}"
        )
    return [partial(vocabulary.read, item, document.source) for item in items]


def _vocabulary(root: str) -> Vocabulary | None:
    from data.readers.offices import (
        cnipa,
        epo,
        jpo,
        kipo,
        tipo,
        uspto_pap,
        uspto_st32,
        uspto_st96,
        uspto_v4,
        wipo_st96,
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
        case "ru-patent-document":
            return Vocabulary(epo.read_russian)
        case "tw-patent-grants" | "tw-patent-grant":
            return Vocabulary(tipo.read, items=(tipo.ITEM,))
        case "KIPO" | "PatentCAFDOC":
            return Vocabulary(kipo.read_specification, items=(f"{{*}}{kipo.SPECIFICATION}",))
        case (
            "PatentPublication"
            | "PatentGrant"
            | "UnexaminedPatentPublication"
            | "RegisteredPatentPublication"
            | "InternationalPatentPublication"
        ):
            return Vocabulary(wipo_st96.read, wipo_st96.NAMES)
        case (
            "world-patent-data"
            | "exchange-documents"
            | "exchange-document"
            | "fulltext-documents"
            | "fulltext-document"
        ):
            return Vocabulary(epo.read, items=epo.ITEMS)
        case "response":
            return Vocabulary(kipo.read, items=(kipo.ITEM,))
        case _:
            return None
