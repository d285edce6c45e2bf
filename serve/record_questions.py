"""Questions about an invention, with answers that stand word for word in a passage of its record.

problem   what it solves            a sentence with an aim, of abstract, background or summary
effect    what it is good for       a sentence with an effect, of abstract or summary
parts     what it comprises         the body of claim 1, if the claim is one passage
works     how a part works          the first sentence about a part with a reference numeral
about     what it is                the first sentence of the abstract

A question names the invention by its title; a record without one, or in another language, has none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from data.chat.grounded import CITED
from data.record import Record
from data.sections import PARAGRAPH_NUMBER
from serve.retrieval.passages import Passage, passages

KINDS = ("problem", "effect", "parts", "works", "about")
LANGUAGES = ("en", "zh", "ko", "ja")
SHORTEST, LONGEST = 8, 600
"""Characters of a sentence that is an answer."""
MOST_PASSAGES = 2
"""Of a record, that have the answer and stand among the sources."""

_AIM = {
    "en": r"\b(?:objects?|objectives?|aims?|purposes?|goals?) of (?:the |this )?(?:present )?"
    r"(?:invention|disclosure|application|utility model)\b.*\b(?:is|are)\b"
    r"|\b(?:solv|address|overcom|alleviat)\w*\b.*\b(?:problem|drawback|shortcoming|disadvantage)",
    "zh": r"(?:本发明|本实用新型|本申请)的?(?:目的|要解决的(?:技术)?问题)(?:在于|是|为)"
    r"|解决了?.{2,60}(?:问题|缺陷|不足)|针对.{2,60}(?:不足|缺陷|问题)",
    "ko": r"(?:목적|과제)(?:은|는|으로|이다)|문제점?[을를] ?해결",
    "ja": r"(?:目的|課題)(?:は|とする|である)|(?:課題|問題点?)を解決",
}
"""What a sentence about the problem has."""
_EFFECT = {
    "en": r"\badvantag|\bbenefi|\beffects? of the (?:present )?invention\b|\bthereby\b"
    r"|\b(?:can |may |to )?(?:improv|reduc|prevent|increas|enhanc)(?:es?|s|ing)\b",
    "zh": r"有益效果|优点|效果(?:是|在于|为)|从而|提高了|降低了|避免了|减少了|改善",
    "ko": r"효과|장점|향상|개선|감소|방지",
    "ja": r"効果|利点|向上|低減|改善|抑制|防止",
}
"""What a sentence about an effect has."""
_PART = {
    "en": r"The (?!(?:fig|figure|example|embodiment|table|step|claim)s?\b)"
    r"(?P<part>[a-z]+(?: [a-z]+){0,2}) \(?\d{1,4}[a-z]?\)? (?:is|are|has|can|may|[a-z]+s)\b",
    "zh": r"(?!如?图|附图|表|实施|步骤|权利要求|参[见照]|在|根据|其中|第)"
    r"所?述?(?P<part>[\u4e00-\u9fff]{2,8})[（(]?\d{1,4}[）)]?(?=[\u4e00-\u9fff])",
    "ko": r"(?:상기 )?(?P<part>[가-힣]+(?: [가-힣]+)?) ?[(（]\d{1,4}[)）](?=[은는이가])",
    "ja": r"(?!図|表|実施|比較例|請求項|第|ステップ)"
    r"(?P<part>[\u4e00-\u9fff\u30a1-\u30ff]{2,12})[（(]?[0-9０-９]{1,4}[）)]?(?=[はが])",
}
"""How a sentence about a part with a reference numeral begins."""
_BODY = {
    "en": r"\b(?:comprising|comprises|consisting of|characteri[sz]ed in that|wherein)\b\s*[:,]?\s*",
    "zh": r"(?:其特征在于|其特征是|特征在于)\s*[，,：:]?\s*|(?:包括|包含)\s*[：:]?\s*",
}
"""What stands before the body of a claim; in Korean and Japanese it comes before the end of the claim."""
_FROM = {
    "problem": {"abstract", "background", "summary"},
    "effect": {"abstract", "summary"},
    "works": {"description", "examples"},
}
"""Parts of a record, and sections of its description, where the sentences of a kind are looked for."""

_END = {
    "en": r"(?<=[.!?])(?<!\bFIG\.)(?<!\bFIGS\.)(?<!\bNo\.)(?<!\bNos\.)(?<!\be\.g\.)(?<!\bi\.e\.)"
    r"\s+(?=[\"“(]?[A-Z])|\n+",
    "ko": r"(?<=[.!?])\s+|\n+",
    "zh": r"(?<=[。！？])|\n+",
    "ja": r"(?<=[。！？])|\n+",
}


class Question(NamedTuple):
    """A question about an invention, without its wording."""

    kind: str
    slots: dict[str, str]
    """What the wording names: the `title`, and the `part` of a question how it works."""
    answer: str
    passages: tuple[Passage, ...]
    """Passages of the record, each of which has the answer word for word."""


def questions_of(record: Record) -> Iterator[Question]:
    """The questions about a record: at most one of each kind, no two with the same answer."""
    title, language = " ".join((record["title"] or "").split()), (record["language"] or "").lower()
    if not title or language not in LANGUAGES:
        return
    found = list(passages(record))
    used = {title}
    for kind in KINDS:
        answer, slots = _answer(kind, found, language, used)
        if answer:
            used.add(answer)
            having = tuple(passage for passage in found if answer in passage.text)[:MOST_PASSAGES]
            yield Question(kind, {"title": title, **slots}, answer, having)


def sentences(text: str, language: str) -> list[str]:
    """The sentences of a text that end as such, without paragraph numbers. Headings, lists, what was cut off
    and what would read as a citation of a source (`as in [3]`) are left out."""
    parts = re.split(_END[language], text)
    found = (each[begin.end() if (begin := PARAGRAPH_NUMBER.match(each)) else 0 :].strip() for each in parts)
    ended = (each for each in found if each[-1:] in (*".!?。！？",) and SHORTEST <= len(each) <= LONGEST)
    return [each for each in ended if not CITED.search(each)]


def _answer(
    kind: str, found: Sequence[Passage], language: str, used: set[str]
) -> tuple[str, Mapping[str, str]]:
    """The answer to a kind of question and what else its wording names; empty if the record has none."""
    if kind == "parts":
        first = [passage for passage in found if passage.part == "claim"][:2]
        alone = len(first) == 1 or (len(first) == 2 and first[0].label != first[1].label)
        return (_body(first[0].text, language) if alone else ""), {}
    for passage in found:
        if kind == "about" and passage.part != "abstract":
            continue
        place = passage.label if passage.part == "description" else passage.part
        if kind in _FROM and place not in _FROM[kind]:
            continue
        for sentence in sentences(passage.text, language):
            if sentence in used:
                continue
            if kind == "works":
                if part := re.match(_PART[language], sentence):
                    return sentence, {"part": part["part"]}
            elif kind == "about" or re.search((_AIM if kind == "problem" else _EFFECT)[language], sentence):
                return sentence, {}
    return "", {}


def _body(claim: str, language: str) -> str:
    """What follows the claim's preamble, or the whole claim."""
    opening = re.search(_BODY[language], claim, re.IGNORECASE) if language in _BODY else None
    body = claim[opening.end() :].strip() if opening else ""
    text = body if len(body) >= SHORTEST else claim.strip()
    return text if len(text) >= SHORTEST and not CITED.search(text) else ""


@lru_cache(maxsize=1)
def wordings() -> dict[str, Any]:
    """`questions` by kind and language, `answers` and `refusals` by language."""
    import yaml

    read: dict[str, Any] = yaml.safe_load(
        Path(__file__).with_name("record_questions.yaml").read_text("utf-8")
    )
    return read
