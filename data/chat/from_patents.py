"""Patent instruction data from patent records: `python -m data build`.

    shard-*.parquet ──tasks──▶ samples ──by invention──▶ train | validation ──near──▶ two files of JSON lines
    train ──data/chat/preference_pairs.py──▶ pairs.jsonl, for the tasks in `pairs`

The samples of one invention, in every language and office, are on one side of the split
(data/packing/train_val_split.py). Then every training sample that shares most passages with a validation
sample, or is equal to it, is removed and counted, because unlinked inventions may still be similar. The files
have Alpaca's keys, `task` and `id`; memory holds the chosen samples and one bucket of claims to translate.
"""

import heapq
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from core.errors import UserError
from core.provenance import manifest
from data.chat.patent_tasks import TASKS, Labels, TaskSample, samples_of, translations
from data.chat.preference_pairs import pairs
from data.claim_numbers import of_record
from data.language import base
from data.packing.train_val_split import SplitConfig, link_families, split_of
from data.record import invention
from data.record_store import read_shard, shard_files

BUCKETS = 64
"""Number of files over which claims to translate are distributed by invention."""


class BuildConfig(SplitConfig):
    """Which samples to make from which records."""

    corpus: str
    """A folder with shard-*.parquet of patent records: a step of a corpus, e.g.
    corpora/mine/decontaminate."""
    output_dir: str
    """The output folder."""
    labels: str | None = None
    """JSON lines with `application_id` and `key_information` ({type: [phrases]}; `key_information_en` for
    English records): the answers of the task `extract`."""
    samples: dict[str, int] = Field(
        default={"title": 2000, "abstract": 2000, "translate-zh-en": 5000, "translate-en-zh": 5000,
                 "next-claim": 2000, "ipc": 2000, "extract": 2000}
    )  # fmt: skip
    """Maximum number of samples of each task; tasks not listed are left out."""
    max_characters: int = Field(6000, ge=100)
    """Samples with more characters than this, prompt and answer together, are left out and counted."""
    near_share: float = Field(0.5, gt=0, le=1)
    """A training sample that has at least this share of a validation sample's passages is removed."""
    pairs: tuple[str, ...] = ()
    """Tasks whose training samples also give preference pairs, pairs.jsonl for `python -m sft dpo`: the right
    answer, and as the rejected one that of another invention."""


def build(config: BuildConfig, *, force: bool = False) -> dict[str, Any]:
    """Make the folder and return the manifest's counts; UserError if it exists, or no sample can be made."""
    if unknown := config.samples.keys() - set(TASKS):
        raise UserError(f"samples.{min(unknown)}: unknown task. Tasks: {', '.join(TASKS)}.")
    if missing := set(config.pairs) - config.samples.keys():
        raise UserError(f"pairs: {min(missing)} is not in `samples`, which has {', '.join(config.samples)}.")
    shards = shard_files(Path(config.corpus))
    files = [*shards, *([Path(config.labels)] if config.labels else [])]
    settings = config.model_dump(mode="json", exclude={"output_dir", "corpus", "labels"})
    target = Path(config.output_dir)
    with manifest.build(
        target, step="build", config=settings, inputs=manifest.hash_files(files), force=force
    ) as built:
        counts: Counter[str] = Counter()
        sides = choose(config, shards, counts, built.path)
        removed = remove_near(sides, config.near_share)
        for split, samples in sides.items():
            with (built.path / f"{split}.jsonl").open("w", encoding="utf-8") as file:
                for sample in samples:
                    fields = {"instruction", "input", "output", "task", "id"}
                    row = {key: value for key, value in sample._asdict().items() if key in fields}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if not sides["train"]:
            raise UserError(f"{config.corpus}: no sample could be made from its records.")
        made = list(pairs(sides["train"], config.pairs))
        if config.pairs:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in made)
            (built.path / "pairs.jsonl").write_text("".join(lines), "utf-8")
        built.counts = {
            **{split: dict(Counter(s.task for s in samples)) for split, samples in sides.items()},
            "records": counts["records"],
            "too_long": counts["too_long"],
            "near_duplicates_removed": removed,
            **({"pairs": dict(Counter(row["task"] for row in made))} if config.pairs else {}),
        }
    return built.counts


def choose(
    config: BuildConfig, shards: Sequence[Path], counts: Counter[str], scratch: Path
) -> dict[str, list[TaskSample]]:
    """The samples of both sides: of each task those with the lowest draws, in order of their draws."""
    families = link_families([shards], None)
    kept: dict[str, list[tuple[int, str, TaskSample, str]]] = {task: [] for task in TASKS}

    def offer(sample: TaskSample, side: str) -> None:
        limit = config.samples.get(sample.task, 0)
        if limit and len(sample.instruction + sample.input + sample.output) > config.max_characters:
            counts["too_long"] += 1
        elif limit:
            item = (-sample.draw, f"{sample.id} {side}", sample, side)
            (heapq.heappushpop if len(kept[sample.task]) >= limit else heapq.heappush)(
                kept[sample.task], item
            )

    labels = read_labels(config.labels)
    folder = scratch / ".claims"
    folder.mkdir()
    buckets = [(folder / f"{number}").open("w", encoding="utf-8") for number in range(BUCKETS)]
    for shard in shards:
        for record in read_shard(shard):
            counts["records"] += 1
            side: str = split_of(record, config, families)
            language = base(record["language"] or "")
            for sample in samples_of(record, labels.get((record["application_id"], language)), config.seed):
                offer(sample, side)
            if language in ("zh", "en") and record["claims"]:
                key = invention(record)
                line = json.dumps(
                    [key, record["id"], language, list(of_record(record).items()), side], ensure_ascii=False
                )
                buckets[hash_of(key) % BUCKETS].write(line + "\n")
    for file in buckets:
        file.close()
        for sample, side in _translated(Path(file.name), config.seed):
            offer(sample, side)
    shutil.rmtree(folder)
    sides: dict[str, list[TaskSample]] = {"train": [], "validation": []}
    for draw in sorted((item for items in kept.values() for item in items), reverse=True):
        sides[draw[3]].append(draw[2])
    return sides


def hash_of(key: str) -> int:
    """64 bits of a key."""
    import xxhash

    return xxhash.xxh3_64_intdigest(key.encode())


def _translated(file: Path, seed: int) -> Iterator[tuple[TaskSample, str]]:
    """The translations in one bucket: of each invention, its first Chinese and its first English record."""
    found: dict[str, dict[str, tuple[str, dict[int, str], str]]] = {}
    for line in file.read_text("utf-8").splitlines():
        key, record_id, language, claims, side = json.loads(line)
        before = found.setdefault(key, {})
        if language not in before or record_id < before[language][0]:
            before[language] = (record_id, dict(claims), side)
    for by_language in found.values():
        if len(by_language) == 2:
            record_id, chinese, side = by_language["zh"]
            for sample in translations(chinese, by_language["en"][1], record_id, seed):
                yield sample, side


def read_labels(path: str | None) -> Mapping[tuple[str | None, str], Labels]:
    """The labelled phrases by application and language; UserError with the line that has none."""
    found: dict[tuple[str | None, str], Labels] = {}
    if path is None:
        return found
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise UserError(f"labels: {path} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            for language, key in (("zh", "key_information"), ("en", "key_information_en")):
                if key in row:
                    found[row["application_id"], language] = dict(row[key])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}:{number}: not a line of labels ({type(error).__name__}: {error}). It needs"
                " application_id and key_information."
            ) from None
    return found


def remove_near(sides: dict[str, list[TaskSample]], share: float) -> int:
    """Remove the training samples that are near a validation sample; returns their number."""
    from data.dedup import ngram_index

    if not sides["validation"]:
        return 0
    index = ngram_index.Index(ngram_index.EvalSample("validation", s.id, s.text) for s in sides["validation"])
    left = [s for s in sides["train"] if not any(hit.share >= share for hit in index.overlaps(s.text))]
    removed = len(sides["train"]) - len(left)
    sides["train"] = left
    return removed
