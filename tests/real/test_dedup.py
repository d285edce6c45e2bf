"""Duplicates planted in real patents, among decoys that share boilerplate: both recall and precision hold."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.planted import RATES, Planted, Score, character_grams, plant, score, whole_text, word_grams
from data.dedup.dedup import DedupConfig, dedup
from data.readers import formats
from data.record import SCHEMA, Record

pytestmark = pytest.mark.real


def chinese(real: Path) -> list[Record]:
    """Real abstracts, and texts of 20 real titles of different patents each."""
    texts: list[str] = []
    for name in ("train", "val", "test"):
        with (real / f"patents/cn/zh_patent_cpc/sample_{name}.csv").open(encoding="utf-8-sig") as file:
            texts += [row["text"] for row in csv.DictReader(file) if (row["text"] or "").strip()]
    with (real / "patents/cn/zh_patent_titles/oof_predictions.csv").open(encoding="utf-8-sig") as file:
        titles = list(dict.fromkeys(row["patent_title"] for row in csv.DictReader(file)))
    texts += ["；".join(titles[start : start + 20]) for start in range(0, len(titles), 20)]
    return [_record(f"CN-{number}-A", "zh", text) for number, text in enumerate(dict.fromkeys(texts))]


def european(real: Path) -> list[Record]:
    """The English records of the European files, one a publication."""
    found: dict[str, Record] = {}
    for path in sorted((real / "patents/epo").glob("*.xml")):
        for outcome in formats.read(path):
            for record in outcome if isinstance(outcome, list) else ():
                if record["language"] == "en":
                    found.setdefault(record["id"], record)
    return list(found.values())


def _record(name: str, language: str, text: str) -> Record:
    row: Record = {**dict.fromkeys(SCHEMA.names), "id": name, "language": language, "source": name}  # type: ignore[typeddict-item]
    return {**row, "description": text}


def deduplicate(planted: Planted, folder: Path) -> Score:
    folder.mkdir()
    dedup(DedupConfig(), planted.shards, folder)
    lines = [json.loads(line) for line in (folder / "duplicates.jsonl").read_text("utf-8").splitlines()]
    assert all(line["jaccard"] >= 0.6 for line in lines)
    kept_for = {line["id"]: line["kept"] for line in lines}
    return score(planted, planted.family.keys() - kept_for.keys(), kept_for)


@pytest.mark.parametrize(
    ("read", "grams", "rates"),
    [(chinese, character_grams, RATES), (european, word_grams, [rate / 5 for rate in RATES])],
    ids=["chinese", "european"],
)
def test_planted_duplicates_in_real_texts(
    read: Callable[[Path], list[Record]],
    grams: Callable[[str], set[str]],
    rates: Sequence[float],
    real: Path,
    tmp_path: Path,
) -> None:
    records = [record for record in read(real) if len(whole_text(record)) > 200]
    hits = pairs = right = dropped = 0
    for seed in range(4):
        (tmp_path / f"in{seed}").mkdir()
        planted = plant(records, tmp_path / f"in{seed}", grams, seed, rates)
        found = deduplicate(planted, tmp_path / f"out{seed}")
        hits, pairs = hits + found.recall["0.6-1.0"][0], pairs + found.recall["0.6-1.0"][1]
        right, dropped = right + round(found.precision * found.dropped), dropped + found.dropped
    print(f"recall of J >= 0.6: {hits}/{pairs}; precision by families: {right}/{dropped}")
    assert pairs > 30
    assert hits >= 0.98 * pairs
    assert right >= 0.99 * dropped
