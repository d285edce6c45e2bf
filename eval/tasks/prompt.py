"""Prompts: a question after a system text and solved examples, as one text or as messages of a chat.

template, fields ──fill──▶ question ─┐
solved examples ──without the question itself, first or by seed──▶ text or turns ──▶ Prompt
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

from eval.sample import missing_field


class Prompt(str):
    """The text that a model without a chat template continues, and the same as the `messages` of a chat."""

    __slots__ = ("fewer", "system", "turns", "user")
    system: str
    turns: tuple[tuple[str, str], ...]
    """Solved questions before the last one, each with its answer."""
    user: str
    fewer: "Callable[[], Prompt] | None"
    """The prompt without its last example, for a context that is too short; None if it has no example."""

    def __new__(cls, user: str, system: str = "", turns: Sequence[tuple[str, str]] = ()) -> "Prompt":
        """Texts are joined by blank lines."""
        solved = (f"{question}{answer}\n\n" for question, answer in turns)
        prompt = super().__new__(cls, "".join([f"{system}\n\n" if system else "", *solved, user]))
        prompt.system, prompt.turns, prompt.user = system, tuple(turns), user
        prompt.fewer = None
        return prompt


def messages(prompt: str) -> list[dict[str, str]]:
    """A prompt as messages of a chat; a plain text is one message of the user."""
    if not isinstance(prompt, Prompt):
        return [{"role": "user", "content": prompt}]
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    turns = [
        {"role": role, "content": content.strip() if role == "assistant" else content}
        for turn in prompt.turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    return [*system, *turns, {"role": "user", "content": prompt.user}]


def continued(prompt: str) -> str:
    """A prompt as a text for a model to continue: without the spaces at its end.

    To tokenizers like LLaMA's and GPT-2's, the space before a word is part of the word. After a prompt that
    ends with one, a model cannot write most words, and writes digits or nothing instead.
    """
    return prompt.rstrip(" ") or prompt


class Example(NamedTuple):
    """A solved question: the fields that a template names, its text in a prompt, and its answer."""

    fields: Mapping[str, str]
    text: str
    answer: str


class Shots(NamedTuple):
    """The solved examples of a task or subject, in the order in which they are taken."""

    examples: Sequence[Example]
    n: int
    form: Literal["text", "turns"] = "text"

    def before(self, text: str) -> list[Example]:
        """The first `n` that are not the question itself, whose answer they would give away."""
        return [example for example in self.examples if example.text != text][: self.n]


def ordered(examples: Sequence[Example], seed: int | None, name: str) -> list[Example]:
    """The examples in their file's order or, with a seed, in an order drawn for this task or subject."""
    examples = list(examples)
    if seed is not None:
        random.Random(f"{seed} {name}").shuffle(examples)
    return examples


def build(
    template: str, fields: Mapping[str, str], text: str, shots: Shots, system: str, location: str
) -> Prompt:
    """The prompt of the question `text`. As turns, what precedes `{shots}` stands in the first message."""
    chosen = shots.before(text)
    filled = fill(system, fields, location)
    if shots.form == "text":
        solved = "".join(f"{example.text}{example.answer}\n\n" for example in chosen)
        prompt = Prompt(fill(template, {"shots": solved, **fields}, location), filled)
    else:
        prompt = _turns(template, fields, chosen, filled, location)
    if chosen:
        less = shots._replace(n=len(chosen) - 1)
        prompt.fewer = partial(build, template, fields, text, less, system, location)
    return prompt


def _turns(
    template: str, fields: Mapping[str, str], chosen: Sequence[Example], system: str, location: str
) -> Prompt:
    lead, _, rest = template.partition("{shots}") if "{shots}" in template else ("", "", template)
    users = [fill(rest, each, location) for each in [*(example.fields for example in chosen), fields]]
    users[0] = fill(lead, fields, location) + users[0]
    turns = [(user, example.answer) for user, example in zip(users, chosen, strict=False)]
    return Prompt(users[-1], system, turns)


def fill(template: str, fields: Mapping[str, str], location: str) -> str:
    """Replace keys in braces, in one pass: text from the data is never treated as a template."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in fields:
            raise missing_field(location, match[1], fields)
        return fields[match[1]]

    return re.sub(r"\{(\w+)\}", value, template)
