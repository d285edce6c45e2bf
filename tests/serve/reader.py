"""A reader of the page: what one does with keyboard and mouse, and what one sees."""

import json
import time
from typing import Any

from tests.eval.browser import Page

ENTER: dict[str, Any] = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}


def show(page: Page, url: str, width: int = 1280, language: str = "en-GB") -> None:
    """Open the page anew, as a reader of this language."""
    agent = page.evaluate("navigator.userAgent")
    page.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
    page.open("about:blank", width)
    page.console.clear()
    page.asked.clear()
    page.open(f"{url}/", width)
    until(page, "!document.querySelector('#model') || document.querySelector('#model').textContent"
                " || document.querySelector('#key-dialog').open")  # fmt: skip


def failures(page: Page) -> list[str]:
    """What the console says, without the requests that the service refused."""
    page.evaluate("0")  # what came meanwhile is noted
    return [line for line in page.console if "the server responded with a status" not in line]


def until(page: Page, expression: str, seconds: float = 15) -> Any:
    """The first true value of an expression."""
    deadline = time.monotonic() + seconds
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < deadline, (expression, page.evaluate("document.body.innerText"))
        time.sleep(0.02)
    return value


def type_in(page: Page, text: str) -> None:
    """Type into what has the focus."""
    page.call("Input.insertText", text=text)


def press(page: Page, key: dict[str, Any] = ENTER, modifiers: int = 0) -> None:
    """Press and release a key."""
    text = {"text": "\r"} if key["key"] == "Enter" else {}
    page.call("Input.dispatchKeyEvent", type="keyDown", modifiers=modifiers, **key, **text)
    page.call("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **key)


def click(page: Page, selector: str) -> None:
    """Click the last element that matches; it must be seen."""
    element = f"[...document.querySelectorAll({json.dumps(selector)})].at(-1)"
    place = page.evaluate(
        f"{element}.scrollIntoView({{block: 'center'}});"
        f"(b => [b.x + b.width / 2, b.y + b.height / 2, b.width])({element}.getBoundingClientRect())"
    )
    assert place[2] > 0, selector
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)


def ask(page: Page, question: str) -> str:
    """Ask by keyboard; the whole answer as it is shown."""
    number = page.evaluate("document.querySelectorAll('article').length")
    page.evaluate("document.querySelector('#question').focus()")
    type_in(page, question)
    press(page)
    until(page, f"document.querySelectorAll('article').length > {number} && !running")
    return last(page, ".answer")


def last(page: Page, selector: str) -> str:
    """The text of the last turn's element."""
    return str(page.evaluate(f"document.querySelector('article:last-child {selector}').innerText"))


def texts(page: Page, selector: str) -> list[str]:
    """The texts of all elements that match."""
    return list(
        page.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")
    )
