"""Find the texts of an evaluation set in other texts: one implementation for the corpus and for evaluation.

    samples ──fold──▶ rolling hashes of all passages ──▶ Index ──overlaps(text)──▶ hits

A text matches a sample by one of three rules:

    publication  the same publication number, whatever its kind code
    exact        the folded texts are equal (data/dedup/normalise.py)
    overlap      they share a passage of 30 characters (Chinese, Japanese) or 13 words (others) after folding

Rolling hashes find passages, which are then compared character by character. A sample shorter than a passage
can only be matched by the other two rules.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data.dedup.minhash import grams
from data.dedup.normalise import (
    SPACE,
    Bytes,
    Hashes,
    Indices,
    Keys,
    Units,
    digests,
    fold,
    kernel,
    whole_texts,
)
from data.patent_numbers import publication_key

RULES = ("publication", "exact", "overlap")


class EvalSample(NamedTuple):
    """A text of an evaluation set."""

    dataset: str
    id: str
    text: str
    publication: str | None = None
    application: str | None = None
    """This and the family are only compared by `data.dedup.training_index`."""
    family: str | None = None


class Hit(NamedTuple):
    """A sample that a text matches."""

    dataset: str
    sample: str
    rule: str
    passage: str | None
    """For `overlap`, a shared passage, folded."""
    share: float
    """The share of the sample's passages that are in the text; 1 for the other rules."""


class Index:
    """An index of evaluation samples. `short_samples` of them are shorter than a passage."""

    def __init__(self, samples: Iterable[EvalSample], characters: int = 30, words: int = 13) -> None:
        self.samples = list(samples)
        self._sizes = characters, words
        self._keys = fold([sample.text for sample in self.samples])
        self._texts: dict[bytes, list[int]] = {}
        self._publications: dict[str, list[int]] = {}
        for number, digest in enumerate(digests(self._keys)):
            if digest.any():
                self._texts.setdefault(digest.tobytes(), []).append(number)
            if publication := publication_key(self.samples[number].publication):
                self._publications.setdefault(publication, []).append(number)
        hashes, bounds = grams(self._keys, characters, words)
        numbers = np.repeat(np.arange(len(self.samples)), np.diff(bounds))
        places = np.arange(len(hashes)) - bounds[numbers]
        is_long = np.array(
            [len(_passage(self._keys, n, 0, self._sizes)) > 0 for n in range(len(self.samples))], bool
        )
        self.short_samples = int((~is_long).sum())
        order = np.flatnonzero(is_long[numbers])
        order = order[np.argsort(hashes[order], kind="stable")]
        self._numbers, self._places = numbers[order], places[order]
        # The distinct passages: their hashes, and where the samples of each begin in the two arrays above.
        self._hashes, self._starts, targets = np.unique(hashes[order], return_index=True, return_inverse=True)
        pairs = np.unique(np.stack((self._numbers, targets)), axis=1)
        self._counts = np.bincount(pairs[0], minlength=len(self.samples))
        self._bits = np.zeros(1 << max(10, (16 * len(self._hashes)).bit_length() - 3), np.uint8)
        _mark(self._hashes, self._bits)

    def overlaps(self, text: str, publication: str | None = None) -> list[Hit]:
        """Every sample that a text matches, once per rule."""
        return self.hits((rule, target) for _, rule, target in self._scan(fold([text]), [publication]))

    def scan(self, batch: pa.RecordBatch) -> list[tuple[int, int, int]]:
        """(row, rule, target) for the matches of a batch of records: the number of the rule, and that of the
        sample or, for `overlap`, of the passage."""
        return list(self._scan(fold(whole_texts(batch)), batch["id"].to_pylist()))

    def hits(self, met: Iterable[tuple[int, int]]) -> list[Hit]:
        """The samples that one text matches, from its matches (rule, target)."""
        found: dict[tuple[int, int], list[int]] = {}
        for rule, target in met:
            for number in self._samples_of(target) if RULES[rule] == "overlap" else [target]:
                found.setdefault((rule, number), []).append(target)
        hits = []
        for (rule, number), targets in sorted(found.items()):
            dataset, name = self.samples[number][:2]
            if RULES[rule] == "overlap":
                share = len(targets) / int(self._counts[number])
                hits.append(Hit(dataset, name, RULES[rule], self.passage(targets[0]), share))
            else:
                hits.append(Hit(dataset, name, RULES[rule], None, 1.0))
        return hits

    def _samples_of(self, target: int) -> list[int]:
        stop = self._starts[target + 1] if target + 1 < len(self._starts) else len(self._numbers)
        return sorted(set(self._numbers[self._starts[target] : stop].tolist()))

    def passage(self, target: int) -> str:
        """The folded text of a passage."""
        first = self._starts[target]
        units = _passage(self._keys, self._numbers[first], self._places[first], self._sizes)
        return units.tobytes().decode("utf-16-le", "replace")

    def _scan(self, keys: Keys, publications: Sequence[str | None]) -> Iterator[tuple[int, int, int]]:
        for row, digest in enumerate(digests(keys)):
            number = publication_key(publications[row])
            yield from ((row, 0, sample) for sample in self._publications.get(number or "", ()))
            yield from ((row, 1, sample) for sample in self._texts.get(digest.tobytes(), ()))
        hashes, bounds = grams(keys, *self._sizes)
        maybe = _marked(hashes, self._bits)
        targets = np.searchsorted(self._hashes, hashes[maybe])
        there = targets < len(self._hashes)
        maybe, targets = maybe[there], targets[there]
        maybe, targets = (each[self._hashes[targets] == hashes[maybe]] for each in (maybe, targets))
        rows = np.searchsorted(bounds, maybe, side="right") - 1
        _, first = np.unique(np.stack((rows, targets)), axis=1, return_index=True)
        for row, place, target in zip(
            rows[first], (maybe - bounds[rows])[first], targets[first], strict=True
        ):
            at = self._starts[target]
            ours = _passage(self._keys, self._numbers[at], self._places[at], self._sizes)
            if np.array_equal(_passage(keys, row, place, self._sizes), ours):
                yield int(row), 2, int(target)


def _passage(keys: Keys, number: int, place: int, sizes: tuple[int, int]) -> Units:
    """The units of the passage that begins at a character or word of a key; none if the key ends in it."""
    units = keys.units[keys.bounds[number] : keys.bounds[number + 1]]
    size = sizes[int(keys.words[number])]
    ends = np.arange(len(units) + 1)
    if keys.words[number]:
        ends = np.concatenate(([0], np.flatnonzero(units == SPACE) + 1, [len(units) + 1]))
    if place + size >= len(ends) or not len(units):
        return units[:0]
    return units[ends[place] : ends[place + size] - int(keys.words[number])]


@kernel
def _mark(hashes: Hashes, bits: Bytes) -> None:
    """Set a bit for each hash, so that nearly all others are ruled out by one lookup."""
    for i in range(len(hashes)):
        place = hashes[i] & np.uint64(8 * len(bits) - 1)
        bits[place >> np.uint64(3)] |= np.uint8(1) << np.uint8(place & np.uint64(7))


@kernel
def _marked(hashes: Hashes, bits: Bytes) -> Indices:
    found = np.empty(len(hashes), np.int64)
    count = 0
    for i in range(len(hashes)):
        place = hashes[i] & np.uint64(8 * len(bits) - 1)
        found[count] = i
        count += (bits[place >> np.uint64(3)] >> np.uint8(place & np.uint64(7))) & np.uint8(1)
    return found[:count]
