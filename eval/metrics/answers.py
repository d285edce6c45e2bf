"""What of a model's text is its answer: not its thought, nor an opening phrase, nor what follows.

All metrics of generated answers read the text after the thought. METRIC|FILTER in a task's `metrics` scores
what the filter leaves of it; the signature names the filter.
"""

import re

_THOUGHT = r"(?:think|thinking|thought|reasoning|reflection)"
_BEGINS = re.compile(rf"\s*[<\[◁]{_THOUGHT}[>\]▷]", re.IGNORECASE)
_ENDS = re.compile(rf"[<\[◁]/{_THOUGHT}[>\]▷]", re.IGNORECASE)


def without_thought(text: str) -> str:
    """The answer after a reasoning model's thought (`<think>…</think>`); empty if the thought never ends."""
    *before, answer = _ENDS.split(text)
    return answer if before else "" if _BEGINS.match(text) else text
