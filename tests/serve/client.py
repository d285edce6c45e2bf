"""A client of the service, with nothing but the standard library."""

import http.client
import json
import urllib.parse
from typing import Any


def call(
    url: str, path: str, body: Any = None, method: str | None = None, **headers: str
) -> tuple[int, Any, http.client.HTTPMessage]:
    """Status, JSON (or text) and headers of a response."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    named = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    connection.request(method or ("GET" if data is None else "POST"), path, data, named)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, json.loads(text) if text.startswith("{") else text, response.headers


def chat(url: str, *texts: str, **more: Any) -> tuple[int, Any, http.client.HTTPMessage]:
    """Ask a conversation, the user and the assistant in turns."""
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return call(url, "/v1/chat/completions", {"messages": messages, **more})


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream, without its end mark."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def metric(url: str, name: str) -> float:
    """A value of /metrics."""
    lines = call(url, "/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"patent_llama_{name}"))
