"""A model at an OpenAI-compatible HTTP endpoint (core/openai_client.py)."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from core import openai_client
from core.errors import UserError
from core.openai_client import Body
from eval.models.base import Backend, Likelihood, continuation_of
from eval.tasks.prompt import continued, messages
from eval.tasks.task import Request


class EvalEndpointConfig(openai_client.OpenAIEndpointConfig):
    """An endpoint, and how to query it."""

    chat: bool = False
    """Use /chat/completions with messages instead of /completions."""
    log_probabilities: bool = False
    """The endpoint can return log-probabilities of the prompt, for options and whole texts."""


def open_backend(config: EvalEndpointConfig) -> Backend:
    """The model at an endpoint. Its identity is URL, name and settings: the weights cannot be seen."""
    seen = {"backend": "endpoint"} | config.model_dump(include={"url", "model", "chat", "log_probabilities"})
    if not config.log_probabilities:
        whole = Backend(seen, partial(generate, config))
        return whole if config.chat else whole._replace(depends_on=continuation_of)
    if config.chat:
        raise UserError("--log-probabilities needs /completions, which has no chat template. Remove --chat.")
    likelihoods = partial(log_likelihood, config), partial(rolling_log_likelihood, config)
    return Backend(seen, partial(generate, config), *likelihoods, depends_on=continuation_of)


def generate(
    config: EvalEndpointConfig, requests: Sequence[Request]
) -> Iterator[tuple[int, str | Exception]]:
    """Yield index and greedy completion (or the error) of each request as they are finished."""

    def body(request: Request) -> Body:
        stop = {"stop": list(request.stop)} if request.stop else {}
        if config.chat:
            prompt: Body = {"messages": messages(request.prompt)}
        else:
            prompt = {"prompt": continued(request.prompt)}
        return {"max_tokens": request.max_new_tokens, "temperature": 0, **stop, **prompt}

    bodies = [(body(request), partial(_text, config.chat)) for request in requests]
    yield from openai_client.ask(config, "chat/completions" if config.chat else "completions", bodies)


def log_likelihood(
    config: EvalEndpointConfig, pairs: Sequence[tuple[str, str]]
) -> Iterator[tuple[int, Likelihood | Exception]]:
    """Of continuations after their contexts, from an endpoint that returns log-probabilities of the prompt
    (vLLM, SGLang). A token across the boundary counts as part of the continuation."""
    bodies = [(_echo("".join(pair)), partial(_continuation, pair[1])) for pair in pairs]
    yield from openai_client.ask(config, "completions", bodies)


def rolling_log_likelihood(
    config: EvalEndpointConfig, texts: Sequence[str]
) -> Iterator[tuple[int, Likelihood | Exception]]:
    """Of whole texts, if the endpoint adds a start token (LLaMA's `<s>`)."""
    yield from openai_client.ask(
        config, "completions", [(_echo(text), partial(_whole, text)) for text in texts]
    )


def _echo(prompt: str) -> Body:
    """Ask for the prompt's log-probabilities. One token is generated and ignored: some servers refuse 0."""
    return {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}


def _text(chat: bool, answer: Any) -> str:
    choice = answer["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    if not isinstance(text, str):
        raise TypeError("no text")
    return text


def _continuation(continuation: str, answer: Any) -> Likelihood:
    """The sum over the last tokens that spell it. Offsets cannot be used: vLLM's include `<s>`, three
    characters that are not in the prompt."""
    logprobs, tokens = _prompt_tokens(answer)
    first, text = len(tokens), ""
    while first and len(text) < len(continuation):
        first -= 1
        text = tokens[first] + text
    if not text.endswith(continuation):
        raise ValueError(f"the last tokens of the prompt, {tokens[first:]}, do not spell {continuation!r}")
    return _sum(logprobs, range(first, len(tokens)))


def _whole(text: str, answer: Any) -> Likelihood:
    logprobs, tokens = _prompt_tokens(answer)
    first = next((i for i, nats in enumerate(logprobs["token_logprobs"]) if nats is not None), 0)
    spelled = "".join(tokens[first:]).lstrip()
    if spelled != text.lstrip():
        if text.lstrip().endswith(spelled):
            raise ValueError("the first token has no log-probability: the server adds no start token")
        raise ValueError(f"the returned tokens do not spell the text: {spelled[:80]!r}")
    return _sum(logprobs, range(first, len(tokens)))


def _prompt_tokens(answer: Any) -> tuple[dict[str, Any], list[str]]:
    """The log-probabilities, and the prompt's tokens as text, without the generated ones."""
    logprobs = answer["choices"][0].get("logprobs") or {"tokens": []}
    generated = int((answer.get("usage") or {}).get("completion_tokens", 1))
    tokens = [str(token).replace("▁", " ") for token in logprobs["tokens"]]
    if len(tokens) <= generated:
        raise ValueError("no log-probabilities of the prompt in the response: remove --log-probabilities")
    return logprobs, tokens[: len(tokens) - generated]


def _sum(logprobs: dict[str, Any], positions: Sequence[int]) -> Likelihood:
    nats = [float(logprobs["token_logprobs"][i]) for i in positions]
    best = [max(map(float, (logprobs["top_logprobs"][i] or {"": 0.0}).values())) for i in positions]
    return Likelihood(sum(nats), len(nats), sum(a >= b for a, b in zip(nats, best, strict=True)))
