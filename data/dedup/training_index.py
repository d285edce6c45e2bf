"""An index of what a model was pretrained on, so that an evaluation can exclude it.

    records of `train` ──seen_rows──▶ pack/seen.parquet ──find_seen(samples)──▶ the samples that were seen

Row i of `seen.parquet` describes document i of `train.bin`: the record's id and language, its publication
number without kind code, its application and family, and digests of the whole text and of each part, folded
as in data/dedup/normalise.py (case, width, punctuation, white space and Chinese script do not matter).
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import UserError
from data.dedup.ngram_index import EvalSample
from data.dedup.normalise import digests, fold, whole_texts
from data.patent_numbers import application, publication_key

NAME = "seen.parquet"
NAMES = ("publication", "application", "family")
TEXTS = ("text", "abstract", "claims", "first_claim", "description")

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("language", pa.string()),
        *(pa.field(name, pa.string()) for name in NAMES),
        *(pa.field(name, pa.binary(16)) for name in TEXTS),
    ]
)
"""The columns; null if the record has no such value. `text` is title, abstract, claims and description
together."""


class Met(NamedTuple):
    """A sample that is in the pretraining corpus."""

    dataset: str
    sample: str
    rule: str
    """The equal column of `seen.parquet`: `publication`, `application`, `family`, `text`, …"""
    document: int
    """Its number in `train.bin`."""
    id: str
    """The id of the record."""


def seen_rows(records: pa.RecordBatch) -> pa.RecordBatch:
    """One row of SCHEMA for each record of a batch."""
    claims = records["claims"]
    texts = {
        "text": whole_texts(records),
        "abstract": records["abstract"],
        "claims": pc.binary_join(claims, "\n"),
        "first_claim": pc.binary_join(pc.list_slice(claims, 0, 1), "\n"),
        "description": records["description"],
    }
    return pa.RecordBatch.from_pydict(
        {
            "id": records["id"],
            "language": records["language"],
            "publication": [publication_key(each) for each in records["id"].to_pylist()],
            "application": records["application_id"],
            "family": records["family_id"],
            **{name: text_digests(column) for name, column in texts.items()},
        },
        schema=SCHEMA,
    )


def text_digests(texts: Sequence[str] | pa.Array) -> pa.Array:
    """16 bytes for each text, equal if the folded texts are; null if the folded text is empty."""
    found = digests(fold(texts))
    return pa.array([row.tobytes() if row.any() else None for row in found], pa.binary(16))


def read_seen(pack: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a packed corpus's `seen.parquet`, streamed; UserError if there is none."""
    file = pack / NAME
    if not file.is_file():
        raise UserError(f"{file} not found. Give the folder `pack` of a corpus made by `python -m data run`.")
    with pq.ParquetFile(file) as opened:
        yield from opened.iter_batches(1 << 14)


def find_seen(pack: Path, samples: Iterable[EvalSample]) -> Iterator[Met]:
    """Every sample whose publication, application, family or text is in the corpus, once per rule and
    document.

    A sample's text is compared with whole texts and with every part. Memory holds the samples, not the
    corpus. Texts that share only a passage are found by `data.dedup.ngram_index.Index`, which needs the
    texts.
    """
    wanted: dict[str, dict[str | bytes, list[EvalSample]]] = {name: {} for name in (*NAMES, "text")}
    for sample in samples:
        values = {
            "publication": publication_key(sample.publication),
            "application": application(sample.application),
            "family": sample.family,
            "text": text_digests([sample.text])[0].as_py(),
        }
        for name, value in values.items():
            if value:
                wanted[name].setdefault(value, []).append(sample)
    values_of = {name: pa.array(list(found), SCHEMA.field(name).type) for name, found in wanted.items()}
    start = 0
    for batch in read_seen(pack):
        for column in (*NAMES, *TEXTS):
            rule = column if column in NAMES else "text"
            for row in np.flatnonzero(pc.is_in(batch[column], value_set=values_of[rule])):
                for sample in wanted[rule][batch[column][row].as_py()]:
                    yield Met(sample.dataset, sample.id, column, start + int(row), batch["id"][row].as_py())
        start += len(batch)
