"""Fit prompts into a model's context: examples are left out whole, and only then is text cut out.

prompt ──without its last example, and the one before, …──▶ still too long? ──▶ its middle is cut out

So did C-Eval's authors leave out examples (Huang et al. 2023). What is left of a prompt that is too long even
without examples is its start and its end, where instructions stand (as in LongBench, Bai et al. 2024); the
template of a chat and the start token are never cut.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from eval.models.hf import Local, encode
from eval.tasks.task import Request


class Fitted(NamedTuple):
    """A request as the model is asked it, and what was left out: solved examples, and tokens of its text."""

    request: Request
    shots_left_out: int = 0
    cut: int = 0


def fit(local: Local, requests: Sequence[Request]) -> list[Fitted]:
    """Each request with a prompt that fits the context; whole texts are read in windows instead."""
    return [Fitted(each) if each.kind == "text" else _fit(local, each) for each in requests]


def _fit(local: Local, request: Request) -> Fitted:
    match request.kind:
        case "options":  # the last token is predicted, not read
            continuation, limit = max(request.options, key=len), local.context + 1
        case "answer":  # the last token is the end token, which encode() does not add
            continuation, limit = request.sample.reference, local.context
        case _:
            continuation, limit = "", local.context - request.max_new_tokens

    def tokens(prompt: str) -> int:
        return len(encode(local, local.render(prompt) + continuation))

    prompt, left_out = request.prompt, 0
    length = tokens(prompt)
    while length > limit and (fewer := getattr(prompt, "fewer", None)):
        prompt, left_out = fewer(), left_out + 1
        length = tokens(prompt)
    if length > limit > 0:
        prompt = _without_middle(prompt, lambda each: tokens(each) <= limit)
    return Fitted(request._replace(prompt=prompt), left_out, max(0, length - limit))


def _without_middle(prompt: Any, fits: Callable[[str], bool]) -> str:
    """The start and the end of a prompt, as much as fits; of messages, those of the last one."""
    text = str(getattr(prompt, "user", prompt))

    def shortened(kept: int) -> str:
        short = text[: kept // 2] + text[len(text) - (kept - kept // 2) :]
        return type(prompt)(short, prompt.system) if hasattr(prompt, "user") else short

    least, most = 0, len(text) - 1
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(shortened(middle)) else (least, middle - 1)
    return shortened(least)
