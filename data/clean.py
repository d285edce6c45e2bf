"""Clean Patent records: text made regular, what teaches nothing left out, every removal counted by its rule.

    ingest/shard-*.parquet ──count lines──▶ boilerplate.json
                           ──clean_shard──▶ clean/shard-*.parquet, dropped.jsonl
                           ──exact duplicates──▶ the same, without them

A record goes through the rules of `data.steps` one after the other. `clean_shard` depends on nothing but its
shard, the configuration and the table of boilerplate lines, so shards are cleaned in any number of processes
with the same result. `dropped.jsonl` holds `{"id", "language", "source", "rule", "detail"}` for each record
that a rule dropped, `boilerplate.json` the lines that were taken for boilerplate and in how many descriptions
each stands.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import UserError
from data.boilerplate import count_lines, frequent_lines
from data.engine import map_in_order
from data.ingest import BATCH_CHARACTERS, read_shard
from data.record import SCHEMA, Record
from data.steps import CleanConfig, clean_record, size, texts

__all__ = ["CleanConfig", "clean", "clean_shard"]

ROWS = 1000
EDGES = (0, *(digit * 10**power for power in range(2, 7) for digit in (1, 2, 5)))
"""Lower edges of the histogram's bins, in characters."""
KEY_BYTES = 16

Counts = Counter[tuple[str, ...]]
"""Records and characters by ("in", WHAT) and ("out", WHAT); records by ("changed", RULE), ("dropped", RULE),
("kept", OFFICE, LANGUAGE) and ("length", LANGUAGE, EDGE); characters by ("removed", RULE)."""


class Cleaned(NamedTuple):
    """What `clean_shard` returns."""

    counts: Counts
    keys: bytes
    """A hash of each kept record's text, in order, KEY_BYTES each."""


def clean(
    config: CleanConfig, ingested: Path, folder: Path, executor: Executor | None = None
) -> dict[str, Any]:
    """Clean all records of `ingested` into `folder`, shard by shard; returns the counts for the manifest.

    Counts: `records_in`, `records_out`, `characters_in`, `characters`, `dropped` (records by rule), `changed`
    (by rule: `records`, and `characters` removed from them), `boilerplate` (number of lines),
    `by_office_language`, `lengths` (records by language and lower edge in characters). Raises UserError where
    no record is left.
    """
    shards = sorted(ingested.glob("shard-*.parquet"))
    targets = [folder / shard.name for shard in shards]
    n = len(shards)
    lines: dict[str, int] = {}
    if config.boilerplate_share is not None:
        found = map_in_order(executor, count_lines, shards, [config.boilerplate_share] * n)
        lines = frequent_lines(found, config.boilerplate_share)
    (folder / "boilerplate.json").write_text(json.dumps(lines, ensure_ascii=False, indent=1) + "\n", "utf-8")

    counts: Counts = Counter()
    keys: list[bytes] = []
    table = [frozenset(lines)] * n
    for cleaned in map_in_order(executor, clean_shard, [config] * n, shards, targets, table):
        counts.update(cleaned.counts)
        keys.append(cleaned.keys)
    if config.duplicates:
        again = find_duplicates(keys)
        touched = [i for i in range(n) if again[i]]
        files, rows = [targets[i] for i in touched], [again[i] for i in touched]
        for taken in map_in_order(executor, _drop_rows, files, rows):
            counts.update(taken)
    _merge([_dropped_path(target) for target in targets], folder / "dropped.jsonl")
    if not counts["out", "records"]:
        dropped = {rule: number for (what, rule, *_), number in counts.items() if what == "dropped"}
        raise UserError(
            f"no record is left of {counts['in', 'records']}: {dropped or 'ingest found none'}. Look at what"
            f" ingest rejected ({ingested / 'rejected.jsonl'}), or loosen the rules under `clean`."
        )
    return _summary(counts) | {"boilerplate": len(lines)}


def clean_shard(
    config: CleanConfig, source: Path, target: Path, boilerplate: frozenset[str] = frozenset()
) -> Cleaned:
    """Clean one shard into another; also writes which records were dropped, beside the target.

    A record on which a rule fails is dropped under the rule `error`; it does not end the run.
    """
    counts: Counts = Counter()
    keys: list[bytes] = []
    rows: list[Record] = []
    characters = 0
    with (
        pq.ParquetWriter(target, SCHEMA, compression="zstd") as writer,
        _dropped_path(target).open("w", encoding="utf-8") as dropped,
    ):
        for record in read_shard(source):
            counts["in", "records"] += 1
            try:
                counts["in", "characters"] += size(record)
                outcome = clean_record(config, record, boilerplate)
            except Exception as error:  # whatever a record holds, a run over millions of them goes on
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
            _count_kept(counts, outcome.record, 1)
            keys.append(_key(outcome.record))
            rows.append(outcome.record)
            characters += size(outcome.record)
            if len(rows) == ROWS or characters > BATCH_CHARACTERS:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows, characters = [], 0
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return Cleaned(counts, b"".join(keys))


def find_duplicates(keys: Iterable[bytes]) -> list[set[int]]:
    """For each shard the rows whose whole text came before, in that shard or an earlier one."""
    seen: set[bytes] = set()
    found: list[set[int]] = []
    for shard in keys:
        again: set[int] = set()
        for row in range(len(shard) // KEY_BYTES):
            key = shard[row * KEY_BYTES : (row + 1) * KEY_BYTES]
            if key in seen:
                again.add(row)
            seen.add(key)
        found.append(again)
    return found


def _drop_rows(shard: Path, rows: set[int]) -> Counts:
    """Write a shard again without some rows; returns what that changes in the counts."""
    counts: Counts = Counter()
    partial = shard.with_name(f".{shard.name}.partial")
    row = 0
    with (
        pq.ParquetFile(shard) as old,
        pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer,
        _dropped_path(shard).open("a", encoding="utf-8") as dropped,
    ):
        for group in range(old.num_row_groups):
            table = old.read_row_group(group)
            here = [row + i not in rows for i in range(len(table))]
            row += len(table)
            mask = pa.array(here, pa.bool_())
            for record in table.filter(pa.compute.invert(mask)).to_pylist():
                counts["dropped", "duplicate"] += 1
                _count_kept(counts, record, -1)
                dropped.write(_dropped_line(record, "duplicate"))
            writer.write_table(table.filter(mask))
    partial.replace(shard)
    return counts


def _key(record: Record) -> bytes:
    return hashlib.blake2b("\n".join(texts(record)).encode(), digest_size=KEY_BYTES).digest()


def _count_kept(counts: Counts, record: Record, sign: int) -> None:
    language, length = record["language"] or "unknown", size(record)
    edge = max(edge for edge in EDGES if edge <= length)
    counts["out", "records"] += sign
    counts["out", "characters"] += sign * length
    counts["kept", record["office"] or "unknown", language] += sign
    counts["length", language, str(edge)] += sign


def _dropped_path(target: Path) -> Path:
    return target.with_suffix(".dropped.jsonl")


def _dropped_line(record: Record, rule: str, detail: str | None = None) -> str:
    fields = {"id": record["id"], "language": record["language"], "source": record["source"]}
    return json.dumps({**fields, "rule": rule, "detail": detail}, ensure_ascii=False) + "\n"


def _merge(parts: Sequence[Path], target: Path) -> None:
    with target.open("wb") as merged:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, merged)
            part.unlink()


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
        "by_office_language": nested(Counter({(o, la): number for (o, la), number in of("kept")})),
        "lengths": lengths,
    }


def nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """`{office: {language: n}}` in a fixed order."""
    return {
        office: {language: n for (other, language), n in sorted(counts.items()) if other == office}
        for office in sorted({office for office, _ in counts})
    }
