"""What is in a folder: formats, columns and how they map, languages, offices, years, and what is rejected.

Every file is read as in ingest, up to a given number of documents. The report is YAML: the tables are
comments, followed by a configuration, so that the output of `python -m data inspect DIR > mine.yaml` can be
edited and run.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import yaml
from tqdm import tqdm

from data.patent_numbers import publication_key
from data.readers import formats
from data.readers.archives import attachment, members
from data.readers.column_mapping import Options
from data.readers.source_files import list_files
from data.readers.table_join import OF_PATENTSVIEW, Fragment
from data.record import Noted, Record, Rejected
from data.stream import Content, Unreadable, as_utf8, open_file

ADVICE = """\
# A configuration to start from. Set each source's licence and use (any, non-commercial, research), and your
# model's tokenizer. To use a column that is not used, add to its source
#   columns: {"its name": abstract}    (or title, claims, description, id, date …)
"""


@dataclass
class FormatStatistics:
    """Counts for one format."""

    files: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """documents, rejected and records."""
    languages: Counter[str] = field(default_factory=Counter)
    offices: Counter[str] = field(default_factory=Counter)
    years: Counter[str] = field(default_factory=Counter)
    columns: Counter[tuple[tuple[str, str | None], ...]] = field(default_factory=Counter)
    """Files by their columns with the field of each."""
    reasons: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    joined: set[str] = field(default_factory=set)
    """The patents of tables that each hold a part of every patent."""


def inspect(folder: Path, documents: int) -> str:
    """The report on the first `documents` of each file; UserError if there is no file."""
    found: dict[str, FormatStatistics] = {}
    used: set[Path] = set()
    tables: set[Path] = set()
    for path in tqdm(list_files(folder), desc="inspect", unit="file", disable=None):
        left = documents
        opened = open_file(path)
        with opened.file:
            for content in members(opened):
                options = Options()
                inside = isinstance(content, Rejected) or content.name != opened.name
                name, outcomes = _read(content, options, inside)
                seen = found.setdefault(name, FormatStatistics())
                seen.files += 1
                for outcome in islice(outcomes, left):
                    left -= not isinstance(outcome, Noted)
                    _count(outcome, seen)
                    if not isinstance(outcome, Rejected):
                        used.add(path)
                    if isinstance(outcome, Fragment):
                        tables.add(path)
                if options.notes:
                    seen.columns[tuple(options.notes.items())] += 1
                if not left:
                    break
    return "\n".join([*_describe(found, documents), ADVICE + _configuration(folder, used, tables)])


def _read(
    content: Content | Rejected, options: Options, inside: bool
) -> tuple[str, Iterator[list[Record] | Rejected]]:
    """A file's or member's format, and its documents."""
    from data.readers.offices import patent_xml

    if isinstance(content, Rejected):
        return "not opened", iter([content])
    if attached := attachment(content, inside=inside):
        return "attachments", iter([attached])
    try:
        content = as_utf8(content, options.encoding)
        name = formats.format_of(content, options.knows)
    except Unreadable as error:
        return "not opened", iter([Rejected(content.name, error.reason, error.detail)])
    if name == "XML":
        name = f"XML {patent_xml.root_name(content.head()) or 'without a root'}"
    return name, formats.read_content(content, options)


def _count(outcome: list[Record] | Rejected, seen: FormatStatistics) -> None:
    if isinstance(outcome, Noted):
        seen.noted[outcome.reason] += 1
        return
    if isinstance(outcome, Fragment):
        seen.noted["table-row"] += 1
        identifiers = {publication_key(record["id"]) or record["id"] for record in outcome}
        if identifiers <= seen.joined:
            return
        seen.joined |= identifiers
    seen.counts["documents"] += 1
    if isinstance(outcome, Rejected):
        seen.counts["rejected"] += 1
        seen.reasons[outcome.reason] += 1
        return
    for record in outcome:
        seen.counts["records"] += 1
        seen.languages[record["language"] or "?"] += 1
        seen.offices[record["office"] or "?"] += 1
        seen.years[(record["date"] or "?")[:4]] += 1


def _describe(found: Mapping[str, FormatStatistics], documents: int) -> Iterator[str]:
    """The tables, as comments of YAML."""
    head = ("format", "files", "documents", "records", "rejected", "languages", "offices", "years")
    rows = [
        (
            name,
            f"{seen.files:,}",
            *(f"{seen.counts[what]:,}" for what in ("documents", "records", "rejected")),
            _most(seen.languages),
            _most(seen.offices),
            _span(seen.years),
        )
        for name, seen in sorted(found.items())
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    yield f"# Files by format (first {documents:,} documents of each):"
    for row in (head, *rows):
        yield "# " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for name, seen in sorted(found.items()):
        for columns, files in seen.columns.most_common():
            yield f"#\n# Columns of {name} ({files:,} {'file' if files == 1 else 'files'}):"
            yield from (f"#   {_plain(column)} -> {taken or 'not used'}" for column, taken in columns)
    for title, counts in (
        ("Rejected", [seen.reasons for seen in found.values()]),
        ("Noted, read nevertheless", [seen.noted for seen in found.values()]),
    ):
        total = sum(counts, Counter[str]())
        if total:
            yield f"#\n# {title}:"
            yield from (f"#   {number:,} {reason}" for reason, number in total.most_common())
    yield "#"


def _most(values: Counter[str]) -> str:
    """The most frequent values, e.g. `en 12, zh 3 …`."""
    shown = ", ".join(f"{_plain(value)} {number:,}" for value, number in values.most_common(6))
    return f"{shown} …" if len(values) > 6 else shown


def _span(years: Counter[str]) -> str:
    known = sorted(year for year in years if year.isdigit())
    return f"{known[0]}-{known[-1]}" if known else ""


def _plain(text: str) -> str:
    return " ".join(text.split())[:60]  # a name may hold what would end the comment


def _configuration(folder: Path, used: set[Path], tables: set[Path]) -> str:
    """A configuration with one source for each subfolder that gave records; the folder itself if files are
    in it. `tables` are PatentsView's, which name neither office nor language."""
    inside = {path.relative_to(folder).parts for path in used} if folder.is_dir() else {()}
    single = any(len(parts) < 2 for parts in inside)
    places = [folder] if single or not inside else [folder / name for name in sorted({p[0] for p in inside})]
    tree = {
        "output_dir": f"corpora/{folder.resolve().stem}",
        "sources": [
            {"path": str(place), "licence": "unknown", "use": "unknown"}
            | ({"defaults": OF_PATENTSVIEW} if any(path.is_relative_to(place) for path in tables) else {})
            for place in places
        ],
        "tokenizer": {"path": "meta-llama/Llama-2-7b-hf"},
        "pack": {"validation_share": 0.002},
    }
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=10_000)
