"""Preference records that are none are counted and named; ZeRO 3 is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.model.loading import load_tokenizer
from data.chat.chat_template import install
from sft.preference_data import PairsConfig, read_pairs, reasons
from tests.conftest import run
from tests.sft.chats import Bases

GOOD = {"prompt": "class A1", "chosen": "A is food.", "rejected": "A is power."}
USER, BOT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
BAD: list[tuple[str, Any]] = [
    ("no-layout", {"prompt": "q", "chosen": "a"}),
    ("no-layout", {"prompt": "q", "chosen": "a", "rejected": 7}),
    ("no-layout", {"prompt": "q", "chosen": [{"content": "a"}], "rejected": "b"}),
    ("bad-json", ["a list"]),
    ("empty-answer", {"prompt": "q", "chosen": "a", "rejected": " "}),
    ("empty-question", {"prompt": " ", "chosen": "a", "rejected": "b"}),
    ("unknown-role", {"prompt": [{"role": "judge", "content": "q"}], "chosen": "a", "rejected": "b"}),
    ("user-not-first", {"chosen": [BOT], "rejected": [BOT]}),
    ("no-answer", {"chosen": [USER, BOT, USER], "rejected": [USER, BOT]}),
    ("same-answer", {"prompt": "q", "chosen": "a", "rejected": "a"}),
    ("over-long", {"prompt": "q", "chosen": "a" * 500, "rejected": "b"}),
]


def read(bases: Bases, file: Path) -> Any:
    tokenizer = load_tokenizer(bases.path())
    install(tokenizer, "llama3")
    pairs, dropped = read_pairs(PairsConfig(paths=(str(file),), max_tokens=64, validation_share=0), tokenizer)
    return pairs["train"], pairs["validation"], dropped


def test_records_that_are_no_preferences_are_counted_by_reason_and_named_with_their_line(
    bases: Bases, tmp_path: Path
) -> None:
    lines = [json.dumps(row) for row in (GOOD, *(row for _, row in BAD), {"prompt": [USER], **GOOD})]
    file = tmp_path / "pairs.jsonl"
    file.write_bytes("\n".join([*lines, "{broken"]).encode() + b'\n{"prompt": "\xff"}\n')
    train, held_out, dropped = read(bases, file)
    assert (len(train), len(held_out)) == (2, 0)
    expected = [*(reason for reason, _ in BAD), "bad-json", "bad-encoding"]
    assert [each.reason for each in dropped] == expected
    numbers = [*range(2, len(BAD) + 2), len(BAD) + 3, len(BAD) + 4]
    assert [each.source for each in dropped] == [f"{file}#{number}" for number in numbers]
    assert reasons(dropped) == {reason: expected.count(reason) for reason in expected}


def test_a_file_without_any_preference_says_what_its_first_record_lacks(bases: Bases, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"question": "q"}) + "\n")
    with pytest.raises(UserError, match=r"no-layout': 1.*pairs.jsonl#1: `chosen`: there is no 'chosen'"):
        read(bases, file)


def test_zero_3_is_refused_with_what_to_do(bases: Bases, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(GOOD) + "\n")
    done = run("sft", "dpo", f"run_dir={tmp_path / 'run'}", f"model.path={bases.path()}",
               f"data.paths=[{tmp_path / 'pairs.jsonl'}]", "deepspeed.zero_stage=3")  # fmt: skip
    assert done.returncode == 2
    assert "zero_stage=2" in done.stderr
    assert not (tmp_path / "run").exists()
