"""Publications and grants in WIPO ST.96: `PatentPublication`, `PatentGrant`, Japan's `…PatentPublication`.

Elements of one meaning have one name in every office's schema, below the namespaces `pat`, `com` and the
office's own. Source: https://www.wipo.int/standards/en/st96
"""

from collections.abc import Iterator

from lxml import etree

from data.readers.offices import patent_xml, uspto_st96
from data.record import Record, assemble

NAMES: patent_xml.Names = {**uspto_st96.NAMES, "Row": "row", "Table": "table", "Maths": "maths"}
IDENTIFICATION = ("{*}PatentGrantIdentification", "{*}PatentPublicationIdentification")


def read(root: etree._Element, source: str) -> list[Record]:
    """The document's record, none if it has no text; its id is empty if the number is missing."""
    biblio = next(_below(root, "BibliographicData"), root)
    published = next((found for name in IDENTIFICATION for found in biblio.iter(name)), None)
    applied = next(biblio.iter("{*}ApplicationIdentification"), None)
    title = next(biblio.iter("{*}InventionTitle"), None)
    office = patent_xml.child(published, "{*}IPOfficeCode") or _attribute(root, "officeCode")
    return assemble(
        source=source,
        office=office,
        number=patent_xml.child(published, "{*}PatentNumber")
        or patent_xml.child(published, "{*}PublicationNumber"),
        kind=patent_xml.child(published, "{*}PatentDocumentKindCode"),
        date=_date(published, "GrantDate") or _date(published, "PublicationDate"),
        applied=patent_xml.child(applied, "{*}ApplicationNumber/{*}ApplicationNumberText"),
        applied_at=patent_xml.child(applied, "{*}IPOfficeCode"),
        filed=_date(applied, "FilingDate"),
        priority=[_date(claim, "FilingDate") for claim in biblio.iter("{*}PriorityClaim")],
        language=_attribute(root, "languageCode") or (_attribute(title, "languageCode")),
        title=patent_xml.text(title),
        abstract=patent_xml.text(next(_below(root, "Abstract"), None)),
        claims=patent_xml.claims(root.iterfind(".//{*}Claims/{*}Claim")),
        description=patent_xml.without_paragraph_numbers(
            patent_xml.text(next(_below(root, "Description"), None))
        ),
        ipc=patent_xml.ipc_symbols(map(_symbol, biblio.iter("{*}IPCRClassification"))),
    )


def _below(root: etree._Element, ending: str) -> Iterator[etree._Element]:
    """The elements below the root, or below one of these, whose name ends so; those of an office's own schema
    begin otherwise."""
    for element in (*root.iterchildren("*"), *root.iterfind("*/*")):
        if str(element.tag).endswith(ending):
            yield element


def _attribute(element: etree._Element | None, name: str) -> str | None:
    """An attribute in any namespace."""
    attributes = () if element is None else element.attrib.items()
    return next((str(value) for key, value in attributes if str(key).rpartition("}")[2] == name), None)


def _date(element: etree._Element | None, name: str) -> str | None:
    return patent_xml.iso_date((patent_xml.child(element, f"{{*}}{name}") or "")[:10].replace("-", ""))


def _symbol(entry: etree._Element) -> str:
    parts = ("Section", "Class", "Subclass", "MainGroup", "Subgroup")
    section, main_class, subclass, group, subgroup = (
        patent_xml.child(entry, f"{{*}}{name}") or "" for name in parts
    )
    return f"{section}{main_class}{subclass} {group}/{subgroup}"
