"""A client for OpenAI-compatible HTTP endpoints: vLLM, SGLang, a llama.cpp server.

Up to `concurrency` requests run at a time. Status 408, 429 and 5xx, invalid responses and timeouts are
retried after 0.5, 1, 2, … seconds, or as the server asks (Retry-After). If the last attempt fails, its error
is returned as the result, so that the other requests continue.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from core.config.loader import Config
from core.errors import UserError

T = TypeVar("T")
C = TypeVar("C", bound="OpenAIEndpointConfig")
Body = dict[str, Any]
Path = Literal["completions", "chat/completions", "embeddings"]


class OpenAIEndpointConfig(Config):
    """An endpoint. The API key, if any, is read from the environment variable OPENAI_API_KEY."""

    url: str
    """Base URL, such as http://localhost:8000/v1. It is shown in logs and pages: it may hold no password."""
    model: str
    """Name of the served model. Its weights cannot be checked: use another name when they change."""
    concurrency: int = Field(8, ge=1)
    """Maximum number of concurrent requests."""
    attempts: int = Field(5, ge=1)
    """Maximum number of attempts for each request."""
    first_wait_seconds: float = Field(0.5, ge=0)
    """Wait before the second attempt; doubled after each attempt."""
    timeout_seconds: float = Field(120, gt=0)
    """Timeout of a request."""

    @field_validator("url")
    @classmethod
    def _plain_http(cls, url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("must begin with http:// or https:// and name a host")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("must have no user name, password or query; OPENAI_API_KEY holds the key")
        return url


def from_options(kind: type[C], options: Mapping[str, str], **given: Any) -> C:
    """An endpoint that a command line gives; UserError with the option (of a field: `options`, or else its
    name) that is wrong."""
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        option = options.get(field, f"--{field.replace('_', '-')}")
        raise UserError(f"{option}: {first['msg'].removeprefix('Value error, ')}.") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the key, and the questions, are for the endpoint that the user named."""

    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(_NoRedirects)
"""Opens an address, and no other that its server names."""


def ask(
    config: OpenAIEndpointConfig, path: Path, asked: Sequence[tuple[Body, Callable[[Any], T]]]
) -> Iterator[tuple[int, T | Exception]]:
    """Yield index and result of each (body, reader) as they finish: what the reader returns, or the error.

    A reader raises ValueError, LookupError or TypeError if the response is invalid.
    """
    with ThreadPoolExecutor(config.concurrency) as pool:
        futures = {pool.submit(_try, config, path, body, read): i for i, (body, read) in enumerate(asked)}
        for future in as_completed(futures):
            error = future.exception()
            if error is not None and not isinstance(error, OSError | ValueError):
                raise error
            yield futures[future], future.result() if error is None else error


def _try(config: OpenAIEndpointConfig, path: Path, body: Body, read: Callable[[Any], T]) -> T:
    for attempt in range(config.attempts):
        wait = config.first_wait_seconds * 2**attempt
        last = attempt + 1 == config.attempts
        try:
            return _post(config, path, body, read)
        except urllib.error.HTTPError as error:
            if last or not (error.code in (408, 429) or error.code >= 500):
                raise OSError(_reason(error)) from None
            after = error.headers.get("Retry-After", "")
            wait = min(float(after), 60.0) if after.isdigit() else wait
        except http.client.HTTPException as error:
            if last:
                raise OSError(f"the connection was closed: {error!r}") from None
        except (OSError, ValueError):
            if last:
                raise
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _post(config: OpenAIEndpointConfig, path: Path, body: Body, read: Callable[[Any], T]) -> T:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps({"model": config.model, **body}).encode()
    post = urllib.request.Request(f"{config.url.rstrip('/')}/{path}", data, headers)
    with OPENER.open(post, timeout=config.timeout_seconds) as answer:
        received = answer.read()
    try:
        return read(json.loads(received))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"invalid response ({error!r}): {received[:80]!r}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server answered instead; a redirect is not followed, as the key is not for another address."""
    if 300 <= error.code < 400:
        to = error.headers.get("Location", "another address")
        return f"HTTP {error.code}: the endpoint redirects to {to}. Set that address if you trust it"
    said = error.read(300).decode("utf-8", "replace").strip()
    return f"HTTP {error.code} {error.reason}" + (f": {said}" if said else "")
