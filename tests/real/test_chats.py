"""The real instruction files: all of them are read, with as many records as the files hold."""

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from data.chat.record_formats import read_row
from data.chat.row_reader import rows
from data.packing.indexed_dataset import Documents
from data.record import Rejected
from tests.data.chat.chats import SPECIAL, chat_tokenizer, load, prepared, write_tokenizer

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


TEMPLATES = (
    "deepseek_r1_distill",
    "deepseekv3",
    "qwen3_5_think",
    "qwen3_5_nothink",
    "qwen3",
    "phi3",
    "gemma3",
)
"""Most of their prompts are no beginning of the chat."""
NUMBERS = {"sharegpt_zh_first500.jsonl": 134, "kullm-v1.jsonl": 300, "belle_dev1K.jsonl": 300}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_answer_of_a_real_chat_is_trained_on_and_no_question(
    real: Path, tmp_path: Path, name: str
) -> None:
    """Each run of trained tokens is one answer; what surrounds it is the same for every answer."""
    import numpy as np
    import trl

    from data.chat.chat_template import encode, install
    from data.chat.messages import answered, problem

    template = (Path(trl.__file__).parent / f"chat_templates/{name}.jinja").read_text("utf-8")
    tags = ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<|user|>", "<|end|>", "<|assistant|>",
            "<start_of_turn>", "<end_of_turn>")  # fmt: skip
    tokenizer = load(write_tokenizer(tmp_path, special=(*SPECIAL, *tags), template=template))
    install(tokenizer, None)
    chats = [
        messages
        for file, number in NUMBERS.items()
        for place, row in itertools.islice(rows(real / "instructions" / file), number)
        if not isinstance(row, Rejected)
        for chat in read_row(row, place)[1]
        if not problem(messages := answered(chat["messages"]))
    ]
    around: set[tuple[str, str]] = set()
    for messages in chats:
        encoded = encode(tokenizer, messages)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], encoded.trained.astype(int), [0]])))
        runs = [tokenizer.decode(encoded.ids[a:b]) for a, b in edges.reshape(-1, 2)]
        said = [message["content"].strip() for message in messages if message["role"] == "assistant"]
        assert len(runs) == len(said)
        for run, answer in zip(runs, said, strict=True):
            before, found, after = run.partition(answer)
            assert found
            around.add((before.strip(), after))
    assert len(chats) > 600
    assert len(around) <= 4, around
