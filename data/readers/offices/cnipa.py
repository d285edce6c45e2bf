"""Chinese publications: `cn-patent-document`, and its successor `PatentDocumentAndRelated` (V2.x).

The older files are typeset pages: `<br/>` marks the end of a printed line, so lines are joined, in Chinese
without a space; a comment `<!-- SIPO <DP n="10"> -->` marks the end of a page, and a claim across it may be
two `claim` elements, the second without a number.
"""

import re

from lxml import etree

from data import claim_numbers
from data.readers.offices import patent_xml
from data.record import Record, assemble

LINE_END = re.compile(rb"<br\s*(?:/>|>\s*</br>)\s*")
OLD_NAMES: patent_xml.Names = {"bio-deposit": None}
NEW_NAMES: patent_xml.Names = {
    "Paragraphs": "p",
    "ClaimText": "claim-text",
    "Heading": "heading",
    "Title": "title",
    "Table": "table",
    "Br": "br",
    "Sub": "sub",
    "Sup": "sup",
    "Image": "img",
    "Maths": "maths",
    "Math": "maths",
    "Chemistry": "chemistry",
    "AbstractFigure": None,
}


def with_marked_lines(document: patent_xml.Document) -> patent_xml.Document:
    """The document with the mark of `patent_xml.text` at the end of each printed line.

    A document has thousands of them, and a character is parsed several times faster than an element.
    """
    return document._replace(data=LINE_END.sub(f"&#{ord(patent_xml.WRAP)};".encode(), document.data))


def read_old(root: etree._Element, source: str) -> list[Record]:
    """The record of a `cn-patent-document`, none if it has no text."""
    publication = root.find("cn-bibliographic-data/cn-publication-reference/document-id")
    ipc = root.iterfind("cn-bibliographic-data/classifications-ipcr/classification-ipcr")
    return assemble(
        source=source,
        office=patent_xml.child(publication, "country") or root.get("country"),
        number=patent_xml.child(publication, "doc-number"),
        kind=patent_xml.child(publication, "kind"),
        date=patent_xml.iso_date(patent_xml.child(publication, "date")),
        applied=patent_xml.child(root, "cn-bibliographic-data/application-reference/document-id/doc-number"),
        filed=patent_xml.iso_date(
            patent_xml.child(root, "cn-bibliographic-data/application-reference/document-id/date")
        ),
        priority=patent_xml.dates(root.iterfind("cn-bibliographic-data//priority-claim//date")),
        cites=patent_xml.cited(root.find("cn-bibliographic-data")),
        language=root.get("lang"),
        title=patent_xml.text(root.find("cn-bibliographic-data/invention-title")),
        abstract=patent_xml.text(root.find("cn-bibliographic-data/abstract")),
        claims=_rejoined(root.findall("application-body/claims/claim")),
        description=_description(root.find("application-body/description"), "invention-title"),
        ipc=patent_xml.ipc_symbols(map(patent_xml.ipcr, ipc)),
    )


def read_new(root: etree._Element, source: str) -> list[Record]:
    """The record of a `PatentDocumentAndRelated`, none if it has no text."""
    biblio = root.find("{*}BibliographicData")
    ipc = root.iterfind("{*}BibliographicData/{*}ClassificationIPCRDetails/{*}ClassificationIPCR")
    return assemble(
        source=source,
        office=root.get("country"),
        number=root.get("docNumber"),
        kind=root.get("kind"),
        date=patent_xml.iso_date(root.get("datePublication")),
        applied=patent_xml.child(biblio, "{*}ApplicationReference/{*}DocumentID/{*}DocNumber"),
        filed=patent_xml.iso_date(patent_xml.child(biblio, "{*}ApplicationReference/{*}DocumentID/{*}Date")),
        priority=patent_xml.dates(
            root.iterfind("{*}BibliographicData/{*}PriorityDetails/{*}Priority/{*}Date")
        ),
        language=root.get("lang"),
        title=patent_xml.text(None if biblio is None else biblio.find("{*}InventionTitle")),
        abstract=patent_xml.text(root.find("{*}Abstract")),
        claims=patent_xml.claims(root.iterfind("{*}Claims/{*}Claim")),
        description=_description(root.find("{*}Description"), "{*}InventionTitle"),
        ipc=patent_xml.ipc_symbols(patent_xml.child(entry, "{*}Text") or "" for entry in ipc),
    )


def _description(element: etree._Element | None, title: str) -> str | None:
    """The text without the title, which is repeated at its start."""
    if element is not None and (again := element.find(title)) is not None:
        patent_xml.replace(again, "")
    return patent_xml.text(element)


def _rejoined(elements: list[etree._Element]) -> dict[int, str]:
    """The claims, those across pages joined."""
    texts: list[str] = []
    declared: list[str | None] = []
    for element in elements:
        text = patent_xml.text(element) or ""
        if texts and _starts_on_a_new_page(element) and not claim_numbers.NUMBER.match(text):
            texts[-1] += text
        else:
            texts.append(text)
            declared.append(patent_xml.claim_number(element))
    return claim_numbers.numbered(texts, declared)


def _starts_on_a_new_page(element: etree._Element) -> bool:
    first: etree._Element | None = element
    while first is not None and not (first.text or "").strip() and len(first):
        first = first[0]
        if isinstance(first, etree._Comment):
            return "<DP" in (first.text or "")
    before = element.getprevious()
    return isinstance(before, etree._Comment) and "<DP" in (before.text or "")
