"""Grants of Taiwan's office: `tw-patent-grants` around `tw-patent-grant`, of the gazette or one per file.

Numbers of grants begin with I (invention), M (utility model) or D (design). A title is in Chinese and
English.
"""

from lxml import etree

from data.readers.offices import patent_xml
from data.record import Record, assemble

ITEM = "tw-patent-grant"
KINDS = {"I": "B", "M": "U", "D": "S"}


def read(root: etree._Element, source: str) -> list[Record]:
    """The grant's record, none if it has no text."""
    biblio = next(root.iterchildren("tw-bibliographic-data-grant", "bibliographic-data"), root)
    published = biblio.find("publication-reference/document-id")
    applied = biblio.find("application-reference/document-id")
    number = (
        root.get("certificate-number")
        or patent_xml.child(root, ".//certificate-number/document-id/doc-number")
        or patent_xml.child(published, "doc-number")
    )
    titles = (biblio.find(f"invention-title/{name}") for name in ("chinese-title", "english-title"))
    whole = biblio.find("invention-title")
    return assemble(
        source=source,
        office="TW",
        number=number,
        kind=KINDS.get((number or "")[:1]),
        date=patent_xml.iso_date(patent_xml.child(published, "date")),
        applied=patent_xml.child(applied, "doc-number"),
        filed=patent_xml.iso_date(patent_xml.child(applied, "date")),
        priority=patent_xml.dates(biblio.iterfind(".//priority-claim//date")),
        cites=patent_xml.cited(biblio),
        language="zh",
        title=next(filter(None, map(patent_xml.text, titles)), None) or patent_xml.text(whole),
        abstract=patent_xml.text(root.find("abstract")),
        claims=patent_xml.claims(root.iterfind("claims/claim")),
        description=patent_xml.without_paragraph_numbers(patent_xml.text(root.find("description"))),
        ipc=patent_xml.ipc_symbols(
            entry.text or ""
            for name in ("main-classification", "further-classification")
            for entry in biblio.iterfind(f"classification-ipc/{name}")
        ),
    )
