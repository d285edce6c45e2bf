"""Terminology of a translation: glossary hits, consistent terms, reference numerals and numbers kept.

A glossary maps each source term to its accepted translations. A term inside a longer glossary term (装置 in
控制装置) is not counted there.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from eval.metrics.measure import Measure, ratio
from eval.metrics.quantities import quantities
from eval.sample import EvalSample

_NUMERAL = r"\d+[a-zA-Z]?['′]*"
NUMERALS = re.compile(rf"\(\s*({_NUMERAL}(?:\s*[,、;和~-]\s*{_NUMERAL})*)\s*\)")


def terminology(samples: Sequence[EvalSample]) -> list[Measure]:
    """Glossary hits and consistency; reference numerals and numbers with units kept from the source.

    Consistency is counted over documents: samples with the same group `document`, or else single samples.
    Terms that occur once in a document are not counted. The count is assigned to its first sample.
    """
    hits = np.zeros((len(samples), 2))
    documents: dict[str, tuple[int, Counter[str], dict[str, set[str]]]] = {}
    for i, s in enumerate(samples):
        if not s.glossary:
            continue
        used = occurrences(s.source, s.glossary)
        names = occurrences(s.prediction, [name for names in s.glossary.values() for name in names])
        _, uses, translations = documents.setdefault(s.groups.get("document", s.id), (i, Counter(), {}))
        uses.update(used)
        for term in used:
            used_names = {name for name in s.glossary[term] if names[name]}
            hits[i] += bool(used_names), 1
            translations.setdefault(term, set()).update(used_names)
    consistent = np.zeros((len(samples), 2))
    for first, uses, translations in documents.values():
        repeated = [term for term, n in uses.items() if n > 1 and translations[term]]
        consistent[first] = sum(len(translations[term]) == 1 for term in repeated), len(repeated)
    return [
        Measure("glossary-hit-rate", hits, ratio, "terms of the source found in the prediction|NFKC"),
        Measure(
            "glossary-consistency", consistent, ratio, "terms used twice or more with one name|by document"
        ),
        kept("numerals-kept", samples, numerals),
        kept("numbers-kept", samples, quantities),
    ]


def occurrences(text: str, terms: Iterable[str]) -> Counter[str]:
    """Number of occurrences of each term. Latin terms match whole words and plurals, in any case."""
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
    """Reference numerals in parentheses: `(10)`, `（12a、12b）`."""
    lists = NUMERALS.findall(unicodedata.normalize("NFKC", text))
    return [numeral for found in lists for numeral in re.findall(_NUMERAL, found)]


def kept(name: str, samples: Sequence[EvalSample], find: Callable[[str], list[str]]) -> Measure:
    """Share of the items that `find` returns for the source (or the reference, if there is no source) that it
    also returns for the prediction, with multiplicity."""
    rows = np.zeros((len(samples), 2))
    for i, s in enumerate(samples):
        expected, predicted = Counter(find(s.source or s.reference)), Counter(find(s.prediction))
        rows[i] = (expected & predicted).total(), expected.total()
    return Measure(name, rows, ratio, "share of the source's that the prediction has|NFKC")
