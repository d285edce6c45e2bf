"""The HTTP service: an API that any client of OpenAI's can use, and the page.

POST /v1/chat/completions   gate, sources, prompt, the engine's answer, checked citations; stream or not
POST /v1/search             passages of the index          GET  /v1/models
POST /v1/ratings            a thumb, a correction          GET  /v1/ratings   how many there are
GET  /health /metrics       for load balancers and Prometheus                 GET  /   the page
"""

import asyncio
import base64
import hashlib
import json
import sys
import time
import traceback
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from core.errors import UserError
from serve.retrieval.search import FIELDS
from serve.service.assistant import Assistant, Prepared
from serve.service.citations import Citation, check
from serve.service.engines import EngineError, Engines, Piece
from serve.service.limits import Limits, Rate, Refusal, messages_of, number, same_key
from serve.service.metrics import Metrics
from serve.service.question_log import QuestionLog
from serve.service.ratings import THUMBS, Ratings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE = Path(__file__).parent.parent / "page"
OPEN_PATHS = ("/", "/page.js", "/health")
"""What needs no key: the page asks for it."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
REMEMBERED = 10_000
"""Answers that can be rated."""
REMEMBERED_CHARACTERS = 50_000_000
LONGEST_CORRECTION = 50_000
"""Characters."""


@dataclass
class Answered:
    """An answer that can be rated."""

    prompt: list[dict[str, str]]
    sources: list[str]
    text: str = ""

    def __len__(self) -> int:
        return len(self.text) + sum(len(text) for message in self.prompt for text in message.values())


@dataclass
class Service:
    """The handlers and what they share."""

    assistant: Assistant
    engines: Engines
    ratings: Ratings
    log: QuestionLog
    limits: Limits = field(default_factory=Limits)
    key: str | None = None
    """What a client must send as `Authorization: Bearer KEY`; None on this machine only."""
    metrics: Metrics = field(default_factory=Metrics)
    streams: int = 0
    answered: OrderedDict[str, Answered] = field(default_factory=OrderedDict)
    remembered: int = 0
    rate: Rate = field(init=False)
    policy: str = ""

    def __post_init__(self) -> None:
        self.rate = Rate(self.limits.requests_per_minute)

    def app(self) -> web.Application:
        """The application, for aiohttp's runner."""
        page, self.policy = _page()
        app = web.Application(client_max_size=self.limits.body_bytes, middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/", partial(_static, page, "text/html")),
                web.get(
                    "/page.js", partial(_static, (PAGE / "page.js").read_text("utf-8"), "text/javascript")
                ),
                web.get("/health", self.health),
                web.get("/metrics", self.show_metrics),
                web.get("/v1/models", self.models),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/search", self.search),
                web.get("/v1/ratings", self.show_ratings),
                web.post("/v1/ratings", self.rate_answer),
            ]
        )
        app.cleanup_ctx.append(self._connections)
        return app

    async def _connections(self, _: web.Application) -> AsyncIterator[None]:
        await self.engines.open()
        yield
        await self.engines.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check host, key and rate; give every failure a JSON body, and every response its headers."""
        try:
            self._admit(request)
            response = await handler(request)
        except Refusal as refusal:
            response = _error(refusal.status, str(refusal), refusal.retry_after)
        except web.HTTPRequestEntityTooLarge:
            response = _error(413, f"the request is larger than {self.limits.body_bytes:,} bytes")
        except web.HTTPException as problem:
            response = _error(problem.status, problem.reason)
        except ConnectionError:  # the client went away
            raise
        except Exception:  # a bug: told here, and not to the client
            traceback.print_exc()
            response = _error(500, "the service failed")
        path = request.match_info.route.resource.canonical if request.match_info.route.resource else "other"
        self.metrics.count("requests_total", path=path, status=str(response.status))
        if not response.prepared:
            response.headers.update(_headers(self.policy))
        return response

    def _admit(self, request: web.Request) -> None:
        host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
        if self.key is None and host not in LOOPBACK:  # a page whose name leads to this machine
            raise Refusal(403, "this service answers requests to localhost only")
        origin = request.headers.get("Origin")
        if origin and origin.partition("://")[2] != request.host:
            raise Refusal(403, "this service answers its own page only")
        if request.path in OPEN_PATHS:
            return
        if self.key is not None and not same_key(request.headers.get("Authorization"), self.key):
            raise Refusal(401, "the key is missing or wrong: send Authorization: Bearer KEY")
        if request.method == "POST":
            self.rate.take(request.remote or "")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation, as a stream of server-sent events or at once."""
        start = time.monotonic()
        body = await _json(request)
        messages = messages_of(body, self.limits)
        options = {
            "max_tokens": int(
                number(body, "max_tokens", 1, self.limits.answer_tokens, self.limits.answer_tokens)
            ),
            "temperature": number(body, "temperature", 0, 2, 0.2),
            "top_p": number(body, "top_p", 0, 1, 1),
        }
        if body.get("seed") is not None:
            options["seed"] = int(number(body, "seed", 0, 2**31, 0))
        if self.streams >= self.limits.streams:
            raise Refusal(503, f"{self.streams:,} answers are being written; try again", 1)
        self.streams += 1
        try:
            prepared = await asyncio.to_thread(self.assistant.prepare, messages, body.get("retrieval"))
            self._count(prepared)
            self.log.add(messages[-1]["content"])
            answer = Answer(self, prepared, options, start)
            if body.get("stream"):
                return await self._stream(request, answer)
            async with aclosing(answer.pieces()) as pieces:
                async for _ in pieces:
                    pass
            return web.json_response(await answer.whole(), dumps=_dumps)
        except EngineError as error:
            raise Refusal(error.status, str(error), error.retry_after) from None
        finally:
            self.streams -= 1

    async def _stream(self, request: web.Request, answer: "Answer") -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        response.headers.update({**_headers("default-src 'none'"), "X-Accel-Buffering": "no"})
        async with aclosing(answer.pieces()) as pieces:
            try:
                first = await anext(pieces, None)  # an engine that fails before it gives the request a status
                await response.prepare(request)
                await response.write(_event(answer.opening()))
                if first is not None:
                    await response.write(_event(answer.chunk(first)))
                async for piece in pieces:
                    await response.write(_event(answer.chunk(piece)))
                await response.write(_event(await answer.closing()))
            except EngineError as error:
                if not response.prepared:
                    raise
                await response.write(_event(_problem(error.status, str(error))))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def search(self, request: web.Request) -> web.Response:
        """Search the index: `query`, `hits` and a filter (`before`, `office`, `language`, `ipc`)."""
        body = await _json(request)
        query = body.get("query")
        if not isinstance(query, str) or not query.strip():
            raise Refusal(400, '"query" must be a text')
        if self.assistant.index is None:
            raise Refusal(404, "this service has no index")
        hits = int(number(body, "hits", 1, 100, 10))
        given = {name: body[name] for name in FIELDS if name in body}
        start = time.monotonic()
        found = await asyncio.to_thread(self.assistant.search, [query], hits, given)
        self.metrics.time("retrieval_seconds", time.monotonic() - start)
        return web.json_response({"hits": [asdict(hit) for hit in found]}, dumps=_dumps)

    async def rate_answer(self, request: web.Request) -> web.Response:
        """Keep a rating: `answer` (the id of a completion), `rating` (up, down, none), `correction`."""
        body = await _json(request)
        answer, thumb, correction = (body.get(name) for name in ("answer", "rating", "correction"))
        if thumb not in THUMBS:
            raise Refusal(400, f'"rating" must be {", ".join(THUMBS)}')
        if correction is not None and not isinstance(correction, str):
            raise Refusal(400, '"correction" must be a text')
        if correction and len(correction) > LONGEST_CORRECTION:
            raise Refusal(400, f"the correction has more than {LONGEST_CORRECTION:,} characters")
        known = self.answered.get(answer) if isinstance(answer, str) else None
        if known is None:
            raise Refusal(404, "there is no such answer, or it is too long ago")
        about = {
            "prompt": known.prompt,
            "text": known.text,
            "sources": known.sources,
            "model": self.engines.model,
        }
        await asyncio.to_thread(
            self.ratings.add, str(answer), thumb, (correction or "").strip() or None, about
        )
        return web.json_response(self.ratings.counts())

    async def show_ratings(self, _: web.Request) -> web.Response:
        """How many answers were rated."""
        return web.json_response(self.ratings.counts())

    async def models(self, _: web.Request) -> web.Response:
        """The one model, as OpenAI's clients expect it."""
        model = {"id": self.engines.model, "object": "model", "created": 0, "owned_by": "patent-llama"}
        return web.json_response({"object": "list", "data": [model]})

    async def health(self, _: web.Request) -> web.Response:
        """200 if an engine can be asked, else 503."""
        usable = len(self.engines.usable())
        parts = {"index": self.assistant.index is not None, "gate": self.assistant.gate is not None}
        status = {
            "status": "ok" if usable else "no engine",
            "engines": usable,
            "key": self.key is not None,
            **parts,
        }
        return web.json_response(status, status=200 if usable else 503)

    async def show_metrics(self, _: web.Request) -> web.Response:
        """Everything that was counted, for Prometheus."""
        now: dict[Any, float] = {
            ("streams", ()): self.streams,
            ("engines_usable", ()): len(self.engines.usable()),
        }
        now |= {(f"engine_{name}_total", ()): value for name, value in self.engines.counts.items()}
        now |= {("ratings", (("rating", name),)): value for name, value in self.ratings.counts().items()}
        return web.Response(
            text=self.metrics.text(now), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    def _count(self, prepared: Prepared) -> None:
        if prepared.gate:
            self.metrics.count("gate_total", decision="accepted" if prepared.gate["accepted"] else "refused")
        if prepared.retrieval_seconds is not None:
            self.metrics.time("retrieval_seconds", prepared.retrieval_seconds)

    def remember(self, answer: str, answered: Answered) -> None:
        """Keep an answer for its rating, and forget the oldest."""
        self.answered[answer] = answered
        self.remembered += len(answered)
        while len(self.answered) > REMEMBERED or self.remembered > REMEMBERED_CHARACTERS:
            self.remembered -= len(self.answered.popitem(last=False)[1])


class Answer:
    """An answer while it is written, and its form in the API."""

    def __init__(self, service: Service, prepared: Prepared, options: dict[str, Any], start: float) -> None:
        self.service, self.prepared, self.options, self.start = service, prepared, options, start
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self.parts: list[str] = []
        self.finish = "stop"
        self.usage: dict[str, Any] | None = None

    async def pieces(self) -> AsyncGenerator[str]:
        """The pieces of text; when they end, the answer can be rated. Raises EngineError."""
        ended = "broken"
        try:
            if self.prepared.abstained is not None:
                self.parts.append(self.prepared.abstained)
                yield self.prepared.abstained
            else:
                async with aclosing(
                    self.service.engines.answer(self.prepared.prompt, self.options)
                ) as pieces:
                    async for piece in pieces:
                        if text := self._take(piece):
                            yield text
            ended = self.finish
        except (GeneratorExit, asyncio.CancelledError):
            ended = "client-left"
            raise
        finally:
            self.service.metrics.count("answers_total", end=ended)
            if self.parts and self.prepared.abstained is None:
                sources = [source["name"] for source in self.prepared.sources]
                self.service.remember(self.id, Answered(self.prepared.prompt, sources, "".join(self.parts)))

    def _take(self, piece: Piece) -> str:
        if piece.text and not self.parts:
            self.service.metrics.time("first_token_seconds", time.monotonic() - self.start)
        if piece.text:
            self.parts.append(piece.text)
            self.service.metrics.count("answer_pieces_total")
        self.finish, self.usage = piece.finish or self.finish, piece.usage or self.usage
        return piece.text

    def opening(self) -> dict[str, Any]:
        """The first event: the sources and what the gate says."""
        return self._event({"role": "assistant", "content": ""}) | self._found()

    def chunk(self, text: str) -> dict[str, Any]:
        """An event with a piece of the answer."""
        return self._event({"content": text})

    async def closing(self) -> dict[str, Any]:
        """The last event: why the answer ended, and its citations."""
        return self._event({}, self.finish) | await self._end()

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        message = {"role": "assistant", "content": "".join(self.parts)}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        return self._head("chat.completion") | {"choices": [choice]} | self._found() | await self._end()

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.service.engines.model}

    def _event(self, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self._head("chat.completion.chunk") | {"choices": [choice]}

    def _found(self) -> dict[str, Any]:
        return {"sources": self.prepared.sources, "gate": self.prepared.gate}

    async def _end(self) -> dict[str, Any]:
        citations = await asyncio.to_thread(self._citations)
        for citation in citations:
            self.service.metrics.count("citations_total", found=citation.problem or citation.kind)
        usage = {"usage": self.usage} if self.usage else {}
        return {"citations": [asdict(citation) for citation in citations], **usage}

    def _citations(self) -> list[Citation]:
        """Those of the answer; without articles if the server of the index does not answer."""
        text, sources = "".join(self.parts), len(self.prepared.sources)
        try:
            return check(text, sources, self.service.assistant.index)
        except UserError as error:
            print(error, file=sys.stderr, flush=True)
            return check(text, sources, None)


async def run(service: Service, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until the task is cancelled."""
    # A client that goes away cancels its handler, and with it the engine's work.
    runner = web.AppRunner(service.app(), access_log=None, handler_cancellation=True, shutdown_timeout=5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        ready(f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _page() -> tuple[str, str]:
    """The page and the policy that allows its own script, its own style and nothing else."""
    page = (PAGE / "index.html").read_text("utf-8")
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'self'; style-src 'sha256-{digest}'; connect-src 'self'"
    return page, f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


async def _static(text: str, kind: str, _: web.Request) -> web.Response:
    return web.Response(text=text, content_type=kind)


async def _json(request: web.Request) -> dict[str, Any]:
    """The body of a request; Refusal if it is no JSON object."""
    if request.content_type != "application/json":
        raise Refusal(415, "send Content-Type: application/json")
    try:
        body = json.loads(await request.read())
        # Half a surrogate pair (an escape such as \\ud800) is no text: it becomes a question mark.
        body = json.loads(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is no JSON") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the body must be a JSON object")
    return body


def _headers(policy: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {_dumps(value)}\n\n".encode()


def _problem(status: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "code": status}}


def _error(status: int, message: str, retry_after: float | None = None) -> web.Response:
    headers = {"Retry-After": str(max(1, round(retry_after)))} if retry_after is not None else {}
    return web.json_response(_problem(status, message), status=status, headers=headers, dumps=_dumps)
