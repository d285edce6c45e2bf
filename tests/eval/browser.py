"""A real browser (headless Chromium) over its own pipe: the page, its console messages and its requests."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = (
    f"NOT CHECKED IN A BROWSER: none of {', '.join(NAMES)} is on this machine. "
    "Install one (Debian: apt-get install chromium) and run this test again."
)


def chromium() -> str:
    """The browser's path; without one the test is skipped, with the reason in pytest's summary."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(MISSING)
    return found


class Page:
    """An open page; `console` holds errors and warnings of every kind, `asked` the addresses of requests."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        self.buffer, self.number, self.session = b"", 0, ""
        self.console: list[str] = []
        self.asked: list[str] = []

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Answer of a command of the DevTools protocol; events that come before it are noted."""
        self.number += 1
        message: dict[str, object] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            event = self._next()
            if event.get("id") == self.number:
                assert "error" not in event, event
                return dict(event["result"])
            self._note(event)

    def open(self, page: Path | str, width: int) -> None:
        """Load a file or an address at this width, as a phone does (its viewport tag counts)."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                  mobile=width < 700)  # fmt: skip
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        event: dict[str, Any] = {}
        while event.get("method") != "Page.loadEventFired":
            event = self._next()
            self._note(event)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            part = os.read(self.reader, 1 << 20)
            assert part, "the browser ended"
            self.buffer += part
        line, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded":
                self.console.append(json.dumps(event["params"]))
            case "Network.requestWillBeSent":
                self.asked.append(event["params"]["request"]["url"])


@contextmanager
def browse() -> Iterator[Page]:
    """A browser with one empty page, while the block runs."""
    program = chromium()
    to_browser, writer = os.pipe()
    reader, from_browser = os.pipe()
    # The browser reads from descriptor 3 and writes to 4; these copies cannot be in the shell's way.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "browser", program, "--headless",
             "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}",
             "about:blank"],
            pass_fds=ends, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        try:
            page = Page(reader, writer)
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            yield page
        finally:
            process.kill()
            process.wait()
            os.close(reader)
            os.close(writer)
