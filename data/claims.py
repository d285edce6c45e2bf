"""The claims that a claim depends on.

Claims are a list, so a claim's number is its position in it, from 1. `dependencies` finds the references in
the wording: `根据权利要求1至3中任一项所述的…`, `as claimed in claim 1 or 2`,
`請求項１又は２に記載の…`, `제1항 내지 제3항 중 어느 한 항에 있어서`, `nach einem der Ansprüche 1 bis 4`,
`selon l'une des revendications 1 à 4`.
"""

import re
from typing import NamedTuple

from data.language import base


class Grammar(NamedTuple):
    """How a language refers to claims."""

    noun: str
    """The word before a list of numbers."""
    number: str
    """One number with its affixes; its group is the number."""
    span: str
    """Between the ends of a range: `1 to 4`."""
    comma: str
    """Between two items of a list: `1, 2 or 3`."""
    all_before: str
    """`any of the preceding claims`."""


_EAST = r"(?:第\s*)?(\d+)\s*(?:[项項](?!任)|号)?"
_CHINESE = Grammar(
    noun=r"(?:权利要求|權利要求|权項|申請專利範圍|申请专利范围|請求項|请求项)书?",
    number=_EAST,
    span=r"至|到|[-–—~～〜]",
    comma=r"、|，|,|或者|或|和|与|及|/",
    all_before=r"(?:上述|前述|前面|以上|在前)的?(?:任意?一?[项項]?的?|任何一[项項]|各|所有)?(?:权利要求|權利要求|請求項)",
)
GRAMMARS = {
    "zh": _CHINESE,
    "en": Grammar(
        noun=r"claims?(?:\s+nos?\.?)?",
        number=r"(\d+)\.?",
        span=r"to|through|thru|[-–—]",
        comma=r",\s*(?:or|and)|,|or|and|and/or|/",
        all_before=r"(?:preceding|previous|foregoing|above|prior|aforementioned)\s+claims?",
    ),
    "ja": Grammar(
        noun=r"(?:請求項|特許請求の範囲第?)",
        number=_EAST,
        span=r"から|乃至|ないし|至|[-–—~～〜－]",
        comma=r"、|，|,|又は|または|もしくは|若しくは|及び|および|と|か|・",
        all_before=r"(?:前記|上記)?(?:いずれか(?:の|一項の|１項の)?|全ての)?(?:先行する|前出の)請求項",
    ),
    "ko": Grammar(
        noun=r"(?:청구항\s*|제\s*(?=\d+\s*항))",
        number=r"(?:제\s*)?(\d+)\s*(?:항)?",
        span=r"내지|부터|에서|[-–—~～]",
        comma=r"또는|및|이나|과|와|,",
        all_before=r"(?:선행하는?|이전의?|앞선|전술한)\s*(?:청구항|항)",
    ),
    "de": Grammar(
        noun=r"(?:Patent)?[Aa]nspr(?:uch|uches|uchs|üche|üchen)",
        number=r"(\d+)",
        span=r"bis|[-–—]",
        comma=r",\s*(?:oder|und)|,|oder|und|und/oder|/",
        all_before=r"(?:vorhergehenden|vorangehenden|vorstehenden|vorigen|obigen|vorherigen|vorangegangenen)"
        r"\s+(?:Patent)?[Aa]nspr(?:uch|üche|üchen)",
    ),
    "fr": Grammar(
        noun=r"revendications?",
        number=r"(\d+)",
        span=r"à|a|[-–—]",
        comma=r",\s*(?:ou|et)|,|ou|et|et/ou|/",
        all_before=r"revendications?\s+(?:précédentes?|antérieures?|ci-dessus)",
    ),
}


def dependencies(claim: str, language: str, number: int | None = None) -> list[int]:
    """The numbers of the claims that a claim refers to, ascending; none for an independent claim.

    `language` is `zh` (any script), `en`, `ja`, `ko`, `de` or `fr`; other languages give none. `number` is
    the claim's own: if given, `any of the preceding claims` means all before it, and references to itself or
    to a later claim, which are mistakes, are left out.
    """
    grammar = GRAMMARS.get(base(language))
    if grammar is None:
        return []
    text = claim.translate(_DIGITS)
    found: set[int] = set()
    if number is not None and re.search(grammar.all_before, text, re.IGNORECASE):
        found.update(range(1, number))
    for reference in _references(grammar).finditer(text):
        previous: int | None = None
        for item in _items(grammar).finditer(reference["list"]):
            this = int(item["number"])
            if item["span"] and previous is not None and this - previous < LONGEST_SPAN:
                found.update(range(previous, this))
            found.add(this)
            previous = this
    return sorted(n for n in found if n > 0 and (number is None or n < number))


LONGEST_SPAN = 1000
_DIGITS = str.maketrans("０１２３４５６７８９", "0123456789")


def _references(grammar: Grammar) -> re.Pattern[str]:
    one = re.sub(r"\((?!\?)", "(?:", grammar.number)
    between = rf"\s*(?:{grammar.span}|{grammar.comma})\s*(?:{grammar.noun}\s*)?"
    return re.compile(rf"{grammar.noun}\s*(?P<list>{one}(?:{between}{one})*)", re.IGNORECASE)


def _items(grammar: Grammar) -> re.Pattern[str]:
    number = grammar.number.replace(r"(\d+)", r"(?P<number>\d+)")
    link = rf"(?:(?P<span>{grammar.span})|{grammar.comma})?\s*(?:{grammar.noun})?\s*"
    return re.compile(link + number, re.IGNORECASE)
