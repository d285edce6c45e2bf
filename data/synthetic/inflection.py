"""How the words of an invention are inflected, for each style of a patent's text (voice).

A patent speaks in three voices: claims (所述 before a known part), plain text, and the detailed description
(a reference numeral after each part). `voices` turns a `Draft` into the filled slots of each.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Pair = tuple[str, str]
"""A text in Chinese and in English."""
Voice = tuple[dict[str, str], dict[str, str]]
"""The filled slots of one voice, in Chinese and in English."""

DOUBLED = (
    "control",
    "crop",
    "cut",
    "emit",
    "fit",
    "input",
    "output",
    "scan",
    "skip",
    "split",
    "transfer",
    "transmit",
    "wrap",
)
"""Verbs whose last consonant is doubled before -ing."""
VERBS = ("key_does", "drive_does", "part_does", "effect", "effect2", "effect3")
"""Slots of phrases that start with a verb."""
VOWEL_LETTERS = "AEFHILMNORSX"
"""Letters whose names start with a vowel: an LED."""


@dataclass
class Draft:
    """The words drawn for one invention."""

    style: str
    ipc: list[str]
    numbering: tuple[int, int]
    """The first reference numeral and the distance to the next."""
    nouns: dict[str, Pair] = field(default_factory=dict)
    """Slots with the forms a_, t_ and _s."""
    phrases: dict[str, Pair] = field(default_factory=dict)
    """Slots whose text is used unchanged; those of VERBS have the forms _s and _ing."""
    clauses: dict[str, Pair] = field(default_factory=dict)
    """Templates that are slots of other templates; they may have slots themselves, also of earlier
    clauses."""


def voices(draft: Draft, parts: list[str]) -> tuple[Voice, Voice, Voice, list[Pair]]:
    """The slots in the voices of claims, plain text and detailed description, and the list of numerals.

    `parts` are the nouns that carry a reference numeral, in their order.
    """
    start, step = draft.numbering
    numerals = {slot: str(start + i * step) for i, slot in enumerate(parts)}
    chinese = {slot: text[0] for slot, text in draft.phrases.items()}
    english = {slot: text[1] for slot, text in draft.phrases.items()}
    for slot in VERBS:
        if slot in draft.phrases:
            english |= {f"{slot}_s": third_person(english[slot]), f"{slot}_ing": gerund(english[slot])}
    found: list[Voice] = []
    for known, numbered in (("所述", False), ("", False), ("", True)):
        zh_slots, en_slots = dict(chinese), dict(english)
        for slot, (zh, en) in draft.nouns.items():
            number = numerals.get(slot) if numbered else None
            mark, tail = (f"（{number}）", f" ({number})") if number else ("", "")
            zh_slots[slot] = zh + mark
            zh_slots[f"t_{slot}"] = known + zh + mark
            en_slots[slot] = en + tail
            en_slots[f"{slot}_s"] = plural(en) + tail
            en_slots[f"t_{slot}_s"] = f"the {plural(en)}{tail}"
            en_slots[f"a_{slot}"] = article(en) + tail
            en_slots[f"t_{slot}"] = f"the {en}{tail}"
            zh_slots[f"t_{slot}_s"] = zh_slots[f"t_{slot}"]
        for slot, (zh, en) in draft.clauses.items():
            zh_slots[slot] = zh.format_map(zh_slots)
            en_slots[slot] = en.format_map(en_slots)
            en_slots[f"{slot}_ing"] = gerund(en).format_map(en_slots)
        found.append((zh_slots, en_slots))
    listed = [
        (f"{number}、{draft.nouns[s][0]}", f"{number}, {draft.nouns[s][1]}") for s, number in numerals.items()
    ]
    return found[0], found[1], found[2], listed


def pair(row: list[Any]) -> Pair:
    return row[0], row[1]


def enumeration(items: list[Pair]) -> Pair:
    """甲、乙和丙 / a, b and c."""
    zhs, ens = zip(*items, strict=True)
    return "、".join(zhs[:-1]) + "和" + zhs[-1], ", ".join(ens[:-1]) + " and " + ens[-1]


@lru_cache(maxsize=4096)
def article(noun: str) -> str:
    """A noun with "a" or "an"."""
    if noun[:2].isupper():
        vowel = noun[0] in VOWEL_LETTERS
    else:
        vowel = noun[0] in "aeiou" and not noun.startswith(("one", "uni", "use", "eu"))
    return f"{'an' if vowel else 'a'} {noun}"


@lru_cache(maxsize=4096)
def plural(noun: str) -> str:
    """A noun's plural; the last word is the head."""
    return _add_s(noun)


@lru_cache(maxsize=4096)
def third_person(phrase: str) -> str:
    """`heat the edge` to `heats the edge`."""
    verb, space, rest = phrase.partition(" ")
    return _add_s(verb) + space + rest


@lru_cache(maxsize=4096)
def gerund(phrase: str) -> str:
    """`improve the accuracy` to `improving the accuracy`."""
    verb, space, rest = phrase.partition(" ")
    if verb in DOUBLED:
        verb += verb[-1:]
    elif verb.endswith("e") and not verb.endswith("ee"):
        verb = verb[:-1]
    return f"{verb}ing{space}{rest}"


def _add_s(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"
