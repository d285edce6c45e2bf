"""The layouts of instruction data, each converted to chats.

A record's layout is recognised by its keys, in the order of LAYOUTS; a source may set one instead. Each
layout is described at its function. A record of the layout `self-instruct` may contain several chats.
"""

import json
from collections.abc import Callable, Mapping
from math import isnan
from typing import Any, NamedTuple

from data.chat.messages import Chat, Message

RawRecord = Mapping[str, Any]

QUESTIONS = ("question", "问题", "問題", "질문", "prompt", "query")
ANSWERS = ("answer", "output", "response", "target", "std_answer", "completion", "答案", "回答", "답변")
COLUMNS = {
    "messages", "conversations", "conversation", "instruction", "instances", "input", "output", "target",
    "chosen", "rejected", "chosen_response", "rejected_response", "response_j", "response_0",
    *QUESTIONS, *ANSWERS,
}  # fmt: skip
"""The keys by which the header of a table is recognised: those of the layouts, and of preference pairs."""
TASKS = ("task", "type", "kind", "category", "class", "motivation_app")
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "model": "assistant", "bot": "assistant", "system": "system",
    "observation": "tool", "tool": "tool", "function_response": "tool", "function": "tool",
    "function_call": "function_call", "tool_call": "function_call",
}  # fmt: skip
"""Roles by the names that data sets use; `function_call` is the assistant's."""
TRAINED = ("weight", "train", "training", "loss")
"""Keys of a message that say whether it is trained on: OpenAI's and Mistral's, axolotl's, ms-swift's and
XTuner's."""


class Unfit(ValueError):
    """A record that cannot be converted to a chat, with the reason."""


class Layout(NamedTuple):
    """How records of one layout are recognised and read."""

    fits: Callable[[RawRecord], bool]
    """Whether the keys are this layout's."""
    read: Callable[[RawRecord], list[list[Message]]]
    """The messages of each of its chats. Raises Unfit, KeyError, TypeError or AttributeError."""


def read_row(row: RawRecord, source: str, layout: str = "auto") -> tuple[str, list[Chat]]:
    """A record's layout and its chats; Unfit if no layout has these keys or values."""
    name = layout if layout != "auto" else next((name for name in LAYOUTS if LAYOUTS[name].fits(row)), None)
    if name is None:
        raise Unfit(f"no layout has the keys {', '.join(map(str, row))[:200] or '(none)'}")
    if not LAYOUTS[name].fits(row):
        raise Unfit(f"the layout {name} does not have the keys {', '.join(map(str, row))[:200]}")
    try:
        conversations = LAYOUTS[name].read(row)
        tools = tools_of(row)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Unfit(f"not in the layout {name}: {type(error).__name__} {error}") from None
    task = next((str(row[key]) for key in TASKS if isinstance(row.get(key), str) and row[key]), None)
    chats = [Chat(messages=messages, task=task, source=source) for messages in conversations]
    if tools:
        for chat in chats:
            chat["tools"] = tools
    return name, chats


def _pair(question: Any, answer: Any, about: Any = None, system: Any = None) -> list[Message]:
    """A question and its answer, after the system message if there is one."""
    user: Message = {"role": "user", "content": _text(question)}
    if about is not None and _text(about).strip():
        user["input"] = _text(about)
    first = [{"role": "system", "content": _text(system)}] if system and _text(system).strip() else []
    return [*first, user, {"role": "assistant", "content": _text(answer)}]


def _text(value: Any) -> str:
    """A cell as text, including numbers; a missing one is empty."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return ""
    if isinstance(value, dict | list | bool):
        raise Unfit(f"{json.dumps(value, ensure_ascii=False)[:60]} is not a text")
    return str(value)


def _first(row: RawRecord, names: tuple[str, ...]) -> Any:
    return next(row[name] for name in names if name in row)


def _has(row: RawRecord, names: tuple[str, ...]) -> bool:
    return any(name in row for name in names)


def _messages(row: RawRecord) -> list[list[Message]]:
    """`messages` (or `conversations`) of `role` and `content`, such as OpenAI's and TRL's data."""
    messages = []
    for each in _list(row.get("messages", row.get("conversations"))):
        message: Message = {"role": each["role"], "content": _joined(each.get("content"))}
        if message["content"] is None and each.get("tool_calls"):
            message["content"] = ""
        if each.get("tool_calls"):
            message["tool_calls"] = each["tool_calls"]
        messages.append(message | _left_out(each))
    return [messages]


def _left_out(each: Mapping[str, Any]) -> Message:
    """`trained: False` if a message of a data set says so; Unfit if it says neither yes nor no."""
    said = {key: each[key] for key in TRAINED if each.get(key) is not None}
    said |= {"masked": not each["masked"]} if isinstance(each.get("masked"), bool) else {}
    for key, value in said.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            raise Unfit(f"`{key}` of a message is {value!r}, not 1 (true: trained on) or 0 (false: not)")
    if each.get("train_detail"):
        raise Unfit("`train_detail` of a message: an answer is trained on whole, or not at all")
    return {} if all(said.values()) else {"trained": False}


def _joined(content: Any) -> Any:
    """A message's text, with its parts joined; anything else unchanged."""
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        return "".join(part["text"] for part in content)
    return content


def _sharegpt(row: RawRecord) -> list[list[Message]]:
    """`conversations` of `from` and `value`, with `system` and `tools` (a JSON text)."""
    system = row.get("system")
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for each in _list(row["conversations"]):
        role = ROLES.get(str(each["from"]).lower(), each["from"])
        message: Message = {"role": role, "content": each["value"]}
        if role == "function_call":
            calls = json.loads(each["value"])
            calls = calls if isinstance(calls, list) else [calls]
            message = {"role": "assistant", "content": ""}
            message["tool_calls"] = [{"type": "function", "function": call} for call in calls]
        messages.append(message | _left_out(each))
    return [messages]


def _firefly_dialogue(row: RawRecord) -> list[list[Message]]:
    """`conversation` of turns with `human` and `assistant`, such as Firefly's dialogues."""
    return [[m for turn in _list(row["conversation"]) for m in _pair(turn["human"], turn["assistant"])]]


def _self_instruct(row: RawRecord) -> list[list[Message]]:
    """`instruction` with `instances` of `input` and `output`: a chat each."""
    instances = _list(row["instances"])
    return [_pair(row["instruction"], each["output"], each.get("input")) for each in instances]


def _alpaca(row: RawRecord) -> list[list[Message]]:
    """`instruction`, `input` and `output` (or `answer`), with `history` (pairs) and `system`: Alpaca, BELLE,
    Patent-LLaMA."""
    messages = _pair(row["instruction"], _first(row, ANSWERS), row.get("input"), row.get("system"))
    before = [m for question, answer in _list(row.get("history") or []) for m in _pair(question, answer)]
    place = len(messages) - 2
    return [[*messages[:place], *before, *messages[place:]]]


def _input_target(row: RawRecord) -> list[list[Message]]:
    """`input` and `target`: BELLE; with `kind`, Firefly; with `type` and `answer_choices`, pCLUE."""
    return [_pair(row["input"], row["target"])]


def _question_answer(row: RawRecord) -> list[list[Message]]:
    """A question and an answer under one of their names, e.g. in tables and Safety-Prompts."""
    return [_pair(_first(row, QUESTIONS), _first(row, ANSWERS), system=row.get("system"))]


LAYOUTS: dict[str, Layout] = {
    "messages": Layout(lambda row: "messages" in row or _of(row, "conversations", "role"), _messages),
    "sharegpt": Layout(lambda row: "conversations" in row, _sharegpt),
    "firefly-dialogue": Layout(lambda row: "conversation" in row, _firefly_dialogue),
    "self-instruct": Layout(lambda row: {"instruction", "instances"} <= row.keys(), _self_instruct),
    "alpaca": Layout(lambda row: "instruction" in row and _has(row, ANSWERS), _alpaca),
    "firefly": Layout(lambda row: {"kind", "input", "target"} <= row.keys(), _input_target),
    "pclue": Layout(lambda row: {"type", "input", "target"} <= row.keys(), _input_target),
    "belle": Layout(lambda row: {"input", "target"} <= row.keys(), _input_target),
    "safety-prompts": Layout(lambda row: {"prompt", "response", "type"} <= row.keys(), _question_answer),
    "question-answer": Layout(lambda row: _has(row, QUESTIONS) and _has(row, ANSWERS), _question_answer),
}


def _list(value: Any) -> list[Any]:
    """A list, or a table's cell with a list as JSON text."""
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, list):
        raise Unfit(f"expected a list, not {type(value).__name__}")
    return value


def _of(row: RawRecord, key: str, inner: str) -> bool:
    """Whether a row's list has objects with a key."""
    first = row[key][0] if isinstance(row.get(key), list) and row[key] else None
    return isinstance(first, dict) and inner in first


def tools_of(row: RawRecord) -> list[dict[str, Any]]:
    """The tools of a record, each as the schema of a function."""
    found = _list(row["tools"]) if row.get("tools") else []
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in found]
