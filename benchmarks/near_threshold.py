"""Near-duplicates: precision and recall by threshold, on pairs labelled as one invention or two.

    python -m benchmarks.near_threshold [--quick] [--real DIR]

The pairs (benchmarks/labelled_pairs.py) are made from synthetic patents or, with --real, from the offices'
files in a folder (`uspto`, `epo`, `jp`, `kr`, `cn`), and their exact Jaccard index is computed. A pair is
short if a text has fewer than SHORT_NGRAMS distinct n-grams. Of a text's edits each counts as a share, so
that every text has one copy in sum:

    recall     share of the copies that are found
    precision  copies found / (copies found + pairs of two inventions found)

The rule for the default: of the steps of 0.05, the least threshold at which the precision of long pairs is
at least 0.99 in every language. The last line is one JSON object.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from benchmarks.labelled_pairs import Text, labelled, real_records
from benchmarks.planted import synthetic_records
from benchmarks.result import print_result
from data.dedup.minhash import grams
from data.dedup.normalise import Hashes, fold
from data.record import Record

PACKAGES = ("numba", "numpy", "scipy", "pyarrow", "opencc")
THRESHOLDS = tuple(round(0.3 + 0.05 * step, 2) for step in range(14))
PRECISION = 0.99
SIZES = (0, 50, 100, 150, 200, 300, 500, 1000)
"""Numbers of n-grams."""


class Pair(NamedTuple):
    """Two texts."""

    language: str
    jaccard: float
    least: int
    """Distinct n-grams of the smaller one."""
    weight: float
    """What the pair counts for: 1, or the share of one of several edits."""
    edit: str
    """Which edit of one text the other is; empty if they are two inventions."""
    names: tuple[str, str]
    """Of the inventions."""
    same_title: bool


class Found(NamedTuple):
    """What a threshold finds."""

    recall: float
    precision: float


def main() -> None:
    """Measure, print the tables and the JSON line."""
    from data.dedup.near_duplicates import SHORT_NGRAMS, NearConfig

    parser = argparse.ArgumentParser(prog="python -m benchmarks.near_threshold", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer synthetic patents")
    parser.add_argument("--real", type=Path, metavar="DIR", help="a folder with real files of the offices")
    arguments = parser.parse_args()
    records = real_records(arguments.real) if arguments.real else made_records(50 if arguments.quick else 150)
    config, pairs = NearConfig(), compare(labelled(records))
    copies = sum(bool(pair.edit) for pair in pairs)
    print(f"{len(records)} records, {copies:,} edited copies")
    short = [pair for pair in pairs if pair.least < SHORT_NGRAMS]
    long = [pair for pair in pairs if pair.least >= SHORT_NGRAMS]
    print_highest(pairs)
    print_thresholds(long, short)
    print_languages(long)
    print(f"least threshold with a precision of 0.99 in every language: {choose(long)}")
    kinds = {"long": judge(long, config.threshold), "short": judge(short, config.threshold, same_title=True)}
    results = {"threshold_ratio": choose(long)}
    for kind, found in kinds.items():
        results |= {f"{kind}_{name}_ratio": value for name, value in found._asdict().items()}
    print_result("near_threshold", PACKAGES, results)


def made_records(inventions: int) -> list[Record]:
    """Synthetic patents in both their languages."""
    with tempfile.TemporaryDirectory() as scratch:
        return [
            record
            for language in ("zh", "en")
            for record in synthetic_records(Path(scratch) / language, inventions, language)
        ]


def compare(texts: Sequence[Text]) -> list[Pair]:
    """Every text with each of its edits, and every two texts of different inventions in one language that
    share an n-gram; the others have an index of 0."""
    sets = ngrams([each.text for each in texts])
    titles = [_title(each, each.text) for each in texts]
    pairs = []
    for text, own, title in zip(texts, sets, titles, strict=True):
        for (edit, edited), other in zip(text.edits.items(), ngrams(list(text.edits.values())), strict=True):
            shared = len(np.intersect1d(own, other, assume_unique=True))
            jaccard = shared / (len(own) + len(other) - shared)
            least, share = min(len(own), len(other)), 1 / len(text.edits)
            names, same = (text.invention, text.invention), title == _title(text, edited)
            pairs.append(Pair(text.language, jaccard, least, share, edit, names, same))
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    sizes = np.array([len(each) for each in sets])
    rows = sparse.csr_matrix((np.ones(len(columns), np.int32), columns, np.cumsum([0, *sizes])))
    shared = sparse.triu(rows @ rows.T, 1).tocoo()
    for a, b, count in zip(shared.row, shared.col, shared.data, strict=True):
        one, two = texts[a], texts[b]
        if one.invention != two.invention and one.language == two.language:
            jaccard, least = count / (sizes[a] + sizes[b] - count), min(sizes[a], sizes[b])
            names, same = (one.invention, two.invention), titles[a] == titles[b]
            pairs.append(Pair(one.language, float(jaccard), int(least), 1, "", names, same))
    return pairs


def ngrams(texts: Sequence[str]) -> list[Hashes]:
    """The hashes of each text's distinct n-grams, of the default sizes."""
    from data.dedup.fingerprints import KeyConfig

    hashes, bounds = grams(fold(texts), KeyConfig().characters, KeyConfig().words)
    return [np.unique(hashes[start:stop]) for start, stop in pairwise(bounds)]


def _title(text: Text, version: str) -> bytes:
    return fold([version.partition("\n")[0] if text.titled else ""]).units.tobytes()


def judge(pairs: Iterable[Pair], threshold: float, *, same_title: bool = False) -> Found:
    """Recall and precision if pairs from a threshold on are dropped; `same_title`: only those."""
    copies = hits = errors = 0.0
    for pair in pairs:
        is_found = pair.jaccard >= threshold and (pair.same_title or not same_title)
        if pair.edit:
            copies += pair.weight
            hits += pair.weight * is_found
        else:
            errors += is_found
    return Found(hits / copies if copies else 1.0, hits / (hits + errors) if hits or errors else 1.0)


def choose(pairs: Sequence[Pair]) -> float:
    """The least threshold at which the precision is at least 0.99 in every language; 1 if there is none."""
    languages = by_language(pairs).values()
    fitting = (t for t in THRESHOLDS if all(judge(some, t).precision >= PRECISION for some in languages))
    return next(fitting, 1.0)


def by_language(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each language that has both kinds of pairs."""
    found = defaultdict[str, list[Pair]](list)
    for pair in pairs:
        found[pair.language].append(pair)
    return {language: some for language, some in sorted(found.items()) if any(pair.edit for pair in some)}


def print_highest(pairs: Iterable[Pair]) -> None:
    """How alike two inventions are at most, by the size of the smaller text."""
    highest = dict.fromkeys(SIZES, 0.0)
    for pair in pairs:
        if not pair.edit:
            size = max(size for size in SIZES if size <= pair.least)
            highest[size] = max(highest[size], pair.jaccard)
    print("highest Jaccard index of two inventions, by n-grams of the smaller text:")
    print("".join(f"  from {size}: {value:.2f}" for size, value in highest.items()))


def print_thresholds(long: Sequence[Pair], short: Sequence[Pair]) -> None:
    """Recall and precision by threshold."""
    print(f"{'':9}{'long':>17}{'short':>18}{'short, one title':>20}")
    print(f"{'threshold':9}" + f"{'recall':>9}{'precision':>10}" * 3)
    for threshold in THRESHOLDS:
        found = judge(long, threshold), judge(short, threshold), judge(short, threshold, same_title=True)
        print(f"{threshold:9.2f}" + "".join(f"{each.recall:9.3f}{each.precision:10.3f}" for each in found))


def print_languages(long: Sequence[Pair]) -> None:
    """Recall and precision of long pairs by threshold and language."""
    languages = by_language(long)
    print("long pairs: recall, precision")
    print(f"{'threshold':9}" + "".join(f"{language:>16}" for language in languages))
    for threshold in THRESHOLDS:
        found = [judge(some, threshold) for some in languages.values()]
        print(f"{threshold:9.2f}" + "".join(f"{each.recall:10.3f}{each.precision:6.3f}" for each in found))


if __name__ == "__main__":
    main()
