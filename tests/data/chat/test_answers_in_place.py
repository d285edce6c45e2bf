"""Answers are where the template puts them, whatever they say: real templates whose prompts are no beginning
of the chat, contents that repeat or name control tokens."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from data.chat.chat_template import TEMPLATES, encode, install, prompt_ids, teaches_to_stop
from data.chat.control_tokens import control_tokens
from data.chat.messages import Message
from tests.data.chat.chats import SPECIAL, conversation, load, write_tokenizer

FOLDER = Path(trl.__file__).parent / "chat_templates"
SYSTEM_LAST = (
    "{% if messages[0].role == 'system' %}{% set sys = messages[0].content %}{% set ms = messages[1:] %}"
    "{% else %}{% set ms = messages %}{% endif %}<s>{% for m in ms %}{% if m.role == 'user' %}[INST] "
    "{% set left = ms[loop.index:] | selectattr('role', 'equalto', 'user') | list %}"
    "{% if not left and sys is defined %}{{ sys + '\n\n' }}{% endif %}{{ m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
"""Mistral v0.3: the system message is in the last question."""
NO_END = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""GLM-4: an answer ends with the next role."""
OWN = {"system in the last question": SYSTEM_LAST, "no end": NO_END}
REAL = ("deepseek_r1_distill", "deepseekv3", "qwen2_5", "qwen3", "qwen3_5_think", "qwen3_5_nothink",
        "qwen3_6", "llama3_1", "glm4moe", "phi3", "gemma3", "gptoss", "cohere2", "lfm2_2_5",
        "nemotron_3_nano")  # fmt: skip
CONTROL = (
    "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>", "<|user|>", "<|end|>",
    "<|assistant|>", "<|system|>", "<start_of_turn>", "<end_of_turn>", "<|start|>", "<|channel|>",
    "<|message|>", "<|return|>", "<|call|>", "[INST]", "[/INST]", "<|END_OF_TURN_TOKEN|>",
    "<|START_OF_TURN_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|CHATBOT_TOKEN|>",
)  # fmt: skip

Opened = dict[str, Any]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A tokenizer with each template."""
    found = {}
    own = {
        name: (FOLDER / f"{name}.jinja").read_text("utf-8")
        for name in REAL
        if (FOLDER / f"{name}.jinja").exists()
    }
    folder = write_tokenizer(tmp_path_factory.mktemp("t"), special=tuple(dict.fromkeys((*SPECIAL, *CONTROL))))
    for name, template in (own | OWN | dict.fromkeys(TEMPLATES)).items():
        found[name] = load(folder)
        found[name].chat_template = template
        install(found[name], None if template else name)
    return found


def trained(tokenizer: Any, messages: list[Message], **options: Any) -> list[str]:
    """The runs of trained tokens, as text."""
    encoded = encode(tokenizer, messages, **options)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], encoded.trained.astype(int), [0]])))
    return [tokenizer.decode(encoded.ids[a:b]) for a, b in edges.reshape(-1, 2)]


ALL = [*REAL, *OWN, *TEMPLATES]
WORDS = ("B", "The pump 7", "yes", "assistant", "user\nB", "[", "1", "model", "</", "a\n\nb", "Which")


@pytest.mark.parametrize("name", ALL)
def test_an_answer_that_the_question_repeats_is_trained_in_its_own_place(opened: Opened, name: str) -> None:
    """The run of trained tokens is the same for any question, so it never is in one."""
    if name not in opened:
        pytest.skip("this TRL has no such template")
    tokenizer = opened[name]
    for word in WORDS:
        asked = f"Which is it: {word}\n{word}? say {word} "
        for turns in (1, 2):
            said: list[Message] = []
            for _ in range(turns):
                said += [{"role": "user", "content": asked}, {"role": "assistant", "content": word}]
            runs = trained(tokenizer, said)
            assert len(runs) == turns
            for run in runs:
                assert run.count(word) >= 1
                assert "say" not in run
                assert "Which is" not in run
            other = [m | {"content": "Else?"} if m["role"] == "user" else m for m in said]
            assert trained(tokenizer, other) == runs


@pytest.mark.parametrize("name", ["system in the last question", "llama3", "deepseekv3"])
def test_a_system_message_that_moves_moves_no_answer(opened: Opened, name: str) -> None:
    said = [
        {"role": "system", "content": "yes"}, {"role": "user", "content": "yes or no: is A a letter?"},
        {"role": "assistant", "content": "yes"}, {"role": "user", "content": "Is no?"},
        {"role": "assistant", "content": "no"},
    ]  # fmt: skip
    end = opened[name].eos_token
    assert [run.strip() for run in trained(opened[name], said)] == [f"yes{end}", f"no{end}"]


def test_reasoning_in_an_answer_is_where_the_template_puts_it(opened: Opened) -> None:
    said = [
        {"role": "user", "content": "Why </think> B?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nB"},
        {"role": "user", "content": "B?"},
        {"role": "assistant", "content": "<think>\nho\n</think>\n\nC"},
    ]
    assert trained(opened["qwen3"], said) == ["B<|im_end|>", "<think>\nho\n</think>\n\nC<|im_end|>"]
    assert [run.strip() for run in trained(opened["deepseek_r1_distill"], said)] == [
        "B<｜end▁of▁sentence｜>", "C<｜end▁of▁sentence｜>",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["chatml", "llama2", "llama3", "linly", "deepseek_r1_distill", "qwen3"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_names_of_control_tokens_in_contents_are_text(opened: Opened, name: str, data: Any) -> None:
    """The control tokens of a chat are those of the same chat with other words, and its text is kept."""
    tokenizer = opened[name]
    control = control_tokens(tokenizer)
    ids = set(tokenizer.convert_tokens_to_ids(list(control.names)))
    word = st.lists(st.sampled_from([*control.names, "<", "s>", "pump", "水", " ", "\n", "|>"]), max_size=4)
    contents = ["x" + "".join(data.draw(word)) + "y" for _ in range(4)]
    roles = ("user", "assistant", "user", "assistant")
    said: list[Message] = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    if any(tag in text for text in contents for tag in ("<think>", "</think>")):
        return
    plain: list[Message] = [{"role": role, "content": "xy"} for role in roles]

    def controls(tokens: Any) -> list[int]:
        return [token for token in tokens if token in ids]

    encoded, other = encode(tokenizer, said), encode(tokenizer, plain)
    assert controls(encoded.ids) == controls(other.ids)
    assert controls(encoded.ids[encoded.trained]) == controls(other.ids[other.trained])
    assert tokenizer.decode(encoded.ids) == tokenizer.apply_chat_template(said, tokenize=False)
    assert controls(prompt_ids(tokenizer, said[:-1])) == controls(prompt_ids(tokenizer, plain[:-1]))


def test_a_chat_without_such_names_has_the_same_ids_with_the_second_tokenizer(opened: Opened) -> None:
    for name, turns in itertools.product(TEMPLATES, (1, 3)):
        tokenizer = opened[name]
        said = conversation(turns, system=True)
        named = [m | {"content": m["content"] + "</s>"} if m["role"] == "system" else m for m in said]
        text = tokenizer.convert_ids_to_tokens(encode(tokenizer, said).ids)
        more = tokenizer.convert_ids_to_tokens(encode(tokenizer, named).ids)
        assert [*more] != [*text]
        assert more[-20:] == text[-20:]


@pytest.mark.parametrize("name", ALL)
def test_a_template_without_an_end_token_is_known(opened: Opened, name: str) -> None:
    if name in opened:
        assert teaches_to_stop(opened[name]) == (name not in ("no end", "glm4moe", "cohere2"))


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.content[1:] }}</s>{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}</s>{% endfor %}",
        "{{ raise_exception('never') }}",
        "{{ messages[5].content }}",
    ],
)
def test_a_template_that_does_not_show_its_answers_is_refused_by_name(tmp_path: Path, template: str) -> None:
    tokenizer = load(write_tokenizer(tmp_path, template=template))
    with pytest.raises(UserError, match=rf"{tmp_path.name}.*Set `template` to one of"):
        install(tokenizer, None)


ONCE = '{"city": "Seoul", "of": "</s>"}'


@pytest.mark.parametrize("name", ["chatml", "qwen2_5", "qwen3", "llama3_1", "gptoss"])
@pytest.mark.parametrize("form", ["text", "text twice", "object"])
def test_arguments_of_calls_are_json_once(opened: Opened, name: str, form: str) -> None:
    arguments = {"text": ONCE, "text twice": json.dumps(ONCE), "object": json.loads(ONCE)}[form]
    call = {"id": "call12345", "type": "function", "function": {"name": "w", "arguments": arguments}}
    said: list[Message] = [
        {"role": "user", "content": "w?"}, {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3", "name": "w"}, {"role": "assistant", "content": "3."},
    ]  # fmt: skip
    tokenizer = opened[name]
    encoded = encode(tokenizer, said)
    assert ONCE in tokenizer.decode(encoded.ids)
    runs = trained(tokenizer, said)
    assert len(runs) == 2
    assert '"Seoul"' in runs[0]
    assert "3." in runs[1]


def test_answers_marked_so_are_not_trained_on(opened: Opened) -> None:
    said = conversation(3)
    said[1] |= {"trained": False}
    tokenizer = opened["chatml"]
    expected = [said[i]["content"] + "<|im_end|>" for i in (3, 5)]
    assert trained(tokenizer, said) == expected
    everything = trained(tokenizer, said, train_on="all")
    assert len(everything) == 2
    assert said[1]["content"] not in "".join(everything)
    assert encode(tokenizer, said).ids.tolist() == encode(tokenizer, conversation(3)).ids.tolist()
    said[5] |= {"trained": False}
    assert trained(tokenizer, said, train_on="last") == []
