"""The engines that write the answers: vLLM, SGLang, llama.cpp, `transformers serve`, over the OpenAI API.

The least busy engine gets the next request. One that cannot be reached, or fails several times in a row, is
left out and tried again after a while. A request that fails before its first token goes to another engine
(or once more to the only one); after that, its error reaches the client.
"""

import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

FAILURES = 3
"""In a row, after which an engine is left out though it answers."""
LONGEST_PAUSE = 10.0
"""Seconds that an engine is left out at most."""
ATTEMPTS = 3
"""Of a request, before its first token."""
MALFORMED = (ValueError, LookupError, TypeError, AttributeError)
"""What reading an event raises that is not as the API says."""


class EngineError(Exception):
    """No engine could answer; `retry_after` in seconds, `status` for the client."""

    def __init__(self, message: str, status: int = 502, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


@dataclass
class Piece:
    """A piece of an answer."""

    text: str = ""
    finish: str | None = None
    """Why the answer ended: `stop`, `length`; None while it goes on."""
    usage: dict[str, Any] | None = None


@dataclass
class Engine:
    """An endpoint and how it is."""

    url: str
    """Base URL, such as http://localhost:8000/v1."""
    busy: int = 0
    failures: int = 0
    """In a row."""
    pauses: int = 0
    """In a row."""
    out_until: float = 0.0
    """Monotonic seconds."""

    def failed(self, *, unreachable: bool) -> None:
        """Note a failure; leave the engine out if it should be. Requests that fail together are one."""
        now = time.monotonic()
        if self.out_until > now:
            return
        self.failures += 1
        if unreachable or self.pauses or self.failures >= FAILURES:
            self.out_until = now + min(LONGEST_PAUSE, 0.5 * 2 ** min(self.pauses, 10))
            self.failures, self.pauses = 0, self.pauses + 1


@dataclass
class Engines:
    """All engines of one model."""

    engines: list[Engine]
    model: str
    key: str | None = None
    silence_seconds: float = 120.0
    """An engine that sends nothing for so long has failed. Before the first token it reads the prompt."""
    counts: dict[str, int] = field(default_factory=lambda: {"retries": 0, "failures": 0})
    session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Connect; inside the event loop that uses it."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=self.silence_seconds)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=timeout, headers=headers, read_bufsize=1 << 16
        )

    async def close(self) -> None:
        """Close all connections."""
        if self.session:
            await self.session.close()

    def usable(self) -> list[Engine]:
        """The engines that are not left out, least busy first."""
        now = time.monotonic()
        return sorted((each for each in self.engines if each.out_until <= now), key=lambda each: each.busy)

    async def answer(
        self, messages: Sequence[dict[str, Any]], options: dict[str, Any]
    ) -> AsyncGenerator[Piece]:
        """The pieces of an answer; raises EngineError. Closing the iterator ends the engine's work."""
        body = {**options, "model": self.model, "messages": list(messages), "stream": True}
        body["stream_options"] = {"include_usage": True}
        tried: list[Engine] = []
        for attempt in range(ATTEMPTS):
            usable = self.usable()
            if not usable:
                wait = max(0.0, min(each.out_until for each in self.engines) - time.monotonic())
                raise EngineError("no engine can be reached at the moment", 503, math.ceil(wait) or 1)
            engine = next((each for each in usable if each not in tried), usable[0])
            tried.append(engine)
            begun = False
            try:
                async with self._ask(engine, body) as response:
                    async for piece in self._pieces(response):
                        begun = begun or bool(piece.text)
                        yield piece
                engine.failures = engine.pauses = 0
                return
            except EngineError as error:
                self.counts["failures"] += 1
                if error.status < 500 or begun or attempt == ATTEMPTS - 1:
                    raise
                self.counts["retries"] += 1

    @asynccontextmanager
    async def _ask(self, engine: Engine, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response of an engine, which counts as busy meanwhile; all failures are EngineErrors."""
        assert self.session is not None
        engine.busy += 1
        try:
            url = f"{engine.url}/chat/completions"
            async with self.session.post(url, json=body, allow_redirects=False) as response:
                if response.status == 429:
                    raise EngineError("the engine has too many requests", 503, 1)
                if 400 <= response.status < 500:
                    raise EngineError(f"the engine refused the request: {await _reason(response)}", 400)
                if response.status != 200:
                    raise EngineError(f"the engine answered with status {response.status}")
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError, ConnectionError) as error:
            engine.failed(unreachable=True)
            raise EngineError(f"the engine cannot be reached ({type(error).__name__})") from None
        except (aiohttp.ClientError, TimeoutError, *MALFORMED) as error:
            engine.failed(unreachable=False)
            raise EngineError(f"the engine's answer broke off ({type(error).__name__})") from None
        except EngineError as error:
            if error.status >= 500 and error.retry_after is None:
                engine.failed(unreachable=False)
            raise
        finally:
            engine.busy -= 1

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[Piece]:
        finished = False
        async for line in response.content:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                break
            event = json.loads(data)
            if not isinstance(event, dict) or event.get("error"):
                raise EngineError("the engine reported an error in its answer")
            usage = event.get("usage")
            choices = event.get("choices") or ()
            finish = choices[0].get("finish_reason") if choices else None
            text = (choices[0].get("delta") or {}).get("content") or "" if choices else ""
            finished = finished or finish is not None
            if text or finish or usage:
                text = text.encode("utf-8", "replace").decode()  # no half surrogate pairs
                yield Piece(text, finish, usage)
        if not finished:
            raise EngineError("the engine's answer broke off")


async def _reason(response: aiohttp.ClientResponse) -> str:
    """What an engine says of a request that it refuses, cut."""
    text = (await response.content.read(2000)).decode("utf-8", "replace")
    try:
        error = json.loads(text).get("error") or json.loads(text)
        text = str(error.get("message", text) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:300]
