"""Shorten chats that are too long, from the left of the prompt.

The oldest turns are removed first, then the beginning of the remaining question. The system message, the
template and the last answer stay complete, so that the result is still a prompt as in serving. If the last
answer alone is too long, the chat ends with the answer before it.
"""

from typing import Any

from data.chat.chat_template import Encoded, TrainOn, encode
from data.chat.messages import Message, answered


def shorten(
    tokenizer: Any,
    messages: list[Message],
    max_tokens: int,
    train_on: TrainOn,
    tools: list[dict[str, Any]] | None,
) -> tuple[Encoded, int] | None:
    """The chat in at most `max_tokens`, and how many of its last answers are left out because they are too
    long; None if no answer fits, or the last one does not and only that is trained on."""
    left_out = 0
    while True:
        last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
        alone = tokenizer(messages[last]["content"], add_special_tokens=False, verbose=False)["input_ids"]
        if len(alone) <= max_tokens:
            encoded = _cut_prompt(tokenizer, messages, max_tokens, train_on, tools)
            if encoded is not None:
                return encoded, left_out
        messages = answered(messages[:last])
        trained = any(m["role"] == "assistant" and m.get("trained", True) for m in messages)
        if train_on == "last" or not trained:
            return None
        left_out += 1


def _cut_prompt(
    tokenizer: Any,
    messages: list[Message],
    max_tokens: int,
    train_on: TrainOn,
    tools: list[dict[str, Any]] | None,
) -> Encoded | None:
    """The chat in at most `max_tokens`; None if its last answer leaves no room for a question."""
    shortened = _last_exchanges(tokenizer, messages, max_tokens, train_on, tools)
    while True:
        encoded = encode(tokenizer, shortened, train_on=train_on, tools=tools)
        over = len(encoded.ids) - max_tokens
        if over <= 0:
            return encoded
        shorter = _cut_question(tokenizer, shortened, over)
        if shorter is None:
            return None
        shortened = shorter


def _last_exchanges(
    tokenizer: Any,
    messages: list[Message],
    max_tokens: int,
    train_on: TrainOn,
    tools: list[dict[str, Any]] | None,
) -> list[Message]:
    """As many of the last turns as fit, at least one; by bisection."""
    system = messages[:1] if messages[0]["role"] == "system" else []
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    starts = [
        i for i, message in enumerate(messages) if message["role"] == "user" and i < answers[-1]
        and (i == 0 or messages[i - 1]["role"] != "user")
    ]  # fmt: skip
    low, high = 0, len(starts) - 1  # the first turn that is kept
    while low < high:
        middle = (low + high) // 2
        encoded = encode(tokenizer, [*system, *messages[starts[middle] :]], train_on=train_on, tools=tools)
        low, high = (low, middle) if len(encoded.ids) <= max_tokens else (middle + 1, high)
    return [*system, *messages[starts[low] :]]


def _cut_question(tokenizer: Any, messages: list[Message], over: int) -> list[Message] | None:
    """The messages without the first `over` tokens of the longer part of the first question."""
    place = next(i for i, message in enumerate(messages) if message["role"] == "user")
    question = messages[place]
    part = "input" if len(question.get("input", "")) > len(question["content"]) else "content"
    found = tokenizer(question[part], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = found["offset_mapping"]
    if over + 1 >= len(offsets):
        return None
    rest = question[part][offsets[over + 1][0] :].lstrip()
    if not rest or len(rest) >= len(question[part]):
        return None
    return [*messages[:place], question | {part: rest}, *messages[place + 1 :]]
