"""United States applications of 2001 to 2004: `patent-application-publication`, DTD v1.5 and v1.6.

Each paragraph begins with its number in an element of its own, which is left out, as is the heading above an
abstract. A reference to another claim is a `claim-text` inside a claim's text.
"""

from lxml import etree

from data.readers.offices import patent_xml
from data.record import Record, assemble

NAMES: patent_xml.Names = {
    "paragraph": "p",
    "number": None,
    "dependent-claim-reference": "inline",
    "superscript": "sup",
    "subscript": "sub",
    "image": "img",
    "custom-character": "img",
    "math-cwu": "maths",
    "chemistry-cwu": "chemistry",
    "list-item": "li",
    "ordered-list": "ol",
    "unordered-list": "ul",
    "definition-list": "dl",
    "term": "dt",
    "definition": "dd",
}


def read(root: etree._Element, source: str) -> list[Record]:
    """The application's record, none if it has no text."""
    biblio = root.find("subdoc-bibliographic-information")
    abstract = root.find("subdoc-abstract")
    for heading in () if abstract is None else abstract.findall("heading"):
        patent_xml.replace(heading, "")
    ipc = root.iterfind("subdoc-bibliographic-information/technical-information/classification-ipc//ipc")
    return assemble(
        source=source,
        office="US",
        number=patent_xml.child(biblio, "document-id/doc-number"),
        kind=patent_xml.child(biblio, "document-id/kind-code"),
        date=patent_xml.iso_date(patent_xml.child(biblio, "document-id/document-date")),
        applied=patent_xml.child(biblio, "domestic-filing-data/application-number/doc-number"),
        filed=patent_xml.iso_date(patent_xml.child(biblio, "domestic-filing-data/filing-date")),
        priority=patent_xml.dates(
            root.iterfind("subdoc-bibliographic-information//foreign-priority-data/filing-date")
        ),
        language="en",
        title=patent_xml.text(
            None if biblio is None else biblio.find("technical-information/title-of-invention")
        ),
        abstract=patent_xml.text(abstract),
        claims=patent_xml.claims(root.iterfind("subdoc-claims/claim")),
        description=patent_xml.text(root.find("subdoc-description")),
        ipc=patent_xml.ipc_symbols(entry.text or "" for entry in ipc),
    )
