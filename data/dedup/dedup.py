"""Keep one record of each invention and language, and one of near-identical texts.

    shard-*.parquet ──sign──▶ keys ──find──▶ duplicates.jsonl ──write──▶ shard-*.parquet, shard-*.keys

`sign_shard` and `write_shard` are maps over shards; `find_duplicates` is the one reduce between them. Rules,
in order:

    family  publications of one application in one language are one invention; the grant is preferred. Members
            at other offices and in other languages are kept, and linked in families.jsonl
    exact   the whole text is the same after folding (data/dedup/normalise.py): case, width, punctuation,
            script
    near    the sets of n-grams have a Jaccard index of at least `threshold`, and texts of fewer than
            SHORT_NGRAMS n-grams the same title; each pair that hashing finds (data/dedup/lsh.py) is
            compared exactly before anything is dropped

Records of older corpora (`known`) are preferred, then grants, then longer texts, then the smaller id. Every
record dropped as near is similar to one that is kept, not to one that is dropped itself. So the result
depends neither on the number of workers nor on the order of shards.

Besides the kept records, the folder has:

    duplicates.jsonl     {"id", "language", "kept", "rule", "jaccard"} for each dropped record; jaccard is
                         that of the two texts, null for families
    families.jsonl       {"family", "members": [[id, language], …]} if two or more of a family are kept
    shard-*.keys         the keys of the kept records, row by row, for comparison with later corpora

Memory holds about 150 bytes per record and one batch of texts; signatures (512 bytes per record) and the keys
of texts to compare are on disk. The result is a pure function of shards, configuration and known folders.
"""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.provenance import atomic_io
from data.dedup.fingerprints import KeyedShard, key_batches, keys_schema, known_parts, sign_shard
from data.dedup.near_duplicates import NearConfig, near
from data.dedup.normalise import Flags, Indices
from data.executor import (
    Rows,
    forget_shards,
    map_shards,
    nested,
    remove_shards,
    shard_name,
    sum_rows,
    to_rows,
)
from data.record import PARQUET

RULES = ("family", "exact", "near")
LINES = 1 << 16
"""Rows per batch when lines are written."""


class DedupConfig(NearConfig):
    """Which records count as duplicates."""

    family: bool = True
    """Keep one publication per application and language."""
    exact: bool = True
    """Keep one of several records whose folded texts are equal."""
    near: bool = True
    """Keep one of several records whose texts share most n-grams."""


class Duplicates(NamedTuple):
    """The result of `find_duplicates`."""

    dropped: list[Flags]
    """For each new shard, which rows are dropped."""
    counts: dict[str, Any]
    """For the manifest: `records`, `kept`, `dropped` by rule, and statistics of the near ones."""


def dedup(
    config: DedupConfig,
    shards: Sequence[Path],
    folder: Path,
    *,
    known: Sequence[Path] = (),
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Write the kept records of `shards` to `folder`, under the same names; returns the counts.

    `known` are folders that this function wrote with the same configuration; their records are neither
    written again nor dropped. Raises UserError if one of them is not such a folder.
    """
    signed = folder / ".signed"
    map_shards(partial(sign_shard, config), shards, signed, executor, title="sign")
    parts = [
        KeyedShard(shard, signed / f"{shard_name(number)}.keys", known=False)
        for number, shard in enumerate(shards)
    ]
    found = find_duplicates(config, [*known_parts(known), *parts], folder)
    todo = list(zip(parts, found.dropped, strict=True))
    kept = sum_rows(map_shards(write_shard, todo, folder, executor, title="dedup"))
    remove_shards(signed)
    forget_shards(folder)
    return found.counts | {"by_office_language": nested(kept)}


def find_duplicates(config: DedupConfig, parts: Sequence[KeyedShard], folder: Path) -> Duplicates:
    """Decide which records of the new shards to drop; writes duplicates.jsonl and families.jsonl to
    `folder`."""
    table = _load(config, parts)
    order = [("new", "ascending"), ("grant", "descending"), ("length", "descending")]
    ties = [(name, "ascending") for name in ("id", "language", "tie")]
    table = table.take(pc.sort_indices(table, sort_keys=[*order, *ties])).combine_chunks()
    new = table["new"].to_numpy().astype(bool)
    everyone = np.arange(len(table))
    kept_for, rule, jaccards = everyone.copy(), np.full(len(table), -1, np.int8), np.full(len(table), np.nan)
    for number, column in enumerate(("application", "text")):
        if getattr(config, RULES[number]):
            left = np.flatnonzero(rule < 0)
            first = left[_first_alike(table[column].take(pa.array(left)))]
            goes = (first != left) & new[left]
            kept_for[left[goes]], rule[left[goes]], jaccards[left[goes]] = first[goes], number, number
    counts: dict[str, int] = {}
    if config.near:
        left = np.flatnonzero((rule < 0) & (table["length"].to_numpy() > 0))
        where, row, length = (table[name].to_numpy()[left] for name in ("part", "row", "length"))
        known = int((~new[left]).sum())
        scratch = folder / ".near"
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed run
        scratch.mkdir()
        found = near(config, parts, where, row, length, known, scratch)
        shutil.rmtree(scratch)
        goes = found.kept_for >= 0
        kept_for[left[goes]], rule[left[goes]] = left[found.kept_for[goes]], 2
        jaccards[left[goes]], counts = found.jaccards[goes], found.counts
        moved = (rule == 1) & (rule[kept_for] == 2)  # the equal one was dropped in turn
        jaccards[moved] = jaccards[kept_for[moved]]
    while (kept_for[kept_for] != kept_for).any():
        kept_for = kept_for[kept_for]
    _write_lines(folder / "duplicates.jsonl", _dropped_lines(table, rule, kept_for, jaccards))
    families = _write_lines(folder / "families.jsonl", _family_lines(table.filter(pa.array(rule < 0))))
    dropped = [np.zeros(n, bool) for n in np.bincount(table["part"].to_numpy(), minlength=len(parts))]
    where, row = table["part"].to_numpy(), table["row"].to_numpy()
    for index in np.flatnonzero(rule >= 0):
        dropped[where[index]][row[index]] = True
    total = {
        "records": int(new.sum()),
        "known": int((~new).sum()),
        "kept": int((new & (rule < 0)).sum()),
        "dropped": {name: int((rule == number).sum()) for number, name in enumerate(RULES)},
        "families": families,
        **counts,
    }
    return Duplicates([flags for part, flags in zip(parts, dropped, strict=True) if not part.known], total)


def write_shard(todo: tuple[KeyedShard, Flags], folder: Path) -> Rows:
    """Write the kept rows of a shard's records and keys to `folder`: `parquet` and `keys`; returns their
    number by office and language."""
    part, dropped = todo
    counts = filter_shard(part.shard, folder / "parquet", dropped)
    start = 0
    with pa.memory_map(str(part.keys)) as source, pa.OSFile(str(folder / "keys"), "wb") as sink:
        reader = pa.ipc.open_file(source)
        with pa.ipc.new_file(sink, reader.schema) as keys:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                keys.write_batch(batch.filter(pa.array(~dropped[start : start + len(batch)])))
                start += len(batch)
    return counts


def filter_shard(shard: Path, target: Path, dropped: Flags) -> Rows:
    """Write a shard of records without the dropped rows; returns the number of the others by office and
    language.

    A shard without dropped rows is hard-linked, so that it takes no extra disk space.
    """
    about = pq.read_table(shard, columns=["office", "language"], use_threads=False).filter(pa.array(~dropped))
    counts = Counter[tuple[str, ...]]()
    counts.update(zip(*(pc.fill_null(column, "unknown").to_pylist() for column in about), strict=True))
    if dropped.any():
        _write_rest(shard, target, dropped)
    else:
        atomic_io.link(shard, target)
    return to_rows(counts)


def _write_rest(shard: Path, target: Path, dropped: Flags) -> None:
    start = 0
    with (
        pq.ParquetFile(shard, memory_map=True) as file,
        pq.ParquetWriter(target, file.schema_arrow, **PARQUET) as writer,
    ):
        for group in range(file.num_row_groups):
            records = file.read_row_group(group, use_threads=False)
            writer.write_table(records.filter(pa.array(~dropped[start : start + len(records)])))
            start += len(records)


def _load(config: DedupConfig, parts: Sequence[KeyedShard]) -> pa.Table:
    """All keys except the signatures, with the number of their shard and their row in it."""
    tables = []
    for number, part in enumerate(parts):
        keys = pa.Table.from_batches(key_batches(config, part), keys_schema(config))
        keys = keys.replace_schema_metadata(None).drop_columns("signature")
        keys = keys.append_column("new", pa.array(np.full(len(keys), not part.known)))
        keys = keys.append_column("part", pa.array(np.full(len(keys), number, np.int32)))
        tables.append(keys.append_column("row", pa.array(np.arange(len(keys)))))
    return pa.concat_tables(tables)


def _first_alike(column: pa.ChunkedArray) -> Indices:
    """For each row the first row with the same value; itself if it has no value."""
    codes = column.combine_chunks().dictionary_encode().indices
    known = np.flatnonzero(codes.is_valid().to_numpy(zero_copy_only=False))
    codes = codes.drop_null().to_numpy()
    first = np.empty(codes.max(initial=-1) + 1, np.int64)
    first[codes[::-1]] = known[::-1]
    rows = np.arange(len(column))
    rows[known] = first[codes]
    return rows


def _dropped_lines(
    table: pa.Table, rule: npt.NDArray[np.int8], kept_for: Indices, jaccards: npt.NDArray[np.float64]
) -> Iterator[dict[str, Any]]:
    names = table.select(["id", "language"])
    for start in range(0, len(table), LINES):
        rows = start + np.flatnonzero(rule[start : start + LINES] >= 0)
        gone, kept = (names.take(pa.array(which)).to_pylist() for which in (rows, kept_for[rows]))
        for row, record, other in zip(rows.tolist(), gone, kept, strict=True):
            alike = float(jaccards[row]) if rule[row] else None
            yield {**record, "kept": other["id"], "rule": RULES[rule[row]], "jaccard": alike}


def _family_lines(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Families of which two or more records are kept, at least one of them new."""
    table = table.select(["family", "id", "language", "new"]).filter(pc.is_valid(table["family"]))
    batches = table.sort_by("family").to_batches(LINES)
    rows = (row for batch in batches for row in batch.to_pylist())
    for family, group in itertools.groupby(rows, key=lambda row: row["family"]):
        members = list(group)
        if len(members) > 1 and any(row["new"] for row in members):
            yield {"family": family, "members": [[row["id"], row["language"]] for row in members]}


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> int:
    """Write JSON lines, and count them."""
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            number += 1
    return number
