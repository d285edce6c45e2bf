"""What the tests of cleaning share: sentences, records and a folder of them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.record import SCHEMA, Record

ENGLISH = (
    "The housing of the pump is sealed against the shaft by a ring of rubber, so that no water can leave."
)
GERMAN = "Das Gehäuse der Pumpe ist gegen die Welle durch einen Gummiring abgedichtet, kein Wasser tritt aus."
CHINESE = "本发明涉及一种离心泵，其壳体与轴之间通过橡胶圈密封，因此水不会漏出，结构简单，使用方便。"
TRADITIONAL = "本發明涉及一種離心泵，其殼體與軸之間通過橡膠圈密封，因此水不會漏出，結構簡單，使用方便。"


def record(number: int = 1, **fields: Any) -> Record:
    """A record with a long enough description of its own."""
    whole: Record = {
        "id": f"US-{number}-B2",
        "office": "US",
        "kind": "B2",
        "language": "en",
        "date": "2015-01-06",
        "application_id": None,
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": None,
        "claim_numbers": None,
        "title": f"Pump {number}",
        "abstract": None,
        "claims": None,
        "description": f"Invention {number} moves water.\n{ENGLISH}",
        "ipc": ["F04B 1/00"],
        "source": f"a.xml#{number}",
    }
    return {**whole, **fields}  # type: ignore[typeddict-item]


def prose(text: str, times: int = 12) -> str:
    """A longer text that does not repeat itself: there is a number after every fourth word or comma."""
    words = text.replace("，", "， ").split()
    every = 1 if "，" in text else 4
    return "\n".join(
        " ".join(f"{word} {i}" if j % every == 0 else word for j, word in enumerate(words))
        for i in range(times)
    )


BAD = record(
    title="Ａ  pump",
    abstract=prose(GERMAN),
    claims=["1. A pump with a ring of rub- ber.", "2. The pump of claim 1."],
    description="\n".join(
        [
            "[0001] TECHNICAL FIELD",
            prose(ENGLISH),
            "BACKGROUND",
            prose(GERMAN),
            "SUMMARY",
            "\ufffd" * 300,
            "BRIEF DESCRIPTION OF THE DRAWINGS",
            "o n e l e t t e r " * 30,
            "DETAILED DESCRIPTION",
            "Inventor: Jane Roe",
            "All of this is said by everybody and always.",
            prose(f"{ENGLISH} It works."),
            "SEQUENCE LISTING",
            "acgtacgtac ggtacgtacg acgtacgtag 30",
        ]
    ),
)
SAID_BY_ALL = frozenset({"All of this is said by everybody and always."})


def ingested(folder: Path, *shards: list[Record]) -> Path:
    """A folder of shards as ingest writes it."""
    folder.mkdir()
    for number, records in enumerate(shards):
        pq.write_table(pa.Table.from_pylist(records, SCHEMA), folder / f"shard-{number:05}.parquet")
    return folder
