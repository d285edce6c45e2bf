"""Korea: answers of KIPRIS Plus, the office's search service (`response/body/items/PatentUtilityInfo`), and
specifications as they are filed (`KIPO/PatentCAFDOC`).

An item gives title and abstract. Its publication is the grant (공고), else the published application (공개);
numbers begin with 10 for a patent and 20 for a utility model. The day of a grant's publication is
`PublicDate` (INID 45); `RegistrationDate` (24), which is a few days earlier, stands in where it is missing.
IPC symbols are separated by `|`. The service cuts long abstracts, in the middle of a word.
"""

import hashlib
import re

from lxml import etree

from data.readers.offices import patent_xml
from data.record import Record, assemble

ITEM = "PatentUtilityInfo"
CUT = re.compile(r"\S*\s*(?:\.{3}|…)?\s*\(이하\s*생략\)\s*$")
"""The end of an abstract that was cut: the rest of a word, and `(the rest is left out)`."""


SPECIFICATION = "PatentCAFDOC"
HEADINGS = {
    "technical-field": "기술분야",
    "background-art": "발명의 배경이 되는 기술",
    "citation-list": "선행기술문헌",
    "patent-literature": "특허문헌",
    "non-patent-literature": "비특허문헌",
    "summary-of-invention": "발명의 내용",
    "tech-problem": "해결하고자 하는 과제",
    "tech-solution": "과제의 해결 수단",
    "advantageous-effects": "발명의 효과",
    "description-of-drawings": "도면의 간단한 설명",
    "description-of-embodiments": "발명을 실시하기 위한 구체적인 내용",
    "reference-signs-list": "부호의 설명",
    "industrial-applicability": "산업상 이용가능성",
    "sequence-list-text": "서열목록 자유텍스트",
}
"""What the office prints before a section, which in XML is only an element's name."""


def read_specification(root: etree._Element, source: str) -> list[Record]:
    """The record of a specification, none if it has no text. It has no number but that of the document, so
    its id is this and a digest of its text."""
    description, title = root.find("{*}description"), root.find("{*}description/{*}invention-title")
    name = patent_xml.text(title)
    if title is not None:
        patent_xml.replace(title, "")
    for section in () if description is None else description.iter(*(f"{{*}}{name}" for name in HEADINGS)):
        name_of = HEADINGS[etree.QName(section).localname]
        heading = f"{patent_xml.BREAK}【{name_of}】{patent_xml.BREAK}"
        section.text = f"{heading}{section.text or ''}"
    text = patent_xml.text(description)
    claims = patent_xml.claims(root.iterfind("{*}claims/{*}claim"))
    digest = hashlib.blake2b(f"{name}{text}{claims}".encode(), digest_size=6).hexdigest()
    return assemble(
        source=source,
        office="KR",
        number=f"{root.get('documentID') or SPECIFICATION}-{digest}",
        language="ko",
        title=name,
        abstract=patent_xml.text(next(root.iterfind("{*}abstract//{*}summary"), root.find("{*}abstract"))),
        claims=claims,
        description=text,
    )


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
