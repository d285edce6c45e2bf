"""Keep evaluation data out of training: find records that overlap evaluation samples.

    evaluation sets ──▶ Index (data/dedup/ngram_index.py) ──scan each shard──▶ hits
    hits ──▶ contaminated.jsonl, shards

Some standard phrases are longer than a passage: "凡在本发明的精神和原则之内，所作的任何修改、等同替换、
改进等…" ends many Chinese descriptions. So a passage that is in more than `common_records` records of a
deduplicated corpus is standard wording, not evidence that a sample leaked, and is ignored here. The index
alone, as evaluation uses it on single texts, cannot know that, and reports every passage.
"""

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from core.config.loader import Config
from core.errors import UserError
from data.dedup.dedup import filter_shard
from data.dedup.ngram_index import RULES, EvalSample, Index
from data.dedup.normalise import TEXTS, Flags, Indices, read_batches
from data.executor import (
    Rows,
    forget_shards,
    map_shards,
    nested,
    remove_shards,
    sum_rows,
)


class EvaluationSet(Config):
    """A file of evaluation samples to keep out of the corpus."""

    path: str
    """JSON lines or CSV with a header, UTF-8."""
    text_fields: tuple[str, ...] = Field(min_length=1)
    """Fields or columns with texts: a text, or a list of texts; each is compared separately."""
    publication_field: str | None = None
    """Field or column with the publication number of the sample, if there is one."""


class DecontaminateConfig(Config):
    """Evaluation sets, and when a record counts as contaminated."""

    sets: tuple[EvaluationSet, ...] = ()
    """Evaluation sets; empty keeps every record."""
    characters: int = Field(30, ge=1)
    """Length of a shared passage in Chinese and Japanese. Nearly all abstracts share passages of 13
    characters."""
    words: int = Field(13, ge=1)
    """Length of a shared passage in other languages."""
    common_records: int | None = Field(10, ge=1)
    """Passages found in more than this many records are standard wording and are ignored; null ignores none.
    The corpus must be deduplicated."""
    least_share: float = Field(0.0, ge=0, le=1)
    """Minimum share of a sample's passages that a record must contain; 0 for any passage. Raise it for a
    corpus made from templates, in which texts are similar by chance."""
    action: Literal["drop", "flag"] = "drop"
    """`drop` removes contaminated records; `flag` only lists them."""


class Scan(NamedTuple):
    """The hits of a shard."""

    hits: Indices
    """K x 3: row, number of the rule, number of the sample or, for `overlap`, of the passage."""
    records: int


def decontaminate(
    config: DecontaminateConfig, shards: Sequence[Path], folder: Path, *, executor: Executor | None = None
) -> dict[str, Any]:
    """Write the records of `shards` without evaluation samples to `folder`, under the same names, and
    contaminated.jsonl: {"id", "language", "dataset", "sample", "rule", "passage", "share"} for each hit.

    Returns the counts. Raises UserError if an evaluation set cannot be read.
    """
    scanned = folder / ".scanned"
    found = map_shards(partial(scan_shard, config), shards, scanned, executor, title="scan")
    scans = [Scan(np.array(each["hits"], np.int64).reshape(-1, 3), each["records"]) for each in found]
    index = load_index(config)
    passages = np.concatenate(
        [np.zeros(0, np.int64), *(scan.hits[scan.hits[:, 1] == 2, 2] for scan in scans)]
    )
    records = np.bincount(passages, minlength=1)  # by passage; each counts once per record
    is_common = records > (config.common_records or len(passages))
    by_rule: Counter[str] = Counter(dict.fromkeys(RULES, 0))
    hit_samples: dict[str, set[str]] = {sample.dataset: set() for sample in index.samples}
    drops = []
    with (folder / "contaminated.jsonl").open("w", encoding="utf-8") as file:
        for scan, shard in zip(scans, shards, strict=True):
            drops.append(np.zeros(scan.records, bool))
            names = pq.read_table(shard, columns=["id", "language"])
            counted = [
                hit for hit in scan.hits.tolist() if RULES[hit[1]] != "overlap" or not is_common[hit[2]]
            ]
            for row, group in itertools.groupby(sorted(counted), key=lambda hit: hit[0]):
                hits = index.hits((rule, target) for _, rule, target in group)
                hits = [hit for hit in hits if hit.share >= config.least_share]
                if hits:
                    drops[-1][row] = True
                    by_rule[hits[0].rule] += 1
                for hit in hits:
                    hit_samples[hit.dataset].add(hit.sample)
                    line = {**names.slice(row, 1).to_pylist()[0], **hit._asdict()}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    kept = [flags & (config.action == "drop") for flags in drops]
    todo = list(zip(shards, kept, strict=True))
    left = sum_rows(map_shards(leave_out, todo, folder, executor, title="decontaminate"))
    remove_shards(scanned)
    forget_shards(folder)
    return {
        "records": sum(scan.records for scan in scans),
        "kept": sum(int((~flags).sum()) for flags in kept),
        "contaminated": dict(by_rule),  # each record once, by its first rule
        "samples": dict(Counter(sample.dataset for sample in index.samples)),
        "samples_in_corpus": {name: len(found) for name, found in hit_samples.items()},
        "short_samples": index.short_samples,
        "common_passages": int(is_common.sum()),
        "by_office_language": nested(left),
    }


def scan_shard(config: DecontaminateConfig, shard: Path, _: Path) -> dict[str, Any]:
    """The hits of one shard, as in Scan; the map before the decision."""
    index = load_index(config)
    if not index.samples:
        return {"hits": [], "records": pq.read_metadata(shard).num_rows}
    hits: list[tuple[int, int, int]] = []
    start = 0
    for batch in read_batches(shard, ("id", *TEXTS)):
        hits += [(start + row, rule, target) for row, rule, target in index.scan(batch)]
        start += len(batch)
    return {"hits": hits, "records": start}


def leave_out(todo: tuple[Path, Flags], folder: Path) -> Rows:
    """Write a shard without its contaminated rows."""
    shard, dropped = todo
    return filter_shard(shard, folder / "parquet", dropped)


@lru_cache(maxsize=1)
def load_index(config: DecontaminateConfig) -> Index:
    """The index of a configuration's evaluation sets, read once per process."""
    samples = (sample for each in config.sets for sample in read_samples(each))
    return Index(samples, config.characters, config.words)


def read_samples(each: EvaluationSet) -> Iterator[EvalSample]:
    """The samples of a file; UserError with the file, the sample and what is missing."""
    path = Path(each.path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            is_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
            rows = enumerate(map(json.loads, file) if is_json else csv.DictReader(file), start=1)
            for number, row in rows:
                yield from _samples(each, number, row)
    except FileNotFoundError:
        raise UserError(f"evaluation set {path} not found. Correct `path`.") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"evaluation set {path} is not UTF-8 JSON lines or CSV: {error}.") from None


def _samples(each: EvaluationSet, number: int, row: Any) -> Iterator[EvalSample]:
    wanted = (*each.text_fields, *([each.publication_field] if each.publication_field else []))
    if missing := [name for name in wanted if not isinstance(row, dict) or name not in row]:
        raise UserError(
            f"evaluation set {each.path}, sample {number}: no field `{missing[0]}`."
            " Correct `text_fields` or `publication_field`."
        )
    publication = row[each.publication_field] if each.publication_field else None
    for field in each.text_fields:
        value = row[field]
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text.strip():
                yield EvalSample(each.path, str(number), text, publication)
