"""The sentences of a description that repeat its claims word for word, to keep that text once.

    description ──sentences──▶ folded, without introduction ──▶ in a claim? ──▶ description without them

A summary of the invention often is the claims once more: `优选地，所述泵体包括…。`, `In some embodiments, the
pump comprises …`. A sentence is left out if everything in it but an introduction (`优选地`, `In some
embodiments`) stands in one claim, with the same words in the same order, and is long enough. White space,
punctuation, case and width do not matter. What differs by a word stays, and so does part of a sentence. A
heading goes with its text if nothing is left under it. Time is linear: a sentence is looked up by its first
characters. A sentence after a line that is not a whole one, such as a heading that is not known or an item of
a list, stays, so that nothing is torn.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import compress, pairwise

from data.language import base
from data.sections import PARAGRAPH_NUMBER, heading

UNSPACED = ("zh", "ja")
"""Languages without spaces between words."""
LEAST = {"zh": 16, "ja": 16, "ko": 20}
LEAST_OTHERS = 40
"""Folded characters of the shortest sentence that is left out, without its introduction."""
LOOKED_AT = 64
"""Places in the claims, with the same first characters, that a sentence is compared with."""

_EN_INVENTION = "(?:present )?(?:invention|disclosure|application)"
_FR_INVENTION = "(?:l'|la présente )invention"
_EN_FORM = (
    "(?:(?:further|preferred|preferable|exemplary|possible|specific|alternative) )?"
    rf"(?:embodiments?|aspects?|examples?|implementations?|variants?|forms?)(?: of the {_EN_INVENTION})?"
)
INTRODUCTIONS = {
    "zh": r"""
        (?:更|再|更加|特别)?(?:进一步|进而|优选|較佳|较佳|较优|可选|可選|具体|具體|示例性|作为优选)(?:地|的|的是|是|为)?
        此外|另外|另一方面|一方面|不仅如此|并且|而且|同时|此时|其中|在此|例如|即|更详细地说
        (?:根据|在)?本(?:发明|申请|公开|实用新型)的?(?:一个|另一个?|又一个?|第[一二三四五]|一些|一种)?(?:方面|实施例|实施方式)中?
        在?(?:一个|一些|另一个|另一些|一种|其他)(?:可能|可选|优选)?的?(?:实施例|实施方式|实现方式|方案)中?
        (?:本(?:发明|申请|公开|实用新型))?(?:还|另)?(?:提供|提出|公开|涉及)了?
        为(?:实现|达到|解决)上述(?:目的|问题|技术问题)|(?:本发明的)?目的是通过以下技术方案实现的
        本(?:发明|申请|实用新型)(?:采用|采取)(?:如下|以下)技术方案""",
    "ja": r"""
        また|さらに|更に|より|特に|なお|好ましくは|本発明(?:の(?:一態様|他の態様|一側面))?(?:によれば|は|では)""",
    "ko": r"""
        또한|더욱|보다|바람직하게는|구체적으로|나아가|한편|그리고|이때|여기서
        본 (?:발명|고안)(?:은|의 일 측면은|에 따르면)""",
    "en": rf"""
        (?:(?:even|still|yet|more|most|further) )?(?:preferably|further|furthermore|moreover|also)
        additionally|optionally|advantageously|conveniently|particularly|specifically|alternatively|thus
        for example|in addition
        (?:in|according to) (?:an?|one|some|certain|other|further|(?:(?:still|yet) )?another) {_EN_FORM}
        (?:a further|(?:still |yet )?another|an?|one) {_EN_FORM} (?:is|provides|relates to|involves|includes)
        (?:in accordance with|according to) the {_EN_INVENTION}
        (?:the|this) {_EN_INVENTION}(?: also| further)? (?:provides|relates to|concerns|is directed to)
        there (?:is|are)(?: also| further)? provided|it is(?: also| further)? preferred that""",
    "de": r"""
        (?:besonders )?(?:vorzugsweise|bevorzugt|vorteilhaft)|insbesondere|ferner|weiterhin|außerdem|zudem
        zusätzlich|vorteilhafterweise|zweckmäßigerweise|dabei|gemäß der erfindung|erfindungsgemäß
        die (?:vorliegende )?erfindung (?:betrifft|bezieht sich auf)(?: ferner| auch)?
        die erfindung ist(?: daher)? dadurch gekennzeichnet da(?:ß|ss)
        eine \w+ (?:weiterbildung|ausgestaltung)(?: der erfindung)? ist dadurch gekennzeichnet da(?:ß|ss)""",
    "fr": rf"""
        de préférence|avantageusement|de plus|en outre|plus précisément|notamment|en particulier|par exemple
        selon (?:un|une) (?:autre )?(?:mode de réalisation|aspect|variante)(?: de {_FR_INVENTION})?
        selon {_FR_INVENTION}|{_FR_INVENTION} (?:a (?:donc )?pour objet|concerne|se rapporte à)""",
}
"""What may stand before the words of a claim, folded: patterns, of which several may follow each other."""
ENDS = {
    "ja": "(?:が|を)提供(?:される|する)|に関する|である|とする|ことを特徴とする|(?:こと)?が好ましい",
    "ko": "(?:을|를) (?:제공한다|포함한다)|에 관한 것이다|(?:인 것을|것을) 특징으로 한다",
}
"""What may stand after them."""

_FULL_STOP = (
    r"(?:(?<=[。！？])|(?<=[^\W\d_]{4}[.!?])(?<!Figs\.)(?<!resp\.)(?<!evtl\.)(?<!insb\.)(?<!prox\.)"
    r"|(?<=[가-힣\d)\]%][.!?]))"
)
"""Not after a word of up to three letters, which may be an abbreviation."""
_STOP = re.compile(rf"{_FULL_STOP}(?:(?<=[。！？])(?!$)|\s+(?=[\"“(]?[^\W\d_a-zß-ÿ]))")
_ENDED = re.compile(rf"{_FULL_STOP}\s*$")
_GOES_ON = re.compile(r"(?:[,;:，；：、]|\b(?:and|or|und|oder|et|ou)|[和或]|以及|及び|及)\s*$")
_HALF_WIDTH: dict[int, int | str] = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    ord("、"): ",",
    ord("。"): ".",
}
_POINTS = re.compile(r"(?<!\d)[,;:.]|[,;:.](?!\d)")
_ITEM = re.compile(
    r"[(（]?(?:[A-Za-z]?\d{1,2}|[A-Za-z]|[ivxIVX]{1,4}|[一二三四五六七八九十]{1,2})[)）.、．]"
    r"|(?:S|步骤|(?i:step) ?)\d|[-–•·*]"
)
_CLOSE = re.compile(r"(?<![a-z\d]) | (?![a-z\d])")


def without_repeated(description: str, claims: Collection[str], language: str) -> str:
    """The description without the sentences that stand in a claim; unchanged if there is none."""
    index = _Index(claims, base(language))
    repeated: list[tuple[int, int]] = []
    begins = True  # whether a sentence here begins after a whole one, or after a heading
    for start, end in sentences(description):
        sentence = description[start:end]
        whole = bool(_ENDED.search(sentence, max(0, len(sentence) - 10)))
        if begins and whole and index.has(sentence):
            repeated.append((start, end))
        begins = whole or not sentence.strip() or heading(sentence) is not None
    return "\n".join(_left(description, repeated)).strip("\n") if repeated else description


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence of a text begins and ends, with the white space after it.

    One ends at its full stop, and at the end of a line that does not go on: a list whose lines end with
    commas or semicolons is one sentence, and so is a table with the line before it.
    """
    start = position = 0
    for line, following in pairwise([*text.split("\n"), ""]):
        for stop in _STOP.finditer(line):
            yield start, position + stop.end()
            start = position + stop.end()
        position += len(line) + 1
        if not (_GOES_ON.search(line) or ("\t" in line and "\t" in following)):
            yield start, min(position, len(text))
            start = position
    if start < len(text):
        yield start, len(text)


def fold(text: str, language: str) -> str:
    """A text without case, width, spaces that separate no words, and the points between its parts."""
    words = " ".join(_POINTS.sub(" ", text.translate(_HALF_WIDTH).lower()).split())
    return _CLOSE.sub("", words) if language in UNSPACED else words


class _Index:
    """The claims of a record by the first characters from each word on."""

    def __init__(self, claims: Collection[str], language: str) -> None:
        self.language = language
        self.least = LEAST.get(language, LEAST_OTHERS)
        self.introduction, self.end = _patterns(language)
        self.claims = "\n".join(f"{fold(claim, language)} " for claim in claims)
        self.places: dict[str, list[int]] = defaultdict(list)
        step = r"(?=.)" if language in UNSPACED else r"(?<!\S)(?=\S)"
        for word in re.finditer(step, self.claims):
            found = self.places[self.claims[word.start() : word.start() + self.least]]
            if len(found) < LOOKED_AT:
                found.append(word.start())

    def has(self, sentence: str) -> bool:
        """Whether everything in a sentence, but an introduction, stands in a claim."""
        if number := PARAGRAPH_NUMBER.match(sentence):
            sentence = sentence[number.end() :]
        if len(sentence) < self.least or _ITEM.match(sentence):
            return False  # an item that leaves a list would break it
        return any(map(self._stands, self._bare(fold(sentence, self.language))))

    def _stands(self, words: str) -> bool:
        wanted = words if self.language in UNSPACED else f"{words} "
        places = self.places.get(words[: self.least], ()) if len(words) >= self.least else ()
        return any(self.claims.startswith(wanted, at) for at in places)

    def _bare(self, words: str) -> Iterator[str]:
        """The words of a sentence as they are, and without introductions and an end."""
        ended = self.end.sub("", words) if self.end else words
        for start in dict.fromkeys((words, ended)):
            yield (rest := start)
            while self.introduction and (before := self.introduction.match(rest)):
                yield (rest := rest[before.end() :])


@lru_cache
def _patterns(language: str) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    lines, end = INTRODUCTIONS.get(language, ""), ENDS.get(language)
    introduction = "|".join(line.strip() for line in lines.splitlines() if line.strip())
    space = "" if language in UNSPACED else " "
    return (
        re.compile(f"(?:{introduction}){space}") if introduction else None,
        re.compile(f" ?(?:{end})$") if end else None,
    )


def _left(text: str, repeated: Sequence[tuple[int, int]]) -> list[str]:
    """The lines of a text without the repeated sentences and the headings with nothing left under them."""
    keep = bytearray(b"\1" * len(text))
    for start, end in repeated:
        keep[start:end] = bytes(end - start)
    lines, left = text.split("\n"), []
    position = 0
    for line in lines:
        here = keep[position : position + len(line)]
        left.append("".join(compress(line, here)).rstrip() if 0 in here else line)
        position += len(line) + 1
    gone = [line != now and not now for line, now in zip(lines, left, strict=True)]
    headings = [i for i, line in enumerate(left) if line and heading(line)]
    for this, following in pairwise([*headings, len(lines)]):
        under = range(this + 1, following)
        if any(gone[i] for i in under) and all(gone[i] or not left[i] for i in under):
            gone[this] = True
    return [line for line, is_gone in zip(left, gone, strict=True) if not is_gone]
