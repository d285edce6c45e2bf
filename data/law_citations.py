"""Find the law articles that a text cites, in Chinese (Simplified or Traditional) and English.

    《專利法》第二十二條之一    Articles 22 and 23 of the Patent Act    Patent Act, Article 22

Articles are written `22` or `22-1`; a range counts as its two ends. A citation without a law, or of `本法` or
`this Act`, refers to the law mentioned last. Law names are compared in Simplified characters and lower case,
without brackets and `中华人民共和国`.
"""

import functools
import re
import unicodedata
from collections.abc import Collection
from typing import NamedTuple

from data.language import convert_chinese

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_PLACES = {"十": 10, "百": 100, "千": 1000}
_NUMBER = r"(?:\d+(?:-\d+)?|[零〇一二三四五六七八九十百千两]+)"
_ARTICLES = re.compile(
    rf"第\s*(?P<zh>{_NUMBER}(?:\s*[、,和及与或至到~]\s*(?:第\s*)?{_NUMBER})*)\s*条(?:\s*之\s*(?P<sub>{_NUMBER}))?"
    r"|\barticles?\s+(?P<en>\d+(?:-\d+)?"
    r"(?:\s*(?:,\s*(?:and|or)|,|and|or|to|through)\s*(?:articles?\s+)?\d+(?:-\d+)?)*)",
    re.IGNORECASE,
)
_CHINESE_LAW = re.compile(r"[\u4e00-\u9fff]{1,30}(?:法|条例|细则|办法|规则|规程|标准)$")
_THIS_LAW = re.compile(r"(?:本|该|同|前述|上述)(?:法|条例|细则|办法|规则|规程)$")
_WORD = r"[A-Z][\w'’-]*"
_NAME = rf"{_WORD}(?:,?\s+(?:{_WORD}|of|and|for|in|the|on|to))*"
_AFTER = re.compile(rf"[\s,]*(?:(?:sub)?paragraphs?\s+\d+[\s,]*)?of\s+(?:the\s+)?({_NAME})")
_BEFORE = re.compile(rf"({_NAME})[\s,]*$")


class Citation(NamedTuple):
    """An article of a law; `law` is empty if the text names none."""

    law: str
    article: str


def citations(text: str, known: Collection[str] = (), default: str = "") -> list[Citation]:
    """All citations of a text, in order. `known` laws (see `law_name`) are recognised in any context.

    `default` is the law of citations that come before any named law.
    """
    text = convert_chinese(unicodedata.normalize("NFKC", text), "simplified")
    cited, law = [], default
    for match in _ARTICLES.finditer(text):
        before, after = (
            text[max(0, match.start() - 90) : match.start()],
            text[match.end() : match.end() + 120],
        )
        law = (_chinese_law(before, known) if match["zh"] else _english_law(before, after, known)) or law
        numbers = re.findall(_NUMBER if match["zh"] else r"\d+(?:-\d+)?", match["zh"] or match["en"])
        articles = [article_number(number) for number in numbers]
        if match["sub"]:
            articles[-1] += f"-{article_number(match['sub'])}"
        cited += [Citation(law, article) for article in articles]
    return cited


@functools.lru_cache(1 << 14)  # names come from answers, too
def law_name(name: str) -> str:
    """The normalised name of a law, for comparison."""
    name = convert_chinese(unicodedata.normalize("NFKC", name), "simplified").strip("《》 ")
    return re.sub(r"\s+", " ", name.removeprefix("中华人民共和国").casefold().removeprefix("the "))


def article_number(text: str) -> str:
    """Convert `二百零五` to `205`; digits are returned unchanged."""
    if text[0].isdigit():
        return text
    if not set(text) & set(_PLACES):
        return "".join(str(_DIGITS[c]) for c in text).lstrip("0") or "0"
    total, digit = 0, 0
    for character in text:
        if character in _PLACES:
            total += (digit or 1) * _PLACES[character]
            digit = 0
        else:
            digit = _DIGITS[character]
    return str(total + digit)


def _chinese_law(before: str, known: Collection[str]) -> str:
    before = before.rstrip()
    if book := re.search(r"《([^《》]{2,60})》$", before):
        return law_name(book[1])
    if named := [name for name in known if before.endswith(name)]:
        return max(named, key=len)
    if _THIS_LAW.search(before) or not (other := _CHINESE_LAW.search(before)):
        return ""
    return law_name(
        re.split(r"依照|根据|违反|适用|准用|按照|参照|依据|以及|或者|[依按据与和及或]", other[0])[-1]
    )


def _english_law(before: str, after: str, known: Collection[str]) -> str:
    """The law named after `of the`, or else the one just before `Article`."""
    named = _AFTER.match(after) or _BEFORE.search(before)
    if not named:
        return ""
    name, following = law_name(named[1]), named.re is _AFTER
    fits = [law for law in known if (name.startswith(law) if following else name.endswith(law))]
    if fits:
        return max(fits, key=len)
    name = re.sub(r"(?:,?\s+(?:and|or|in|the|for|to|on|of|articles?|paragraphs?))+$", "", name)
    law = re.search(r"\b(?:act|law|code|rules|regulations)\b", name)
    return name if law and not re.match(r"(?:act|law|code|rules|regulations)(?!\w| of| gov)", name) else ""
