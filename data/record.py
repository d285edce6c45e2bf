"""The patent record: what every reader yields and every later step of the corpus reads.

One record is one invention in one language. An invention published in several languages is several
records with one `application_id`. A field that the source does not have is None, never an empty string.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict, TypeVar

import pyarrow as pa

from data import patent_numbers


class Record(TypedDict):
    """One invention in one language. Text is plain: no markup, `\\n` between paragraphs."""

    id: str
    """Publication number with office and kind code, e.g. `US-8930553-B2`; unique together with `language`."""
    office: str | None
    """WIPO ST.3 code of the office, e.g. `US`, `EP`, `CN`."""
    kind: str | None
    """WIPO ST.16 kind code, e.g. `B2`."""
    language: str | None
    """ISO 639-1 code of the text, e.g. `en`, `zh`."""
    date: str | None
    """Publication date, ISO 8601, e.g. `2015-01-06`."""
    application_id: str | None
    """Application number with its office, e.g. `US-13648029`."""
    family_id: str | None
    """The patent family's number, if the source has one."""
    filed: str | None
    """Filing date of the application, ISO 8601."""
    priority: str | None
    """Earliest date from which priority is claimed, ISO 8601; the filing date if none is."""
    cites: list[str] | None
    """Publication numbers of the patents that the publication cites, in the notation of `id`."""
    title: str | None
    abstract: str | None
    claims: list[str] | None
    """One text per claim, in order, without its number; cancelled claims are left out."""
    claim_numbers: list[int] | None
    """The claims' own numbers, to which their references refer; None if they are 1, 2, 3 …."""
    description: str | None
    ipc: list[str] | None
    """IPC (or IPCR) symbols, main one first, e.g. `G06F 15/16`; then CPC symbols that are not among them."""
    source: str
    """Where it was read: the file and, if it holds many documents, `#` and the document's offset (bytes, or
    line)."""


@dataclass(frozen=True)
class Rejected:
    """A document without a record."""

    source: str
    """The file and, if it holds many documents, `#` and the document's offset (bytes, or line)."""
    reason: str
    """Short category, e.g. `unknown-format`, `malformed-xml`, `missing-text`, `bad-encoding`."""
    detail: str
    """What a person needs to fix it: line, offset, root element, exception."""


@dataclass(frozen=True)
class Noted(Rejected):
    """What is counted and is neither a document nor an error: a drawing in an archive, or a field that a
    reader does not know and kept as text."""


def bad_bytes(source: str, number: int) -> Noted:
    """That a document has U+FFFD instead of this many bytes or characters that could not be read."""
    return Noted(source, "bad-bytes", f"{number:,} unreadable; each is U+FFFD in the text")


SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        *(
            pa.field(name, pa.string())
            for name in ("office", "kind", "language", "date", "application_id", "family_id")
        ),
        pa.field("filed", pa.string()),
        pa.field("priority", pa.string()),
        pa.field("cites", pa.list_(pa.string())),
        pa.field("title", pa.string()),
        pa.field("abstract", pa.string()),
        pa.field("claims", pa.list_(pa.string())),
        pa.field("claim_numbers", pa.list_(pa.int32())),
        pa.field("description", pa.string()),
        pa.field("ipc", pa.list_(pa.string())),
        pa.field("source", pa.string(), nullable=False),
    ]
)
"""The same as an Arrow schema: the columns of a Parquet file of records."""

ABSTRACT_HEADING = re.compile(
    r"\W*(?:abstract(?: of (?:the )?(?:disclosure|invention))?|technical abstract"
    r"|zusammenfassung|abr[ée]g[ée]|r[ée]sum[ée]|摘\s*要|说明书摘要|說明書摘要|发明摘要|發明摘要|中文摘要|要\s*約|要約書|요\s*약|요약서)\W*",
    re.IGNORECASE,
)
"""Headings over an abstract, in the languages of the offices."""

PARQUET = {"compression": "zstd", "use_dictionary": ["office", "kind", "language"]}
"""How such a file is written. A dictionary of texts, which are all different, would halve reading speed."""


def assemble(
    *,
    source: str,
    office: str | None,
    number: str | None,
    kind: str | None = None,
    date: str | None = None,
    applied: str | None = None,
    applied_at: str | None = None,
    applied_kind: str | None = None,
    family_id: str | None = None,
    filed: str | None = None,
    priority: Iterable[str | None] = (),
    cites: Iterable[str | None] = (),
    language: str | None = None,
    title: str | None = None,
    abstract: str | None = None,
    claims: Mapping[int, str] | None = None,
    description: str | None = None,
    ipc: list[str] | None = None,
) -> list[Record]:
    """One publication's record, or none if it has no text; its id is empty if the number is missing.

    `applied` is the application's number, at the same office unless `applied_at` is another, and
    `applied_kind` its kind code in DOCDB; `priority` is the dates of all earlier applications. Numbers are
    written as data/patent_numbers.py writes them.
    """
    if not (title or abstract or claims or description):
        return []
    published = patent_numbers.publication(number, office, kind)
    plain_id = "-".join(filter(None, (office, number, kind))) if number else ""
    record = Record(
        id=published.id if published else plain_id,
        office=office,
        kind=kind,
        language=language.lower() if language else None,
        date=date,
        application_id=patent_numbers.application(applied, applied_at or office, applied_kind),
        family_id=family_id,
        filed=filed,
        priority=min(filter(None, (*priority, filed)), default=None),
        cites=citations(cites),
        title=title,
        abstract=without_heading(abstract),
        claims=list(claims.values()) if claims else None,
        claim_numbers=numbers_column(claims or ()),
        description=description,
        ipc=ipc,
        source=source,
    )
    return [record]


def citations(numbers: Iterable[str | None]) -> list[str] | None:
    """The value of `cites` for publication numbers in any spelling; what is no number is left out."""
    found = (patent_numbers.publication(number) for number in numbers)
    return list(dict.fromkeys(publication.id for publication in found if publication)) or None


Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


def with_all_columns(rows: Rows) -> Rows:
    """The rows with null columns for the fields that they lack: those of an older version."""
    for field in SCHEMA:
        if field.name not in rows.schema.names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows


def numbers_column(numbers: Iterable[int]) -> list[int] | None:
    """The value of `claim_numbers` for claims of these numbers."""
    found = list(numbers)
    return None if found == list(range(1, len(found) + 1)) else found


def without_heading(abstract: str | None) -> str | None:
    """An abstract without a line before it that says that it is one."""
    first, _, rest = (abstract or "").partition("\n")
    return rest if rest and ABSTRACT_HEADING.fullmatch(first) else abstract


def invention(record: Record) -> str:
    """The key that all texts of one invention share: its family, else its application, else its own id."""
    return record["family_id"] or record["application_id"] or record["id"]
