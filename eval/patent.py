"""Metrics of patents: key information, terminology, claim structure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from data.claims import GRAMMARS
from eval.sample import Measure, Sample, mean, ratio
from eval.statistics import Floats

TYPES = ("解决问题", "技术手段", "实施效果")
NUMBER = re.compile(
    r"\d+(?:[.,]\d+)*\s*(?:%|°C|℃|[kmcµμn]?m\b|[kMG]?Hz|[km]?g\b|[mk]?V\b|[mk]?A\b|[kM]?W\b|K\b)?"
)
NUMERAL = re.compile(r"\(\s*(\d+[a-z]?)\s*\)")
REFERENCE = {
    name: re.compile(rf"(?:{g.noun})\s*{g.number}(?:\s*(?:{g.span})\s*{g.number})?", re.IGNORECASE)
    for name, g in GRAMMARS.items()
    if name in ("zh", "en")
}
CHARACTERIZED = re.compile(r"其特征在于|其特徵在於|characteri[sz]ed\s+(?:in\s+that|by)", re.IGNORECASE)


def extraction(samples: Sequence[Sample]) -> list[Measure]:
    """Phrases of each type after NFKC: micro recall, precision, F1; sample-macro F1; share malformed.

    A malformed prediction counts as one without phrases.
    """
    counts = np.zeros((len(samples), len(TYPES), 3))  # right, predicted, expected
    malformed = np.zeros(len(samples))
    for i, s in enumerate(samples):
        predicted, expected = parse_extraction(s.prediction), parse_extraction(s.reference)
        malformed[i] = predicted is None
        for t, name in enumerate(TYPES):
            mine, right = (predicted or {}).get(name, set()), (expected or {}).get(name, set())
            counts[i, t] = len(mine & right), len(mine), len(right)
    measures = []
    for name, part in [("", counts.sum(axis=1)), *((f"-{t}", counts[:, i]) for i, t in enumerate(TYPES))]:
        signature = "micro over sets of phrases|NFKC"
        measures += [
            Measure(f"extraction{name}-recall", part[:, [0, 2]], ratio, signature),
            Measure(f"extraction{name}-precision", part[:, [0, 1]], ratio, signature),
            Measure(f"extraction{name}-f1", part, _f1, signature),
        ]
    total = counts.sum(axis=1)
    empty = (total[:, 1] == 0) & (total[:, 2] == 0)
    macro = np.where(empty, 1.0, _f1(total))
    measures.append(mean("extraction-sample-macro-f1", macro, "mean of samples|NFKC|empty-empty counts as 1"))
    share = mean("extraction-malformed", malformed, "share of predictions that do not parse")
    return [*measures, share._replace(higher_is_better=False, binary=True)]


def parse_extraction(text: str) -> dict[str, set[str]] | None:
    """`解决问题:a;技术手段:b,c;实施效果:;` as sets of phrases; None where it does not have that form.

    Full-width and half-width separators are one. Each of the three types must stand once, and no other.
    """
    found: dict[str, set[str]] = {}
    for part in unicodedata.normalize("NFKC", text).strip().strip(";").split(";"):
        name, colon, phrases = part.partition(":")
        if not colon or name.strip() not in TYPES or name.strip() in found:
            return None
        found[name.strip()] = {phrase.strip() for phrase in phrases.split(",") if phrase.strip()}
    return found if len(found) == len(TYPES) else None


def terminology(samples: Sequence[Sample]) -> list[Measure]:
    """Glossary terms hit and used consistently; reference numerals, numbers and units of the source kept."""
    hits, consistent = np.zeros((len(samples), 2)), np.zeros((len(samples), 2))
    for i, s in enumerate(samples):
        text = s.prediction.casefold()
        for term, names in s.glossary.items():
            if term.casefold() in s.source.casefold():
                used = [name for name in names if name.casefold() in text]
                hits[i] += bool(used), 1
                consistent[i] += len(used) == 1, bool(used)
    return [
        Measure("glossary-hit-rate", hits, ratio, "terms of the source found in the prediction"),
        Measure("glossary-consistency", consistent, ratio, "terms found that have one name in a document"),
        _kept("numerals-kept", samples, NUMERAL.findall),
        _kept("numbers-kept", samples, lambda text: ["".join(n.split()) for n in NUMBER.findall(text)]),
    ]


def claim_structure(samples: Sequence[Sample]) -> list[Measure]:
    """Claim references, `characterized in that` and claim numbers of the source kept in the prediction."""
    return [
        _kept("claim-references-kept", samples, claim_references),
        _kept("characterized-kept", samples, lambda text: ["yes" for _ in CHARACTERIZED.findall(text)]),
        _kept("claim-numbers-kept", samples, lambda text: re.findall(r"(?m)^\s*(\d+)\s*[.．、]", text)),
    ]


def claim_references(text: str) -> list[str]:
    """Numbers of the claims that a claim refers to, in Chinese and English."""
    return [
        "-".join(filter(None, match.groups())) for rule in REFERENCE.values() for match in rule.finditer(text)
    ]


def _kept(name: str, samples: Sequence[Sample], find: Callable[[str], list[str]]) -> Measure:
    """Share of what `find` sees in the source (or the reference, where no source is given) that the
    prediction has too, each as often."""
    rows = np.zeros((len(samples), 2))
    for i, s in enumerate(samples):
        wanted = Counter(find(unicodedata.normalize("NFKC", s.source or s.reference)))
        there = Counter(find(unicodedata.normalize("NFKC", s.prediction)))
        rows[i] = (wanted & there).total(), wanted.total()
    return Measure(name, rows, ratio, "share of the source's that the prediction has|NFKC")


def _f1(sums: Floats) -> Floats:
    """sums (..., 3): right, predicted, expected."""
    below = sums[..., 1] + sums[..., 2]
    return np.asarray(2 * sums[..., 0] / np.where(below > 0, below, 1.0))
