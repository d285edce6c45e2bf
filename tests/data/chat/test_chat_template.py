"""Templates: what is trained is what is served, token by token, and an answer's end is learnt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from data.chat.chat_template import TEMPLATES, encode, install, joined_begins, prompt_ids
from data.chat.messages import Message
from tests.data.chat.chats import SPECIAL, chat_tokenizer, conversation, load, write_tokenizer

__all__ = ["chat_tokenizer"]

OWN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A template that says the last answer otherwise than the ones before it, as Qwen3's."""

ENDS = {"llama3": "<|eot_id|>", "chatml": "<|im_end|>"}


def installed(folder: Path, name: str | None) -> Any:
    tokenizer = load(folder)
    install(tokenizer, name)
    return tokenizer


def trained_texts(tokenizer: Any, messages: list[Message], **options: Any) -> list[str]:
    """The runs of trained tokens, as text."""
    encoded = encode(tokenizer, messages, **options)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], encoded.trained.astype(int), [0]])))
    return [tokenizer.decode(encoded.ids[a:b]) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("turns", [1, 2, 3, 5])
@pytest.mark.parametrize("system", [False, True])
def test_ids_are_those_of_the_template_rendered_whole(
    chat_tokenizer: Path, name: str, turns: int, system: bool
) -> None:
    tokenizer = installed(chat_tokenizer, name)
    said = conversation(turns, system=system)
    whole = tokenizer.apply_chat_template(said, tokenize=True, return_dict=False)
    assert encode(tokenizer, said).ids.tolist() == whole
    end = tokenizer.eos_token
    assert end == ENDS.get(name, "</s>")
    found = [text.strip() for text in trained_texts(tokenizer, said)]
    assert [text.removesuffix(end).strip() for text in found] == [m["content"] for m in said if
                                                                  m["role"] == "assistant"]  # fmt: skip
    assert all(text.endswith(end) for text in found)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_how_a_trained_chat_begins_up_to_its_answer(chat_tokenizer: Path, name: str) -> None:
    tokenizer = installed(chat_tokenizer, name)
    said = conversation(2, system=True)
    asked = prompt_ids(tokenizer, said[:-1])
    assert asked == tokenizer.apply_chat_template(
        said[:-1], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    text = tokenizer.apply_chat_template(said, tokenize=False)
    assert text.startswith(tokenizer.decode(asked))
    assert said[-1]["content"] in text[len(tokenizer.decode(asked)) :]
    for answer in ("一种水泵", "pump for water", "특허란"):
        whole = encode(tokenizer, [*said[:-1], {"role": "assistant", "content": answer}])
        assert whole.ids[: len(asked)].tolist() == asked, "no token reaches from the prompt into the answer"
        assert whole.trained[len(asked) :].any()
        assert not whole.trained[len(asked) - 1]
    assert not joined_begins(tokenizer)


@pytest.mark.parametrize("name", [*TEMPLATES])
def test_a_saved_tokenizer_prompts_and_stops_as_it_was_trained(
    chat_tokenizer: Path, tmp_path: Path, name: str
) -> None:
    tokenizer = installed(chat_tokenizer, name)
    tokenizer.save_pretrained(tmp_path)
    again, said = load(tmp_path), conversation(2)
    assert again.apply_chat_template(said, return_dict=False) == encode(tokenizer, said).ids.tolist()
    assert (again.eos_token, again.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)
    assert again.pad_token_id != again.eos_token_id


@pytest.mark.parametrize(
    ("own", "chosen"),
    [
        ({"pad_token": None}, "</s>"),
        ({"pad_token": "</s>"}, "</s>"),
        ({"pad_token": "<|sep|>"}, "<|sep|>"),
        ({"pad_token": "</s>", "unk_token": "<|sep|>"}, "<|sep|>"),
    ],
)
def test_a_tokenizer_without_another_token_pads_with_its_end_token(
    tmp_path: Path, own: dict[str, str | None], chosen: str
) -> None:
    """Polyglot-Ko, GPT-2: one token begins, ends and pads."""
    tokenizer = load(write_tokenizer(tmp_path, special=("</s>", "<|sep|>")))
    for name, token in ({"bos_token": "</s>"} | own).items():
        setattr(tokenizer, name, token)
    install(tokenizer, "kullm")
    assert (tokenizer.pad_token, tokenizer.eos_token) == (chosen, "</s>")
    said = conversation(2)
    assert all(text.endswith("</s>") for text in trained_texts(tokenizer, said)), "the end is trained on"


def test_the_last_answer_alone_or_everything_is_trained_on_where_asked(chat_tokenizer: Path) -> None:
    tokenizer, said = installed(chat_tokenizer, "chatml"), conversation(3)
    assert trained_texts(tokenizer, said, train_on="last") == [said[-1]["content"] + "<|im_end|>"]
    assert encode(tokenizer, said, train_on="all").trained.all()


@pytest.mark.parametrize("turns", [1, 3])
def test_a_tokenizers_own_template_needs_no_marks_even_where_it_rewrites_earlier_answers(
    tmp_path: Path, turns: int
) -> None:
    tokenizer = installed(write_tokenizer(tmp_path, template=OWN), None)
    said = conversation(turns)
    answers = [message["content"] for message in said if message["role"] == "assistant"]
    answers[-1] = f"<think></think>{answers[-1]}"
    assert trained_texts(tokenizer, said) == [f"{answer}<|im_end|>" for answer in answers]
    assert encode(tokenizer, said).ids.tolist() == tokenizer.apply_chat_template(said, return_dict=False)
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_token_that_reaches_from_the_prompt_into_the_answer_is_trained_on(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    )
    tokenizer = installed(write_tokenizer(tmp_path, template=template), None)
    said = [{"role": "user", "content": "what is a pu"}, {"role": "assistant", "content": "mp?"}]
    alone = tokenizer("what is a pu", add_special_tokens=False)["input_ids"]
    encoded = encode(tokenizer, said)
    assert encoded.ids.tolist()[: len(alone)] != alone  # else the test shows nothing
    assert trained_texts(tokenizer, said) == [" pump?</s>"]


def test_a_template_of_ones_own_that_joins_its_prompt_to_the_answer_is_found(tmp_path: Path) -> None:
    """As `Bot: ` before a Latin word: a space is kept with the word behind it."""
    own = (
        "{%% for m in messages %%}{{ 'Bot:%s' if m.role == 'assistant' else 'User:%s' }}{{ m.content }}"
        "{%% if m.role == 'assistant' %%}</s>{%% endif %%}{%% endfor %%}"
        "{%% if add_generation_prompt %%}Bot:%s{%% endif %%}"
    )
    for end, some in ((" ", True), ("\n", False)):
        folder = tmp_path / str(some)
        folder.mkdir()
        tokenizer = installed(write_tokenizer(folder, template=own % (end, end, end)), None)
        assert bool(joined_begins(tokenizer)) == some


def test_kullm_and_alpaca_prompt_word_by_word_as_their_authors_did(chat_tokenizer: Path) -> None:
    said = [{"role": "user", "content": "특허란?"}]
    assert installed(chat_tokenizer, "kullm").apply_chat_template(said, tokenize=False) == (
        "<s>아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요."
        "\n\n### 명령어:\n특허란?\n\n### 응답:\n"
    )
    said = [{"role": "user", "content": "Translate.", "input": "Pumpe"}]
    assert installed(chat_tokenizer, "alpaca").apply_chat_template(said, tokenize=False) == (
        "<s>Below is an instruction that describes a task, paired with an input that provides further"
        " context. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nTranslate.\n\n### Input:\nPumpe\n\n### Response:\n"
    )


def test_templates_without_a_place_for_an_input_have_it_below_the_instruction(chat_tokenizer: Path) -> None:
    tokenizer = installed(chat_tokenizer, "chatml")
    said = [
        {"role": "user", "content": "Translate.", "input": "Pumpe"},
        {"role": "assistant", "content": "pump"},
    ]
    assert "user\nTranslate.\nPumpe<|im_end|>" in tokenizer.decode(encode(tokenizer, said).ids)


def test_tools_their_calls_and_results_stand_in_the_text_of_templates_that_know_none(
    chat_tokenizer: Path,
) -> None:
    tokenizer = installed(chat_tokenizer, "chatml")
    call = {"name": "weight", "arguments": {"of": "泵"}}
    said: list[Message] = [
        {"role": "user", "content": "How heavy?"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
        {"role": "tool", "content": "3 kg"},
        {"role": "assistant", "content": "3 kg."},
    ]
    tools = [{"type": "function", "function": {"name": "weight"}}]
    text = tokenizer.decode(encode(tokenizer, said, tools=tools).ids)
    assert text.startswith('<|im_start|>system\n{"type": "function"')
    assert trained_texts(tokenizer, said, tools=tools) == [
        '{"name": "weight", "arguments": {"of": "泵"}}<|im_end|>', "3 kg.<|im_end|>",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "special", "words"),
    [
        (None, SPECIAL, "no chat template"),
        ("vicuna", SPECIAL, "template=vicuna: unknown template"),
        ("chatml", SPECIAL[:3], r"lacks <\|im_start\|>, <\|im_end\|>"),
        ("linly", ("<s>", "</s>"), ""),
    ],
)
def test_a_template_that_the_tokenizer_lacks_is_named(
    tmp_path: Path, name: str | None, special: tuple[str, ...], words: str
) -> None:
    tokenizer = load(write_tokenizer(tmp_path, special=special))
    if not words:
        install(tokenizer, name)
        assert tokenizer.pad_token == "<s>"  # rather than the end token
        return
    with pytest.raises(UserError, match=words):
        install(tokenizer, name)
