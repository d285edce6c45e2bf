"""What the tests of packing share: records of made-up pumps, and a way to write them as shards."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.record import SCHEMA, Record

TEXTS = {
    "en": (
        "Pump {}",
        "A pump {} moves water.",
        ["A pump {}.", "The pump of claim 1."],
        "It pumps {} l.\nWell.",
    ),
    "zh": (
        "水泵{}",
        "一种水泵{}，用于输送水。",
        ["一种水泵{}。", "根据权利要求1所述的水泵。"],
        "其流量为{}升。\n良好。",
    ),
}


def record(number: int, like: str = "en", **fields: Any) -> Record:
    """The record of an invention, with the texts of a language."""
    title, abstract, claims, description = TEXTS[like]
    office = "US" if like == "en" else "CN"
    whole: Record = {
        "id": f"{office}-{number}-A",
        "office": office,
        "kind": "A",
        "language": like,
        "date": None,
        "application_id": f"X-{number}",
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": None,
        "claim_numbers": None,
        "title": title.format(number),
        "abstract": abstract.format(number),
        "claims": [claim.format(number) for claim in claims],
        "description": description.format(number),
        "ipc": None,
        "source": f"a#{number}",
    }
    return {**whole, **fields}  # type: ignore[typeddict-item]


def write_shards(shards: list[list[Record]], folder: Path) -> list[Path]:
    """One file of records a shard, in a new folder."""
    folder.mkdir(parents=True)
    files = [folder / f"shard-{number:05d}.parquet" for number in range(len(shards))]
    for file, records in zip(files, shards, strict=True):
        pq.write_table(pa.Table.from_pylist(records, SCHEMA), file)
    return files
