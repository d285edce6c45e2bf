"""Made-up everyday texts: the same for the same seed, right in both languages, chats with right answers."""

import json
from pathlib import Path
from random import Random

import pytest

from core.errors import UserError
from data.synthetic.general_text import chat, story, synthesize
from data.synthetic.lexicon_sampler import load
from data.synthetic.patents import synthesize as patents


def test_a_seed_always_gives_the_same_texts_and_another_seed_others(tmp_path: Path) -> None:
    counts = [synthesize(tmp_path / name, 20, 10, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    a, b, c = (
        [(tmp_path / name / file).read_text("utf-8") for file in ("texts.jsonl", "chats.jsonl")]
        for name in "abc"
    )
    assert a == b
    assert a[0] != c[0]
    assert counts[0]["texts"] == len(a[0].splitlines()) == 40
    ids = [json.loads(line)["id"] for line in a[0].splitlines()]
    assert len(set(ids)) == 40


def test_a_story_ends_with_its_first_sentence_in_both_languages() -> None:
    for index in range(50):
        zh, en = story(Random(index))
        first = zh[: zh.index("。") + 1]
        assert zh.endswith(first)
        assert zh.count(first) == 2
        assert en.endswith(en[-20:])
        assert not any("\u4e00" <= sign <= "\u9fff" for sign in en)
        assert "{" not in zh + en


def test_chats_answer_what_was_asked() -> None:
    seen = set()
    for index in range(400):
        asked = chat(Random(index))
        seen.add(asked["task"])
        if asked["task"] == "sum":
            x, y, total = [
                int(word)
                for word in "".join(sign if sign.isdigit() else " " for sign in asked["output"]).split()
            ]
            assert x + y == total
        if asked["task"] == "repeat":
            assert asked["input"] == asked["output"]
        if asked["task"] == "who":
            assert asked["output"].rstrip(".。") in asked["input"]
    assert len(seen) == 6


def test_fields_bound_the_vocabulary_of_made_up_patents(tmp_path: Path) -> None:
    patents(tmp_path, 40, 0, ["optics", "robot"])
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text("utf-8").splitlines()]
    fields = load("lexicon.yaml")["fields"]
    for record in records[::2]:  # the Chinese ones
        assert any(
            row[0] in record["title"] for name in ("optics", "robot") for row in fields[name]["products"]
        )
    with pytest.raises(UserError, match=r"unknown field 'cooking'\. Fields: refrigeration"):
        patents(tmp_path, 1, 0, ["cooking"])
