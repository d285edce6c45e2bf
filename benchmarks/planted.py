"""A corpus with known duplicates: records, edited copies of some of them, and decoys.

Copies get scattered edits (characters replaced, inserted or deleted), and some also lose a passage. Decoys
are different inventions with a passage in common, half as long as their own text: they share a fifth of their
n-grams or more, and must all be kept. The Jaccard index of each planted pair is computed with plain Python
sets, independently of the code under test.
"""

import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data.record import PARQUET, SCHEMA, Record

RATES = (0.001, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1)
"""Fractions of characters that are edited."""
PASSAGES = 5
SHARD_RECORDS = 4000


class Planted(NamedTuple):
    """The corpus and its known duplicates."""

    shards: list[Path]
    text_bytes: int
    """Size of all texts in UTF-8."""
    family: dict[str, int]
    """Record id to the number of the invention that its text comes from."""
    pairs: list[tuple[str, str, float]]
    """Ids of the original and the copy, and the Jaccard index of their texts."""


class Score(NamedTuple):
    """How well the kept records match what was planted."""

    recall: dict[str, tuple[int, int]]
    """Pairs with at most one record kept, and all pairs, for Jaccard `0.6-1.0` and `0.5-0.6`."""
    precision: float
    """Share of the dropped records that duplicate one of their own invention; 1 if none was dropped."""
    dropped: int


def synthetic_records(folder: Path, inventions: int, language: str, seed: int = 0) -> list[Record]:
    """Synthetic patents in one language."""
    from data.synthetic.patents import synthesize

    synthesize(folder, inventions, seed)
    with (folder / "records.jsonl").open(encoding="utf-8") as file:
        return [record for line in file if (record := json.loads(line))["language"] == language]


def plant(
    records: Sequence[Record],
    folder: Path,
    grams: Callable[[str], set[str]],
    seed: int = 0,
    rates: Sequence[float] = RATES,
) -> Planted:
    """Write shards of the records in random order, with a copy of every third record and a common passage in
    every second one."""
    rng = Random(seed)
    passages = [whole_text(record) for record in records[:PASSAGES]]
    alphabet = sorted({character for text in passages for character in text if character.isalpha()})
    rows: list[Record] = []
    family: dict[str, int] = {}
    pairs: list[tuple[str, str, float]] = []
    for number, record in enumerate(records[PASSAGES:]):
        text = whole_text(record)
        if number % 2:
            passage = rng.choice(passages)[: len(text) // 2]
            at = rng.randrange(len(text))
            text = f"{text[:at]}\n{passage}\n{text[at:]}"
        versions = [text]
        if number % 3 == 0:
            versions.append(edit(text, rates[number // 3 % len(rates)], alphabet, rng))
        names = [f"{record['id']}#{version}" for version in range(len(versions))]
        for name, version in zip(names, versions, strict=True):
            family[name] = number
            # No application number: copies must be found by their text alone.
            rows.append(_plain(record, name, version))
        if len(versions) == 2:
            a, b = map(grams, versions)
            pairs.append((names[0], names[1], len(a & b) / len(a | b)))
    rng.shuffle(rows)
    shards: list[Path] = []
    for start in range(0, len(rows), SHARD_RECORDS):
        shards.append(folder / f"shard-{len(shards):05d}.parquet")
        table = pa.Table.from_pylist(rows[start : start + SHARD_RECORDS], SCHEMA)
        pq.write_table(table, shards[-1], row_group_size=1000, **PARQUET)
    return Planted(shards, sum(len(whole_text(row).encode()) for row in rows), family, pairs)


def score(planted: Planted, kept: set[str], kept_for: dict[str, str]) -> Score:
    """Compare the kept ids with what was planted. `kept_for` maps each dropped id to the one that it
    duplicates; if a tool does not report that, any kept record of the same invention counts."""
    recall = {}
    for least, most in ((0.6, 1.01), (0.5, 0.6)):
        between = [(a, b) for a, b, jaccard in planted.pairs if least <= jaccard < most]
        found = sum(not (a in kept and b in kept) for a, b in between)
        recall[f"{least}-{min(most, 1.0)}"] = (found, len(between))
    families = {planted.family[name] for name in kept}
    gone = planted.family.keys() - kept
    right = sum(
        planted.family[kept_for[name]] == planted.family[name]
        if name in kept_for
        else planted.family[name] in families
        for name in gone
    )
    return Score(recall, right / len(gone) if gone else 1.0, len(gone))


def character_grams(text: str) -> set[str]:
    """All 8-grams of letters and digits, in plain Python."""
    letters = "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())
    return {letters[i : i + 8] for i in range(len(letters) - 7)}


def word_grams(text: str) -> set[str]:
    """All 5-grams of words, in plain Python."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return {" ".join(words[i : i + 5]) for i in range(len(words) - 4)}


def whole_text(record: Record) -> str:
    """Title, abstract, claims and description."""
    parts = [record["title"], record["abstract"], *(record["claims"] or ()), record["description"]]
    return "\n".join(part for part in parts if part)


def edit(text: str, rate: float, alphabet: Sequence[str], rng: Random) -> str:
    """Edit a fraction `rate` of the characters; one text in four also loses a contiguous tenth."""
    if rng.random() < 0.25:
        at = rng.randrange(len(text))
        text = text[:at] + text[at + len(text) // 10 :]
    return "".join(_edited(text, rate, alphabet, rng))


def _edited(text: str, rate: float, alphabet: Sequence[str], rng: Random) -> Iterator[str]:
    for character in text:
        if rng.random() >= rate:
            yield character
        else:
            yield rng.choice(("", rng.choice(alphabet), character + rng.choice(alphabet)))


def _plain(record: Record, name: str, text: str) -> Record:
    return {
        **record,
        "id": name,
        "application_id": None,
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": None,
        "claim_numbers": None,
        "abstract": None,
        "claims": None,
        "title": text[:20],
        "description": text[20:],
    }
