"""A tiny local model: batches change nothing, limits hold, keys cover what answers depend on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import UserError
from eval.models.hf import Local, generate, identity, inputs, open_model
from eval.sample import EvalSample
from eval.tasks.task import Request
from tests.eval.models.tiny import write_model

TEXTS = ["一种装置，其特征在于", "a device", "权利要求1", "The quick brown fox jumps over it " * 3, "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def local(folder: Path) -> Local:
    return open_model(str(folder))


def request(prompt: str, n: int = 12, stop: tuple[str, ...] = ()) -> Request:
    return Request(prompt, EvalSample(task="t", id=prompt, prediction="", reference=""), n, stop)


def test_generation_is_the_same_whatever_the_batch(local: Local) -> None:
    requests = [request(text, n) for text, n in zip(TEXTS, (12, 5, 12, 3, 9), strict=True)]
    together = dict(generate(local, requests))
    local.batch_tokens = 1
    assert dict(generate(local, requests)) == together
    assert len(set(together.values())) > 1
    text = str(together[0])
    (stopped,) = dict(generate(local, [request(TEXTS[0], 12, (text[2], text[4]))])).values()
    assert stopped == min(text.split(text[2], maxsplit=1)[0], text.split(text[4], maxsplit=1)[0], key=len)


def test_a_word_after_the_spaces_of_a_prompt_may_begin_with_one(local: Local) -> None:
    """The space before a word is part of its token, in SentencePiece as in byte-level BPE."""
    plain, spaced, line = (f"{TEXTS[1]}:{end}" for end in ("", "  ", "\n"))
    answers = dict(generate(local, [request(plain), request(spaced), request(line)]))
    assert answers[0] == answers[1] != answers[2]
    local.chat = True
    local.tokenizer.chat_template = "{{ messages[0].content }}"
    answers = dict(generate(local, [request(plain), request(spaced)]))
    assert answers[0] != answers[1]  # a template says itself where an answer begins


def test_out_of_memory_halves_the_budget_and_keeps_all_answers(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(text) for text in TEXTS]
    expected, whole = dict(generate(local, requests)), local.model.forward

    def small(**arguments: Any) -> Any:
        if len(arguments["input_ids"]) > 1:
            raise torch.OutOfMemoryError("planted")
        return whole(**arguments)

    monkeypatch.setattr(local.model, "forward", small)
    assert dict(generate(local, requests)) == expected


def test_a_prompt_longer_than_the_context_is_truncated_on_the_left_and_counted(local: Local) -> None:
    long = "z" * 500 + "end"
    (cut,) = generate(local, [request(long)])
    assert local.truncated == 1
    assert [cut] == list(generate(local, [request(long[-116:])]))
    with pytest.raises(UserError, match="leaves no space for a prompt"):
        list(generate(local, [request("x", 128)]))


def test_a_key_covers_weights_tokenizer_and_template(folder: Path, tmp_path: Path) -> None:
    def named(path: Path, **settings: Any) -> str:
        return json.dumps(identity(inputs(str(path)), **settings), sort_keys=True)

    copy = shutil.copytree(folder, tmp_path / "copy")
    assert named(copy) == named(folder)  # its path does not matter
    seen = {named(folder), named(folder, chat=True), named(folder, four_bit=True)}
    seen |= {named(folder, dtype="float16"), named(folder, four_bit=True, dtype="float16")}
    assert named(folder, dtype="float32") == named(folder)
    seen.add(named(folder, context=64))
    seen.add(named(write_model(tmp_path / "other", seed=1)))
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}", "utf-8")
    seen.add(named(copy))
    assert len(seen) == 8


def test_weights_are_loaded_in_the_data_type_asked_for(folder: Path) -> None:
    for name in ("float32", "bfloat16", "float16"):
        local = open_model(str(folder), dtype=name)
        assert {parameter.dtype for parameter in local.model.parameters()} == {getattr(torch, name)}
        assert len(list(generate(local, [request("hello")]))) == 1


def test_a_chat_model_reads_its_template(folder: Path) -> None:
    chat = open_model(str(folder), chat=True)
    (asked,) = generate(chat, [request("hello")])
    chat.tokenizer.chat_template = "{{ messages[0].content }}"
    assert [asked] == list(generate(chat, [request("[user] hello\n[assistant] ")]))
