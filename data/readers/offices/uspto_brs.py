"""United States documents as the USPTO's search system exports them, BRS text: fields under codes of letters.

    *** BRS DOCUMENT BOUNDARY ***
    DID US 9204581 B2
    TTL Method for performing chip level electromagnetic interference reduction,
          and associated apparatus
    CLPR  1. A method for performing chip level electromagnetic interference (EMI)
          reduction, wherein …

A field is repeated for each of its paragraphs. Characters are written as in the APS text (see `uspto_aps`).
"""

import re

from data import claim_numbers
from data.readers.offices import patent_xml, uspto_aps
from data.record import Noted, Record, assemble

MARK = b"*** BRS DOCUMENT BOUNDARY ***"
BEGINNING = re.compile(rb".{0,2000}?" + re.escape(MARK), re.DOTALL)
DESCRIPTION = ("PARN", "CRTX", "GOTX", "BSTX", "DRTX", "DETX")


def read(document: patent_xml.Document, noted: list[Noted]) -> list[Record]:
    """The document's record, none if it has no text; bad bytes are added to `noted`."""
    fields = uspto_aps.fields(document, noted)
    by_code: dict[str, list[str]] = {}
    for field in fields:
        by_code.setdefault(field.code, []).append(uspto_aps.paragraph(field))
    office, number, kind = (*by_code.get("DID", [""])[0].split(), None, None, None)[:3]
    claims: list[str] = []
    for field in fields:
        if field.code == "CLPR" or (field.code == "CLPV" and not claims):
            claims.append(uspto_aps.paragraph(field))
        elif field.code == "CLPV":
            claims[-1] += "\n" + uspto_aps.paragraph(field)
    return assemble(
        source=document.source,
        office=office,
        number=number,
        kind=kind,
        date=patent_xml.iso_date(_first(by_code, "GISD") or _first(by_code, "PD")),
        applied=_first(by_code, "APNR"),
        filed=patent_xml.iso_date(_first(by_code, "AFD")),
        cites=["-".join(entry.split()[:3]) for code in ("URGP", "FRGP") for entry in by_code.get(code, ())],
        language="en",
        title=_first(by_code, "TTL"),
        abstract="\n".join(by_code.get("ABPR", ())) or None,
        claims=claim_numbers.numbered(claims),
        description="\n".join(text for code in DESCRIPTION for text in by_code.get(code, ())) or None,
        ipc=patent_xml.ipc_symbols(_in_st8(entry) for entry in by_code.get("IPCG", ())),
    )


def _first(by_code: dict[str, list[str]], code: str) -> str | None:
    return next(iter(by_code.get(code, ())), None)


def _in_st8(entry: str) -> str:
    """`20060101 A H05K H05K9/00 F I B US H 20151201` as WIPO ST.8 writes it: `H05K9/00 20060101AF`."""
    date, level, _, symbol, position = (*entry.split(), "", "", "", "", "")[:5]
    return f"{symbol} {date}{level}{position}"
