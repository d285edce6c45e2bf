"""The citations of an answer, checked: source numbers that were given, articles that exist.

… 见 [2]，依照《专利法》第二十二条   ──▶   [2]: was given · 第二十二条: is in the index
"""

import re
from dataclasses import dataclass
from typing import Protocol

from data.chat.grounded import CITED

_NUMBER = r"[0-9〇零一二三四五六七八九十百千]+"
ARTICLE = re.compile(
    rf"《(?P<zh>[^《》\n]{{2,40}})》\s*(?P<zh_article>第\s*{_NUMBER}\s*[条條](?:\s*之\s*{_NUMBER})?)"
    r"|(?P<ko>[가-힣]{1,20}(?:법|령|규칙))\s*(?P<ko_article>제\s*[0-9]+\s*조(?:\s*의\s*[0-9]+)?)"
    r"|(?P<en_article>(?:Article|Section)\s+[0-9]+[a-z]?)\s+of\s+the\s+"
    r"(?P<en>[A-Z][A-Za-z' -]{2,60}?(?:Act|Law|Code|Convention|Regulations|Rules))"
)


class Laws(Protocol):
    """What knows laws: an index."""

    def has_law(self, title: str, article: str | None = None) -> bool: ...


@dataclass(frozen=True)
class Citation:
    """A citation in an answer: where it stands (characters), and what is wrong with it."""

    start: int
    end: int
    kind: str
    """`source` or `article`."""
    problem: str | None
    """`no-such-source`, `no-such-article`; None if it was found."""
    sources: tuple[int, ...] = ()
    """Of a source citation: the numbers that were given."""


def check(answer: str, sources: int, laws: Laws | None) -> list[Citation]:
    """The citations of an answer to a question with this many sources, in order. An article of a law that
    the index does not have cannot be checked and is not listed."""
    found = []
    for cited in CITED.finditer(answer):
        numbers = tuple(map(int, re.findall(r"[0-9]+", cited[1])))
        known = tuple(number for number in numbers if 1 <= number <= sources)
        problem = None if known == numbers else "no-such-source"
        found.append(Citation(*cited.span(), "source", problem, known))
    for cited in ARTICLE.finditer(answer) if laws else ():
        language = next(name for name in ("zh", "ko", "en") if cited[name])
        if laws and laws.has_law(cited[language]):
            there = laws.has_law(cited[language], cited[f"{language}_article"])
            found.append(Citation(*cited.span(), "article", None if there else "no-such-article"))
    return sorted(found, key=lambda each: each.start)
