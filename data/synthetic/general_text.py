"""Synthetic everyday texts and chats in Chinese and English: general data in addition to the synthetic
patents.

Stories of a few sentences represent the general text that a base model has read and that continued
pretraining repeats; chats ask for what any assistant should do (repeat, translate, find, name, add). Both are
drawn from data/synthetic/everyday.yaml. A story repeats its first sentence at the end, so that a model
benefits from looking back.

`synthesize` writes two files; story and chat i depend on (seed, i) alone.

    texts.jsonl   {"id", "language", "text"}, a Chinese and an English one per story
    chats.jsonl   {"instruction", "input", "output", "task"}
"""

import json
from pathlib import Path
from random import Random
from typing import Any

from data.synthetic.inflection import article
from data.synthetic.lexicon_sampler import below, load, pick

LANGUAGES = ("zh", "en")
DRAWN = ("person", "place", "time", "did", "quality", "thing", "feeling")
Slots = tuple[dict[str, str], dict[str, str]]
"""The values of slots, in Chinese and in English."""


def synthesize(folder: Path, stories: int, chats: int, seed: int) -> dict[str, Any]:
    """Write `texts.jsonl` with N stories and `chats.jsonl` with N chats, and count them."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = dict.fromkeys(LANGUAGES, 0)
    with (folder / "texts.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for index in range(stories):
            for language, text in zip(LANGUAGES, story(Random(f"story {seed}:{index}")), strict=True):
                row = {"id": f"story-{seed}-{index}-{language}", "language": language, "text": text}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                characters[language] += len(text)
    with (folder / "chats.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for index in range(chats):
            file.write(json.dumps(chat(Random(f"chat {seed}:{index}")), ensure_ascii=False) + "\n")
    return {"texts": 2 * stories, "chats": chats, "characters": characters}


def story(rng: Random) -> tuple[str, str]:
    """One story, in both languages."""
    words, slots = load("everyday.yaml"), _draw(rng)
    middle = list(words["middle"])
    sentences = [pick(rng, words["opening"])]
    for _ in range(1 + below(rng, 3)):
        sentences.append(middle.pop(below(rng, len(middle))))
    sentences += [pick(rng, words["ending"]), pick(rng, words["retell"])]
    texts_by_language: list[list[str]] = [[], []]
    for sentence in sentences:
        for texts, template, values in zip(texts_by_language, sentence, slots, strict=True):
            texts.append(template.format_map(values))
            values.setdefault("first", texts[0])
    return "".join(texts_by_language[0]), " ".join(texts_by_language[1])


def chat(rng: Random) -> dict[str, str]:
    """One question with its answer, in one of the languages."""
    words, slots = load("everyday.yaml"), _draw(rng)
    task = pick(rng, list(words["chats"]))
    i = below(rng, len(LANGUAGES))
    openings = [text.format_map(values) for text, values in zip(words["opening"][0], slots, strict=True)]
    values = slots[i] | {"text": openings[i], "other": openings[1 - i]}
    asked, about, answer = (template.format_map(values) for template in words["chats"][task][i])
    return {"instruction": asked, "input": about, "output": answer, "task": task}


def _draw(rng: Random) -> Slots:
    """The words of one story or chat."""
    words = load("everyday.yaml")
    drawn = {name: pick(rng, words[name]) for name in DRAWN}
    others = [row for row in words["person"] if row != drawn["person"]]
    places = [row for row in words["place"] if row != drawn["place"]]
    drawn |= {"friend": pick(rng, others), "place2": pick(rng, places)}
    thing = drawn["thing"]
    drawn |= {"measure": [thing[2], ""], "kind": words["kinds"][thing[3]]}
    x, y = below(rng, 10), below(rng, 10)
    numbers = {"x": str(x), "y": str(y), "sum": str(x + y)}
    zh, en = ({name: row[i] for name, row in drawn.items()} | numbers for i in range(2))
    return zh, en | {f"a_{name}": article(en[name]) for name in ("thing", "quality")}
