"""What a client may send: how large, how often, and with which key."""

import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant")
MOST_CLIENTS = 10_000
"""Whose last requests are remembered."""


class Refusal(Exception):
    """A request that is not answered: HTTP status, what is wrong, and seconds to wait, if that helps."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


@dataclass(frozen=True)
class Limits:
    """What the service accepts. 0 is no limit for `requests_per_minute`."""

    body_bytes: int = 1 << 20
    messages: int = 100
    history_characters: int = 200_000
    answer_tokens: int = 1024
    streams: int = 256
    """Answers that are being written at a time."""
    requests_per_minute: int = 60
    """Of one address."""


class Rate:
    """A token bucket for each address: `per_minute` requests, and as many at once."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> None:
        """Count a request; Refusal (429) if there were too many."""
        if not self.per_minute:
            return
        now = time.monotonic()
        left, since = self.buckets.pop(address, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - since) * self.per_minute / 60)
        self.buckets[address] = (left - 1 if left >= 1 else left, now)
        if len(self.buckets) > MOST_CLIENTS:
            self.buckets.popitem(last=False)
        if left < 1:
            wait = (1 - left) * 60 / self.per_minute
            raise Refusal(429, f"more than {self.per_minute} requests a minute", wait)


def same_key(given: str | None, key: str) -> bool:
    """Whether an Authorization header has the key, compared in constant time."""
    scheme, _, value = (given or "").partition(" ")
    same = hmac.compare_digest(value.strip().encode("utf-8", "surrogateescape"), key.encode())
    return same and scheme.lower() == "bearer"


def messages_of(body: Any, limits: Limits) -> list[dict[str, str]]:
    """The messages of a request, `role` and `content` only; Refusal (400) if they are no conversation that
    ends with a question."""
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, '"messages" must be a list of messages')
    if len(messages) > limits.messages:
        raise Refusal(400, f"{len(messages):,} messages; {limits.messages:,} are allowed")
    found = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        content = _text(message.get("content")) if isinstance(message, dict) else None
        if role not in ROLES or content is None:
            raise Refusal(400, f'messages[{number}] needs a "role" ({", ".join(ROLES)}) and a text "content"')
        found.append({"role": str(role), "content": content})
    size = sum(len(message["content"]) for message in found)
    if size > limits.history_characters:
        raise Refusal(
            400, f"the messages have {size:,} characters; {limits.history_characters:,} are allowed"
        )
    if found[-1]["role"] != "user" or not found[-1]["content"].strip():
        raise Refusal(400, "the last message must be a question of the user")
    return found


def number(body: dict[str, Any], name: str, low: float, high: float, default: Any) -> Any:
    """A number of a request's body in its range; Refusal (400) if it is none."""
    value = body.get(name, default)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refusal(400, f'"{name}" must be a number from {low:g} to {high:g}')
    return value


def _text(content: Any) -> str | None:
    """A message's text: a string, or the text parts of the OpenAI API's lists."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(texts) if len(texts) == len(parts) else None
    return content if isinstance(content, str) else None
