"""Find evaluation samples in a training corpus, with the rules of data/dedup.

    tasks ──texts of the data──▶ Index (data/dedup/ngram_index.py) ──scan every shard, every line──▶
    contaminated.jsonl
                              └▶ find_seen (data/dedup/training_index.py) ── what was packed ──────────▲

`score RUN --contaminated FILE` scores clean and contaminated ("dirty") samples separately. A passage found in
more than `COMMON` texts of the corpus, or in more than `COMMON` samples, is boilerplate and is ignored, as in
data/dedup/decontaminate.py.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from core.errors import UserError
from core.files import files_below
from core.html_report import text_table
from core.provenance import atomic_io
from data.dedup import ngram_index, training_index
from data.dedup.ngram_index import RULES, Index
from data.dedup.normalise import BATCH_ROWS, TEXTS, read_batches
from data.record import SCHEMA
from eval.sample import EvalSample, read_jsonl
from eval.tasks.task import Request

COMMON = 10
"""Passages in more than this many texts of the corpus, or samples, are ignored."""

SHORTEST = 10
"""Texts with fewer characters are not searched for: an answer such as `是` occurs anywhere."""


class Match(NamedTuple):
    """A sample and a place in the corpus where it occurs."""

    task: str
    id: str
    rule: str
    passage: str | None
    place: str
    """Shard or file, and the row or the record's id."""


def contamination(requests: Sequence[Request], corpora: Sequence[Path]) -> list[Match]:
    """Every sample whose publication, text or passage is in a corpus, once for each rule and place.

    A corpus is a folder written by `python -m data` (its shards of records, and `seen.parquet`), or JSONL and
    text files, in which every string is searched. Raises UserError if a path is neither.
    """
    samples = [
        ngram_index.EvalSample(request.sample.task, request.sample.id, text, request.publication)
        for request in requests
        for text in ("\n".join(request.texts), *request.texts)
        if len(text) >= SHORTEST
    ]
    index = Index(samples)
    matches: dict[Match, None] = {}
    met: list[tuple[str, list[tuple[int, int]]]] = []
    for corpus in corpora:
        shards, packs, lines = _files(corpus)
        met += (each for shard in shards for each in _shard(index, shard))
        met += (each for file in lines for each in _lines(index, file))
        for pack in packs:
            for hit in training_index.find_seen(pack, samples):
                matches[Match(hit.dataset, hit.sample, f"seen: {hit.rule}", None, f"{pack}: {hit.id}")] = None
    texts = Counter(target for _, hits in met for rule, target in hits if RULES[rule] == "overlap")
    overlap_rule = RULES.index("overlap")
    common = {
        target
        for target, n in texts.items()
        if n > COMMON or len({each.sample for each in index.hits([(overlap_rule, target)])}) > COMMON
    }
    for place, hits in met:
        rare = [(rule, target) for rule, target in hits if rule != overlap_rule or target not in common]
        for sample in index.hits(rare):
            matches[Match(sample.dataset, sample.sample, sample.rule, sample.passage, place)] = None
    return list(matches)


def write(matches: Sequence[Match], requests: Sequence[Request], file: Path) -> str:
    """Write the file for `score --contaminated`, one line per sample; returns a table of counts."""
    dirty: dict[tuple[str, str], list[Match]] = {}
    for each in matches:
        dirty.setdefault((each.task, each.id), []).append(each)
    lines: list[dict[str, Any]] = []
    for request in requests:
        name = (request.sample.task, request.sample.id)
        hits = [{"rule": h.rule, "passage": h.passage, "place": h.place} for h in dirty.get(name, [])]
        lines.append({"task": name[0], "id": name[1], "found": hits})
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_io.write_text(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    rows = []
    for task in dict.fromkeys(line["task"] for line in lines):
        mine = [line["found"] for line in lines if line["task"] == task]
        rules = sorted({hit["rule"] for hits in mine for hit in hits})
        count = sum(map(bool, mine))
        rows.append([task, len(mine), count, f"{count / len(mine):.1%}", ", ".join(rules)])
    return text_table(["task", "samples", "in the corpus", "share", "by"], rows)


def split(samples: Sequence[EvalSample], file: Path) -> list[EvalSample]:
    """Add the group `corpus` (`clean` or `dirty`) to samples; UserError if the file lacks one of them."""
    is_dirty = {(str(t.get("task")), str(t.get("id"))): bool(t.get("found")) for _, t in read_jsonl(file)}
    if lacking := [s for s in samples if (s.task, s.id) not in is_dirty]:
        raise UserError(
            f"{file}: task {lacking[0].task}, sample {lacking[0].id} is missing. "
            "Rerun `python -m eval contamination` with the same tasks and data."
        )
    return [
        s.model_copy(update={"groups": s.groups | {"corpus": "dirty" if is_dirty[s.task, s.id] else "clean"}})
        for s in samples
    ]


def _files(corpus: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Shards of records, packed folders, JSONL and text files."""
    if corpus.is_file():
        return [], [], [corpus]
    shards: list[Path] = []
    for step in ("decontaminate", "dedup", "clean", "ingest", "."):
        shards = shards or sorted((corpus / step).glob("shard-*.parquet"))
    packs = sorted(
        {file.parent for pattern in ("", "pack/") for file in corpus.glob(pattern + training_index.NAME)}
    )
    lines = [] if shards or packs else [f for f in files_below(corpus) if f.suffix in (".jsonl", ".txt")]
    if not (shards or packs or lines):
        raise UserError(
            f"{corpus}: no corpus found. Pass a folder written by `python -m data`, or one with .jsonl or "
            ".txt files."
        )
    return shards, packs, lines


def _shard(index: Index, shard: Path) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    for batch in read_batches(shard, ("id", *TEXTS)):
        for row, hits in _rows(index, batch):
            yield f"{shard}: {batch['id'][row].as_py()}", hits


def _lines(index: Index, file: Path) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    texts: Iterable[tuple[str, str]] = (
        [(str(file), file.read_text("utf-8"))]
        if file.suffix == ".txt"
        else ((place, text) for place, tree in read_jsonl(file) for text in _texts(tree))
    )
    texts = iter(texts)
    while part := list(itertools.islice(texts, BATCH_ROWS)):
        records = [{"id": "", "source": place, "description": text} for place, text in part]
        for row, hits in _rows(index, pa.RecordBatch.from_pylist(records, SCHEMA)):
            yield part[row][0], hits


def _rows(index: Index, batch: pa.RecordBatch) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Rows of a batch that match samples, and the rules and targets that they match."""
    rows: dict[int, list[tuple[int, int]]] = {}
    for row, rule, target in index.scan(batch):
        rows.setdefault(row, []).append((rule, target))
    yield from rows.items()


def _texts(value: Any) -> Iterator[str]:
    """All strings in an object, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
