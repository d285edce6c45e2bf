"""The side of the split of a record: the same for its whole invention, in every office and language.

    records ──names──▶ (family, application, publication) ──link──▶ Families ──split_of──▶ train | validation

A claim of a patent is in its publication, its grant, its translations and its foreign family members. So all
records that share a family number, an application, or a publication number (whatever its kind code) are one
invention, even if one source has the family and another only the application: a name that two records share
links them, and links are transitive.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import xxhash
from pydantic import Field

from core.config.loader import Config
from data.dedup.normalise import Hashes
from data.executor import map_in_order
from data.patent_numbers import publication_key
from data.record import Record, invention

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


class SplitConfig(Config):
    """Which inventions are held out."""

    validation_share: float = Field(0.01, ge=0, lt=1)
    """Share of the inventions held out from training."""
    seed: int = Field(0, ge=0, lt=2**64)
    """Seed of the split and of the documents' order."""


class Families(NamedTuple):
    """The inventions with several keys: the sorted hashes of these keys, and the representative of each."""

    keys: Hashes
    labels: Hashes


NO_FAMILIES = Families(np.empty(0, np.uint64), np.empty(0, np.uint64))


def split_of(record: Record, config: SplitConfig, families: Families = NO_FAMILIES) -> Split:
    """The side of a record: a pure function of the seed and its invention."""
    return side_of(representative(invention(record), families), config)


def representative(key: str, families: Families = NO_FAMILIES) -> int:
    """A number that all keys of `data.record.invention` of one invention share."""
    label = _hash(key)
    place = int(np.searchsorted(families.keys, np.uint64(label)))
    if place < len(families.keys) and families.keys[place] == label:
        label = int(families.labels[place])
    return label


def side_of(label: int, config: SplitConfig) -> Split:
    """The side of the invention with this `representative`."""
    digest = hashlib.blake2b(f"{config.seed}:{label}".encode(), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "big") < config.validation_share * 2**64 else "train"


def link_families(corpora: Sequence[Sequence[Path]], executor: Executor | None) -> Families:
    """The keys of `data.record.invention` that belong to one invention because they share another name.

    `corpora` are the shards of corpora, the oldest first; an invention keeps its key in the oldest one, so
    that its side stays the same. Reads three short columns. Memory holds about 150 bytes per record.
    """
    found, ages = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int16)]
    for number, shards in enumerate(corpora):
        for pairs in map_in_order(executor, names, shards):
            found.append(pairs)
            ages.append(np.full(len(pairs), number, np.int16))
    keys, key = np.unique(np.concatenate(found)[:, 0], return_inverse=True)
    _, name = np.unique(np.concatenate(found)[:, 1], return_inverse=True)
    age = np.full(len(keys), len(corpora), np.int16)
    np.minimum.at(age, key, np.concatenate(ages))
    by_rank = np.lexsort((keys, age))  # the smallest of its oldest keys represents an invention
    rank, before = np.argsort(by_rank), np.empty(0, np.int64)
    while not np.array_equal(rank, before):  # the smallest rank spreads along the links
        before = rank.copy()
        least = np.full(len(name), len(keys))
        np.minimum.at(least, name, rank[key])
        np.minimum.at(rank, key, least[name])
    labels = keys[by_rank[rank]]
    return Families(keys[labels != keys], labels[labels != keys])


def names(shard: Path) -> Hashes:
    """(P, 2): for each record of a shard, its key paired with each of its names, as hashes."""
    table = pq.read_table(shard, columns=["id", "application_id", "family_id"])
    found: set[tuple[int, int]] = set()
    for batch in table.to_batches():
        for record in batch.to_pylist():
            key = record["family_id"] or record["application_id"] or record["id"]
            others = (key, record["application_id"], publication_key(record["id"]))
            found.update((_hash(key), _hash(name)) for name in others if name)
    return np.array(sorted(found), np.uint64).reshape(-1, 2)


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())
