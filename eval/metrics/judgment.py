"""Numbers of criminal judgments, scored as in LawBench: the prison term and an amount of money.

`一年六个月` ──▶ 18 months ──▶ distance |ln 19 - ln(predicted + 1)|
`2.5万元` ──▶ 25,000 ──▶ equal to the reference's
"""

import math
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from core.errors import UserError
from data.law_citations import article_number
from eval.metrics.measure import Measure, mean, ratio
from eval.sample import EvalSample

NO_TERM = math.log(216)
"""Distance of an answer without a term."""
_DIGITS = r"(?:\d+(?:\.\d+)?|[零〇一二三四五六七八九十百两]+)"
_TERM = re.compile(rf"(?:({_DIGITS})\s*年(半)?)?\s*(?:零|又)?\s*(?:({_DIGITS})\s*个?月)?")
_LIFE = re.compile("死刑|无期")
_AMOUNT = re.compile(r"(\d+(?:,\d{3})*(?:\.\d+)?)\s*([百千万亿]*)")
_UNITS = {"百": 100, "千": 1_000, "万": 10_000, "亿": 100_000_000}


def prison_term(samples: Sequence[EvalSample]) -> list[Measure]:
    """Mean distance of logarithms of months (lower is better) and share of answers without a term.

    Samples whose reference is death or life imprisonment are left out, as LawBench does.
    """
    rows, none = np.zeros((len(samples), 2)), np.zeros((len(samples), 2))
    for i, s in enumerate(samples):
        if _LIFE.search(s.reference):
            continue
        expected, predicted = months(s.reference), months(s.prediction)
        if expected is None:
            raise UserError(
                f"task {s.task}, sample {s.id}: no term, as in `12个月`, in {s.reference[:80]!r}."
            )
        far = NO_TERM if predicted is None else abs(math.log(expected + 1) - math.log(predicted + 1))
        rows[i], none[i] = (far, 1), (predicted is None, 1)
    signature = "|ln(months + 1) - ln(reference + 1)|, ln 216 without a term"
    return [
        Measure("prison-term-log-distance", rows, ratio, signature, higher_is_better=False),
        Measure(
            "prison-term-missing", none, ratio, "share of answers without a term", higher_is_better=False
        ),
    ]


def months(text: str) -> float | None:
    """The first term of a text in months: `十二个月`, `1年6个月`, `三年半`."""
    for match in _TERM.finditer(unicodedata.normalize("NFKC", text)):
        years, half, rest = match.groups()
        if years and not rest and re.match(r"\s*\d+\s*月", text[match.end() :]):
            continue  # a date
        if years and len(years) == 4 and years.isdigit():  # 2016年5月
            continue
        if years or rest:
            return 12 * _number(years) + (6 if half else 0) + _number(rest)
    return None


def amount(samples: Sequence[EvalSample]) -> list[Measure]:
    """Share of answers that give the reference's amount, in any unit (`2.5万元` = `25,000元`)."""
    right = []
    for s in samples:
        expected = amounts(s.reference)
        if len(expected) != 1:
            raise UserError(
                f"task {s.task}, sample {s.id}: the reference {s.reference[:80]!r} must have one amount."
            )
        right.append(float(expected[0] in amounts(s.prediction)))
    return [mean("amount", right, "the reference's number is in the answer")._replace(binary=True)]


def amounts(text: str) -> list[float]:
    """All numbers of a text, with their units 百, 千, 万 and 亿."""
    found = _AMOUNT.findall(unicodedata.normalize("NFKC", text))
    return [round(float(n.replace(",", "")) * math.prod(_UNITS[u] for u in units), 6) for n, units in found]


def _number(text: str | None) -> float:
    if not text:
        return 0.0
    return float(text) if text[0].isdigit() else float(article_number(text))
