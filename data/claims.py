"""The claims to which a claim refers, and those on which it depends.

`references` finds the numbers in the wording: `根据权利要求1至3中任一项所述的…`,
`as claimed in claim 1 or 2`, `請求項１又は２に記載の…`, `제1항 내지 제3항 중 어느 한 항에 있어서`,
`nach einem der Ansprüche 1 bis 4`, `selon l'une des revendications 1 à 4`. `dependencies` are those of them
whose features the claim has: `a vehicle comprising the pump of claim 1` only mentions claim 1 (Guidelines for
Examination in the EPO, F-IV, 3.8).
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from data.claim_numbers import Claims
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
    mention: str
    """Before a reference, or in Japanese and Korean after it: the claim has what it refers to as a part, or
    uses it."""
    method: str
    """The subject of a claim to a method or a use."""


_EAST = r"(?:第\s*)?(\d+)\s*(?:[项項](?!任)|号)?"
_CHINESE = Grammar(
    noun=r"(?:权利要求|權利要求|权項|申請專利範圍|申请专利范围|請求項|请求项)书?",
    number=_EAST,
    span=r"至|到|[-–—~～〜]",
    comma=r"、|，|,|或者|或|和|与|及|/",
    all_before=r"(?:上述|前述|前面|以上|在前)的?(?:任意?一?[项項]?的?|任何一[项項]|各|所有)?(?:权利要求|權利要求|請求項)",
    mention=r"[^\s一种種個个项項如根据據依照按前述上所任意何各的之或和及与、，,（）()\d至到~-]",
    method=r"^[^，,：:；;。]*(?:方法|工艺|工藝|用途|应用|應用)(?=[，,：:；;。]|$)",
)
GRAMMARS = {
    "zh": _CHINESE,
    "en": Grammar(
        noun=r"claims?(?:\s+nos?\.?)?",
        number=r"(\d+)\.?",
        span=r"to|through|thru|[-–—]",
        comma=r",\s*(?:or|and)|,|or|and|and/or|/",
        all_before=r"(?:preceding|previous|foregoing|above|prior|aforementioned)\s+claims?",
        mention=r"\b(?:compris\w+|includ\w+|contain\w+|incorporat\w+|having|employing|using|wherein"
        r"|whereby|in which|characteri[sz]ed|provided with|equipped with)\b|^\W*(?:the )?use of\b",
        method=r"^\W*(?:(?:an?|the|in an?)\s+)?(?:(?!of|for|to|in|as|according|by|that|which)[\w-]+\s+){0,8}?"
        r"(?:method|process|procedure|use)\b",
    ),
    "ja": Grammar(
        noun=r"(?:請求項|特許請求の範囲第?)",
        number=_EAST,
        span=r"から|乃至|ないし|至|[-–—~～〜－]",
        comma=r"、|，|,|又は|または|もしくは|若しくは|及び|および|と|か|・",
        all_before=r"(?:前記|上記)?(?:いずれか(?:の|一項の|１項の)?|全ての)?(?:先行する|前出の)請求項",
        mention=r"^[^、。，]*?を\s*(?:備|有|含|用い|使用|具備|具え|搭載|製造|実施|実行|行う|適用|組み込)",
        method=r"(?:方法|使用)[。．.\s]*$",
    ),
    "ko": Grammar(
        noun=r"(?:청구항\s*|제\s*(?=\d+\s*항))",
        number=r"(?:제\s*)?(\d+)\s*(?:항)?",
        span=r"내지|부터|에서|[-–—~～]",
        comma=r"또는|및|이나|과|와|,",
        all_before=r"(?:선행하는?|이전의?|앞선|전술한)\s*(?:청구항|항)",
        mention=r"^[^,]*?[을를]\s*(?:포함|구비|갖|가지|사용|이용|제조|수행|실행|실시|적용|채용|장착)",
        method=r"(?:방법|용도)[.\s]*$",
    ),
    "de": Grammar(
        noun=r"(?:Patent)?[Aa]nspr(?:uch|uches|uchs|üche|üchen)",
        number=r"(\d+)",
        span=r"bis|[-–—]",
        comma=r",\s*(?:oder|und)|,|oder|und|und/oder|/",
        all_before=r"(?:vorhergehenden|vorangehenden|vorstehenden|vorigen|obigen|vorherigen|vorangegangenen)"
        r"\s+(?:Patent)?[Aa]nspr(?:uch|üche|üchen)",
        mention=r"\b(?:umfass\w+|enth[aä]lt\w*|aufweis\w+|unter|dadurch|wobei|ausgestattet|versehen)\b"
        r"|^\W*Verwendung\b",
        method=r"^\W*(?:(?:Ein|Das)\s+)?(?:\w+es\s+)?\w*(?:[Vv]erfahren|[Vv]erwendung|[Mm]ethode)\b",
    ),
    "fr": Grammar(
        noun=r"revendications?",
        number=r"(\d+)",
        span=r"à|a|[-–—]",
        comma=r",\s*(?:ou|et)|,|ou|et|et/ou|/",
        all_before=r"revendications?\s+(?:précédentes?|antérieures?|ci-dessus)",
        mention=r"\b(?:comprenant|comportant|comprend|comporte|contenant|incluant|utilisant|ayant"
        r"|munie?|équipée?|caractérisée?)\b|^\W*Utilisation\b",
        method=r"^\W*(?:Un\s+|Le\s+)?(?:Procédé|Méthode|Utilisation)\b",
    ),
}


def references(claim: str, language: str, number: int | None = None) -> list[int]:
    """The numbers of the claims to which a claim refers, ascending.

    `language` is `zh` (any script), `en`, `ja`, `ko`, `de` or `fr`; other languages give none. `number` is
    the claim's own: if given, `any of the preceding claims` means all before it, and references to itself or
    to a later claim, which are mistakes, are left out.
    """
    return sorted({found for one in _found(claim, language, number) for found in one.numbers})


def dependencies(
    claim: str, language: str, number: int | None = None, claims: Claims | None = None
) -> list[int]:
    """The numbers of the claims on which a claim depends, ascending; none for an independent claim.

    Takes what `references` takes. The texts of the `claims` make it certain: a claim depends on one whose
    subject it restates, whatever that is called, and a claim to a method does not depend on one to a product,
    nor a product on a method.
    """
    grammar = GRAMMARS.get(base(language))
    if grammar is None:
        return []

    def is_method(text: str) -> bool:
        return bool(re.search(grammar.method, text, re.IGNORECASE))

    def depends(place: _Reference, on: int) -> bool:
        if claims is None or on not in claims:
            return not place.is_mention
        same = is_method(claims[on]) == is_method(claim)
        return same and (not place.is_mention or _restates(place, claims[on], base(language)))

    return sorted(
        {on for place in _found(claim, language, number) for on in place.numbers if depends(place, on)}
    )


def _restates(place: "_Reference", parent: str, language: str) -> bool:
    """Whether the words beside a reference are those that name the subject of the claim referred to: before
    it those at the beginning, in Japanese and Korean after it those at the end."""
    if language in ("ja", "ko"):
        subject = re.match(r"(?:に?(?:記載|係る|よる)の?|의|에 따른)?\s*([^、。，,.]+)", place.after)
        return subject is not None and parent.rstrip("。. \n").endswith(
            subject[1].removesuffix("であって").strip()
        )
    own, others = (re.findall(r"\w+", ARTICLE.sub("", text.lower())) for text in (place.before, parent))
    equal = next(
        (i for i, pair in enumerate(zip(own, others, strict=False)) if len(set(pair)) > 1), len(others)
    )
    return equal > 0 and all(word in CONNECTIVES for word in own[equal:])


ARTICLE = re.compile(r"^\W*(?:an?|the|une?|les?|la|eine?s?|der|die|das)\s+|^\W*l'", re.IGNORECASE)
_CONNECTIVES = """
according to of as claimed recited defined described set forth in by any one the a an or
nach gemäß einem einer der selon l une la quelconque des de
"""
CONNECTIVES = frozenset(_CONNECTIVES.split())
"""Words between a subject and a reference."""


class _Reference(NamedTuple):
    """A place at which a claim refers to others."""

    numbers: frozenset[int]
    is_mention: bool
    before: str
    """The text before it, without the references in between."""
    after: str


def _found(claim: str, language: str, number: int | None) -> Iterator[_Reference]:
    grammar = GRAMMARS.get(base(language))
    if grammar is None:
        return
    text = claim.translate(_DIGITS)
    mention = re.compile(grammar.mention, re.IGNORECASE)
    follows = base(language) in ("ja", "ko")
    passed = ""  # the text before the reference, without the references before it
    end = 0
    for reference in _places(grammar).finditer(text):
        passed += text[end : reference.start()]
        end = reference.end()
        found: set[int] = set()
        if reference["list"] is None:
            found.update(range(1, number or 1))
        previous: int | None = None
        for item in _items(grammar).finditer(reference["list"] or ""):
            this = int(item["number"])
            if item["span"] and previous is not None and this - previous < LONGEST_SPAN:
                found.update(range(previous, this))
            found.add(this)
            previous = this
        numbers = frozenset(n for n in found if n > 0 and (number is None or n < number))
        if numbers:
            is_mention = bool(mention.search(text[end:] if follows else passed))
            yield _Reference(numbers, is_mention, passed, text[end:])


LONGEST_SPAN = 1000
_DIGITS = str.maketrans("０１２３４５６７８９", "0123456789")


@lru_cache
def _places(grammar: Grammar) -> re.Pattern[str]:
    """Where a claim refers to others: to all before it, or to a list of numbers."""
    one = re.sub(r"\((?!\?)", "(?:", grammar.number)
    between = rf"\s*(?:{grammar.span}|{grammar.comma})\s*(?:{grammar.noun}\s*)?"
    numbers = rf"{grammar.noun}\s*(?P<list>{one}(?:{between}{one})*)"
    return re.compile(rf"{grammar.all_before}|{numbers}", re.IGNORECASE)


@lru_cache
def _items(grammar: Grammar) -> re.Pattern[str]:
    number = grammar.number.replace(r"(\d+)", r"(?P<number>\d+)")
    link = rf"(?:(?P<span>{grammar.span})|{grammar.comma})?\s*(?:{grammar.noun})?\s*"
    return re.compile(link + number, re.IGNORECASE)
