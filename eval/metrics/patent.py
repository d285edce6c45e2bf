"""Patent metrics: key information extraction and claim structure."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from data.claims import dependencies
from eval.metrics.measure import Measure, f1, mean, ratio
from eval.metrics.terminology import kept
from eval.sample import EvalSample

TYPES = ("解决问题", "技术手段", "实施效果")
NUMBERING = re.compile(r"^\s*(\d{1,3})\s*[.、](?!\d)", re.MULTILINE)
CHARACTERIZED = re.compile(
    r"其特[征徵](?:在[于於]|是|[为為])|characteri[sz]ed\s+(?:in\s+that|by)", re.IGNORECASE
)


def extraction(samples: Sequence[EvalSample]) -> list[Measure]:
    """Phrases of each type, after NFKC: micro recall, precision and F1; sample-macro F1; share malformed.

    A malformed prediction counts as having no phrases.
    """
    counts = np.zeros((len(samples), len(TYPES), 3))  # correct, predicted, expected
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
            Measure(f"extraction{name}-f1", part, f1, signature),
        ]
    total = counts.sum(axis=1)
    empty = (total[:, 1] == 0) & (total[:, 2] == 0)
    macro = np.where(empty, 1.0, f1(total))
    measures.append(mean("extraction-sample-macro-f1", macro, "mean of samples|NFKC|empty-empty counts as 1"))
    share = mean("extraction-malformed", malformed, "share of predictions that do not parse")
    return [*measures, share._replace(higher_is_better=False, binary=True)]


def parse_extraction(text: str) -> dict[str, set[str]] | None:
    """Parse `解决问题:a;技术手段:b,c;实施效果:;` into sets of phrases; None if malformed.

    Full-width and half-width separators are equivalent. Each of the three types must occur exactly once, and
    no other type may occur.
    """
    extracted: dict[str, set[str]] = {}
    for part in unicodedata.normalize("NFKC", text).strip().strip(";").split(";"):
        name, colon, phrases = part.partition(":")
        if not colon or name.strip() not in TYPES or name.strip() in extracted:
            return None
        extracted[name.strip()] = {phrase.strip() for phrase in phrases.split(",") if phrase.strip()}
    return extracted if len(extracted) == len(TYPES) else None


def claim_structure(samples: Sequence[EvalSample]) -> list[Measure]:
    """Claim references, `characterized in that` and claim numbers of the source that the prediction keeps."""
    return [
        kept("claim-references-kept", samples, claim_references),
        kept("characterized-kept", samples, lambda text: ["yes" for _ in CHARACTERIZED.findall(text)]),
        kept(
            "claim-numbers-kept", samples, lambda text: [number for number, _ in split_claims(text) if number]
        ),
    ]


def claim_references(text: str) -> list[str]:
    """References between claims, in Chinese and English: `7`, or `9:7` for one in claim 9."""
    references = []
    for number, claim in split_claims(text):
        refers = {n for language in ("zh", "en") for n in dependencies(claim, language)}
        references += [f"{number}:{n}" if number else str(n) for n in sorted(refers)]
    return references


def split_claims(text: str) -> list[tuple[str, str]]:
    """Number and text of each claim; the number is empty for text before the first numbered claim."""
    parts = NUMBERING.split(unicodedata.normalize("NFKC", text))
    numbered = list(zip(parts[1::2], parts[2::2], strict=True))
    return [*([("", parts[0])] if parts[0].strip() or not numbered else []), *numbered]
