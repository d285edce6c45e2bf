"""Terminology of a translation: glossary terms hit, one name for a thing, numerals and numbers kept.

A glossary is a CSV file: a term of the source, then the names that it may have in the translation. A name
that stands inside a longer one of the glossary (装置 in 控制装置) is not seen there.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from eval.metrics.measure import Measure, ratio
from eval.metrics.measurements import quantities
from eval.sample import EvalSample

_NUMERAL = r"\d+[a-zA-Z]?['′]*"
NUMERALS = re.compile(rf"\(\s*({_NUMERAL}(?:\s*[,、;和~-]\s*{_NUMERAL})*)\s*\)")


def terminology(samples: Sequence[EvalSample]) -> list[Measure]:
    """Glossary terms hit and used consistently; reference numerals, numbers and units of the source kept.

    A document is what samples call so (group `document`), or one sample. Terms that its source uses once
    cannot be inconsistent and are not counted; the count stands with the document's first sample.
    """
    hits = np.zeros((len(samples), 2))
    documents: dict[str, tuple[int, Counter[str], dict[str, set[str]]]] = {}
    for i, s in enumerate(samples):
        if not s.glossary:
            continue
        used = occurrences(s.source, s.glossary)
        names = occurrences(s.prediction, [name for names in s.glossary.values() for name in names])
        _, uses, said = documents.setdefault(s.groups.get("document", s.id), (i, Counter(), {}))
        uses.update(used)
        for term in used:
            there = {name for name in s.glossary[term] if names[name]}
            hits[i] += bool(there), 1
            said.setdefault(term, set()).update(there)
    consistent = np.zeros((len(samples), 2))
    for first, uses, said in documents.values():
        repeated = [term for term, n in uses.items() if n > 1 and said[term]]
        consistent[first] = sum(len(said[term]) == 1 for term in repeated), len(repeated)
    return [
        Measure("glossary-hit-rate", hits, ratio, "terms of the source found in the prediction|NFKC"),
        Measure(
            "glossary-consistency", consistent, ratio, "terms used twice or more with one name|by document"
        ),
        kept("numerals-kept", samples, numerals),
        kept("numbers-kept", samples, quantities),
    ]


def occurrences(text: str, terms: Iterable[str]) -> Counter[str]:
    """How often each term stands in a text; Latin ones as whole words, plurals too, whatever their case."""
    text = unicodedata.normalize("NFKC", text).casefold()
    plain = {unicodedata.normalize("NFKC", term).casefold(): term for term in terms if term.strip()}
    if not plain:
        return Counter()
    patterns = [
        rf"(?<![a-z]){re.escape(term)}(?=(?:e?s)?(?![a-z]))" if term.isascii() else re.escape(term)
        for term in sorted(plain, key=len, reverse=True)
    ]
    return Counter(plain[match[0]] for match in re.finditer("|".join(patterns), text))


def numerals(text: str) -> list[str]:
    """Reference numerals in brackets: `(10)`, `（12a、12b）`."""
    lists = NUMERALS.findall(unicodedata.normalize("NFKC", text))
    return [numeral for found in lists for numeral in re.findall(_NUMERAL, found)]


def kept(name: str, samples: Sequence[EvalSample], find: Callable[[str], list[str]]) -> Measure:
    """Share of what `find` sees in the source (or the reference, where no source is given) that the
    prediction has too, each as often."""
    rows = np.zeros((len(samples), 2))
    for i, s in enumerate(samples):
        wanted, there = Counter(find(s.source or s.reference)), Counter(find(s.prediction))
        rows[i] = (wanted & there).total(), wanted.total()
    return Measure(name, rows, ratio, "share of the source's that the prediction has|NFKC")
