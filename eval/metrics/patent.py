"""Patent metrics: key information extraction and claim structure."""

import itertools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from core.errors import UserError
from data.claims import references as references_in
from eval.metrics.measure import Measure, f1, mean, ratio
from eval.metrics.terminology import kept
from eval.sample import EvalSample

Phrases = dict[str, set[str]]
"""The phrases of each type."""
TYPES = ("解决问题", "技术手段", "实施效果")
_NAMES = (r"所?解决的?(?:技术)?问题", r"(?:所?采用的|所?使用的)?技术手段", r"实施效果")
_TYPE = re.compile(
    rf"(?:^|(?<=[\n;,。{{]))[\s\-*•#>\d.()\"“'【\[]*(?:({')|('.join(_NAMES)}))[\"”'】\]*\t ]*[:\n]"
)
"""The name of a type where an answer may begin or go on."""
_ANNOUNCED = re.compile(r"^[^\n:;]*解决问题[^\n:;]*技术手段[^\n:;]*实施效果[^\n:;]*:?\s*\n")
_LISTED = re.compile(r"\s*(?:[-*•\"“']|\d+[.)、])")
_MARKS = " \t\n\"“”'‘’[]{}【】*`。."
_NONE = {"无", "没有", "暂无", "未提及", "空", "none", "n/a", "null"}
NUMBERING = re.compile(r"^\s*(\d{1,3})\s*[.、](?!\d)", re.MULTILINE)
CHARACTERIZED = re.compile(
    r"其特[征徵](?:在[于於]|是|[为為])|characteri[sz]ed\s+(?:in\s+that|by)", re.IGNORECASE
)


def extraction(samples: Sequence[EvalSample], lenient: bool = False) -> list[Measure]:
    """Phrases of each type, after NFKC: micro recall, precision and F1; sample-macro F1; share malformed.

    A malformed prediction counts as having no phrases. `lenient` reads what it says in any form, so that a
    model that was never taught the form is not punished for it. UserError for a malformed reference.
    """
    label = "extraction-lenient" if lenient else "extraction"
    counts = np.zeros((len(samples), len(TYPES), 3))  # correct, predicted, expected
    malformed = np.zeros(len(samples))
    for i, s in enumerate(samples):
        expected = parse_extraction(s.reference)
        if expected is None:
            raise UserError(
                f"task {s.task}, sample {s.id}: the reference {s.reference[:80]!r} does not have each of "
                f"{', '.join(TYPES)} once, as in `{':…;'.join(TYPES)}:…;`. Correct the data."
            )
        predicted = parse_extraction(s.prediction)
        if lenient:
            loose = [parse_extraction_leniently(s.prediction, separators) for separators in (",、", ",")]
            predicted = _best([predicted, *loose], expected)
        malformed[i] = predicted is None
        for t, name in enumerate(TYPES):
            mine, right = (predicted or {}).get(name, set()), expected[name]
            counts[i, t] = len(mine & right), len(mine), len(right)
    measures = []
    parsed = "|parsed leniently" if lenient else ""
    for name, part in [("", counts.sum(axis=1)), *((f"-{t}", counts[:, i]) for i, t in enumerate(TYPES))]:
        signature = f"micro over sets of phrases|NFKC{parsed}"
        measures += [
            Measure(f"{label}{name}-recall", part[:, [0, 2]], ratio, signature),
            Measure(f"{label}{name}-precision", part[:, [0, 1]], ratio, signature),
            Measure(f"{label}{name}-f1", part, f1, signature),
        ]
    total = counts.sum(axis=1)
    empty = (total[:, 1] == 0) & (total[:, 2] == 0)
    macro = np.where(empty, 1.0, f1(total))
    signature = f"mean of samples|NFKC|empty-empty counts as 1{parsed}"
    measures.append(mean(f"{label}-sample-macro-f1", macro, signature))
    share = mean(f"{label}-malformed", malformed, f"share of predictions that do not parse{parsed}")
    return [*measures, share._replace(higher_is_better=False, binary=True)]


def parse_extraction(text: str) -> Phrases | None:
    """Parse `解决问题:a;技术手段:b,c;实施效果:;` into sets of phrases; None if malformed.

    Full-width and half-width separators are equivalent. Each of the three types must occur exactly once, and
    no other type may occur.
    """
    extracted: Phrases = {}
    for part in unicodedata.normalize("NFKC", text).strip().strip(";").split(";"):
        name, colon, phrases = part.partition(":")
        if not colon or name.strip() not in TYPES or name.strip() in extracted:
            return None
        extracted[name.strip()] = {phrase.strip() for phrase in phrases.split(",") if phrase.strip()}
    return extracted if len(extracted) == len(TYPES) else None


def parse_extraction_leniently(text: str, separators: str = ",、") -> Phrases | None:
    """The phrases of each type that a text names where a line or part of it begins; None if it names none.

    An opening phrase, lists, JSON, emphasis, a final stop, a missing type and what follows the answer do no
    harm. What names a type again is the start of another answer.
    """
    text = unicodedata.normalize("NFKC", text)
    text = _ANNOUNCED.sub("\n", text)
    found: dict[str, tuple[int, int]] = {}  # type: begin and end of its value
    matches = list(_TYPE.finditer(text))
    for match, end in zip(matches, [*(m.start() for m in matches[1:]), len(text)], strict=False):
        name = next(name for name, group in zip(TYPES, match.groups(), strict=True) if group)
        if name in found:
            break
        found[name] = match.end(), end
    if not found:
        return None
    last = max(found.values())
    return {
        name: _phrases(text[begin:end], separators, (begin, end) == last)
        for name, (begin, end) in found.items()
    }


def _phrases(value: str, separators: str, is_last: bool) -> set[str]:
    """The phrases of a value: on its line or, if nothing stands there, in the list below it."""
    line, _, below = value.partition("\n")
    if not line.strip(_MARKS):
        line = ";".join(itertools.takewhile(_LISTED.match, filter(str.strip, below.split("\n"))))
    elif is_last:  # what follows is no part of the answer
        line = line.strip(" ;").partition(";")[0]
    line = re.sub(r"(?:^|;)\s*(?:[-*•]|\d+[.)、](?!\d))\s*", ";", line)
    parts = (part.strip(_MARKS) for part in re.split(f"[;{separators}]", line))
    return {part for part in parts if part and part.casefold() not in _NONE}


def _best(readings: Sequence[Phrases | None], expected: Phrases) -> Phrases | None:
    """The reading that agrees most with the reference: 、 may separate phrases or be part of one."""

    def agreement(reading: Phrases) -> tuple[int, int]:
        both = sum(len(reading.get(name, set()) & phrases) for name, phrases in expected.items())
        return both, -sum(map(len, reading.values()))

    return max((reading for reading in readings if reading is not None), key=agreement, default=None)


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
        refers = {n for language in ("zh", "en") for n in references_in(claim, language)}
        references += [f"{number}:{n}" if number else str(n) for n in sorted(refers)]
    return references


def split_claims(text: str) -> list[tuple[str, str]]:
    """Number and text of each claim; the number is empty for text before the first numbered claim."""
    parts = NUMBERING.split(unicodedata.normalize("NFKC", text))
    numbered = list(zip(parts[1::2], parts[2::2], strict=True))
    return [*([("", parts[0])] if parts[0].strip() or not numbered else []), *numbered]
