"""The real instruction files: all of them are read, with as many records as the files hold."""

import json
from collections import Counter
from pathlib import Path

import pytest

from data.chat.record_formats import read_row
from data.chat.row_reader import rows
from data.packing.indexed_dataset import Documents
from data.record import Rejected
from tests.data.chat.chats import chat_tokenizer, load, prepared

__all__ = ["chat_tokenizer"]

LAYOUTS = {
    "alpaca_en_demo.json": "alpaca",
    "alpaca_zh_demo.json": "alpaca",
    "belle_dev1K.jsonl": "alpaca",
    "belle_eval_set.jsonl": "question-answer",
    "glaive_toolcall_zh_demo.json": "sharegpt",
    "kullm-v1.jsonl": "alpaca",
    "safety_prompts_layout.json": "safety-prompts",
    "sharegpt_zh_first500.jsonl": "sharegpt",
    "user_oriented_instructions_eval.jsonl": "self-instruct",
}


def held(file: Path) -> int:
    """How many records a file holds, counted in another way."""
    text = file.read_text("utf-8")
    if file.suffix == ".jsonl":
        return sum(bool(line.strip()) for line in text.split("\n"))
    whole = json.loads(text)
    return len(whole) if isinstance(whole, list) else sum(map(len, whole.values()))


def test_no_file_is_left_out_here(real: Path) -> None:
    prompts = {"alpaca.json", "kullm.json"}  # published prompts, which the last test compares
    assert {file.name for file in (real / "instructions").iterdir()} == LAYOUTS.keys() | prompts


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_record_of_a_file_is_read_by_its_layout(real: Path, name: str) -> None:
    file = real / "instructions" / name
    found: Counter[str] = Counter()
    for place, row in rows(file):
        assert not isinstance(row, Rejected), row
        layout, chats = read_row(row, place)
        found[layout] += len(chats)
    assert found == {LAYOUTS[name]: held(file)}


def test_all_files_together_make_a_prepared_set_that_loses_nothing_uncounted(
    real: Path, tmp_path: Path, chat_tokenizer: Path
) -> None:
    files = [real / "instructions" / name for name in LAYOUTS]
    sources = [{"path": str(file), "name": file.name} for file in files]
    made = prepared(tmp_path / "out", chat_tokenizer, sources, max_tokens=3000, validation_share=0.05)
    for file in files:
        counts = made.counts["sources"][file.name]
        kept = counts["train"]["chats"] + counts["validation"]["chats"]
        assert counts["records"] == held(file) == kept + sum(counts["dropped"].values()), file.name
    dropped = made.counts["dropped"]
    assert dropped["empty-answer"] == 369  # of belle_eval_set's questions
    assert dropped.keys() <= {"empty-answer", "empty-question", "answer-too-long"}
    tokenizer, documents, marks = load(made.tokenizer), Documents(made.split("train")), made.trained("train")
    for i in range(0, len(documents), 50):
        first = documents.first_token(i)
        trained = marks[first : first + len(documents[i])].astype(bool)
        assert tokenizer.decode(documents[i][trained]).endswith("<|im_end|>")


def test_the_published_prompts_are_our_templates(real: Path, chat_tokenizer: Path) -> None:
    from data.chat.chat_template import install

    for name in ("alpaca", "kullm"):
        published = json.loads((real / "instructions" / f"{name}.json").read_text("utf-8"))
        tokenizer = load(chat_tokenizer)
        install(tokenizer, name)
        plain = [{"role": "user", "content": "Q"}]
        with_input = [{"role": "user", "content": "Q", "input": "I"}]
        render = tokenizer.apply_chat_template
        assert render(plain, tokenize=False) == "<s>" + published["prompt_no_input"].format(instruction="Q")
        assert render(with_input, tokenize=False) == "<s>" + published["prompt_input"].format(
            instruction="Q", input="I"
        )
