"""Shorten chats that are too long, from the left of the prompt.

The oldest turns are removed first, then the beginning of the remaining question. The system message, the
template and the last answer stay complete, so that the result is still a prompt as in serving.
"""

from typing import Any

from data.chat.chat_template import Encoded, TrainOn, encode
from data.chat.messages import Message


def shorten(
    tokenizer: Any,
    messages: list[Message],
    max_tokens: int,
    train_on: TrainOn,
    tools: list[dict[str, Any]] | None,
) -> Encoded | None:
    """The chat in at most `max_tokens`; None if the last answer leaves no room for a question."""
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
