"""Servers of a model on this machine, as the documentation starts them."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def serving(
    command: Sequence[str], port: str, folder: Path, wait_s: float = 180, **more: str
) -> Iterator[str]:
    """The address for chats of a server that listens on `port`, with more environment variables; it is ended
    when the block is left."""
    log = folder / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more},
        )  # fmt: skip
    deadline = time.monotonic() + wait_s
    try:
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                urllib.request.urlopen(f"http://localhost:{port}/health", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.5)
        yield f"http://localhost:{port}/v1/chat/completions"
    finally:
        server.terminate()
        server.wait()


def ask(url: str, model: Path, messages: list[dict[str, str]], **more: Any) -> str:
    """The body of the answer."""
    body = {"model": str(model), "messages": messages, "temperature": 0.0, "max_tokens": 30, **more}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as reply:
        return str(reply.read().decode())
