"""Words that the end of a printed line divided: `drill- ing`, `heat- resistant`, are rejoined.

    shard ──count_words──▶ candidates, words ┐
    shard ──count_words──▶ …                 ┴──words_of_corpus──▶ {form: documents}

Scanned texts and the USPTO's of 1976 to 2001 have a hyphen and a space where a line ended. `rejoin` takes the
form, joined or hyphenated, that stands elsewhere in the same document, the more frequent one; if there is
neither, the one in more documents of the corpus; otherwise the text is unchanged. Before `and`, `or` and the
like, the hyphen marks an omitted word (`two- and three-way`) and is kept.

Documents without such a hyphen only cost the search for it. The words of the corpus are those of all
documents with one, and of a shard with one the first SAMPLE others; of each shard those in two documents or
more are kept, of all the most frequent, so that memory does not grow with the corpus.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

DIVIDED = re.compile(r"(?<![^\W\d_])([^\W\d_]+)-[ \n]([^\W\d_]{2,})(?![^\W_])")
HINT = re.compile(r"-(?<=[^\W\d_]-)[ \n][^\W\d_]")
"""Begins with the hyphen, so that a text is searched at the speed of C."""

WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")

KEPT_BEFORE = frozenset(
    (
        "and", "or", "nor", "to", "but", "as", "than", "versus", "vs", "plus", "through", "und",
        "oder", "bzw", "bis", "als", "sowie", "wie", "statt", "et", "ou", "à", "au", "puis", "y",
        "o", "u", "e", "ed", "od", "en", "of", "van", "och", "eller", "og", "eli", "ja", "oraz",
        "lub", "i",
    )
)  # fmt: skip
"""Words after a hyphen that stands for the rest of a word, in English, German, French and others."""

LEAST_LETTERS = 5
"""Of a joined word; shorter ones are too often words by chance (`f- or`)."""

LEAST_DOCUMENTS = 5
"""Of a form that stands only elsewhere in the corpus; a mistake recurs in fewer."""

SAMPLE = 200
"""Descriptions without divided words whose words count too."""

MOST_WORDS = 1_000_000

Words = Mapping[str, int]
"""The number of documents, or of places, with each form."""


class WordCounts(NamedTuple):
    """What a shard's descriptions hold."""

    candidates: Counter[str]
    """The forms that their divided words may have and that stand nowhere else in their document."""
    words: Counter[str]
    """The number of documents with each word."""


def divided(text: str) -> Iterator[list[str]]:
    """The forms, joined or hyphenated, that each divided word of a text may have."""
    if HINT.search(text):
        for found in DIVIDED.finditer(text):
            if forms := [form for form in _forms(found) if form]:
                yield forms


def words_of(texts: Iterable[str]) -> Counter[str]:
    """The words of a document, in lower case, with the parts of hyphenated ones."""
    found = Counter(word for text in texts for word in WORD.findall(text.lower()))
    for word, number in list(found.items()):
        if "-" in word:
            for part in word.split("-"):
                found[part] += number
    return found


def rejoin(text: str, document: Words, corpus: Words) -> str:
    """The text with its divided words rejoined; `document` are its own words."""

    def whole(found: re.Match[str]) -> str:
        for words in (document, corpus):
            joined, hyphenated = (words.get(form, 0) if form else 0 for form in _forms(found))
            if joined or hyphenated:
                return found[1] + ("" if joined > hyphenated else "-") + found[2]
        return found[0]

    return DIVIDED.sub(whole, text) if HINT.search(text) else text


def count_words(shard: Path) -> WordCounts:
    """The candidates and words of the descriptions of a shard."""
    candidates, documents = Counter[str](), Counter[str]()
    sample: list[str] = []
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=256, columns=["description"]):
            for text in filter(None, batch["description"].to_pylist()):
                if found := list(divided(text)):
                    words = words_of([text])
                    candidates.update(
                        form for forms in found if words.keys().isdisjoint(forms) for form in forms
                    )
                    documents.update(words.keys())
                elif len(sample) < SAMPLE:
                    sample.append(text)
    if candidates:
        for text in sample:
            documents.update(words_of([text]).keys())
    return WordCounts(candidates, Counter({word: n for word, n in documents.items() if n > 1}))


def words_of_corpus(shards: Iterable[WordCounts]) -> dict[str, int]:
    """The forms of divided words that stand in LEAST_DOCUMENTS or more, with their number."""
    candidates, words = Counter[str](), Counter[str]()
    for found in shards:
        candidates, words = _most(candidates, found.candidates), _most(words, found.words)
    return {form: words[form] for form in sorted(candidates) if words[form] >= LEAST_DOCUMENTS}


def _most(counts: Counter[str], more: Counter[str]) -> Counter[str]:
    """Their sum, of a limited size; of equally frequent ones the first in the alphabet."""
    counts.update(more)
    if len(counts) <= 2 * MOST_WORDS:
        return counts
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Counter(dict(ranked[:MOST_WORDS]))


def _forms(found: re.Match[str]) -> tuple[str, str]:
    """The joined and the hyphenated form of a divided word; empty if it cannot be one."""
    first, rest = found[1], found[2]
    upper = first.isupper() and rest.isupper()
    if rest.lower() in KEPT_BEFORE or not (rest.islower() or upper) or not (first + rest).isalpha():
        return "", ""
    joined = first.lower() + rest.lower()
    possible = len(first) > 1 and len(joined) >= LEAST_LETTERS
    return joined if possible else "", f"{first}-{rest}".lower()
