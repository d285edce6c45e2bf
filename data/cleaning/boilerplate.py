"""Boilerplate: lines that are, word for word, in a large share of a corpus's descriptions.

    shard ──count_lines──▶ lines with their documents ┐
    shard ──count_lines──▶ …                               ┴──frequent_lines──▶ {line: documents}

Counting is lossy (Manku and Motwani, VLDB 2002), so that memory does not grow with the corpus: after every
5 / share documents, all counts are lowered by one, and lines with a count of zero are removed. No line with
the wanted share is missed; none with less than 0.7 of it is taken.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data.cleaning.text_rules import boilerplate_key
from data.record_store import read_column
from data.sections import heading

SHORTEST = 20
"""Characters; shorter lines (`FIG. 2`, `如图所示，`) are building blocks, not boilerplate."""
LEAST_DOCUMENTS = 50
"""Minimum number of documents of a boilerplate line; in fewer it may be chance."""


class LineCounts(NamedTuple):
    """Lower bounds of the number of documents with each line."""

    documents: int
    """The number of all documents."""
    lines: Counter[str]


def count_lines(shard: Path, share: float) -> LineCounts:
    """The lines of a shard's descriptions, without those far below `share` of its documents."""
    every = int(5 / share)
    lines: Counter[str] = Counter()
    documents = 0
    for description in read_column(shard, "description"):
        if description:
            documents += 1
            lines.update(_candidates(description))
            if documents % every == 0:
                lines = Counter({line: n - 1 for line, n in lines.items() if n > 1})
    return LineCounts(documents, _above(lines, documents * share / 20))


def frequent_lines(counts: Iterable[LineCounts], share: float) -> dict[str, int]:
    """Lines in `share` of all documents and in LEAST_DOCUMENTS or more, with counts, most frequent first."""
    documents = 0
    lines: Counter[str] = Counter()
    for found in counts:
        documents += found.documents
        lines.update(found.lines)
        lines = _above(lines, documents * share / 20)
    wanted = max(documents * share * 0.7, LEAST_DOCUMENTS)
    frequent = [(line, n) for line, n in lines.items() if n >= wanted]
    return dict(sorted(frequent, key=lambda item: (-item[1], item[0])))


def _candidates(description: str) -> set[str]:
    keys = {boilerplate_key(line) for line in description.split("\n") if len(line) >= SHORTEST}
    return {key for key in keys if len(key) >= SHORTEST and heading(key) is None}


def _above(lines: Counter[str], least: float) -> Counter[str]:
    return Counter({line: n for line, n in lines.items() if n >= least})
