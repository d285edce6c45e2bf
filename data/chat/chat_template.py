"""The one chat template code: training, evaluation and serving all use the template in the tokenizer.

    chat ──render whole──▶ text ──tokenise──▶ ids        (exactly those of apply_chat_template)
              └─ render with marks ──▶ where each answer begins and ends ──▶ trained

A template is Jinja, the tokenizer's own or one of TEMPLATES; `install` puts it into the tokenizer, with the
end token of answers and a padding token, so that a saved tokenizer prompts exactly as in training.
`rendering` finds the answers in the text; prefixes are never tokenised on their own, because tokens may cross
the boundary. A prompt ends before the space at the start of an answer, which is part of its first token.
`control_tokens` keeps the names of control tokens in contents text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from core.errors import UserError
from data.chat.control_tokens import control_tokens, tokenise, tokenise_whole
from data.chat.messages import Message
from data.chat.rendering import answer_span, as_rendered, place, render

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
    """Alpaca's form: a sentence about the task, then sections with headings."""
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
"""Our templates by name. `patent-llama` is `linly`, with which that system was trained."""

TOKENS = {"llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
          "chatml": ("<|im_start|>", "<|im_end|>")}  # fmt: skip
"""Special tokens of a template; the last one ends an answer. Other templates use the tokenizer's end
token."""

ASKED: list[Message] = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
"""The smallest chat."""

PADDING = ("<pad>", "<|finetune_right_pad_id|>", "<|padding|>", "<|pad|>", "[PAD]", "<|endoftext|>",
           "<|reserved_special_token_0|>", "<|vision_pad|>", "<unk>")  # fmt: skip
"""Padding tokens of common tokenizers, best first."""


def install(tokenizer: Any, name: str | None) -> None:
    """Put one of our templates into the tokenizer, or check its own (None); set its end and padding tokens.

    UserError if the template is unknown, or the tokenizer lacks its tokens.
    """
    if name is None:
        if not isinstance(tokenizer.chat_template, str):
            raise UserError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template. Set `template` to one of:"
                f" {', '.join(TEMPLATES)}."
            )
    elif name not in TEMPLATES:
        raise UserError(f"template={name}: unknown template. Templates: {', '.join(TEMPLATES)}.")
    else:
        needed = TOKENS.get(name, ())
        if absent := [token for token in needed if token not in tokenizer.get_vocab()]:
            raise UserError(
                f"template={name}: the tokenizer {tokenizer.name_or_path} lacks {', '.join(absent)}. Choose"
                " another template, or add these tokens to the tokenizer and the model."
            )
        tokenizer.chat_template = TEMPLATES[name]
        if needed:
            tokenizer.add_special_tokens({"additional_special_tokens": list(needed)}, False)
            tokenizer.eos_token = needed[-1]
    if name is None:
        _set_end(tokenizer)
    if not tokenizer.is_fast:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer is not a fast tokenizer, which is needed for offsets."
        )
    _set_padding(tokenizer)


def _set_end(tokenizer: Any) -> None:
    """Make the token that ends answers in its own template the tokenizer's end token, which stops
    generation. UserError if the template cannot write a chat, or it is not sure where its answer is."""
    try:
        placed = place(tokenizer, as_rendered(tokenizer, ASKED, None), control_tokens(tokenizer).pattern)
    except ValueError as error:
        raise UserError(
            f"{tokenizer.name_or_path}: a chat of one question cannot be made with the tokenizer's own"
            f" template: {error}. Set `template` to one of: {', '.join(TEMPLATES)}."
        ) from None
    rest = placed.text[placed.spans[-1].stop :].lstrip()
    ends = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special and rest.startswith(str(t))]
    if ends:
        tokenizer.eos_token = max(ends, key=len)


def _set_padding(tokenizer: Any) -> None:
    """Set a padding token, if possible not the end token: other programs tell padding by its token, and would
    not train a model to end an answer. Here labels are told by place, so the end token does too."""
    if tokenizer.pad_token is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    vocabulary, end = tokenizer.get_vocab(), tokenizer.eos_token
    others = (*PADDING, tokenizer.unk_token, tokenizer.bos_token)
    tokenizer.pad_token = next((token for token in others if token in vocabulary and token != end), end)


@dataclass(frozen=True)
class Encoded:
    """A chat as token ids."""

    ids: npt.NDArray[np.int32]
    """(T,)"""
    trained: npt.NDArray[np.bool_]
    """(T,): whether the token is trained on, including the end token of answers."""


def encode(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    train_on: TrainOn = "answers",
    tools: list[dict[str, Any]] | None = None,
) -> Encoded:
    """The ids of a chat, those of `apply_chat_template` (but names of control tokens in contents are text),
    and which are trained on: every answer with its end token, only the `last` one, or `all` tokens. Answers
    with `trained: False` never are.

    Raises ValueError if the template rejects the chat, or it is not sure where an answer is.
    """
    chat = as_rendered(tokenizer, messages, tools)
    control = control_tokens(tokenizer).pattern
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    left_out = [i for i in answers if not messages[i].get("trained", True)]
    if train_on == "all" and not left_out and not any(map(control.search, chat.texts())):
        ids, _ = tokenise_whole(tokenizer, render(tokenizer, chat))
        return Encoded(np.array(ids, np.int32), np.ones(len(ids), np.bool_))
    placed = place(tokenizer, chat, control)
    ids, offsets = tokenise(tokenizer, placed)
    places = np.array(offsets, np.int64).reshape(-1, 2)
    marked = left_out if train_on == "all" else answers[-1:] if train_on == "last" else answers
    inside = np.zeros(len(ids), np.bool_)
    for answer in marked:
        if train_on != "all" and answer in left_out:
            continue
        number = answer + len(chat.messages) - len(messages)  # tools as text may be a new first message
        start, stop = answer_span(tokenizer, placed, number, control)
        # A token of no width, such as a byte of a character, belongs to its position.
        inside |= (np.maximum(places[:, 1], places[:, 0] + 1) > start) & (places[:, 0] < stop)
    return Encoded(np.array(ids, np.int32), ~inside if train_on == "all" else inside)


def prompt_ids(
    tokenizer: Any, messages: Sequence[Message], tools: list[dict[str, Any]] | None = None
) -> list[int]:
    """The ids of the prompt for the next answer."""
    chat = as_rendered(tokenizer, messages, tools)
    control = control_tokens(tokenizer).pattern
    if any(map(control.search, chat.texts())):
        return list(tokenise(tokenizer, place(tokenizer, chat, control, generate=True))[0])
    return list(tokenise_whole(tokenizer, render(tokenizer, chat, generate=True))[0])


def joined_begins(tokenizer: Any) -> list[str]:
    """Beginnings of an answer (Latin words, a Chinese character, a number) that the tokenizer merges with the
    end of the prompt: the model would then be prompted with different tokens than in training."""
    asked: Message = {"role": "user", "content": "1"}
    prompt, found = prompt_ids(tokenizer, [asked]), []
    for begin in ("The", "a", "这", "7"):
        whole = encode(tokenizer, [asked, {"role": "assistant", "content": begin}]).ids.tolist()
        found += [begin] if whole[: len(prompt)] != prompt else []
    return found


def teaches_to_stop(tokenizer: Any) -> bool:
    """Whether the template puts the end token behind answers: otherwise the model does not learn to end
    one."""
    ids = encode(tokenizer, ASKED)
    return bool(ids.ids[ids.trained][-1] == tokenizer.eos_token_id)
