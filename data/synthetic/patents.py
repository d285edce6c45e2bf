"""Synthetic but well-formed patents in Chinese and English: the corpus that comes with the project.

An invention is drawn from data/synthetic/lexicon.yaml (data/synthetic/lexicon_sampler.py), inflected for the
styles of a patent (data/synthetic/inflection.py) and written with the paired templates of
data/synthetic/templates.yaml: every sentence is made in both languages at once, so the English is the
translation of the Chinese. Parts, numbers and numerals are consistent within a document: a range in a claim
contains the narrower range of its dependent claim and the value of the embodiment.

`synthesize` writes two files; invention i depends on (seed, i) alone.

    records.jsonl   patent records (data/record.py), two per invention: Chinese, then English
    truth.jsonl     one line per invention: application_id, ipc, title {zh, en}, key_information and
                    key_information_en (解决问题, 技术手段, 实施效果: phrases in the abstract) and
                    claims [{zh, en, depends_on}]; depends_on is the number of the claim that a dependent
                    claim refers to, null for an independent one, even if it mentions an earlier claim
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from string import Formatter
from typing import Any, TypedDict

from core.errors import UserError
from data.record import Record
from data.synthetic.inflection import Draft, Pair, Voice, voices
from data.synthetic.lexicon_sampler import below, draw, load, pick

LANGUAGES = ("zh", "en")
MOST = 10_000_000
"""The application numbers of a year have seven digits."""
KEY_INFORMATION = {
    "problem": "解决问题",
    "means": "技术手段",
    "means2": "技术手段",
    "effect": "实施效果",
    "effect2": "实施效果",
}
"""Slots of an abstract's templates with key information, and its type."""


class Claim(TypedDict):
    """One claim in both languages, without its number."""

    zh: str
    en: str
    depends_on: int | None


class Invention(TypedDict):
    """One invention in both languages: texts are pairs [Chinese, English]."""

    ipc: list[str]
    title: Pair
    abstract: Pair
    claims: list[Claim]
    description: Pair
    key_information: tuple[dict[str, list[str]], dict[str, list[str]]]


def synthesize(folder: Path, inventions: int, seed: int, fields: Sequence[str] = ()) -> dict[str, Any]:
    """Write `records.jsonl` and `truth.jsonl` of N inventions to `folder`, and count them.

    `fields` of the lexicon limit the vocabulary; empty for all. Raises UserError if `inventions` is not
    between 1 and 10,000,000, or a field is unknown.
    """
    known = load("lexicon.yaml")["fields"]
    if unknown := [name for name in fields if name not in known]:
        raise UserError(f"unknown field {unknown[0]!r}. Fields: {', '.join(known)}.")
    if not 1 <= inventions <= MOST:
        raise UserError(f"inventions={inventions}: must be between 1 and {MOST:,}.")
    folder.mkdir(parents=True, exist_ok=True)
    characters = dict.fromkeys(LANGUAGES, 0)
    with (
        (folder / "records.jsonl").open("w", encoding="utf-8", newline="\n") as records,
        (folder / "truth.jsonl").open("w", encoding="utf-8", newline="\n") as truths,
    ):
        for index in range(inventions):
            rng = Random(f"{seed}:{index}")
            invention = invent(rng, fields)
            identity = _identity(rng, index)
            for i, language in enumerate(LANGUAGES):
                record = _record(invention, i, identity, f"synthesize:{seed}#{index}")
                records.write(json.dumps(record, ensure_ascii=False) + "\n")
                characters[language] += _characters(record)
            truth = _truth(invention, identity["application_id"])
            truths.write(json.dumps(truth, ensure_ascii=False) + "\n")
    return {"inventions": inventions, "records": 2 * inventions, "characters": characters}


def invent(rng: Random, fields: Sequence[str] = ()) -> Invention:
    """One invention, in both languages."""
    draft = draw(rng, fields)
    templates = load("templates.yaml")
    style = templates[draft.style]
    features = _choose_features(rng, style["features"])
    parts = [
        *style["parts"],
        *(part for name in features for part in style["features"][name].get("parts", ())),
    ]
    claiming, plain, numbered, numerals = voices(draft, parts)
    _fill(plain, "means", _say(style["means"], plain))
    _fill(plain, "means2", _say(pick(rng, style["means2"]), plain))
    claims, clauses, has_other = _claims(rng, draft, features, claiming)
    key_information: tuple[dict[str, list[str]], ...] = tuple(
        {kind: [] for kind in KEY_INFORMATION.values()} for _ in LANGUAGES
    )
    abstract = _paragraph(rng, style["abstract"], plain, key_information)
    _fill(plain, "claim", (claiming[0]["claim"], claiming[1]["claim"]))
    _fill(plain, "furthers", _furthers(rng, clauses, claiming))
    _fill(plain, "numerals", ("；".join(zh for zh, _ in numerals), "; ".join(en for _, en in numerals)))
    for slot, voice in (("backgrounds", plain), ("effects", plain), ("examples", numbered)):
        wordings = [style["features"][name].get(slot[:-1]) for name in features]
        _fill(voice, slot, _paragraph(rng, [each for each in wordings if each], voice))
    title = (
        _say(style["other"]["title"], plain)
        if has_other and rng.random() < 0.6
        else _say(["{name}"] * 2, plain)
    )
    return {
        "ipc": draft.ipc,
        "title": (f"一种{title[0]}", _capital(title[1])),
        "abstract": abstract,
        "claims": claims,
        "description": _description(rng, style["description"], plain, numbered),
        "key_information": (key_information[0], key_information[1]),
    }


def _choose_features(rng: Random, features: dict[str, Any]) -> list[str]:
    """Names of three to five features for dependent claims; one that builds on another follows it."""
    while True:
        chosen: list[str] = []
        for name, feature in features.items():
            drawn = rng.random() < feature["odds"]
            if drawn and ("after" not in feature or feature["after"] in chosen):
                chosen.append(name)
        if 3 <= len(chosen) <= 5:
            return chosen


def _claims(
    rng: Random, draft: Draft, features: list[str], voice: Voice
) -> tuple[list[Claim], list[Pair], bool]:
    """All claims, the clauses that claim 1's dependents add, and whether another independent one follows."""
    templates = load("templates.yaml")
    style, other = templates[draft.style], templates[draft.style]["other"]
    wording = pick(rng, templates["dependent"])
    _fill(voice, "claim", _say(pick(rng, style["claim"]), voice))
    claims = [_claim(_say(templates["independent"], voice), None)]
    clauses: list[Pair] = []
    numbers: dict[str | None, int] = {None: 1}
    # Dependent claims repeat the whole name, or just the product, as their drafter likes.
    _fill(voice, "subject", draft.nouns["name" if rng.random() < 0.2 else "product"])
    for name in features:
        after = style["features"][name].get("after")
        # A feature that builds on none may still depend on the claim before it.
        base = numbers[after] if after or rng.random() < 0.7 else len(claims)
        clauses.append(_say(pick(rng, style["features"][name]["clause"]), voice))
        claims.append(_dependent(wording, voice, clauses[-1], base))
        numbers[name] = len(claims)
    has_other = other["after"] in numbers and rng.random() < other["odds"]
    if has_other:
        _fill(voice, "number", (str(numbers[other["after"]]),) * 2)
        claims.append(_claim(_say(pick(rng, other["claim"]), voice), None))
        first = len(claims)
        _fill(voice, "subject", (other["subject"][0], other["subject"][1]))
        for feature in other["features"].values():
            if rng.random() < feature["odds"]:
                claims.append(_dependent(wording, voice, _say(pick(rng, feature["clause"]), voice), first))
    return claims, clauses, has_other


def _dependent(wording: list[str], voice: Voice, clause: Pair, base: int) -> Claim:
    _fill(voice, "clause", clause)
    _fill(voice, "number", (str(base), str(base)))
    return _claim(_say(wording, voice), base)


def _claim(text: Pair, depends_on: int | None) -> Claim:
    return {"zh": text[0], "en": _capital(text[1]), "depends_on": depends_on}


def _furthers(rng: Random, clauses: list[Pair], voice: Voice) -> Pair:
    """The summary's mention of up to two dependent claims."""
    zhs, ens = [], []
    for clause in clauses[: below(rng, 3)]:
        _fill(voice, "clause", clause)
        zh, en = _say(pick(rng, load("templates.yaml")["further"]), voice)
        zhs.append(zh)
        ens.append(en)
    return "".join(zhs), " ".join(ens)


def _description(rng: Random, sections: list[Any], plain: Voice, numbered: Voice) -> Pair:
    """The five sections, each under its heading; the last one carries reference numerals."""
    zhs, ens = [], []
    for heading, paragraphs in zip(load("templates.yaml")["headings"], sections, strict=True):
        zhs.append(heading[0])
        ens.append(heading[1])
        for sentences in paragraphs:
            zh, en = _paragraph(rng, sentences, numbered if paragraphs is sections[-1] else plain)
            if zh:
                zhs.append(zh)
                ens.append(en)
    return "\n".join(zhs), "\n".join(ens)


def _paragraph(
    rng: Random,
    sentences: list[Any],
    voice: Voice,
    key_information: tuple[dict[str, list[str]], ...] = (),
) -> Pair:
    """One wording of each sentence; its key information is added to `key_information`."""
    zhs, ens = [], []
    for wordings in sentences:
        wording = pick(rng, wordings)
        zh, en = _say(wording, voice)
        if zh:
            zhs.append(zh)
            ens.append(_capital(en))
        for template, slots, found in zip(wording, voice, key_information, strict=False):
            for slot in _slots(template):
                kind = KEY_INFORMATION.get(slot.removesuffix("_ing"))
                if kind:
                    found[kind].append(slots[slot])
    return "".join(zhs), " ".join(ens)


def _say(wording: Any, voice: Voice) -> Pair:
    return wording[0].format_map(voice[0]), wording[1].format_map(voice[1])


def _fill(voice: Voice, slot: str, text: Pair) -> None:
    voice[0][slot], voice[1][slot] = text


@lru_cache(maxsize=4096)
def _slots(template: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(template) if name]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _identity(rng: Random, index: int) -> dict[str, str]:
    """Numbers and date; the serial number is the invention's index, so none is used twice."""
    year, kind = 2005 + below(rng, 18), pick(rng, "AB")
    later = {"A": 1, "B": 3}[kind]
    return {
        "id": f"CN-{110_000_000 + index}-{kind}",
        "kind": kind,
        "date": f"{year + later}-{1 + below(rng, 12):02d}-{1 + below(rng, 28):02d}",
        "application_id": f"CN-{year}1{index:07d}",
    }


def _record(invention: Invention, i: int, identity: dict[str, str], source: str) -> Record:
    claims = [claim["en"] if i else claim["zh"] for claim in invention["claims"]]
    return {
        "id": identity["id"],
        "office": "CN",
        "kind": identity["kind"],
        "language": LANGUAGES[i],
        "date": identity["date"],
        "application_id": identity["application_id"],
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": None,
        "title": invention["title"][i],
        "abstract": invention["abstract"][i],
        "claims": claims,
        "claim_numbers": None,
        "description": invention["description"][i],
        "ipc": invention["ipc"],
        "source": source,
    }


def _truth(invention: Invention, application_id: str) -> dict[str, Any]:
    return {
        "application_id": application_id,
        "ipc": invention["ipc"],
        "title": dict(zip(LANGUAGES, invention["title"], strict=True)),
        "key_information": invention["key_information"][0],
        "key_information_en": invention["key_information"][1],
        "claims": invention["claims"],
    }


def _characters(record: Record) -> int:
    """Characters of the texts: title, abstract, claims and description."""
    texts = [record["title"], record["abstract"], *(record["claims"] or ()), record["description"]]
    return sum(len(text) for text in texts if text)
