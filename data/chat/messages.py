"""The chat: what every reader of instruction data yields and what a template renders.

`messages` are in the order in which they were said, with the keys that chat templates know: `role`,
`content`, and `tool_calls` where the assistant calls tools. A user's message may have an `input`: the text
that an instruction is about, apart from it, for templates that have a place of their own for it (Alpaca).
"""

from typing import Any, TypedDict

ROLES = ("system", "user", "assistant", "tool")

Message = dict[str, Any]


class _Told(TypedDict):
    messages: list[Message]
    task: str | None
    """What kind of task it is, where the source says so, as `extraction`."""
    source: str
    """Where it was read: the file and, behind `#`, its line or its number."""


class Chat(_Told, total=False):
    """One conversation."""

    tools: list[dict[str, Any]]
    """The tools that the assistant may call, as JSON schemas."""


def problem(messages: list[Message]) -> tuple[str, str] | None:
    """Why these messages are no chat to learn from (a category, and what a person should know), or None."""
    for number, message in enumerate(messages, start=1):
        role, content = message["role"], message["content"]
        if role not in ROLES:
            return "unknown-role", f"message {number} has the role {role!r}; there are {', '.join(ROLES)}"
        if not isinstance(content, str):
            return "not-text", f"the content of message {number} is {type(content).__name__}, not text"
        if not _is_utf8(content + message.get("input", "")):
            return "bad-encoding", f"message {number} holds half a surrogate pair, which is no character"
        if role == "system" and number > 1:
            return "late-system", f"message {number} is the system's; it may be the first only"
        if not content.strip() and not message.get("input") and not message.get("tool_calls"):
            if role == "assistant":
                return "empty-answer", f"message {number}, an answer, is empty"
            if role == "user":
                return "empty-question", f"message {number}, a question, is empty"
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if not roles:
        return "no-messages", "there is no message"
    if roles[0] != "user":
        return "user-not-first", f"the first message is of the role {roles[0]}, not user"
    if "assistant" not in roles:
        return "no-answer", "the assistant says nothing"
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def answered(messages: list[Message]) -> list[Message]:
    """The messages up to the last answer: nothing can be learnt from what follows it."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return messages[: last + 1] if last >= 0 else messages


def merged(message: Message) -> Message:
    """A message whose `input` stands below its content, as templates without a place for it want it."""
    if "input" not in message:
        return message
    rest = {key: value for key, value in message.items() if key != "input"}
    return rest | {"content": f"{message['content']}\n{message['input']}".strip("\n")}
