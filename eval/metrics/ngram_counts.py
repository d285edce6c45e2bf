"""Fast n-gram counts for BLEU and chrF, identical to sacrebleu's.

    texts ──tokens (BLEU) or characters (chrF)──▶ n-grams of each order ──▶ one row of counts per sample

sacrebleu's own code takes three times as long; tests check that scores and tokens are the same.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from eval.metrics.measure import Floats
from eval.sample import EvalSample

Tokens = TypeVar("Tokens", str, tuple[str, ...])
BLEU_ORDER, CHRF_ORDER = 4, 6
PUNCTUATION = frozenset(' !"#$%&()*+/:;<=>?@[\\]^_`{|}~')
_AFTER = (
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def bleu_rows(samples: Sequence[EvalSample], split: Callable[[str], Sequence[str]]) -> Floats:
    """(n x 10): lengths of prediction and reference, matches of orders 1 to 4, n-grams of the prediction."""
    rows = []
    for s in samples:
        prediction, reference = tuple(split(s.prediction)), tuple(split(s.reference))
        counts = _counts(prediction, reference, BLEU_ORDER)
        matches, totals = [match for _, _, match in counts], [total for total, _, _ in counts]
        rows.append([len(prediction), len(reference), *matches, *totals])
    return np.array(rows, np.float64).reshape(-1, 2 + 2 * BLEU_ORDER)


def chrf_rows(samples: Sequence[EvalSample]) -> Floats:
    """(n x 18): for each order, n-grams of the prediction (0 if the reference has none), n-grams of the
    reference, and matches; whitespace is ignored."""
    rows = []
    for s in samples:
        prediction, reference = "".join(s.prediction.split()), "".join(s.reference.split())
        counts = _counts(prediction, reference, CHRF_ORDER)
        rows.append([value for a, b, match in counts for value in (a if b else 0, b, match)])
    return np.array(rows, np.float64).reshape(-1, 3 * CHRF_ORDER)


def chinese_tokens(text: str) -> list[str]:
    """sacrebleu's `zh` tokens: each Chinese character is a token, the rest is split as by mteval's 13a."""
    text = text.strip().translate(_APART)
    for pattern, with_spaces in _AFTER:
        text = pattern.sub(with_spaces, text)
    return text.split()


def _counts(prediction: Tokens, reference: Tokens, orders: int) -> list[tuple[int, int, int]]:
    """Number of n-grams of the prediction and of the reference, and of their matches, for orders from 1."""
    results = []
    for n in range(1, orders + 1):
        ours = [prediction[i : i + n] for i in range(len(prediction) - n + 1)]
        theirs = [reference[i : i + n] for i in range(len(reference) - n + 1)]
        a, b = Counter(ours), Counter(theirs)
        common = a.keys() & b.keys()
        both = sum(map(min, map(a.__getitem__, common), map(b.__getitem__, common)))
        results.append((len(ours), len(theirs), both))
    return results


class _Apart(dict[int, str]):
    """Maps a character to itself, with spaces around it if it is always a token of its own."""

    def __missing__(self, code: int) -> str:
        from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

        character = chr(code)
        alone = character in PUNCTUATION or TokenizerZh._is_chinese_char(character)
        self[code] = f" {character} " if alone else character
        return self[code]


_APART = _Apart()
