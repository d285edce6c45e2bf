"""Clean patent records: normalise text, remove useless parts, count every removal by rule.

    ingest/shard-*.parquet ──count lines──▶ boilerplate.json
                           ──count words──▶ words.json
                           ──clean_shard──▶ clean/shard-*.parquet, dropped.jsonl

A record goes through the rules of `data.cleaning.record_cleaner` in order. `clean_shard` depends only on its
shard, the configuration and the table of boilerplate lines, so the result is the same for any number of
processes. `dropped.jsonl` has `{"id", "language", "source", "rule", "detail"}` for each record
that a rule dropped, `boilerplate.json` the boilerplate lines and the number of descriptions with each,
`words.json` the whole forms of words that line ends divide, with the number of descriptions with each.
"""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import UserError
from core.provenance import atomic_io
from data.cleaning.boilerplate import count_lines, frequent_lines
from data.cleaning.hyphens import Words, count_words, words_of_corpus
from data.cleaning.record_cleaner import CleanConfig, clean_record, size
from data.executor import (
    Rows,
    forget_shards,
    join_parts,
    map_in_order,
    map_shards,
    nested,
    sum_rows,
    to_rows,
)
from data.readers.ingest import BATCH_CHARACTERS
from data.record import PARQUET, SCHEMA, Record
from data.record_store import read_shard, shard_files
from data.stream import is_of_the_machine

__all__ = ["CleanConfig", "clean", "clean_shard"]

ROWS = 1000
EDGES = (0, *(digit * 10**power for power in range(2, 7) for digit in (1, 2, 5)))
"""Lower edges of the histogram's bins, in characters."""

Counts = Counter[tuple[str, ...]]
"""Records and characters by ("in", WHAT) and ("out", WHAT); records by ("changed", RULE), ("dropped", RULE),
("kept", OFFICE, LANGUAGE) and ("length", LANGUAGE, EDGE); characters by ("removed", RULE)."""


def clean(
    config: CleanConfig, ingested: Path, folder: Path, executor: Executor | None = None
) -> dict[str, Any]:
    """Clean all records of `ingested` into `folder`, shard by shard; returns the counts for the manifest.

    Counts: `records_in`, `records_out`, `characters_in`, `characters`, `dropped` (records by rule), `changed`
    (by rule: `records`, and `characters` removed from them), `boilerplate` (number of lines),
    `by_office_language`, `lengths` (records by language and lower edge in characters). Raises UserError if
    no record is left.
    """
    shards = shard_files(ingested)
    lines = boilerplate_lines(config, shards, folder / "boilerplate.json", executor)
    words = divided_words(config, shards, folder / "words.json", executor)
    work = partial(clean_shard, config, frozenset(lines), words)
    counts = sum_rows(map_shards(work, shards, folder, executor, title="clean"))
    join_parts(folder, "dropped.jsonl")
    if not counts["out", "records"]:
        dropped = {rule: number for (what, rule, *_), number in counts.items() if what == "dropped"}
        raise UserError(
            f"no record is left of {counts['in', 'records']}: {dropped or 'ingest found none'}. See what"
            f" ingest rejected ({ingested / 'rejected.jsonl'}), or relax the rules under `clean`."
        )
    forget_shards(folder)
    return _summary(counts) | {"boilerplate": len(lines)}


def boilerplate_lines(
    config: CleanConfig, shards: Sequence[Path], table: Path, executor: Executor | None
) -> dict[str, int]:
    """The boilerplate lines and the number of descriptions with each; saved in `table`."""
    if not table.exists():
        lines: dict[str, int] = {}
        if config.boilerplate_share is not None:
            found = map_in_order(executor, count_lines, shards, [config.boilerplate_share] * len(shards))
            lines = frequent_lines(found, config.boilerplate_share)
        atomic_io.write_text(table, json.dumps(lines, ensure_ascii=False, indent=1) + "\n")
    kept: dict[str, int] = json.loads(table.read_text("utf-8"))
    return kept


def divided_words(
    config: CleanConfig, shards: Sequence[Path], table: Path, executor: Executor | None
) -> dict[str, int]:
    """The whole forms of words that line ends divide, and the number of descriptions with each; saved in
    `table`."""
    if not table.exists():
        words = words_of_corpus(map_in_order(executor, count_words, shards)) if config.hyphens else {}
        atomic_io.write_text(table, json.dumps(words, ensure_ascii=False, indent=1) + "\n")
    kept: dict[str, int] = json.loads(table.read_text("utf-8"))
    return kept


def clean_shard(
    config: CleanConfig, boilerplate: frozenset[str], words: Words, shard: Path, folder: Path
) -> Rows:
    """Clean one shard into `folder`: `parquet`, and `dropped.jsonl` with the dropped records.

    A record on which a rule fails is dropped under the rule `error`; it does not end the run.
    """
    counts: Counts = Counter()
    rows: list[Record] = []
    characters = 0
    with (
        pq.ParquetWriter(folder / "parquet", SCHEMA, **PARQUET) as writer,
        (folder / "dropped.jsonl").open("w", encoding="utf-8") as dropped,
    ):
        for record in read_shard(shard):
            counts["in", "records"] += 1
            try:
                counts["in", "characters"] += size(record)
                outcome = clean_record(config, record, boilerplate, words)
            except Exception as error:  # one bad record must not end a run over millions
                if is_of_the_machine(error):
                    raise
                counts["dropped", "error"] += 1
                dropped.write(_dropped_line(record, "error", f"{type(error).__name__}: {error}"))
                continue
            if outcome.record is None:
                counts["dropped", outcome.dropped_by] += 1
                dropped.write(_dropped_line(record, outcome.dropped_by))
                continue
            for rule, removed in outcome.changed.items():
                counts["changed", rule] += 1
                counts["removed", rule] += removed
            length = size(outcome.record)
            _count_kept(counts, outcome.record, length)
            rows.append(outcome.record)
            characters += length
            if len(rows) == ROWS or characters > BATCH_CHARACTERS:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows, characters = [], 0
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return to_rows(counts)


def _count_kept(counts: Counts, record: Record, length: int) -> None:
    language = record["language"] or "unknown"
    edge = max(edge for edge in EDGES if edge <= length)
    counts["out", "records"] += 1
    counts["out", "characters"] += length
    counts["kept", record["office"] or "unknown", language] += 1
    counts["length", language, str(edge)] += 1


def _dropped_line(record: Record, rule: str, detail: str | None = None) -> str:
    fields = {"id": record["id"], "language": record["language"], "source": record["source"]}
    return json.dumps({**fields, "rule": rule, "detail": detail}, ensure_ascii=False) + "\n"


def _summary(counts: Counts) -> dict[str, Any]:
    def of(what: str) -> list[tuple[tuple[str, ...], int]]:
        return sorted((key[1:], number) for key, number in counts.items() if key[0] == what and number)

    lengths: dict[str, dict[str, int]] = {}
    for (language, edge), number in sorted(of("length"), key=lambda item: (item[0][0], int(item[0][1]))):
        lengths.setdefault(language, {})[edge] = number
    removed = {rule: number for (rule,), number in of("removed")}
    return {
        "records_in": counts["in", "records"],
        "records_out": counts["out", "records"],
        "characters_in": counts["in", "characters"],
        "characters": counts["out", "characters"],
        "dropped": {rule: number for (rule,), number in of("dropped")},
        "changed": {
            rule: {"records": number, "characters": removed.get(rule, 0)} for (rule,), number in of("changed")
        },
        "by_office_language": nested(dict(of("kept"))),
        "lengths": lengths,
    }
