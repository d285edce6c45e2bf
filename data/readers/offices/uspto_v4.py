"""United States documents since 2005: `us-patent-grant`, `us-patent-application`, DTD v4.0 to v4.7.

One document gives one record. The DTDs are at https://www.uspto.gov/learning-and-resources/xml-resources.
"""

from collections.abc import Iterator

from lxml import etree

from data.readers.offices import patent_xml
from data.readers.offices.uspto_st32 import without_zeros
from data.record import Record, assemble

EARLIER = (
    "priority-claims/priority-claim",
    "us-related-documents//parent-doc/document-id",
    "us-related-documents/us-provisional-application/document-id",
)
"""The applications from which priority may be claimed."""
CITED = ("./*/us-references-cited", "./*/references-cited")


def read(root: etree._Element, source: str) -> list[Record]:
    """The document's record, none if it has no text; its id is empty if the number is missing."""
    publication = root.find("./*/publication-reference/document-id")
    return assemble(
        source=source,
        office=patent_xml.child(publication, "country") or "US",
        number=without_zeros(patent_xml.child(publication, "doc-number")),
        kind=patent_xml.child(publication, "kind"),
        date=patent_xml.iso_date(patent_xml.child(publication, "date")),
        applied=patent_xml.child(root, "./*/application-reference/document-id/doc-number"),
        filed=patent_xml.iso_date(patent_xml.child(root, "./*/application-reference/document-id/date")),
        priority=patent_xml.dates(
            element for path in EARLIER for element in root.iterfind(f"./*/{path}/date")
        ),
        cites=patent_xml.cited(next((e for path in CITED for e in root.iterfind(path)), None)),
        language=root.get("lang"),
        title=patent_xml.text(root.find("./*/invention-title")),
        abstract=patent_xml.text(root.find("abstract")),
        claims=patent_xml.claims(root.iterfind("./claims/claim")),
        description=patent_xml.text(root.find("description")),
        ipc=patent_xml.ipc_then_cpc(
            _classifications(root),
            map(patent_xml.ipcr, root.iterfind("./*/classifications-cpc//classification-cpc")),
        ),
    )


def _classifications(root: etree._Element) -> Iterator[str]:
    for entry in root.iterfind("./*/classifications-ipcr/classification-ipcr"):
        yield patent_xml.ipcr(entry)
    for entry in root.iterfind("./*/classification-ipc/*"):
        if entry.tag in ("main-classification", "further-classification"):
            yield entry.text or ""
