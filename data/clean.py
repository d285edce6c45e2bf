"""Basic cleaning of Patent records: text made regular, records without use dropped, every removal counted by
its rule.

    ingest/shard-*.parquet ──clean──▶ clean/shard-*.parquet

Text: controls removed, Unicode NFC (never NFKC, which would turn `10³` into `103`), runs of spaces and of
empty lines folded. Records: those with too little text, and those whose whole text came before.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from core.config import Config
from core.errors import UserError
from data.ingest import read_shard
from data.record import SCHEMA, Record

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufffe\uffff]")
SPACES = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u205f]+")
EDGES = re.compile(r" ?\n ?")
EMPTY_LINES = re.compile(r"\n{3,}")
ROWS = 1000


class CleanConfig(Config):
    """Which records are worth keeping."""

    min_characters: int = Field(100, ge=0)
    """Records with less text, over all parts, are dropped (rule `too-short`)."""


def clean(config: CleanConfig, ingested: Path, folder: Path) -> dict[str, Any]:
    """Clean all records of `ingested` into `folder`, shard by shard; returns the counts for the manifest."""
    seen: set[bytes] = set()
    dropped: Counter[str] = Counter()
    kept: Counter[tuple[str, str]] = Counter()
    characters = 0
    records_in = 0
    for shard in sorted(ingested.glob("shard-*.parquet")):
        with pq.ParquetWriter(folder / shard.name, SCHEMA, compression="zstd") as writer:
            rows: list[Record] = []
            for record in read_shard(shard):
                records_in += 1
                cleaned = clean_record(record)
                text = "\n".join(_texts(cleaned))
                key = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if len(text) < config.min_characters:
                    dropped["too-short"] += 1
                elif key in seen:
                    dropped["duplicate"] += 1
                else:
                    seen.add(key)
                    kept[record["office"] or "unknown", record["language"] or "unknown"] += 1
                    characters += len(text)
                    rows.append(cleaned)
                if len(rows) == ROWS:
                    writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    if not kept:
        raise UserError(
            f"no record is left of {records_in}: {dict(dropped) or 'ingest found none'}. Look at what ingest"
            f" rejected ({ingested / 'rejected.jsonl'}), or lower clean.min_characters."
        )
    return {
        "records_in": records_in,
        "records_out": sum(kept.values()),
        "dropped": dict(sorted(dropped.items())),
        "characters": characters,
        "by_office_language": nested(kept),
    }


def clean_record(record: Record) -> Record:
    """The record with regular text; what is empty afterwards is None."""
    claims = [text for claim in record["claims"] or () if (text := clean_text(claim))]
    return {
        **record,
        "title": clean_text(record["title"]),
        "abstract": clean_text(record["abstract"]),
        "claims": claims or None,
        "description": clean_text(record["description"]),
    }


def clean_text(text: str | None) -> str | None:
    """Regular text, or None where nothing is left; cleaning it again changes nothing."""
    if not text:
        return None
    text = CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = SPACES.sub(" ", unicodedata.normalize("NFC", text))
    text = EMPTY_LINES.sub("\n\n", EDGES.sub("\n", text)).strip()
    return text or None


def nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """`{office: {language: n}}` in a fixed order."""
    return {
        office: {language: n for (other, language), n in sorted(counts.items()) if other == office}
        for office in sorted({office for office, _ in counts})
    }


def _texts(record: Record) -> Iterator[str]:
    yield from (text for text in (record["title"], record["abstract"], record["description"]) if text)
    yield from record["claims"] or ()
