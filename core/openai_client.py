"""Questions to a model behind an OpenAI-compatible HTTP endpoint: vLLM, SGLang, a llama.cpp server.

Requests run `concurrency` at a time. An answer of 408, 429 or 5xx, one that is no completion, and silence are
tried again after 0.5, 1, 2, … seconds, or when the server says (Retry-After). What still fails is given back
as the error, so that the others go on.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Literal, TypeVar

from pydantic import Field

from core.config.loader import Config

T = TypeVar("T")
Body = dict[str, Any]
Path = Literal["completions", "chat/completions"]


class OpenAIEndpointConfig(Config):
    """An endpoint. The key is read from the environment variable OPENAI_API_KEY where it is set."""

    url: str
    """Base address, such as http://localhost:8000/v1."""
    model: str
    """Name of the model there. The weights behind it cannot be seen: rename it when they change."""
    concurrency: int = Field(8, ge=1)
    """Requests under way at once."""
    attempts: int = Field(5, ge=1)
    """How often a request is tried."""
    first_wait_seconds: float = Field(0.5, ge=0)
    """Wait before the second attempt; doubled each time."""
    timeout_seconds: float = Field(120, gt=0)
    """How long an answer may take."""


def ask(
    config: OpenAIEndpointConfig, path: Path, asked: Sequence[tuple[Body, Callable[[Any], T]]]
) -> Iterator[tuple[int, T | Exception]]:
    """Index of each body and what its answer (the parsed JSON) is read as, or what went wrong, as they come.

    A reader says by ValueError, LookupError or TypeError that an answer is none.
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
                raise OSError(f"HTTP {error.code} {error.reason}") from None
            after = error.headers.get("Retry-After", "")
            wait = min(float(after), 60.0) if after.isdigit() else wait
        except http.client.HTTPException as error:
            if last:
                raise OSError(f"the connection broke: {error!r}") from None
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
    with urllib.request.urlopen(post, timeout=config.timeout_seconds) as answer:
        said = answer.read()
    try:
        return read(json.loads(said))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"the answer is no completion ({error!r}): {said[:80]!r}") from None
