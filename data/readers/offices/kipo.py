"""Answers of KIPRIS Plus, the search service of the Korean office: `response/body/items/PatentUtilityInfo`.

An item gives title and abstract. Its publication is the registration, else the published application; numbers
begin with 10 for a patent and 20 for a utility model. IPC symbols are separated by `|`.
"""

from lxml import etree

from data.readers.offices import patent_xml
from data.record import Record, assemble

ITEM = "PatentUtilityInfo"


def read(item: etree._Element, source: str) -> list[Record]:
    """The item's record, none if it has no text."""
    applied = patent_xml.child(item, "ApplicationNumber")
    utility = (applied or "").startswith("20")
    registered, opened = patent_xml.child(item, "RegistrationNumber"), patent_xml.child(item, "OpeningNumber")
    if registered:
        number, kind, date = registered.replace("-", "")[:9], "Y1" if utility else "B1", "RegistrationDate"
    elif opened:
        number, kind, date = opened.replace("-", "")[2:], "U" if utility else "A", "OpeningDate"
    else:
        number, kind, date = applied or "", None, ""
    return assemble(
        source=source,
        office="KR",
        number=number,
        kind=kind,
        date=patent_xml.iso_date(patent_xml.child(item, date)) if date else None,
        applied=applied,
        language="ko",
        title=patent_xml.text(item.find("InventionName")),
        abstract=patent_xml.text(item.find("Abstract")),
        ipc=patent_xml.ipc_symbols(
            (patent_xml.child(item, "InternationalpatentclassificationNumber") or "").split("|")
        ),
    )
