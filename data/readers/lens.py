"""Patents of The Lens as JSON lines: one object for a publication, with its texts in several languages.

Source: https://docs.api.lens.org/response-patent.html
"""

from collections.abc import Iterator, Mapping
from typing import Any

from data import claim_numbers
from data.readers.offices import patent_xml
from data.record import Record, Rejected, assemble

KEY = "lens_id"


def records(row: Mapping[str, Any], source: str) -> list[Record] | Rejected:
    """The records of a publication, one for each language that has a description or claims, else an abstract
    or title; or why there are none."""
    try:
        found = _records(row, source)
    except (AttributeError, KeyError, TypeError) as error:
        return Rejected(source, "bad-value", f"not as The Lens writes it: {type(error).__name__}: {error}")
    if not found:
        return Rejected(source, "missing-text", "no title, abstract, claim or description")
    return found


def _records(row: Mapping[str, Any], source: str) -> list[Record]:
    biblio = row.get("biblio") or {}
    applied = biblio.get("application_reference") or {}
    priorities = biblio.get("priority_claims") or {}
    titles = _texts(biblio.get("invention_title"))
    abstracts, descriptions = _texts(row.get("abstract")), _texts(row.get("description"))
    claims = dict(_claims(row.get("claims")))
    cited = (biblio.get("references_cited") or {}).get("citations") or ()
    ipc = (biblio.get("classifications_ipcr") or {}).get("classifications") or ()
    cpc = (biblio.get("classifications_cpc") or {}).get("classifications") or ()
    return [
        record
        for language in sorted({**descriptions, **claims} or abstracts or titles, key=str)
        for record in assemble(
            source=source,
            office=row.get("jurisdiction"),
            number=row.get("doc_number"),
            kind=row.get("kind"),
            date=row.get("date_published"),
            applied=applied.get("doc_number"),
            applied_at=applied.get("jurisdiction"),
            applied_kind=applied.get("kind"),
            filed=applied.get("date"),
            priority=[claim.get("date") for claim in priorities.get("claims") or ()],
            cites=_cited(cited),
            language=language,
            title=titles.get(language),
            abstract=abstracts.get(language),
            claims=claims.get(language),
            description=patent_xml.without_paragraph_numbers(descriptions.get(language)),
            ipc=patent_xml.ipc_then_cpc((each["symbol"] for each in ipc), (each["symbol"] for each in cpc)),
        )
    ]


def _texts(value: Any) -> dict[str | None, str]:
    """Texts by language, of a list or of one."""
    items = value if isinstance(value, list) else [value] if value else []
    return {item.get("lang"): item["text"] for item in items if item.get("text")}


def _claims(value: Any) -> Iterator[tuple[str | None, dict[int, str]]]:
    for items in value or ():
        texts = ("\n".join(claim.get("claim_text") or ()) for claim in items.get("claims") or ())
        yield items.get("lang"), claim_numbers.numbered(texts)


def _cited(citations: Any) -> Iterator[str]:
    for citation in citations:
        document = (citation.get("patcit") or {}).get("document_id") or {}
        parts = (document.get(name) for name in ("jurisdiction", "doc_number", "kind"))
        yield "-".join(filter(None, parts))
