"""One record of a corpus before and after cleaning, with what each rule removed.

    python -m data show corpora/mine US-8930553-B2

The record is read from the corpus's `ingest` folder and goes through the rules again, with the
configuration in the `clean` folder's manifest.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

from core.errors import UserError
from core.provenance import manifest
from data import claim_numbers
from data.cleaning.record_cleaner import CleanConfig, size, steps, texts
from data.record import Record, with_all_columns
from data.sections import sections

SHOWN_LINES = 12
"""Changed lines that are printed per rule; further ones are only counted."""
SHOWN_CHARACTERS = 160


def describe_record(corpus: Path, record_id: str) -> list[str]:
    """A description of every record with this id (one per language); UserError if there is none."""
    config = CleanConfig.model_validate(manifest.read(corpus / "clean")["config"]["clean"])
    boilerplate = frozenset(json.loads((corpus / "clean" / "boilerplate.json").read_text("utf-8")))
    table = corpus / "clean" / "words.json"
    words = json.loads(table.read_text("utf-8")) if table.exists() else {}  # older corpora have none
    records = find_records(corpus / "ingest", record_id)
    if not records:
        raise UserError(f"{corpus / 'ingest'}: no record {record_id!r}. An id looks like US-8930553-B2.")
    lines: list[str] = []
    for record in records:
        lines += ["before", *_outline(record)]
        before, after = record, cast(Record | None, record)
        for rule, after in steps(config, record, boilerplate, words):
            lines += _changes(rule, before, after)
            before = after or before
        if after is not None:
            lines += ["after", *_outline(after), *_later(corpus, after)]
    return lines


def _later(corpus: Path, record: Record) -> Iterator[str]:
    """What the steps after cleaning found about a record."""
    for step, name in (("dedup", "duplicates"), ("decontaminate", "contaminated")):
        for line in _lines(corpus / step / f"{name}.jsonl"):
            if (line["id"], line["language"]) == (record["id"], record["language"]):
                about = {key: value for key, value in line.items() if key not in ("id", "language")}
                yield f"{name}: " + ", ".join(f"{key} {_short(str(value))}" for key, value in about.items())


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        with file.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def find_records(folder: Path, record_id: str) -> list[Record]:
    """The records with this id in a folder of shards, in order."""
    found: list[Record] = []
    for shard in sorted(folder.glob("shard-*.parquet")):
        table = pq.read_table(shard, filters=[("id", "=", record_id)])
        found += cast(list[Record], with_all_columns(table).to_pylist())
    return found


def _outline(record: Record) -> Iterator[str]:
    yield f"  {record['id']}  {record['language'] or 'language unknown'}  {size(record):,} characters"
    yield f"  title       {_short(record['title'])}"
    yield f"  abstract    {_short(record['abstract'])}"
    for number, claim in claim_numbers.of_record(record).items():
        yield f"  claim {number:<5} {_short(claim)}"
    for section in sections(record["description"] or ""):
        yield f"  {section.name:<11} {len(section.text):,} characters: {_short(section.text)}"


def _changes(rule: str, before: Record, after: Record | None) -> list[str]:
    """What a rule changed: the lines that it removed (-) and added (+)."""
    if after is before:
        return []
    if after is None:
        return [f"{rule}: dropped"]
    old, new = ("\n".join(texts(record)).split("\n") for record in (before, after))
    changed = [
        f"  {line[0]} {_short(line[1:])}"
        for line in difflib.unified_diff(old, new, n=0, lineterm="")
        if line[:1] in "+-" and not line.startswith(("--- ", "+++ "))
    ]
    if before["language"] != after["language"]:
        changed.insert(0, f"  language {before['language']} -> {after['language']}")
    more = [f"  … and {len(changed) - SHOWN_LINES} more lines"] if len(changed) > SHOWN_LINES else []
    return [f"{rule}: {size(after) - size(before):+,} characters", *changed[:SHOWN_LINES], *more]


def _short(text: str | None) -> str:
    line = (text or "-").replace("\n", " ⏎ ")
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"
