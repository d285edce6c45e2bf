"""Answers of KIPRIS Plus, the search service of the Korean office: `response/body/items/PatentUtilityInfo`.

An item gives title and abstract. Its publication is the grant (공고), else the published application (공개);
numbers begin with 10 for a patent and 20 for a utility model. The day of a grant's publication is
`PublicDate` (INID 45); `RegistrationDate` (24), which is a few days earlier, stands in where it is missing.
IPC symbols are separated by `|`. The service cuts long abstracts, in the middle of a word.
"""

import re

from lxml import etree

from data.readers.offices import patent_xml
from data.record import Record, assemble

ITEM = "PatentUtilityInfo"
CUT = re.compile(r"\S*\s*(?:\.{3}|…)?\s*\(이하\s*생략\)\s*$")
"""The end of an abstract that was cut: the rest of a word, and `(the rest is left out)`."""


def read(item: etree._Element, source: str) -> list[Record]:
    """The item's record, none if it has no text."""
    applied = patent_xml.child(item, "ApplicationNumber")
    utility = (applied or "").startswith("20")
    registered, opened = patent_xml.child(item, "RegistrationNumber"), patent_xml.child(item, "OpeningNumber")
    if registered:
        number, kind = registered.replace("-", "")[:9], "Y1" if utility else "B1"
        date = patent_xml.child(item, "PublicDate") or patent_xml.child(item, "RegistrationDate")
    elif opened:
        number, kind = opened.replace("-", "")[2:], "U" if utility else "A"
        date = patent_xml.child(item, "OpeningDate")
    else:
        number, kind, date = applied or "", None, None
    return assemble(
        source=source,
        office="KR",
        number=number,
        kind=kind,
        date=patent_xml.iso_date(date),
        applied=applied,
        language="ko",
        title=patent_xml.text(item.find("InventionName")),
        filed=patent_xml.iso_date(patent_xml.child(item, "ApplicationDate")),
        abstract=CUT.sub("…", patent_xml.text(item.find("Abstract")) or "") or None,
        ipc=patent_xml.ipc_symbols(
            (patent_xml.child(item, "InternationalpatentclassificationNumber") or "").split("|")
        ),
    )
