"""Answers of the EPO's Open Patent Services in JSON: the tree of the XML answer, or a client's summary of it.

The service writes `{"ops:world-patent-data": {…}}`: an element is an object, its attributes begin with `@`,
its text is `$`, elements of one name are a list. The tree is rebuilt and read like the XML. Clients of
the service store `{"document_id": {"country", "doc_number", "kind"}, "claims": [{"limitations": […]}]}`, the
same with a `description`, and `{"documents": [{"country", …, "title", "abstract"}]}`, without a language.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lxml import etree

from data import claim_numbers
from data.readers.offices import epo, patent_xml
from data.record import Noted, Record, assemble, bad_bytes
from data.stream import Content, Unreadable, decoded

BEGINNING = re.compile(
    rb'\{\s*"(?:ops:world-patent-data"\s*:|document_id"\s*:\s*\{|documents"\s*:\s*\[\s*\{\s*"country")'
)


def publications(content: Content, noted: list[Noted]) -> list[Callable[[], list[Record]]]:
    """The publications of an answer, not yet read; Unreadable if it has none. Bad bytes are added to
    `noted`."""
    source, found = content.name, list[Callable[[], list[Record]]]()
    try:
        text, bad = decoded(content.file.read())
        answer = json.loads(text.removeprefix("\ufeff"), strict=False)
    except (ValueError, RecursionError) as error:
        raise Unreadable("bad-json", str(error)) from None
    if bad:
        noted.append(bad_bytes(source, bad))
    match answer:
        case {"ops:world-patent-data": dict(body)}:
            root = _tree("world-patent-data", body)
            patent_xml.write_layout(root, {})
            found = [partial(epo.read, item, source) for item in root.iter(*epo.ITEMS)]
        case {"documents": list(documents)}:
            found = [partial(_summary, document, document, source) for document in documents]
        case {"document_id": dict(publication)}:
            found = [partial(_summary, publication, answer, source)]
    if not found:
        raise Unreadable("missing-text", "an answer without a publication")
    return found


def _tree(name: str, content: Mapping[str, Any]) -> etree._Element:
    """An element from its object, without prefixes and namespace declarations."""
    element = etree.Element(name)
    for key, value in content.items():
        local = key.rpartition(":")[2]
        if key == "$":
            element.text = str(value)
        elif key.startswith("@"):
            element.set(local.removeprefix("@"), str(value))
        else:
            for child in value if isinstance(value, list) else [value]:
                element.append(_tree(local, child if isinstance(child, dict) else {"$": child or ""}))
    return element


def _summary(publication: Mapping[str, Any], content: Mapping[str, Any], source: str) -> list[Record]:
    claims = ["\n".join(claim["limitations"]) for claim in content.get("claims") or ()]
    published = content.get("publication_reference_docdb") or {}
    applied = content.get("application_reference_docdb") or {}
    return assemble(
        source=source,
        office=publication["country"],
        number=publication["doc_number"],
        kind=publication.get("kind"),
        date=published.get("date"),
        applied=applied.get("number"),
        applied_at=applied.get("country"),
        family_id=content.get("family_id"),
        title=content.get("title"),
        abstract=epo.plain(content.get("abstract") or "") or None,
        claims=claim_numbers.numbered(claims),
        description=epo.plain(patent_xml.without_paragraph_numbers(content.get("description")) or "") or None,
        ipc=patent_xml.ipc_symbols(content.get("intl_class") or ()),
    )
