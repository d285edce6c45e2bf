"""The held-out documents of a corpus as text, as they were packed, for `eval run` to measure.

    CORPUS/decontaminate/shard-*.parquet ──split, layout──▶ OUTPUT/validation.jsonl

A line has `id`, `publication`, `language` and `text`. The documents must be those that `pack` counted, to the
byte, and none may be of a publication, application or family that is in `train` (`seen.parquet`).
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import xxhash

from core.errors import UserError
from core.provenance import manifest
from data.dedup.ngram_index import EvalSample
from data.dedup.training_index import find_seen
from data.held_out import require_corpus
from data.incremental import earlier_corpora
from data.packing.document_text import documents
from data.packing.pack import PackConfig
from data.packing.train_val_split import link_families, split_of
from data.record import Record
from data.record_store import read_shard, shard_files

SPLIT = "validation"
FILE = f"{SPLIT}.jsonl"


def write(folder: Path, output: Path, number: int | None = None, *, force: bool = False) -> dict[str, int]:
    """Write the held-out documents of the corpus in `folder`, or `number` of them, drawn by their names.

    Returns the counts of the manifest: `held_out` and `bytes` of all, `documents` that were written.

    UserError if the corpus is unfinished, holds nothing out, is not what was packed, or was trained on one of
    them.
    """
    pack = require_corpus("corpus", folder).folder / "pack"
    packed = manifest.read(pack)
    shards = shard_files(folder / "decontaminate")
    earlier = [shard_files(each / "decontaminate") for each in earlier_corpora(packed["config"]["extends"])]
    config = PackConfig.model_validate(packed["config"]["pack"])
    families = link_families([*earlier, shards], None)
    inputs = manifest.hash_files([*shards, pack / manifest.NAME])
    settings = {"split": SPLIT, "number": number}
    with manifest.build(output, step="texts", config=settings, inputs=inputs, force=force) as built:
        counts: Counter[str] = Counter(dict.fromkeys(("held_out", "bytes", "documents"), 0))
        samples, kept = [], list[tuple[int, int, str]]()
        for record in (record for shard in shards for record in read_shard(shard)):
            if split_of(record, config, families) == SPLIT:
                samples.append(sample(record))
                for row in rows(record, config):
                    counts["bytes"] += len(row["text"].encode())
                    line = json.dumps(row, ensure_ascii=False)
                    item = (-xxhash.xxh3_64_intdigest(row["id"].encode()), -counts["held_out"], line)
                    counts["held_out"] += 1
                    full = number is not None and len(kept) >= number
                    (heapq.heappushpop if full else heapq.heappush)(kept, item)
        if not kept:
            raise UserError(f"{folder}: no document is held out. Raise pack.validation_share.")
        for what, of_pack in (("held_out", "documents"), ("bytes", "bytes")):
            if counts[what] != packed["counts"][SPLIT][of_pack]:
                raise UserError(
                    f"{folder}: {counts[what]:,} held-out {of_pack}, but"
                    f" {packed['counts'][SPLIT][of_pack]:,} were packed. Make the corpus again with"
                    " `python -m data run --force`."
                )
        counts["documents"] = len(kept)
        in_order = sorted(kept, key=lambda item: -item[1])
        (built.path / FILE).write_text("".join(f"{line}\n" for _, _, line in in_order), "utf-8")
        if met := next(find_seen(pack, samples), None):
            raise UserError(f"{folder}: {met.sample} is held out, but {met.id} was trained on: {met.rule}.")
        built.counts = {**counts, "trained_on": 0}
    return built.counts


def rows(record: Record, config: PackConfig) -> Iterator[dict[str, str]]:
    """The documents of a record: one, or two if its claims are separate."""
    for number, text in enumerate(documents(record, config).texts, start=1):
        name = f"{record['id']} {record['language'] or 'unknown'}{f' {number}' if number > 1 else ''}"
        yield {
            "id": name,
            "publication": record["id"],
            "language": record["language"] or "unknown",
            "text": text,
        }


def sample(record: Record) -> EvalSample:
    """What identifies a record's invention."""
    return EvalSample(
        SPLIT,
        record["id"],
        "",
        publication=record["id"],
        application=record["application_id"],
        family=record["family_id"],
    )
