"""United States documents since 2005: `us-patent-grant`, `us-patent-application`, DTD v4.0 to v4.7.

One document gives one record. The DTDs are at https://www.uspto.gov/learning-and-resources/xml-resources.
"""

import re
from collections.abc import Iterator

from lxml import etree

from data.formats import xml
from data.record import Record


def read(root: etree._Element, source: str) -> list[Record]:
    """The document's record, none where it holds no text; its id is empty where the number is missing."""
    publication = root.find("./*/publication-reference/document-id")
    application = root.find("./*/application-reference/document-id")
    number = _child(publication, "doc-number")
    office = _child(publication, "country") or "US"
    kind = _child(publication, "kind")
    language = root.get("lang")
    applied = _child(application, "doc-number")
    record = Record(
        id="-".join(filter(None, (office, _without_zeros(number), kind))) if number else "",
        office=office,
        kind=kind,
        language=language.lower() if language else None,
        date=xml.iso_date(_child(publication, "date")),
        application_id=f"{_child(application, 'country') or office}-{applied}" if applied else None,
        family_id=None,
        title=xml.text(root.find("./*/invention-title")),
        abstract=xml.text(root.find("abstract")),
        claims=xml.claims(root.iterfind("./claims/claim")),
        description=xml.text(root.find("description")),
        ipc=xml.ipc_symbols(_classifications(root)),
        source=source,
    )
    return [record] if any(record[field] for field in ("title", "abstract", "claims", "description")) else []


def _classifications(root: etree._Element) -> Iterator[str]:
    for entry in root.iterfind("./*/classifications-ipcr/classification-ipcr"):
        symbol = "".join(_child(entry, name) or "" for name in ("section", "class", "subclass"))
        group = f"{_child(entry, 'main-group')}/{_child(entry, 'subgroup')}"
        yield f"{symbol} {group} 00000000{_child(entry, 'symbol-position') or ''}"  # as in WIPO ST.8
    for entry in root.iterfind("./*/classification-ipc/*"):
        if entry.tag in ("main-classification", "further-classification"):
            yield entry.text or ""


def _without_zeros(number: str) -> str:
    """`08930553` as `8930553`, `D0435854` as `D435854`."""
    return re.sub(r"^([A-Z]*)0+", r"\1", number)


def _child(element: etree._Element | None, name: str) -> str | None:
    found = None if element is None else element.findtext(name)
    return (found or "").strip() or None
