"""European publications: ST.36 `patent-document`, the weekly `ep-patent-document`, and the answers of Open
Patent Services and DOCDB: `exchange-document` (data and abstract), `fulltext-document` (claims or
description). WIPO's `wo-published-application` is of the same family.

One publication carries its title in German, English and French, its description in one of them, and claims in
up to three. It gives one record for each language that has claims or a description (or, if it has neither,
each language of its abstracts or titles); every text is only in the record of its own language. The same
vocabulary is used for other offices' documents, so the office is taken from the document.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from lxml import etree

from data.readers.offices import patent_xml, uspto_aps
from data.record import Record, assemble

ITEMS = ("{*}exchange-document", "{*}fulltext-document")
"""The publications in an answer of Open Patent Services or a file of DOCDB."""

EMBEDDED = re.compile(r"<(?:EMI(?: ID=[\d.]+)?|IMAGE)>", re.IGNORECASE)
SUPERSCRIPT = re.compile(r"(?<=\S)<([+-]?\d{1,3}[+-]?|[+-]|[a-z]|\(R\)|TM)>")
GREEK = {name: sign for name, sign in uspto_aps.SIGNS.items() if "\u0370" < sign < "\u03ff"}
SIGNS = {**GREEK, "deg.": "°", "micro": "µ", "plus or minus": "±", "infinity": "∞", "square root": "√"}
SIGNS |= {name.capitalize(): sign for name, sign in SIGNS.items() if name.isupper()}
SIGN = re.compile(r"\[(" + "|".join(map(re.escape, SIGNS)) + r")\]")
INDICES = {"(R)": "®", "TM": "™"}
ROW = re.compile(r"\s*<tb>\s*(.*)", re.IGNORECASE)
TABLE = re.compile(r"</?TABLE>|\bId=|:?\s*\bColumns=\d+", re.IGNORECASE)
HEAD = re.compile(r"(?:Sub)?head Col [\d, andto-]+:\s*(.*)", re.IGNORECASE)
"""How Open Patent Services and DOCDB write in plain characters what is none: `10<-5>`, `[deg.]C`, a table's
`<tb>A<SEP>0.6`."""

Text = TypeVar("Text", str, dict[int, str])
Texts = Mapping[str | None, str]


def read(root: etree._Element, source: str) -> list[Record]:
    """The document's records, none if it has no text; their id is empty if the number is missing."""
    biblio = next(root.iterchildren("{*}bibliographic-data", "{*}wo-bibliographic-data"), None)
    publication = None if biblio is None else biblio.find("{*}publication-reference/{*}document-id")
    application = None if biblio is None else biblio.find("{*}application-reference/{*}document-id")
    titles = () if biblio is None else biblio.iterfind(".//{*}invention-title")
    ipc = () if biblio is None else biblio.iterfind(".//{*}classifications-ipcr/{*}classification-ipcr")
    older = () if biblio is None else biblio.iterfind(".//{*}classification-ipc/{*}text")
    return _records(
        root,
        titles=_by_language(patent_xml.text, list(titles), root.get("lang")),
        source=source,
        office=root.get("country") or patent_xml.child(publication, "{*}country"),
        number=root.get("doc-number") or patent_xml.child(publication, "{*}doc-number"),
        kind=root.get("kind") or patent_xml.child(publication, "{*}kind"),
        date=root.get("date") or patent_xml.child(publication, "{*}date"),
        applied=patent_xml.child(application, "{*}doc-number"),
        applied_at=patent_xml.child(application, "{*}country"),
        applied_kind=patent_xml.child(application, "{*}kind"),
        family_id=root.get("family-id"),
        filed=next(filter(None, _dates(biblio, ".//{*}application-reference/{*}document-id/")), None),
        priority=_dates(biblio, ".//{*}priority-claim//"),
        cites=patent_xml.cited(biblio),
        ipc=patent_xml.ipc_then_cpc(map(patent_xml.ipcr, (*ipc, *older)), map(patent_xml.ipcr, _cpc(biblio))),
    )


def _dates(element: etree._Element | None, path: str) -> list[str | None]:
    return [] if element is None else patent_xml.dates(element.iterfind(f"{path}{{*}}date"))


def _cpc(biblio: etree._Element | None) -> Iterator[etree._Element]:
    """The CPC entries among `patent-classification`s of all schemes (CPCI, CPCA, and national ones)."""
    for entry in () if biblio is None else biblio.iterfind(".//{*}patent-classification"):
        scheme = entry.find("{*}classification-scheme")
        if scheme is not None and (scheme.get("scheme") or "").startswith("CPC"):
            yield entry


def read_weekly(root: etree._Element, source: str) -> list[Record]:
    """The same of an `ep-patent-document`, whose bibliographic data are numbered fields (INID codes, ST.9).

    `B540` holds the titles as a flat row of pairs: `B541` the language, `B542` the title.
    """
    titles: dict[str | None, str] = {}
    language = None
    for field in root.iterfind("SDOBI/B500/B540/*"):
        content = patent_xml.text(field)
        if field.tag == "B541":
            language = content and content.lower()
        elif field.tag == "B542" and content:
            titles.setdefault(language, content)
    ipc = [*root.iterfind("SDOBI/B500/B510EP/classification-ipcr"), *root.iterfind("SDOBI/B500/B510/*")]
    return _records(
        root,
        titles=titles,
        source=source,
        office=root.get("country") or patent_xml.child(root, "SDOBI/B100/B190"),
        number=root.get("doc-number") or patent_xml.child(root, "SDOBI/B100/B110"),
        kind=root.get("kind") or patent_xml.child(root, "SDOBI/B100/B130"),
        date=root.get("date-publ") or patent_xml.child(root, "SDOBI/B100/B140/date"),
        applied=(patent_xml.child(root, "SDOBI/B200/B210") or "").partition(".")[0],
        applied_at="EP",
        applied_kind=None,
        family_id=None,
        filed=patent_xml.iso_date(patent_xml.child(root, "SDOBI/B200/B220/date")),
        priority=patent_xml.dates(root.iterfind("SDOBI/B300/B320/date")),
        cites=(),
        ipc=patent_xml.ipc_symbols(_without_edition(patent_xml.ipcr(entry)) for entry in ipc),
    )


def read_russian(root: etree._Element, source: str) -> list[Record]:
    """The same of Rospatent's `ru-patent-document`, with bibliographic data (`SDOBI`) in Russian and
    English."""
    biblio = root.find("SDOBI[@lang='ru']")
    biblio = root.find("SDOBI") if biblio is None else biblio
    titles: dict[str | None, str] = {
        (found.get("lang") or "ru").lower(): title
        for found in root.iterfind("SDOBI")
        if (title := patent_xml.text(next(found.iter("ru-b542", "B542"), None)))
    }
    ipc = () if biblio is None else biblio.iter("classification-ipcr")
    return _records(
        root,
        titles=titles,
        source=source,
        office=root.get("country") or "RU",
        number=root.get("doc-number") or patent_xml.child(biblio, "B100/B110"),
        kind=root.get("kind") or patent_xml.child(biblio, "B100/B130"),
        date=root.get("date-publ") or patent_xml.child(biblio, "B100/B140/date"),
        applied=patent_xml.child(biblio, "B200/B210"),
        applied_at="RU",
        applied_kind=None,
        family_id=None,
        filed=patent_xml.iso_date(patent_xml.child(biblio, "B200/B220/date")),
        priority=patent_xml.dates(() if biblio is None else biblio.iterfind("B300//B320/date")),
        cites=(),
        ipc=patent_xml.ipc_symbols(map(patent_xml.ipcr, ipc)),
    )


def _records(
    root: etree._Element,
    *,
    titles: Texts,
    source: str,
    office: str | None,
    number: str | None,
    kind: str | None,
    date: str | None,
    applied: str | None,
    applied_at: str | None,
    applied_kind: str | None,
    family_id: str | None,
    filed: str | None,
    priority: Iterable[str | None],
    cites: Iterable[str],
    ipc: list[str] | None,
) -> list[Record]:
    """One record for each language, with the publication's data in each."""
    default = root.get("lang")
    plain = etree.QName(root).localname == "fulltext-document"
    abstracts = _by_language(_abstract, root.findall("{*}abstract"), default)
    descriptions = _by_language(_lines if plain else _description, root.findall("{*}description"), default)
    claims = _by_language(_plain_claims if plain else _claims, root.findall("{*}claims"), default)
    languages = {**descriptions, **claims} or abstracts or titles
    return [
        record
        for language in sorted(languages, key=str)
        for record in assemble(
            source=source,
            office=office,
            number=number and number.removeprefix(office or ""),
            kind=kind,
            date=patent_xml.iso_date(date),
            applied=applied,
            applied_at=applied_at,
            applied_kind=applied_kind,
            family_id=family_id,
            filed=filed,
            priority=priority,
            cites=cites,
            language=language,
            title=titles.get(language),
            abstract=abstracts.get(language),
            claims=claims.get(language),
            description=descriptions.get(language),
            ipc=ipc,
        )
    ]


def _by_language(
    read_text: Callable[[etree._Element], Text | None], elements: list[etree._Element], default: str | None
) -> dict[str | None, Text]:
    """Texts by lower-case language; of two abstracts the applicant's, not the office's abridgement."""
    found: dict[str | None, Text] = {}
    for element in sorted(elements, key=lambda element: element.get("source") is not None):
        language = element.get("lang") or default
        content = read_text(element)
        if content:
            found.setdefault(language.lower() if language else None, content)
    return found


def _abstract(element: etree._Element) -> str | None:
    return plain(patent_xml.text(element) or "") or None


def _claims(element: etree._Element) -> dict[int, str]:
    claims = patent_xml.claims(element.iter("{*}claim"))
    return {number: plain(claim) for number, claim in claims.items()}


def _description(element: etree._Element) -> str | None:
    return patent_xml.without_paragraph_numbers(patent_xml.text(element))


def _lines(element: etree._Element) -> str | None:
    """A text of Open Patent Services: its own lines and paragraph numbers are not XML layout."""
    for part in element.iterfind(".//{*}p"), element.iterfind(".//{*}claim-text"):
        for node in (node for parent in part for node in parent.iter("*")):
            node.text = (node.text or "").replace("\n", patent_xml.BREAK)
            for inner in node:
                inner.tail = (inner.tail or "").replace("\n", patent_xml.BREAK)
    return plain(patent_xml.without_paragraph_numbers(patent_xml.text(element)) or "") or None


def plain(content: str) -> str:
    """The text with images, indices, signs and tables of plain characters written as everywhere else."""
    if "<" in content:
        content = EMBEDDED.sub("[image]", content)
        content = SUPERSCRIPT.sub(
            lambda found: INDICES.get(found[1]) or patent_xml.index(found[1], up=True), content
        )
        if "<tb>" in content.lower():
            content = "\n".join(_rows(content.split("\n")))
    return SIGN.sub(lambda found: SIGNS[found[1]], content) if "[" in content else content


def _rows(lines: Iterable[str]) -> Iterator[str]:
    """The lines, a table's with tabs between cells; its head, a column on each line, is one row."""
    heads: list[str] = []
    for line in lines:
        row = ROW.fullmatch(line)
        content = TABLE.sub("", row[1]).strip() if row else line
        head = HEAD.fullmatch(content) if row else None
        if head:
            heads.append(head[1])
            continue
        if heads:
            yield "\t".join(heads)
            heads = []
        if content:
            yield re.sub(r"\s*<sep>\s*", "\t", content, flags=re.IGNORECASE)
    if heads:
        yield "\t".join(heads)


def _plain_claims(element: etree._Element) -> dict[int, str]:
    """The claims of Open Patent Services, which are all in one `claim`: split at their numbers."""
    claims: dict[int, list[str]] = {}
    for line in (_lines(element) or "").split("\n"):
        number = re.match(r"(\d+)\s*[.)]\s*(?!\d)", line)
        if number and int(number[1]) == len(claims) + 1:
            claims[len(claims) + 1] = [line[number.end() :]]
        elif claims:
            claims[len(claims)].append(line)
    return {number: "\n".join(lines) for number, lines in claims.items()} or _claims(element)


def _without_edition(symbol: str) -> str:
    """` 7B 60C  15/00` as `B60C  15/00`: IPC editions up to the seventh precede the symbol."""
    return re.sub(r"^\s*\d?\s*([A-H])\s*", r"\1", symbol)
