"""A model behind an OpenAI-compatible HTTP endpoint (core/openai_client.py) as something that answers
requests."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from core import openai_client
from core.errors import UserError
from core.openai_client import Body
from eval.models.base import Backend, Likelihood
from eval.tasks.task import Request


class EvalEndpointConfig(openai_client.OpenAIEndpointConfig):
    """An endpoint, and how it is asked."""

    chat: bool = False
    """Ask /chat/completions with one user message, not /completions."""
    log_probabilities: bool = False
    """It echoes log-probabilities of a prompt: options are compared by them, and texts measured."""


def open_backend(config: EvalEndpointConfig) -> Backend:
    """The model there; what an answer depends on, beside the request, is what this program can see of it."""
    seen = {"backend": "endpoint"} | config.model_dump(include={"url", "model", "chat", "log_probabilities"})
    if not config.log_probabilities:
        return Backend(seen, partial(generate, config))
    if config.chat:
        raise UserError("--log-probabilities are those of /completions: leave --chat out.")
    likelihoods = partial(log_likelihood, config), partial(rolling_log_likelihood, config)
    return Backend(seen, partial(generate, config), *likelihoods)


def generate(
    config: EvalEndpointConfig, requests: Sequence[Request]
) -> Iterator[tuple[int, str | Exception]]:
    """Index and greedy completion of each request, or what went wrong with it, as they come."""

    def body(request: Request) -> Body:
        stop = {"stop": list(request.stop)} if request.stop else {}
        if config.chat:
            prompt: Body = {"messages": [{"role": "user", "content": request.prompt}]}
        else:
            prompt = {"prompt": request.prompt}
        return {"max_tokens": request.max_new_tokens, "temperature": 0, **stop, **prompt}

    asked = [(body(request), partial(_text, config.chat)) for request in requests]
    yield from openai_client.ask(config, "chat/completions" if config.chat else "completions", asked)


def log_likelihood(
    config: EvalEndpointConfig, pairs: Sequence[tuple[str, str]]
) -> Iterator[tuple[int, Likelihood | Exception]]:
    """Of continuations after their contexts, where the endpoint echoes log-probabilities of a prompt (vLLM,
    SGLang). A token that stands on the border between the two belongs to the continuation."""
    asked = [(_echo("".join(pair)), partial(_continuation, pair[1])) for pair in pairs]
    yield from openai_client.ask(config, "completions", asked)


def rolling_log_likelihood(
    config: EvalEndpointConfig, texts: Sequence[str]
) -> Iterator[tuple[int, Likelihood | Exception]]:
    """Of whole texts, where the endpoint begins a prompt with a token of its own (LLaMA's `<s>`)."""
    yield from openai_client.ask(
        config, "completions", [(_echo(text), partial(_whole, text)) for text in texts]
    )


def _echo(prompt: str) -> Body:
    """The prompt's log-probabilities, and one token more that nobody wants: some servers refuse none."""
    return {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}


def _text(chat: bool, answer: Any) -> str:
    choice = answer["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    if not isinstance(text, str):
        raise TypeError("no text")
    return text


def _continuation(continuation: str, answer: Any) -> Likelihood:
    """The sum over the last tokens that make it up. Offsets are of no use: vLLM's begin with `<s>`, three
    characters that the prompt does not have."""
    found, tokens = _prompt_tokens(answer)
    first, text = len(tokens), ""
    while first and len(text) < len(continuation):
        first -= 1
        text = tokens[first] + text
    if not text.endswith(continuation):
        raise ValueError(
            f"the prompt ends with the tokens {tokens[first:]}, which do not spell {continuation!r}"
        )
    return _sum(found, range(first, len(tokens)))


def _whole(text: str, answer: Any) -> Likelihood:
    found, tokens = _prompt_tokens(answer)
    first = next((i for i, nats in enumerate(found["token_logprobs"]) if nats is not None), 0)
    spelled = "".join(tokens[first:]).lstrip()
    if spelled != text.lstrip():
        unseen = text.lstrip().endswith(spelled)
        why = (
            "first token has no log-probability: none stands before it" if unseen else "tokens spell another"
        )
        raise ValueError(f"a text cannot be measured, as its {why}")
    return _sum(found, range(first, len(tokens)))


def _prompt_tokens(answer: Any) -> tuple[dict[str, Any], list[str]]:
    """The log-probabilities, and the prompt's tokens as text: all but the generated ones."""
    found = answer["choices"][0].get("logprobs") or {"tokens": []}
    generated = int((answer.get("usage") or {}).get("completion_tokens", 1))
    tokens = [str(token).replace("▁", " ") for token in found["tokens"]]
    if len(tokens) <= generated:
        raise ValueError("no log-probabilities of the prompt: leave --log-probabilities out")
    return found, tokens[: len(tokens) - generated]


def _sum(found: dict[str, Any], places: Sequence[int]) -> Likelihood:
    nats = [float(found["token_logprobs"][i]) for i in places]
    best = [max(map(float, (found["top_logprobs"][i] or {"": 0.0}).values())) for i in places]
    return Likelihood(sum(nats), len(nats), sum(a >= b for a, b in zip(nats, best, strict=True)))
