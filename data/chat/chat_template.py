"""The one chat template code: training, evaluation and serving prompt with what stands in the tokenizer.

    chat ──render whole──▶ text ──tokenise──▶ ids        (what apply_chat_template gives, token by token)
              └─ render prefixes ──▶ where each answer begins and ends ──▶ trained

A template is Jinja, the tokenizer's own or one of TEMPLATES; `install` puts it into the tokenizer, with the
token that ends an answer and a padding token that is another one, so that a saved tokenizer prompts exactly
as it was trained. Where an answer stands in the text is found by rendering the chat up to it: prefixes are
never tokenised by themselves, since tokens may reach across the border. A prompt ends before the space that
an answer begins with, which is a part of its first token.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from core.errors import UserError
from data.chat.messages import Message, merged

TrainOn = Literal["answers", "all", "last"]

_BOS = "{% if bos_token is defined and bos_token and bos_token != eos_token %}{{ bos_token }}{% endif %}"
_SYSTEM = (
    "{% if messages and messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
)
_ROLES = (
    "{% if message.role not in roles %}{{ raise_exception('This template has no role ' + message.role) }}"
    "{% endif %}"
)


def _tagged(before: str, after: str) -> str:
    """Every message between its role's tag and an end token."""
    turn = before + "{{ message.content | trim }}" + after
    begin = before.replace("{{ message.role }}", "assistant")
    return (
        "{% set roles = ['system', 'user', 'assistant'] %}{% for message in messages %}"
        + _ROLES + turn + "{% endfor %}{% if add_generation_prompt %}" + begin + "{% endif %}"
    )  # fmt: skip


def _sections(alone: str, with_input: str, instruction: str, material: str, response: str) -> str:
    """Alpaca's kind: a sentence about the task, then headed sections."""
    return (
        _BOS + _SYSTEM + "{% set roles = ['user', 'assistant'] %}{% if system %}{{ system }}"
        "{% elif messages and messages[0].input %}" + with_input + "{% else %}" + alone + "{% endif %}"
        "{% for message in messages %}" + _ROLES + "{% if message.role == 'user' %}"
        "{{ '\n\n" + instruction + "\n' + message.content }}"
        "{% if message.input %}{{ '\n\n" + material + "\n' + message.input }}{% endif %}"
        "{{ '\n\n" + response + "\n' }}{% else %}{{ message.content + eos_token }}{% endif %}{% endfor %}"
    )


_LLAMA2 = (
    _SYSTEM + "{% set roles = ['user', 'assistant'] %}{% for message in messages %}" + _ROLES
    + "{% if message.role == 'user' %}" + _BOS + "{{ '[INST] ' }}{% if loop.first and system %}"
    "{{ '<<SYS>>\n' + system + '\n<</SYS>>\n\n' }}{% endif %}{{ message.content | trim }}{{ ' [/INST]' }}"
    "{% else %}{{ ' ' + (message.content | trim) + ' ' + eos_token }}{% endif %}{% endfor %}"
)  # fmt: skip
_LINLY = (
    _BOS + _SYSTEM + "{% set roles = ['user', 'assistant'] %}{% if system %}{{ system + '\n' }}{% endif %}"
    "{% for message in messages %}" + _ROLES + "{% if message.role == 'user' %}"
    "{{ ('' if loop.first else '\n') + 'User: ' + message.content + '\nBot:' }}"
    "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}{% endfor %}"
)

TEMPLATES: dict[str, str] = {
    "llama2": _LLAMA2,
    "llama3": _BOS
    + _tagged("{{ '<|start_header_id|>' }}{{ message.role }}{{ '<|end_header_id|>\n\n' }}", "<|eot_id|>"),
    "chatml": _tagged("{{ '<|im_start|>' }}{{ message.role }}{{ '\n' }}", "{{ '<|im_end|>\n' }}"),
    "alpaca": _sections(
        "Below is an instruction that describes a task. Write a response that appropriately completes the"
        " request.",
        "Below is an instruction that describes a task, paired with an input that provides further context."
        " Write a response that appropriately completes the request.",
        "### Instruction:", "### Input:", "### Response:",
    ),
    "kullm": _sections(
        "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.",
        "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. 요청을"
        " 적절히 완료하는 응답을 작성하세요.",
        "### 명령어:", "### 입력:", "### 응답:",
    ),
    "linly": _LINLY,
    "patent-llama": _LINLY,
}  # fmt: skip
"""Our templates by name. `patent-llama` is `linly`, as that system was trained."""

TOKENS = {"llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
          "chatml": ("<|im_start|>", "<|im_end|>")}  # fmt: skip
"""Tokens that a template is made of; the last one ends an answer. Others end it with the tokenizer's own."""

PADDING = ("<pad>", "<|finetune_right_pad_id|>", "<|padding|>", "<|pad|>", "[PAD]", "<|endoftext|>",
           "<|reserved_special_token_0|>", "<|vision_pad|>", "<unk>")  # fmt: skip
"""Names under which tokenizers have a token to pad with, best first."""


def install(tokenizer: Any, name: str | None) -> None:
    """Put a template of ours into the tokenizer, or check its own (None); set its end and padding tokens.

    UserError where there is no such template, or the tokenizer lacks tokens that it is made of.
    """
    if name is None:
        if not isinstance(tokenizer.chat_template, str):
            raise UserError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template of its own. Choose one with"
                f" `template`: {', '.join(TEMPLATES)}."
            )
    elif name not in TEMPLATES:
        raise UserError(f"template: there is none called {name!r}; there are {', '.join(TEMPLATES)}.")
    else:
        needed = TOKENS.get(name, ())
        if absent := [token for token in needed if token not in tokenizer.get_vocab()]:
            raise UserError(
                f"template {name}: the tokenizer {tokenizer.name_or_path} lacks {', '.join(absent)}. Choose"
                " another template, or add these tokens to the tokenizer and the model."
            )
        tokenizer.chat_template = TEMPLATES[name]
        if needed:
            tokenizer.add_special_tokens({"additional_special_tokens": list(needed)}, False)
            tokenizer.eos_token = needed[-1]
    if name is None:
        _set_end(tokenizer)
    if not tokenizer.is_fast:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer gives no offsets; a fast one is needed.")
    _set_padding(tokenizer)


def _set_end(tokenizer: Any) -> None:
    """What its own template ends an answer with becomes the tokenizer's end token, which stops generation."""
    said = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    text = _render(tokenizer, said, None)
    rest = text[text.rfind("2") + 1 :].lstrip()
    ends = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special and rest.startswith(str(t))]
    if ends:
        tokenizer.eos_token = max(ends, key=len)


def _set_padding(tokenizer: Any) -> None:
    """A padding token that is not the end token: else no answer would learn to end."""
    if tokenizer.pad_token is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    vocabulary = tokenizer.get_vocab()
    others = (tokenizer.unk_token, tokenizer.bos_token)
    free = [token for token in (*PADDING, *others) if token in vocabulary and token != tokenizer.eos_token]
    if not free:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer has no token to pad with besides its end token. Give"
            " it one (`pad_token` in tokenizer_config.json)."
        )
    tokenizer.pad_token = free[0]


@dataclass(frozen=True)
class Encoded:
    """A chat as token ids."""

    ids: npt.NDArray[np.int32]
    """(T,)"""
    trained: npt.NDArray[np.bool_]
    """(T,): whether the token is to be learnt. An answer's end token is."""


def encode(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    train_on: TrainOn = "answers",
    tools: list[dict[str, Any]] | None = None,
) -> Encoded:
    """The ids of a chat, those of `apply_chat_template`, and which of them are trained on: every answer with
    its end token, the `last` one only, or `all`."""
    text = _render(tokenizer, messages, tools)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = np.array(found["input_ids"], np.int32)
    if train_on == "all":
        return Encoded(ids, np.ones(len(ids), np.bool_))
    places = np.array(found["offset_mapping"], np.int64).reshape(-1, 2)
    trained = np.zeros(len(ids), np.bool_)
    for start, stop in answer_spans(tokenizer, messages, text, tools, last=train_on == "last"):
        # A token of no width, as a byte of a letter may be, belongs to where it stands.
        trained |= (np.maximum(places[:, 1], places[:, 0] + 1) > start) & (places[:, 0] < stop)
    return Encoded(ids, trained)


def prompt_ids(
    tokenizer: Any, messages: Sequence[Message], tools: list[dict[str, Any]] | None = None
) -> list[int]:
    """The ids after which the model writes its answer."""
    text = _render(tokenizer, messages, tools, generate=True)
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def joined_begins(tokenizer: Any) -> list[str]:
    """Which beginnings of an answer (Latin words, a Chinese sign, a number) the tokenizer joins to the end of
    the template's prompt: such a model is asked with other tokens than it was trained on."""
    asked: Message = {"role": "user", "content": "1"}
    prompt, found = prompt_ids(tokenizer, [asked]), []
    for begin in ("The", "a", "这", "7"):
        whole = encode(tokenizer, [asked, {"role": "assistant", "content": begin}]).ids.tolist()
        found += [begin] if whole[: len(prompt)] != prompt else []
    return found


def answer_spans(
    tokenizer: Any,
    messages: Sequence[Message],
    text: str,
    tools: list[dict[str, Any]] | None = None,
    *,
    last: bool = False,
) -> list[tuple[int, int]]:
    """Where the answers (or the last one) stand in the rendered text, in characters, end tokens included.

    Raises ValueError where the template leaves an answer out.
    """
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    spans: list[tuple[int, int]] = []
    for i in answers[-1:] if last else answers:
        before = _render(tokenizer, messages[:i], tools, generate=True)
        behind = text if i + 1 == len(messages) else _render(tokenizer, messages[: i + 1], tools)
        begun = spans[-1][1] if spans else 0
        start = len(before) if text.startswith(before) else _find(text, messages[i], begun)
        if text.startswith(behind):
            stop = start + len(text[start : len(behind)].rstrip())
        else:  # a template that says earlier answers otherwise than the last one
            stop = _find(text, messages[i], start) + len(str(messages[i]["content"]).strip())
        spans.append((start, _with_end_token(tokenizer, text, stop)))
    return spans


def _find(text: str, message: Message, start: int) -> int:
    place = text.find(str(message["content"]).strip(), start)
    if place < 0:
        raise ValueError("the template leaves an answer out, or rewrites it")
    return place


def _with_end_token(tokenizer: Any, text: str, stop: int) -> int:
    """The end of an answer, moved behind an end token that follows it; white space that the template puts
    behind the end is not trained on."""
    behind = stop
    while behind < len(text) and text[behind].isspace():
        behind += 1
    if text.startswith(tokenizer.eos_token, behind):
        return behind + len(tokenizer.eos_token)
    return stop


def _render(
    tokenizer: Any, messages: Sequence[Message], tools: list[dict[str, Any]] | None, *, generate: bool = False
) -> str:
    """The chat as text. ValueError where the template refuses it."""
    import jinja2

    said = list(messages)
    if ".input" not in tokenizer.chat_template:
        said = [merged(message) for message in said]
    if "tool_calls" not in tokenizer.chat_template:
        said, tools = _without_tools(said, tools), None
    try:
        text = tokenizer.apply_chat_template(
            said, tools=tools or None, tokenize=False, add_generation_prompt=generate
        )
    except (jinja2.TemplateError, TypeError) as error:
        raise ValueError(f"the template refuses the chat: {error}") from None
    return str(text)


def _without_tools(messages: list[Message], tools: list[dict[str, Any]] | None) -> list[Message]:
    """Tools, calls and results as text, for templates that know none: they are JSON in the messages of the
    system, the assistant and the user."""
    said: list[Message] = []
    for message in messages:
        text = message["content"]
        if calls := message.get("tool_calls"):
            text = "\n".join(filter(None, [text, *(_json(call["function"]) for call in calls)]))
        role = "user" if message["role"] == "tool" else message["role"]
        said.append({key: message[key] for key in message if key != "tool_calls"} | {"role": role})
        said[-1]["content"] = text
    if tools:
        system = said.pop(0)["content"] if said[0]["role"] == "system" else ""
        text = "\n".join(filter(None, [system, *map(_json, tools)]))
        said.insert(0, {"role": "system", "content": text})
    return said


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
