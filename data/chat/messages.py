"""The chat: what every reader of instruction data yields and what a template renders.

`messages` are in order, with the keys of chat templates: `role`, `content`, and `tool_calls` if the assistant
calls tools. A user's message may have an `input`: the text that the instruction is about, for templates with
a separate place for it (Alpaca). An answer with `trained: False` is not trained on.
"""

from typing import Any, TypedDict

ROLES = ("system", "user", "assistant", "tool")

Message = dict[str, Any]

MARKS = "\ufdd0\ufdd1\ufdd2"
"""Noncharacters that `data.chat.rendering` puts around contents; a text never has them."""


class _Required(TypedDict):
    messages: list[Message]
    task: str | None
    """The kind of task, if the source names it, e.g. `extraction`."""
    source: str
    """Where it was read: the file and, after `#`, its line or number."""


class Chat(_Required, total=False):
    """One conversation."""

    tools: list[dict[str, Any]]
    """The tools that the assistant may call, as JSON schemas."""


def problem(messages: list[Message]) -> tuple[str, str] | None:
    """Why these messages cannot be trained on (a category and a message), or None."""
    for number, message in enumerate(messages, start=1):
        role, content = message["role"], message["content"]
        if role not in ROLES:
            return (
                "unknown-role",
                f"message {number} has the unknown role {role!r}. Roles: {', '.join(ROLES)}",
            )
        if not isinstance(content, str):
            return "not-text", f"the content of message {number} is {type(content).__name__}, not text"
        if not _is_utf8(content + message.get("input", "")):
            return (
                "bad-encoding",
                f"message {number} contains half a surrogate pair, which is not a character",
            )
        if any(mark in content + message.get("input", "") for mark in MARKS):
            return "bad-encoding", f"message {number} contains U+FDD0 to U+FDD2, which are not characters"
        if role == "system" and number > 1:
            return "late-system", f"message {number} is a system message; only the first one may be"
        if not content.strip() and not message.get("input") and not message.get("tool_calls"):
            if role == "assistant":
                return "empty-answer", f"message {number}, an answer, is empty"
            if role == "user":
                return "empty-question", f"message {number}, a question, is empty"
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if not roles:
        return "no-messages", "no message"
    if roles[0] != "user":
        return "user-not-first", f"the first message has the role {roles[0]}, not user"
    if "assistant" not in roles:
        return "no-answer", "no message of the assistant"
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def answered(messages: list[Message]) -> list[Message]:
    """The messages up to the last answer that is trained on, if there is one: the rest is not trained on."""
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    trained = [i for i in answers if messages[i].get("trained", True)] or answers
    return messages[: trained[-1] + 1] if trained else messages


def merged(message: Message) -> Message:
    """A message with its `input` appended to its content, for templates without a place for it."""
    if "input" not in message:
        return message
    rest = {key: value for key, value in message.items() if key != "input"}
    return rest | {"content": f"{message['content']}\n{message['input']}".strip("\n")}
