"""A model behind an OpenAI-compatible endpoint that writes instruction data, and its cost."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import Field

from core import openai_client


class LlmClientConfig(openai_client.OpenAIEndpointConfig):
    """An endpoint, its sampling and its prices."""

    temperature: float = Field(0.7, ge=0)
    """Sampling temperature."""
    max_new_tokens: int = Field(1024, ge=1)
    """Maximum length of an answer."""
    price_per_million_prompt_tokens: float = Field(0, ge=0)
    """Price of prompt tokens, in any currency."""
    price_per_million_completion_tokens: float = Field(0, ge=0)
    """Price of completion tokens, in the same currency."""


class Answer(NamedTuple):
    """An answer and its token counts."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def ask(config: LlmClientConfig, prompts: Sequence[str]) -> Iterator[tuple[int, Answer | Exception]]:
    """The index of each prompt and its answer or error, in order of arrival."""
    sampling = {"temperature": config.temperature, "max_tokens": config.max_new_tokens}
    bodies = [{"messages": [{"role": "user", "content": prompt}], **sampling} for prompt in prompts]
    yield from openai_client.ask(config, "chat/completions", [(body, _read) for body in bodies])


def _read(tree: Any) -> Answer:
    text = tree["choices"][0]["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("no text")
    usage = tree.get("usage") or {}
    return Answer(text, int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))
