"""An OpenAI-compatible server on loopback that answers what a test plants."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | int | bytes | None
"""A completion; an HTTP status; a body; or None: the connection is closed without a word."""


@contextmanager
def serve(answer: Callable[[str], Answer], seconds: float = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address, and all that is asked there, while the block runs."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            chat = self.path.endswith("/chat/completions")
            prompt = body["messages"][0]["content"] if chat else body["prompt"]
            time.sleep(seconds)
            planted = answer(prompt)
            if planted is None:
                return
            status, sent = (planted, b"") if isinstance(planted, int) else (200, planted)
            if isinstance(sent, str):
                choice = {"message": {"content": sent}} if chat else {"text": sent}
                sent = json.dumps({"choices": [choice]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
