"""A chat as its template writes it: the text, which characters of it people wrote, and where each answer is.

    messages ──marks around contents──▶ template ──▶ text with marks ──▶ text, spans of contents and answers

The marks are numbered noncharacters, so a content is found where the template put it, whatever its words. The
text without the marks must be the text of the chat without marks; else the template depends on its contents
in a way that marks disturb, and the chat is refused. Templates that take contents apart at certain strings
(`</think>`) get marks around the parts between these strings.

What surrounds an answer is told from two more texts: the prompt for it, and the chat that ends with it.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from data.chat.messages import MARKS, Message, merged

MARK = re.compile(f"([{MARKS[0]}{MARKS[1]}])(\\d+){MARKS[2]}")

_LOOKS_FOR = re.compile(
    r"""(?:split|partition|startswith|endswith|removeprefix|removesuffix|find|index|replace)"""
    r"""\(\s*(?:'([^']{2,})'|"([^"]{2,})")|(?:'([^']{2,})'|"([^"]{2,})")\s+(?:not\s+)?in\s"""
)
"""Strings that a template looks for in contents."""


class Rendering(NamedTuple):
    """A chat as its template gets it."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None

    def texts(self) -> Iterator[str]:
        """Everything in it that people wrote."""
        for message in self.messages:
            yield from (message.get("content") or "", message.get("input") or "")
            yield json.dumps(message.get("tool_calls") or "", ensure_ascii=False)
        yield json.dumps(self.tools or "", ensure_ascii=False)


class Span(NamedTuple):
    """The characters `start` to `stop` of a text, which are the content (or a part of one) number `part`."""

    start: int
    stop: int
    part: int


class Arguments(dict[str, Any]):
    """The arguments of a call: an object for templates that write it as JSON, and its JSON text for those
    that expect text."""

    def __init__(self, values: dict[str, Any], text: str) -> None:
        super().__init__(values)
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __add__(self, other: str) -> str:
        return self.text + other

    def __radd__(self, other: str) -> str:
        return other + self.text


def as_rendered(tokenizer: Any, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> Rendering:
    """The chat as the tokenizer's template gets it: what the template has no place for is text."""
    found = [{key: value for key, value in m.items() if key != "trained"} for m in messages]
    found = [
        m | {"tool_calls": [*map(_decoded, m["tool_calls"])]} if m.get("tool_calls") else m for m in found
    ]
    if ".input" not in tokenizer.chat_template:
        found = [merged(message) for message in found]
    if "tool_calls" not in tokenizer.chat_template:
        return Rendering(_without_tools(found, tools), None)
    return Rendering(found, tools or None)


def render(tokenizer: Any, chat: Rendering, *, generate: bool = False) -> str:
    """The chat as text, with `generate` the prompt for the next answer. ValueError if the template rejects
    it."""
    import jinja2

    try:
        text = tokenizer.apply_chat_template(
            chat.messages, tools=chat.tools, tokenize=False, add_generation_prompt=generate
        )
    except (jinja2.TemplateError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ValueError(f"the template rejects the chat: {error}") from None
    return str(text)


@dataclass(frozen=True)
class Placed:
    """A chat as text, with the place of each content."""

    text: str
    spans: list[Span]
    """Of the contents, in the order of the text."""
    marked: "_Marked"


def place(tokenizer: Any, chat: Rendering, control: re.Pattern[str], *, generate: bool = False) -> Placed:
    """The text of the chat and where its contents are. ValueError if the template omits an answer, or the
    contents cannot be placed surely."""
    text = render(tokenizer, chat, generate=generate)
    reason = ""
    for cut in (None, looked_for(tokenizer.chat_template)):
        marked = _Marked(chat, cut, control)
        try:
            found, spans = _unmarked(render(tokenizer, marked.chat, generate=generate))
            marked.check_answers(spans)
        except ValueError as error:
            reason = reason or str(error)
            continue
        if found == text:
            return Placed(text, spans, marked)
        reason = reason or "it writes a content otherwise where something stands around it"
    raise ValueError(f"the template of {_name(tokenizer)} does not show where the answers are: {reason}")


def answer_span(tokenizer: Any, placed: Placed, answer: int, control: re.Pattern[str]) -> tuple[int, int]:
    """The span of the answer that is message `answer`, with its end token, without the prompt before it."""
    text, spans, marked = placed.text, placed.spans, placed.marked
    found = {span.part: i for i, span in reversed([*enumerate(spans)])}  # results may name their call again
    mine = sorted(i for part, i in found.items() if marked.owners[part].message == answer)
    first, last = mine[0], mine[-1]
    if mine != [*range(first, last + 1)]:
        raise ValueError("the template puts another message into an answer")
    start, stop = spans[first].start, spans[last].stop
    before = text[spans[first - 1].stop if first else 0 : start]
    part, opening = _tail(tokenizer, marked.until(answer), generate=True)
    known = part == (spans[first - 1].part if first else None)
    if known and before.startswith(opening):
        start -= len(before) - len(opening)
    elif marked.owners[spans[first].part].is_call:  # what begins the call is trained on too
        start -= len(before) - (_common(before, opening, control) if known else 0)
        if start == spans[first].start - len(before):
            raise ValueError("the template begins an answer otherwise than its prompt ends")

    after = text[stop : spans[last + 1].start if last + 1 < len(spans) else len(text)]
    end = len(after.rstrip())
    if answer + 1 < len(marked.chat.messages):
        part, closing = _tail(tokenizer, marked.until(answer + 1))
        if part != spans[last].part:
            closing = ""
        end = len(closing.rstrip()) if after.startswith(closing) else _common(after, closing, control)
    rest = after[end:]
    if rest.lstrip().startswith(tokenizer.eos_token):
        end += len(rest) - len(rest.lstrip()) + len(tokenizer.eos_token)
    return start, stop + end


def looked_for(template: str) -> re.Pattern[str] | None:
    """The strings at which a template takes contents apart."""
    found = {text for match in _LOOKS_FOR.findall(template) for text in match if text.strip()}
    words = sorted(found, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, words))) if words else None


class _Owner(NamedTuple):
    """What a marked part belongs to."""

    message: int | None
    """None for tools."""
    is_call: bool


class _Marked:
    """A chat with marks around its contents, or around their parts between the strings of `cut`."""

    def __init__(self, chat: Rendering, cut: re.Pattern[str] | None, control: re.Pattern[str]) -> None:
        self.owners: list[_Owner] = []
        self._cut, self._control = cut, control
        messages = [self._message(number, message) for number, message in enumerate(chat.messages)]
        self.answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        self.chat = Rendering(messages, self._values(chat.tools, _Owner(None, False)))

    def until(self, stop: int) -> Rendering:
        """The chat's first messages."""
        return self.chat._replace(messages=self.chat.messages[:stop])

    def check_answers(self, spans: list[Span]) -> None:
        """ValueError if the text lacks an answer or one of its calls, or has it twice."""
        found = [span.part for span in spans if self.owners[span.part].message in self.answers]
        there = {self.owners[part].message for part in found}
        calls = {part for part, owner in enumerate(self.owners) if owner.is_call}
        if there != set(self.answers) or not calls <= set(found):
            raise ValueError("it omits or rewrites an answer")
        contents = [part for part in found if not self.owners[part].is_call]
        if len(set(contents)) < len(contents):
            raise ValueError("it writes an answer twice")

    def _message(self, number: int, message: Message) -> Message:
        owner = _Owner(number, False)
        changed: Message = {
            key: self._text(message[key], owner) for key in ("content", "input") if message.get(key)
        }
        if message.get("tool_calls"):
            changed["tool_calls"] = [self._call(call, number) for call in message["tool_calls"]]
        return message | changed

    def _call(self, call: dict[str, Any], number: int) -> dict[str, Any]:
        if "function" not in call:
            return call
        function = call["function"]
        name = self._mark(function["name"], _Owner(number, True))
        rest = {key: self._values(value, _Owner(number, False)) for key, value in function.items()}
        return call | {"function": rest | {"name": name}}

    def _values(self, value: Any, owner: _Owner) -> Any:
        """Values of JSON, marked only where a text reads like a control token: templates may compare the
        others."""
        if isinstance(value, Arguments):
            text = self._mark(value.text, owner) if self._control.search(value.text) else value.text
            return Arguments({key: self._values(each, owner) for key, each in value.items()}, text)
        if isinstance(value, dict):
            return {key: self._values(each, owner) for key, each in value.items()}
        if isinstance(value, list):
            return [self._values(each, owner) for each in value]
        return self._mark(value, owner) if isinstance(value, str) and self._control.search(value) else value

    def _text(self, text: str, owner: _Owner) -> str:
        pieces = re.split(f"({self._cut.pattern})", text) if self._cut else [text]
        if not any(piece.strip() for piece in pieces[::2]):
            pieces = [text]
        return "".join(piece if i % 2 else self._mark(piece, owner) for i, piece in enumerate(pieces))

    def _mark(self, text: str, owner: _Owner) -> str:
        """The text with marks inside the white space around it, which templates remove."""
        inner = text.strip()
        if not inner:
            return text
        number, (begin, stop, end) = len(self.owners), (*MARKS,)
        self.owners.append(owner)
        start = text.index(inner)
        rest = text[start + len(inner) :]
        return f"{text[:start]}{begin}{number}{end}{inner}{stop}{number}{end}{rest}"


def _unmarked(marked: str) -> tuple[str, list[Span]]:
    """The text without marks, and what they enclose. ValueError if a mark is missing or inside another."""
    pieces = MARK.split(marked)
    at, opened, spans = len(pieces[0]), None, list[Span]()
    for kind, number, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        if (kind == MARKS[0]) != (opened is None) or (opened and opened.part != int(number)):
            break
        if opened is None:
            opened = Span(at, at, int(number))
        else:
            spans.append(opened._replace(stop=at))
            opened = None
        at += len(text)
    else:
        if opened is None:
            return "".join(pieces[::3]), spans
    raise ValueError("it takes a content apart")


def _tail(tokenizer: Any, chat: Rendering, *, generate: bool = False) -> tuple[int | None, str]:
    """The number of a chat's last content in its text, and the text after it."""
    text, spans = _unmarked(render(tokenizer, chat, generate=generate))
    return (spans[-1].part, text[spans[-1].stop :]) if spans else (None, text)


def _common(a: str, b: str, control: re.Pattern[str]) -> int:
    """How far both texts are the same, up to the end of a control token."""
    pairs = enumerate(zip(a, b, strict=False))
    length = next((at for at, (one, other) in pairs if one != other), min(len(a), len(b)))
    return max((match.end() for match in control.finditer(a) if match.end() <= length), default=0)


def _decoded(call: dict[str, Any]) -> dict[str, Any]:
    """A call whose arguments, an object or its JSON text, are both."""
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    values, text = function.get("arguments"), None
    while isinstance(values, str):  # some data sets encode it twice
        try:
            values, text = json.loads(values), values
        except ValueError:
            return call
    if not isinstance(values, dict):
        return call
    return call | {"function": function | {"arguments": Arguments(values, text or _json(values))}}


def _without_tools(messages: list[Message], tools: list[dict[str, Any]] | None) -> list[Message]:
    """Tools, calls and results as text, for templates without tools: JSON in the messages of the system, the
    assistant and the user."""
    rendered: list[Message] = []
    for message in messages:
        text = message["content"]
        if calls := message.get("tool_calls"):
            text = "\n".join(filter(None, [text, *(_json(call["function"]) for call in calls)]))
        role = "user" if message["role"] == "tool" else message["role"]
        rendered.append({key: message[key] for key in message if key != "tool_calls"} | {"role": role})
        rendered[-1]["content"] = text
    if tools:
        system = rendered.pop(0)["content"] if rendered[0]["role"] == "system" else ""
        text = "\n".join(filter(None, [system, *map(_json, tools)]))
        rendered.insert(0, {"role": "system", "content": text})
    return rendered


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _name(tokenizer: Any) -> str:
    return str(tokenizer.name_or_path or "the tokenizer")
