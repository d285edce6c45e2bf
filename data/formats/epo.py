"""European publications: ST.36 `patent-document`, and `fulltext-document` of Open Patent Services.

One publication carries its title in German, English and French, its description in one of them, and claims in
up to three. It gives one record for each language that has claims or a description (one that has neither: for
each language of its abstracts or titles); every text stands only in the record of its own language. The same
vocabulary is used for other offices' documents, so the office is taken from the document.
"""

import re
from collections.abc import Callable
from typing import TypeVar

from lxml import etree

from data.formats import xml
from data.record import Record

Text = TypeVar("Text", str, list[str])


def read(root: etree._Element, source: str) -> list[Record]:
    """The document's records, none where it holds no text; their id is empty where the number is missing."""
    publication = root.find("./{*}bibliographic-data/{*}publication-reference/{*}document-id")
    application = root.find("./{*}bibliographic-data/{*}application-reference/{*}document-id")
    number = root.get("doc-number") or _child(publication, "doc-number")
    office = root.get("country") or _child(publication, "country")
    kind = root.get("kind") or _child(publication, "kind")
    applied = _child(application, "doc-number")
    default = root.get("lang")
    titles = _by_language(xml.text, root.findall("./{*}bibliographic-data//{*}invention-title"), default)
    abstracts = _by_language(xml.text, root.findall("{*}abstract"), default)
    descriptions = _by_language(_description, root.findall("{*}description"), default)
    claims = _by_language(_claims, root.findall("{*}claims"), default)
    ipc = root.iterfind("./{*}bibliographic-data//{*}classifications-ipcr/{*}classification-ipcr")
    symbols = xml.ipc_symbols("".join(map(str, entry.itertext())) for entry in ipc)
    languages = {**descriptions, **claims} or abstracts or titles
    return [
        Record(
            id="-".join(filter(None, (office, number, kind))) if number else "",
            office=office,
            kind=kind,
            language=language,
            date=xml.iso_date(root.get("date") or _child(publication, "date")),
            application_id=f"{_child(application, 'country') or office}-{applied}" if applied else None,
            family_id=root.get("family-id"),
            title=titles.get(language),
            abstract=abstracts.get(language),
            claims=claims.get(language),
            description=descriptions.get(language),
            ipc=symbols,
            source=source,
        )
        for language in sorted(languages, key=str)
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


def _claims(element: etree._Element) -> list[str] | None:
    return xml.claims(element.iter("{*}claim"))


def _description(element: etree._Element) -> str | None:
    """Without the paragraph numbers, as `[0012]`, that Open Patent Services prints into the text."""
    found = xml.text(element)
    return re.sub(r"^\[\d{4,}\]\s*", "", found, flags=re.MULTILINE) if found else None


def _child(element: etree._Element | None, name: str) -> str | None:
    found = None if element is None else element.findtext(f"{{*}}{name}")
    return (found or "").strip() or None
