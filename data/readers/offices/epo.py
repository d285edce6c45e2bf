"""European publications: ST.36 `patent-document`, the weekly `ep-patent-document`, and the answers of Open
Patent Services and DOCDB: `exchange-document` (data and abstract), `fulltext-document` (claims or
description). WIPO's `wo-published-application` is of the same family.

One publication carries its title in German, English and French, its description in one of them, and claims in
up to three. It gives one record for each language that has claims or a description (or, if it has neither,
each language of its abstracts or titles); every text is only in the record of its own language. The same
vocabulary is used for other offices' documents, so the office is taken from the document.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from lxml import etree

from data.readers.offices import patent_xml
from data.record import Record, assemble

ITEMS = ("{*}exchange-document", "{*}fulltext-document")
"""The publications in an answer of Open Patent Services or a file of DOCDB."""

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
        ipc=patent_xml.ipc_then_cpc(map(patent_xml.ipcr, (*ipc, *older)), map(patent_xml.ipcr, _cpc(biblio))),
    )


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
        ipc=patent_xml.ipc_symbols(_without_edition(patent_xml.ipcr(entry)) for entry in ipc),
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
    ipc: list[str] | None,
) -> list[Record]:
    """One record for each language, with the publication's data in each."""
    default = root.get("lang")
    plain = etree.QName(root).localname == "fulltext-document"
    abstracts = _by_language(patent_xml.text, root.findall("{*}abstract"), default)
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


def _claims(element: etree._Element) -> dict[int, str]:
    return patent_xml.claims(element.iter("{*}claim"))


def _description(element: etree._Element) -> str | None:
    return patent_xml.without_paragraph_numbers(patent_xml.text(element))


def _lines(element: etree._Element) -> str | None:
    """A text of Open Patent Services: its own lines and paragraph numbers are not XML layout."""
    for part in element.iterfind(".//{*}p"), element.iterfind(".//{*}claim-text"):
        for node in (node for parent in part for node in parent.iter("*")):
            node.text = (node.text or "").replace("\n", patent_xml.BREAK)
            for inner in node:
                inner.tail = (inner.tail or "").replace("\n", patent_xml.BREAK)
    return patent_xml.without_paragraph_numbers(patent_xml.text(element))


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
