"""EP full-text data for text analytics: the EPO's bulk set as lines of seven columns, tabs between them.

    EP  1999013  A1  1994-06-08  en  TITLE  UMBRELLA STAND WITH A BOWL
    EP  1999013  A1  1994-06-08  en  CLAIM  <claim num="0001"><claim-text>A stand …</claim-text></claim> …

The lines of a publication follow each other: title, abstract, description and claims, each in its own
language, as pieces of the XML of `epo`. Amended claims (AMEND), statements on them (ACSTM), search reports
(SREPT) and addresses of PDF files (PDFEP) are left out. Source: EPO, "EP full-text data for text analytics",
user guide.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from lxml import etree

from data.readers.offices import epo, patent_xml
from data.record import Noted, Record, Rejected, bad_bytes
from data.stream import Content, Unreadable, decoded, lines

BEGINNING = re.compile(rb"[A-Z]{2}\t\d+\t[A-Z]\d?\t\d{4}-\d\d-\d\d\t[a-z]{2}\t[A-Z]{5}\t")
ELEMENTS = {"TITLE": "invention-title", "ABSTR": "abstract", "DESCR": "description", "CLAIM": "claims"}
WIDTH = 7
"""Columns of a line."""


class Publication(NamedTuple):
    """The lines of a publication, as language, kind of text, and text."""

    source: str
    number: tuple[str, str, str, str]
    """Office, number, kind code, date."""
    texts: list[tuple[str, str, str]]


def publications(content: Content) -> Iterator[Publication | Rejected]:
    """The publications of a file, or a line that is not of this form."""
    current: Publication | None = None
    for line in lines(content):
        source = f"{content.name}#{line.number}"
        try:
            whole, bad = decoded(line.data or b"", line.offset)
        except Unreadable as error:
            yield Rejected(source, error.reason, f"line {line.number}: {error.detail}")
            continue
        if bad:
            yield bad_bytes(source, bad)
        cells = whole.rstrip("\r\n").split("\t", WIDTH - 1)
        if len(cells) < WIDTH:
            reason = "too-long" if line.data is None else "bad-row"
            yield Rejected(source, reason, f"line {line.number}: {len(cells)} of {WIDTH} columns")
            continue
        office, number, kind, date, language, part, text = cells
        if current is None or current.number != (office, number, kind, date):
            if current is not None:
                yield current
            current = Publication(source, (office, number, kind, date), [])
        if part in ELEMENTS:
            current.texts.append((language, part, text))
    if current is not None:
        yield current


def read(publication: Publication, noted: list[Noted]) -> list[Record] | Rejected:
    """The publication's records, one for each language, or why its text cannot be parsed; what was replaced
    is added to `noted`."""
    office, number, kind, date = publication.number
    root = etree.Element("patent-document", country=office, kind=kind, date=date.replace("-", ""))
    root.set("doc-number", number)
    titles = etree.SubElement(etree.SubElement(root, "bibliographic-data"), "technical-data")
    for language, part, text in publication.texts:
        name = ELEMENTS[part]
        document = patent_xml.Document(publication.source, 0, f"<{name}>{text}</{name}>".encode())
        element = patent_xml.parse(document, {}, noted)
        if isinstance(element, Rejected):
            return element
        element.set("lang", language)
        (titles if part == "TITLE" else root).append(element)
    return epo.read(root, publication.source)
