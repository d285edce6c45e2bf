"""Japanese gazettes, `jp-official-gazette`: publications and grants of the Japan Patent Office.

The gazette prints a heading before each section and a label before each cited document and figure, which in
XML are only element names and numbers; they are written as printed (`【技術分野】`, `【図１】`). Amendments
follow the publication as further descriptions and claims; they are left out.
"""

import itertools

from lxml import etree

from data.readers.offices import patent_xml
from data.record import Record, assemble

NAMES: patent_xml.Names = {"patcit": "p", "nplcit": "p", "figref": "p"}

HEADINGS = {
    "technical-field": "技術分野",
    "background-art": "背景技術",
    "citation-list": "先行技術文献",
    "patent-literature": "特許文献",
    "non-patent-literature": "非特許文献",
    "disclosure": "発明の開示",
    "summary-of-invention": "発明の概要",
    "tech-problem": "発明が解決しようとする課題",
    "tech-solution": "課題を解決するための手段",
    "advantageous-effects": "発明の効果",
    "description-of-drawings": "図面の簡単な説明",
    "best-mode": "発明を実施するための最良の形態",
    "description-of-embodiments": "発明を実施するための形態",
    "mode-for-invention": "発明を実施するための形態",
    "embodiments-example": "実施例",
    "industrial-applicability": "産業上の利用可能性",
    "sequence-list-text": "配列表フリーテキスト",
    "reference-to-deposited-biological-material": "受託番号",
    "reference-signs-list": "符号の説明",
}
LABELS = {"patcit": "特許文献", "nplcit": "非特許文献", "figref": "図"}
FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")


def read(root: etree._Element, source: str) -> list[Record]:
    """The gazette's record, none if it has no text."""
    publication = root.find("bibliographic-data/publication-reference/document-id")
    classification = "bibliographic-data/classification-ipc"
    return assemble(
        source=source,
        office=patent_xml.child(publication, "country") or root.get("country"),
        number=patent_xml.child(publication, "doc-number"),
        kind=root.get("kind-of-st16"),
        date=patent_xml.iso_date(patent_xml.child(publication, "date")),
        applied=patent_xml.child(root, "bibliographic-data/application-reference/document-id/doc-number"),
        filed=patent_xml.iso_date(
            patent_xml.child(root, "bibliographic-data/application-reference/document-id/date")
        ),
        priority=patent_xml.dates(root.iterfind("bibliographic-data//{*}priority-claim//date")),
        cites=patent_xml.cited(root),
        language=root.get("lang"),
        title=patent_xml.text(root.find("bibliographic-data/invention-title")),
        abstract=patent_xml.text(root.find("abstract")),
        claims=patent_xml.claims(root.iterfind("claims/claim")),
        description=_description(root.find("description")),
        ipc=patent_xml.ipc_symbols(
            entry.text or ""
            for entry in itertools.chain(
                root.iterfind(f"{classification}/main-clsf"), root.iterfind(f"{classification}/further-clsf")
            )
        ),
    )


def _description(element: etree._Element | None) -> str | None:
    if element is None:
        return None
    for section in element.iter(*HEADINGS):
        section.text = (
            f"{patent_xml.BREAK}【{HEADINGS[str(section.tag)]}】{patent_xml.BREAK}{section.text or ''}"
        )
    for cited in element.iter(*LABELS):
        number = (cited.get("num") or "").translate(FULL_WIDTH)
        text = (cited.text or "").lstrip(patent_xml.BREAK)
        cited.text = f"{patent_xml.BREAK}【{LABELS[str(cited.tag)]}{number}】{text}"
    return patent_xml.text(element)
