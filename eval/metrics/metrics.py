"""All metrics by name: each returns statistics (n x k) of the samples, whose sums give the score.

    EvalSample ──metric──▶ [Measure(name, statistics, combine, signature), …] ──eval/analysis/scoring.py──▶
    value, interval

BLEU, chrF and TER use sacrebleu's tokens, counts and signatures. Scores are combined here, for thousands of
resamples at once; tests check that they equal sacrebleu's. Chinese ROUGE-L is over characters or jieba's
words, because rouge-score's tokenizer drops every non-ASCII character. The names in YAML and predictions
files are the keys of METRICS.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eval.metrics import ngram_counts, perplexity
from eval.metrics.legal import cited_articles, entities, refusal, statute
from eval.metrics.letters import answer_letters, numbered
from eval.metrics.measure import Floats, Measure, mean, scaled
from eval.metrics.patent import claim_structure, extraction
from eval.metrics.terminology import terminology
from eval.sample import EvalSample


def bleu(tokenize: str) -> Callable[[Sequence[EvalSample]], list[Measure]]:
    """Corpus BLEU (Papineni et al. 2002) with sacrebleu's tokenizers `zh`, `13a` and `char`, or jieba."""

    def measure(samples: Sequence[EvalSample]) -> list[Measure]:
        from sacrebleu.metrics.bleu import BLEU

        jieba = tokenize == "jieba"
        metric = BLEU(tokenize="none" if jieba else tokenize, references=[[""]])
        words = {"jieba": _jieba_words, "zh": ngram_counts.chinese_tokens}
        split = words.get(tokenize, lambda text: metric.tokenizer(text.rstrip()).split())
        signature = str(metric.get_signature())
        if jieba:
            signature = signature.replace("tok:none", f"tok:jieba-{_version('jieba')}")
        return [Measure(f"bleu-{tokenize}", ngram_counts.bleu_rows(samples, split), _combine_bleu, signature)]

    return measure


def sentence_bleu(samples: Sequence[EvalSample]) -> list[Measure]:
    """Mean sentence BLEU over characters on a 0-1 scale, as in Patent-LLaMA's table."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize="char", effective_order=True)
    values = [metric.sentence_score(s.prediction, [s.reference]).score / 100 for s in samples]
    return [mean("sentence-bleu-char", values, f"{metric.get_signature()}|mean of sentences|scale:0-1")]


def chrf(samples: Sequence[EvalSample]) -> list[Measure]:
    """chrF2 (Popović 2015)."""
    from sacrebleu.metrics.chrf import CHRF

    signature = str(CHRF(references=[[""]]).get_signature())
    return [Measure("chrf", ngram_counts.chrf_rows(samples), _combine_chrf, signature)]


def ter(samples: Sequence[EvalSample]) -> list[Measure]:
    """Translation edit rate (Snover et al. 2006), Chinese by characters. Slow: 46 s for 2,000 claims."""
    from sacrebleu.metrics.ter import TER

    metric = TER(normalized=True, asian_support=True)
    predictions, references = [s.prediction for s in samples], [s.reference for s in samples]
    # sacrebleu has no public function for the counts; tests check the resulting scores.
    statistics = np.array(metric._extract_corpus_statistics(predictions, [references]), np.float64)
    return [Measure("ter", statistics, scaled(100), str(metric.get_signature()), higher_is_better=False)]


def rouge_l(unit: str) -> Callable[[Sequence[EvalSample]], list[Measure]]:
    """ROUGE-L (Lin 2004) recall, precision and F1, averaged over samples; by `char`, `jieba` or `space`."""

    def measure(samples: Sequence[EvalSample]) -> list[Measure]:
        split = {"char": characters, "jieba": _jieba_words, "space": _words}[unit]
        rows = np.array([_rouge(split(s.prediction), split(s.reference)) for s in samples]).reshape(-1, 3)
        signature = f"rouge-l|unit:{unit}|mean of samples"
        names = ("recall", "precision", "f1")
        return [mean(f"rouge-l-{unit}-{name}", rows[:, i], signature) for i, name in enumerate(names)]

    return measure


def rouge_legacy(samples: Sequence[EvalSample]) -> list[Measure]:
    """ROUGE-L of the `rouge` package on texts without spaces, each a single word: 1 if equal, else 0.

    F = 2PR / (P + R + 1e-8), so 562 equal texts of 1,000 give 0.562, 0.562 and 0.561999997.
    """
    rows = []
    for s in samples:
        recall, precision, _ = _rouge(s.prediction.split(), s.reference.split())
        rows.append((recall, precision, 2 * precision * recall / (precision + recall + 1e-8)))
    table = np.array(rows).reshape(-1, 3)
    signature = "rouge-l|unit:space|legacy: F=2PR/(P+R+1e-8)"
    return [
        mean(f"rouge-legacy-{name}", table[:, i], signature)
        for i, name in enumerate(("recall", "precision", "f1"))
    ]


def accuracy(samples: Sequence[EvalSample]) -> list[Measure]:
    """Share of questions answered with exactly the right letters, and the expected share of guessing.

    For questions with several answers, guessing picks one of the 2^k - 1 non-empty sets of k letters.
    """
    right, chance = [], []
    for s in samples:
        letters = [chr(ord("A") + i) for i in range(s.options or 4)]
        expected = set(s.reference.upper()) & set(letters)
        several = len(expected) > 1 or bool(s.groups.get("several_answers"))
        found = answer_letters(s.prediction, letters, several, numbers=not numbered(s.prompt, letters))
        right.append(float(found == expected))
        chance.append(1 / (2 ** len(letters) - 1) if several else 1 / len(letters))
    methods = "; ".join(dict.fromkeys(s.by for s in samples if s.by))
    measure = mean("accuracy", right, f"accuracy|all letters right{'|by ' if methods else ''}{methods}")
    return [measure._replace(chance=np.array(chance), binary=True)]


METRICS: dict[str, Callable[[Sequence[EvalSample]], list[Measure]]] = {
    "bleu-zh": bleu("zh"),
    "bleu-13a": bleu("13a"),
    "bleu-char": bleu("char"),
    "bleu-jieba": bleu("jieba"),
    "sentence-bleu-char": sentence_bleu,
    "chrf": chrf,
    "ter": ter,
    "rouge-l-char": rouge_l("char"),
    "rouge-l-jieba": rouge_l("jieba"),
    "rouge-l-space": rouge_l("space"),
    "rouge-legacy": rouge_legacy,
    "accuracy": accuracy,
    "extraction": extraction,
    "answer-tokens": perplexity.answer_tokens,
    "trl": perplexity.trl,
    "bits-per-byte": perplexity.bits_per_byte,
    "terminology": terminology,
    "claim-structure": claim_structure,
    "statute": statute,
    "cited-articles": cited_articles,
    "entities": entities,
    "refusal": refusal,
}


def characters(text: str) -> list[str]:
    """The characters of a text without whitespace."""
    return [character for character in text if not character.isspace()]


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


def _rouge(prediction: Sequence[str], reference: Sequence[str]) -> tuple[float, float, float]:
    common = longest_common_subsequence(prediction, reference)
    if not common:
        return 0.0, 0.0, 0.0
    recall, precision = common / len(reference), common / len(prediction)
    return recall, precision, 2 * precision * recall / (precision + recall)


def _combine_bleu(sums: Floats) -> Floats:
    """BLEU from sums (..., 10): lengths of prediction and reference, 4 matches, 4 totals; `exp` smoothing."""
    length, reference, correct, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    missed = np.cumsum(correct == 0, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(correct > 0, correct / total, 0.5**missed / total)
        score = 100 * np.exp(np.log(precision).mean(axis=-1) + np.minimum(0.0, 1 - reference / length))
    usable = (total > 0).all(axis=-1) & (correct > 0).any(axis=-1)
    return np.asarray(np.where(usable, score, 0.0))


def _combine_chrf(sums: Floats) -> Floats:
    """chrF2 from sums (..., 18): n-grams of prediction and reference and their matches, for each order."""
    predicted, reference, matched = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    counted = (predicted > 0) & (reference > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision = (matched / np.where(counted, predicted, np.inf)).sum(axis=-1) / orders
    recall = (matched / np.where(counted, reference, np.inf)).sum(axis=-1) / orders
    below = 4 * precision + recall
    return np.asarray(100 * 5 * precision * recall / np.where(below > 0, below, 1.0))


@functools.cache
def _jieba() -> Any:
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    return jieba


def _jieba_words(text: str) -> list[str]:
    return [word for word in _jieba().lcut(text) if not word.isspace()]


def _words(text: str) -> list[str]:
    return text.split()


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)
