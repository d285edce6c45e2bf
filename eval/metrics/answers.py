"""What of a model's text is its answer: not its thought, nor an opening phrase, nor what follows.

All metrics of generated answers read the text after the thought. METRIC|FILTER in a task's `metrics` scores
what the filter leaves of it; the score's name and signature name the filter.
"""

import re
from collections.abc import Callable

from core.errors import UserError

_THOUGHT = r"(?:think|thinking|thought|reasoning|reflection)"
_BEGINS = re.compile(rf"\s*[<\[◁]{_THOUGHT}[>\]▷]", re.IGNORECASE)
_ENDS = re.compile(rf"[<\[◁]/{_THOUGHT}[>\]▷]", re.IGNORECASE)


def without_thought(text: str) -> str:
    """The answer after a reasoning model's thought (`<think>…</think>`); empty if the thought never ends."""
    *before, answer = _ENDS.split(text)
    return answer if before else "" if _BEGINS.match(text) else text


def first_line(text: str) -> str:
    """The first line that is not blank."""
    return text.strip().partition("\n")[0].strip()


_LABEL = r"(?:发明名称|發明名稱|命名|标题|標題|题目|題目|名称|名稱|\btitle)"
_LABELLED = re.compile(
    rf"{_LABEL}[^:：“\"《「]{{0,15}}(?:[:：]\s*|[是为為]\s*(?=[“\"《「])|is\s*(?=[“\"]))(.+)", re.IGNORECASE
)
_HEADING = re.compile(r"^(?:[^\s:：;；,，。]{1,12}[:：]|\[[^\]\s]{1,12}\])\s*")
_OPENING = re.compile(r"(?:好的|当然|當然|sure|certainly|of course|okay)\b[^:：]{0,60}", re.IGNORECASE)
_QUOTED = re.compile(r"[“\"《「『](.+?)[”\"》」』](?=$|[\s。.,，;；!！])")


def title(text: str) -> str:
    """A title without an announcement, label, quotation marks, final stop, and what follows it."""
    for line in filter(None, (line.strip(" \t#*>-") for line in text.splitlines())):
        labelled = _LABELLED.search(line)
        found = (labelled[1] if labelled else line).strip(" \t*")
        if not labelled and (found.endswith((":", "：")) or _OPENING.fullmatch(found)):
            continue
        quoted = _QUOTED.match(found)
        return (quoted[1] if quoted else found).partition("。")[0].strip(" \t*.;；,，")
    return ""


def value(text: str) -> str:
    """A text without a heading such as `回答:`."""
    return _HEADING.sub("", text.strip())


FILTERS: dict[str, Callable[[str], str]] = {"title": title, "first-line": first_line, "value": value}


def filter_of(specification: str) -> tuple[str, Callable[[str], str], bool]:
    """Name and function of `FILTER` or `NAME=REGEX`, and whether it applies to references too.

    A regular expression finds its first group that matches, or its whole match if it has no group. An answer
    without a match is empty, that is wrong, as in lm-evaluation-harness.
    """
    name, regular, pattern = specification.partition("=")
    if not regular:
        if name not in FILTERS:
            raise UserError(
                f"filter `{name}` does not exist. Filters: {', '.join(FILTERS)}, or NAME=REGEX for your own."
            )
        return name, FILTERS[name], True
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"filter `{specification}`: not a regular expression ({error}).") from None

    def found(text: str) -> str:
        match = compiled.search(text)
        groups = match.groups() if match else ()
        return next((group for group in groups if group), match[0] if match and not groups else "").strip()

    return name, found, False
