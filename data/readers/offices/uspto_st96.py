"""Documents filed at the USPTO, converted from paper (WIPO ST.96): claims, specification, abstract.

Each is a document of its own, `ClaimsDocument` or `SpecificationDocument`; an amended application has
several, and none has a publication number: the record's id consists of the application's number, the
document's code, the day of receipt and the document's own id. Running heads and line numbers of the page, the
claims' labels, their status `(Currently Amended)` and claims that are only a number are left out.
"""

import re

from lxml import etree

from data import claim_numbers
from data.readers.offices import patent_xml
from data.record import Record, assemble

NAMES: patent_xml.Names = {
    "P": "p",
    "Heading": "heading",
    "ClaimText": "claim-text",
    "BoundaryData": None,
    "ClaimLabelText": None,
    "ClaimTypeCategory": None,
    "ClaimStatusCategory": None,
    "Br": "br",
    "LI": "li",
    "OL": "ol",
    "UL": "ul",
    "Sub": "sub",
    "Sup": "sup",
    "Image": "img",
    "Math": "maths",
    "ChemicalFormulae": "chemistry",
}

# The identifiers of 37 CFR 1.121(c).
STATUS = re.compile(
    r"\((?:original|currently amended|previously presented|previously amended|new|withdrawn[^)]*)\)\s*", re.I
)


def read(root: etree._Element, source: str) -> list[Record]:
    """The filed document's record, none if it has no text."""
    application = root.findtext("{*}DocumentHeaderDetails/{*}ApplicationHeaderDetails/{*}ApplicationNumber")
    code = patent_xml.child(root, "{*}DocumentCode")
    received = (patent_xml.child(root, "{*}MailRoomDate") or "").replace("-", "")
    own_id = next((str(value) for name, value in root.attrib.items() if str(name).endswith("}id")), None)
    specification = root.find("{*}Specification")
    if specification is not None and code == "ABST":
        for heading in specification.findall("{*}Heading"):
            patent_xml.replace(heading, "")
    text = patent_xml.without_paragraph_numbers(patent_xml.text(specification))
    elements = {claim: number for claim in root.iter("{*}Claim") if (number := _taken_number(claim))}
    texts = (STATUS.sub("", patent_xml.text(claim) or "", count=1) for claim in elements)
    return assemble(
        source=source,
        office="US",
        number="-".join(filter(None, (application, code, received, own_id))) if application else None,
        applied=application,
        language="en",
        abstract=text if code == "ABST" else None,
        claims=claim_numbers.numbered(texts, elements.values()),
        description=None if code == "ABST" else text,
    )


def _taken_number(claim: etree._Element) -> str:
    """The number, removed from the claim; "" if there is none, as in a remark that was converted as a
    claim."""
    element = claim.find("{*}ClaimNumber")
    number = "" if element is None else (element.text or "").strip()
    if element is not None and number:
        patent_xml.replace(element, "")
    return number
