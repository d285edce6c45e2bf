"""Exact match, token F1 and ROUGE: what an answer has in common with its reference.

    prediction, reference ──split──▶ tokens ──▶ those in common ──▶ recall, precision, F1 ──▶ mean

Chinese ROUGE is over characters or jieba's words, because rouge-score's tokenizer drops every non-ASCII
character; `en` is that tokenizer, with Porter's stemmer.
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eval.metrics.measure import Measure, mean
from eval.sample import EvalSample

_WIDE = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# What changes a number stays: `5.5`, `3-5`, `-5`, `5%`.
_PUNCTUATION = re.compile(r"(?!(?<!\w)[-−]\d)(?:(?<!\d)[^\w\s%‰°]|[^\w\s%‰°](?!\d))")
ARTICLES = ("a", "an", "the")
_PARTS = ("recall", "precision", "f1")


def exact_match(samples: Sequence[EvalSample], lenient: bool = False) -> list[Measure]:
    """Share of predictions equal to their reference but for whitespace around them.

    `lenient`: equal as `tokens`, without regard to width, case, punctuation, spaces and English articles.
    """
    form: Callable[[str], object] = tokens if lenient else str.strip
    equal = [form(s.prediction) == form(s.reference) for s in samples]
    name = "exact-match-lenient" if lenient else "exact-match"
    signature = "equal|NFKC|lower case|no punctuation, spaces, articles" if lenient else "equal|stripped"
    return [mean(name, np.array(equal, np.float64), signature)._replace(binary=True)]


def token_f1(samples: Sequence[EvalSample]) -> list[Measure]:
    """Mean F1 of bags of tokens, as for SQuAD (Rajpurkar et al. 2016); two empty texts are equal."""
    values = []
    for s in samples:
        predicted, expected = tokens(s.prediction), tokens(s.reference)
        both = (Counter(predicted) & Counter(expected)).total()
        values.append(_rates(both, len(predicted), len(expected))[2] if predicted or expected else 1.0)
    return [
        mean("token-f1", values, "bags of tokens|NFKC|lower case|no punctuation, articles|mean of samples")
    ]


def tokens(text: str) -> list[str]:
    """Words in lower case without punctuation and English articles; Chinese and Japanese by characters.

    A text of articles alone, such as the letter A, keeps them.
    """
    found = words(text)
    return [word for word in found if word not in ARTICLES] or found


def words(text: str) -> list[str]:
    """As `tokens`, with articles."""
    text = _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).casefold())
    return _WIDE.sub(r" \1 ", _PUNCTUATION.sub("", text)).split()


def rouge_n(n: int, unit: str) -> Callable[[Sequence[EvalSample]], list[Measure]]:
    """ROUGE-N (Lin 2004) recall, precision and F1, averaged over samples; by a unit of UNITS."""

    def rates(prediction: Sequence[str], reference: Sequence[str]) -> tuple[float, float, float]:
        ours, theirs = (
            Counter(tuple(each[i : i + n]) for i in range(len(each) - n + 1))
            for each in (prediction, reference)
        )
        return _rates((ours & theirs).total(), ours.total(), theirs.total())

    return _rouge(f"rouge-{n}", unit, rates)


def rouge_l(unit: str) -> Callable[[Sequence[EvalSample]], list[Measure]]:
    """ROUGE-L (Lin 2004) recall, precision and F1, averaged over samples; by a unit of UNITS."""
    return _rouge("rouge-l", unit, _subsequence)


def rouge_legacy(samples: Sequence[EvalSample]) -> list[Measure]:
    """ROUGE-L of the `rouge` package on texts without spaces, each a single word: 1 if equal, else 0.

    F = 2PR / (P + R + 1e-8), so 562 equal texts of 1,000 give 0.562, 0.562 and 0.561999997.
    """
    rows = []
    for s in samples:
        recall, precision, _ = _subsequence(s.prediction.split(), s.reference.split())
        rows.append((recall, precision, 2 * precision * recall / (precision + recall + 1e-8)))
    return _parts("rouge-legacy", rows, "rouge-l|unit:space|legacy: F=2PR/(P+R+1e-8)")


def characters(text: str) -> list[str]:
    """The characters of a text without whitespace."""
    return [character for character in text if not character.isspace()]


def jieba_words(text: str) -> list[str]:
    """The words of a Chinese text."""
    return [word for word in _jieba().lcut(text) if not word.isspace()]


def _english(text: str) -> list[str]:
    return list(_english_tokenizer().tokenize(text))


UNITS: dict[str, Callable[[str], list[str]]] = {
    "char": characters,
    "jieba": jieba_words,
    "space": str.split,
    "en": _english,
}


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Its length; bit-parallel (Hyyrö 2004), with one addition of long integers per item of `b`."""
    positions: dict[str, int] = {}
    for i, item in enumerate(a):
        positions[item] = positions.get(item, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for item in b:
        matches = row & positions.get(item, 0)
        row = (row + matches | row - matches) & full
    return len(a) - row.bit_count()


def _rouge(
    name: str, unit: str, rates: Callable[[Sequence[str], Sequence[str]], tuple[float, float, float]]
) -> Callable[[Sequence[EvalSample]], list[Measure]]:
    def measure(samples: Sequence[EvalSample]) -> list[Measure]:
        split = UNITS[unit]
        rows = [rates(split(s.prediction), split(s.reference)) for s in samples]
        return _parts(f"{name}-{unit}", rows, f"{name}|unit:{unit}|mean of samples")

    return measure


def _parts(name: str, rows: Sequence[tuple[float, float, float]], signature: str) -> list[Measure]:
    table = np.array(rows, np.float64).reshape(-1, len(_PARTS))
    return [mean(f"{name}-{part}", table[:, i], signature) for i, part in enumerate(_PARTS)]


def _subsequence(prediction: Sequence[str], reference: Sequence[str]) -> tuple[float, float, float]:
    return _rates(longest_common_subsequence(prediction, reference), len(prediction), len(reference))


def _rates(both: int, predicted: int, expected: int) -> tuple[float, float, float]:
    """Recall, precision and F1 of numbers of items."""
    if not both:
        return 0.0, 0.0, 0.0
    recall, precision = both / expected, both / predicted
    return recall, precision, 2 * precision * recall / (precision + recall)


@functools.cache
def _jieba() -> Any:
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    return jieba


@functools.cache
def _english_tokenizer() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)
