"""The layouts of preference data: a row becomes one prompt and the two answers to it.

    prompt: text or messages           chosen, rejected: texts or messages        TRL's explicit prompt
                                       chosen, rejected: whole conversations      TRL's implicit prompt
    prompt: text                       chosen, rejected: whole conversations      UltraFeedback
                                       chosen, rejected: "\\n\\nHuman: … Assistant: …"  Anthropic's HH-RLHF
    system, question: texts            chosen, rejected: texts                    Orca pairs
    instruction, input, history        chosen, rejected: texts                    LLaMA-Factory's Alpaca
    conversations (or messages)        chosen, rejected: one message              LLaMA-Factory's ShareGPT
    input: messages                    preferred_output, non_preferred_output     OpenAI's fine-tuning
    messages with the chosen answer    rejected_response or rejected_messages     ms-swift
    question                           response_j is better than response_k       StackExchange pairs
    prompt                             response_0, response_1, better_response_id PKU-SafeRLHF

Messages have `role` and `content`, or `from` and `value`. What is asked may stand in several places, as
UltraFeedback's question does; it is taken once, and a row whose places disagree is left out.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from data.chat.messages import Message
from data.chat.record_formats import QUESTIONS, read_row

Messages = list[Message]

LISTS = ("messages", "conversations", "conversation")
TEXTS = ("instruction", *QUESTIONS, "input")
SYSTEMS = ("system", "system_prompt")
NAMES = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("preferred_output", "non_preferred_output"),
    ("response_j", "response_k"),
)
"""Names of the better and the worse answer."""
_TURN = re.compile(r"(?:^|\n\n)\s*(Human|Assistant):")


class Disagreement(ValueError):
    """The places of a row where the prompt or the system message stands say different things."""


def read_pair(row: Mapping[str, Any]) -> tuple[Messages, Messages]:
    """The chosen and the rejected conversation: the same messages, then the answer of each.

    Disagreement, KeyError with the name of what is missing, or ValueError (Unfit included), TypeError or
    AttributeError for a value that is not of these layouts.
    """
    asked, systems = _asked(row), {}
    for name in SYSTEMS:
        if row.get(name):
            if not isinstance(row[name], str):
                raise ValueError(f"`{name}` is {type(row[name]).__name__}, not a text")
            systems[name] = row[name]
    inside = row["input"] if isinstance(row.get("input"), Mapping) else {}
    if row.get("tools") or inside.get("tools"):
        raise ValueError("`tools`: pairs with tools are not supported")
    own = {key: _messages(value) for key, value in _answers(row).items()}
    for name, messages in asked.items():  # UltraFeedback's `messages` are `chosen` once more
        if messages and messages[-1]["role"] == "assistant" and messages[-1:] == own["chosen"][-1:]:
            asked[name] = messages[:-1]
    chosen, rejected = (_joined(key, messages, asked, systems) for key, messages in own.items())
    if not all(chat and chat[-1]["role"] == "assistant" for chat in (chosen, rejected)):
        return chosen, rejected  # one has no answer
    if list(map(_plain, chosen[:-1])) != list(map(_plain, rejected[:-1])):
        raise Disagreement("`chosen` and `rejected` do not answer the same prompt")
    return chosen, [*chosen[:-1], rejected[-1]]


def _answers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `chosen` and `rejected`, whatever their names are in this row."""
    for better, worse in NAMES:
        if better in row and (worse in row or better == "chosen"):
            return {"chosen": row[better], "rejected": row[worse]}
    for worse in ("rejected_response", "rejected_messages"):
        if worse in row:
            return {"chosen": row["messages"], "rejected": row[worse]}
    if "better_response_id" in row:
        best = int(row["better_response_id"])
        return {"chosen": row[f"response_{best}"], "rejected": row[f"response_{1 - best}"]}
    raise KeyError("chosen")


def _asked(row: Mapping[str, Any]) -> dict[str, Messages]:
    """The messages before the answers, by the key where they stand."""
    found: dict[str, Messages] = {}
    for name in ("prompt", *LISTS, *TEXTS):
        value = row.get(name)
        if not value or name in found or (name == "input" and row.get("instruction")):
            continue
        if not isinstance(value, str) or name in LISTS:
            found[name] = _messages(value)
        elif (turns := _turns(value)) is not None:
            found[name] = turns
        else:
            found[name] = [{"role": "user", "content": value}]
            if name == "instruction" and row.get("input"):
                found[name][0]["input"] = str(row["input"])
            before = row.get("history") or []
            before = json.loads(before) if isinstance(before, str) else before
            pairs = [({"role": "user", "content": q}, {"role": "assistant", "content": a}) for q, a in before]
            found[name] = [*(message for pair in pairs for message in pair), *found[name]]
    return found


def _messages(value: Any) -> Messages:
    """An answer or a conversation as messages."""
    if isinstance(value, str):
        if value.lstrip().startswith("[{"):  # in a cell of a table
            try:
                return _messages(json.loads(value))
            except (ValueError, TypeError, KeyError, AttributeError):
                pass  # a text that only begins so
        turns = _turns(value)
        return turns if turns is not None else [{"role": "assistant", "content": value}]
    if isinstance(value, Mapping):
        inside = next((value[name] for name in LISTS if name in value), None)
        return _messages(inside if inside is not None else [value])
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__}, not a text or messages")
    if not value:
        return []
    key = "conversations" if isinstance(value[0], Mapping) and "from" in value[0] else "messages"
    if value[0].get("human") is not None:
        key = "conversation"
    return read_row({key: value}, "")[1][0]["messages"]


def _turns(text: str) -> Messages | None:
    """The turns of Anthropic's texts, an answer that is still to come left out; None if it is no such
    text."""
    if not re.match(r"\s*Human:", text) or "\n\nAssistant:" not in text:
        return None
    parts = _TURN.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[name], "content": content.strip()}
        for name, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return turns[:-1] if turns[-1] == {"role": "assistant", "content": ""} else turns


def _joined(key: str, own: Messages, asked: dict[str, Messages], systems: dict[str, str]) -> Messages:
    """The whole conversation of `key`, whose value is `own`: what was asked before it, unless it is in it."""
    first = next(iter(asked.values()), [])
    said = dict(systems)
    for name, messages in [*asked.items(), (key, own)]:
        if messages and messages[0]["role"] == "system":
            said[name] = messages[0]["content"]
    if len({str(text).strip() for text in said.values()}) > 1:
        raise Disagreement(f"different system messages in {', '.join(f'`{name}`' for name in said)}")
    body = _body(own)
    if not body or body[0]["role"] == "assistant":  # an answer alone
        body = [*_body(first), *body]
    elif _body(first)[-1:] and _body(first)[-1]["role"] == "assistant" and not _agree(_body(first), body):
        body = [*_body(first), *body]  # the dialogue goes on
    for name, messages in asked.items():
        if not _agree(_body(messages), body):
            raise Disagreement(f"`{key}` is a conversation that does not begin with `{name}`")
    system = next(iter(said.values()), None)
    return body if system is None else [{"role": "system", "content": system}, *body]


def _agree(asked: Messages, body: Messages) -> bool:
    """Whether a conversation begins with what was asked, or has it, one question, as its last one."""
    wanted, there = list(map(_plain, asked)), list(map(_plain, body))
    return there[: len(wanted)] == wanted or (len(wanted) == 1 and there[:-1][-1:] == wanted)


def _body(messages: Messages) -> Messages:
    """The messages after the system's."""
    return messages[1:] if messages and messages[0]["role"] == "system" else messages


def _plain(message: Message) -> Message:
    """A message without white space around its text, for comparing."""
    text = message["content"]
    return message | {"content": text.strip()} if isinstance(text, str) else message
