"""United States grants of 2001 to 2004 in WIPO ST.32: `PATDOC`, DTD v2.4 (SGML) and v2.5 (XML).

In SGML an element that is always empty has no end tag, `<CITED-BY-EXAMINER>` is `<CITED-BY-EXAMINER/>` in
XML, and a public DTD needs no address. Text is in `PDAT` inside many layers, and an index is
`<HIL><SB><PDAT>2</PDAT></SB></HIL>`.
"""

import re

from lxml import etree

from data.readers.offices import patent_xml
from data.record import Record, assemble

EMPTY = re.compile(
    rb"<((?:CITED-BY-(?:EXAMINER|OTHER)|B597US|B473US|B221US|EMI|CHEMMOL|CHEMCDX|MATHEMATICA|CUSTOM-CHARACTER"
    rb"|INS-[SE]|DEL-[SE]|(?i:colspec|spanspec)|none|mprescripts)(?:\s[^<>]*?)?)\s*(?<!/)>"
)
PUBLIC = re.compile(rb'(<!DOCTYPE\s+PATDOC\s+PUBLIC\s+"[^"]*")(?=\s*[\[>])')

NAMES: patent_xml.Names = {
    "PARA": "p",
    "H": "heading",
    "CLMSTEP": "claim-text",
    "F": "df",
    "SB": "sub",
    "SP": "sup",
    "MATH-US": "maths",
    "CHEM-US": "chemistry",
    "TABLE-US": "table",
    "EMI": "img",
    "CUSTOM-CHARACTER": "img",
    "BR": "br",
    "LI": "li",
    "UL": "ul",
    "OL": "ol",
    "DL": "dl",
    "DT": "dt",
    "DD": "dd",
    "ROW": "row",
}


EARLIER = ("B300/B320", "B600//PDOC/DOC")
"""The applications from which priority may be claimed."""


def as_xml(document: patent_xml.Document) -> patent_xml.Document:
    """The document with its empty elements closed and an address for its DTD, as XML requires."""
    data = PUBLIC.sub(rb'\1 ""', document.data, count=1)
    return document._replace(data=EMPTY.sub(rb"<\1/>", data))


def read(root: etree._Element, source: str) -> list[Record]:
    """The grant's record, none if it has no text."""
    symbols = root.iterfind("SDOBI/B500/B510/*/PDAT")
    return assemble(
        source=source,
        office="US",
        number=without_zeros(_data(root, "B100/B110/DNUM")),
        kind=_data(root, "B100/B130"),
        date=patent_xml.iso_date(_data(root, "B100/B140/DATE")),
        applied=_data(root, "B200/B210/DNUM"),
        filed=patent_xml.iso_date(_data(root, "B200/B220/DATE")),
        priority=patent_xml.dates(
            element for path in EARLIER for element in root.iterfind(f"SDOBI/{path}/DATE/PDAT")
        ),
        cites=[_cited(document) for document in root.iterfind("SDOBI/B500/B560/B561/PCIT/DOC")],
        language="en",
        title=patent_xml.text(root.find("SDOBI/B500/B540")),
        abstract=patent_xml.text(root.find("SDOAB")),
        claims=patent_xml.claims(root.iterfind("SDOCL/CL/CLM")),
        description=patent_xml.text(root.find("SDODE")),
        ipc=patent_xml.ipc_symbols(in_columns(symbol.text or "") for symbol in symbols),
    )


def _cited(document: etree._Element) -> str:
    parts = (patent_xml.child(document, f"{name}/PDAT") for name in ("CTRY", "DNUM", "KIND"))
    country, number, kind = parts
    return "-".join(filter(None, (country or "US", number, kind)))


def without_zeros(number: str | None) -> str | None:
    """`08930553` as `8930553`, `D0435854` as `D435854`."""
    return re.sub(r"^([A-Z]*)0+", r"\1", number) if number else None


def in_columns(symbol: str) -> str:
    """An IPC symbol written in columns of 4, 3 and up to 4: `G06F 1516` as `G06F 15/16`."""
    return re.sub(r"^([A-H]\d\d[A-Z])([ \d]{3})(\d+)", r"\1 \2/\3", symbol)


def _data(root: etree._Element, field: str) -> str | None:
    return patent_xml.child(root, f"SDOBI/{field}/PDAT")
