"""A model behind an OpenAI-compatible endpoint that writes instruction data: answers, and what they cost."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import Field

from core import openai_client


class EndpointConfig(openai_client.OpenAIEndpointConfig):
    """An endpoint, how it samples, and what it costs."""

    temperature: float = Field(0.7, ge=0)
    """Of sampling."""
    max_new_tokens: int = Field(1024, ge=1)
    """The longest answer."""
    price_per_million_prompt_tokens: float = Field(0, ge=0)
    """For the cost, in any currency."""
    price_per_million_completion_tokens: float = Field(0, ge=0)
    """For the cost."""


class Answer(NamedTuple):
    """What came back."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def ask(config: EndpointConfig, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Exception]]:
    """Index and answer of each prompt, or what went wrong with it, as they come."""
    sampling = {"temperature": config.temperature, "max_tokens": config.max_new_tokens}
    bodies = [{"messages": [{"role": "user", "content": prompt}], **sampling} for prompt in prompts]
    yield from openai_client.ask(config, "chat/completions", [(body, _read) for body in bodies])


def _read(tree: Any) -> Answer:
    text = tree["choices"][0]["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("no text")
    usage = tree.get("usage") or {}
    return Answer(text, int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))
