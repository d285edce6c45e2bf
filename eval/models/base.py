"""The interface of a model: generate, log_likelihood and rolling_log_likelihood, whatever the backend.

    Request ──generate | log_likelihood | rolling_log_likelihood──▶ fields of its prediction

The answer to a question with options is the option whose letter is most likely after the prompt. A model
without log-probabilities generates an answer instead, which is recorded in `by`. So are options that differ
in their number of tokens: a plain log-likelihood then favours the shortest, whatever the question.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from core.errors import UserError
from eval.sample import whole_characters
from eval.tasks.prompt import continued
from eval.tasks.task import Request


class Likelihood(NamedTuple):
    """Of a sequence of tokens: the sum of their log-probabilities (nats), their number, how many of them were
    the most likely token, and the sum of the entropies (nats) of the predicted distributions."""

    nats: float
    tokens: int
    correct: int = 0
    entropy: float = 0.0

    def __add__(self, other: Any) -> "Likelihood":
        return Likelihood(*(a + b for a, b in zip(self, other, strict=True)))


Likelihoods = Iterator[tuple[int, Likelihood | Exception]]
PositionLikelihoods = Iterator[tuple[int, tuple[Likelihood, Mapping[str, float]] | Exception]]
Answer = dict[str, Any]
"""The fields of an EvalSample that a model fills in."""
Answers = Iterator[tuple[int, Answer | Exception]]


class Backend(NamedTuple):
    """A model. Each call yields index and result of the inputs as they are finished."""

    identity: dict[str, Any]
    """What an answer depends on besides the request; part of the key of a cached prediction."""
    generate: Callable[[Sequence[Request]], Iterator[tuple[int, str | Exception]]]
    """Greedy continuations of prompts."""
    log_likelihood: Callable[[Sequence[tuple[str, str]]], Likelihoods] | None = None
    """Of (context, continuation) pairs; None if the model gives no log-probabilities."""
    rolling_log_likelihood: Callable[[Sequence[str]], Likelihoods] | None = None
    """Of whole texts."""
    answer_likelihood: (
        Callable[[Sequence[tuple[str, str]]], Iterator[tuple[int, tuple[Likelihood, Likelihood] | Exception]]]
        | None
    ) = None
    """Of (prompt, answer) pairs: of the answer with its end token, and of prompt and answer together."""
    position_likelihood: Callable[[Sequence[str]], PositionLikelihoods] | None = None
    """Of whole texts: of all of it, and sums by position (eval/metrics/perplexity.py)."""
    fit: Callable[[Sequence[Request]], Sequence[tuple[Request, int, int]]] | None = None
    """Each request with a prompt that fits the context, and how many examples and tokens were left out of it;
    None if the model's context is not known."""
    inputs: Mapping[str, str] = {}
    """The model's files and their hashes."""
    depends_on: Callable[[Request], Any] = lambda _: None
    """What an answer depends on besides the identity and what is asked."""


def continuation_of(request: Request) -> str | None:
    """What a written answer of a model without a chat template depends on besides the prompt: that the spaces
    at its end were left out (`continued`)."""
    written = request.kind in ("generation", "options")
    return "without spaces at the end" if written and continued(request.prompt) != request.prompt else None


def ask(backend: Backend, requests: Sequence[Request]) -> Answers:
    """Yield index and answer of each request as they are finished."""
    methods = {"generation": _generate, "options": _choose, "answer": _read, "text": _roll}
    for kind, method in methods.items():
        indices = [i for i, request in enumerate(requests) if request.kind == kind]
        if indices:
            for i, answer in method(backend, [requests[i] for i in indices]):
                yield indices[i], answer if isinstance(answer, Exception) else _checked(answer)


def _checked(answer: Answer) -> Answer | Exception:
    """The answer as text that can be written, or what is wrong with its likelihoods."""
    measured = answer.get("measured", {})
    if wrong := [f"{name}: {value}" for name, value in measured.items() if not math.isfinite(value)]:
        return ValueError(
            f"the model's likelihoods are not numbers ({', '.join(wrong)}). Its weights are damaged, or its "
            "numbers overflow."
        )
    checked: Answer = whole_characters(answer)
    return checked


def _generate(backend: Backend, requests: Sequence[Request]) -> Answers:
    for i, text in backend.generate(requests):
        yield i, text if isinstance(text, Exception) else {"prediction": text, "by": "generation"}


def _choose(backend: Backend, requests: Sequence[Request]) -> Answers:
    if backend.log_likelihood is None:
        for i, text in backend.generate(requests):
            by = "generation, as the model gives no log-probabilities"
            yield i, text if isinstance(text, Exception) else {"prediction": text, "by": by}
        return
    owners = [(i, option) for i, request in enumerate(requests) for option in request.options]
    pairs = [(requests[i].prompt, option) for i, option in owners]
    likelihoods: list[dict[str, Likelihood]] = [{} for _ in requests]
    failed = set()
    for pair, result in backend.log_likelihood(pairs):
        i, option = owners[pair]
        if isinstance(result, Exception):
            if i not in failed:
                yield i, result
            failed.add(i)
            continue
        likelihoods[i][option] = result
        if len(likelihoods[i]) == len(requests[i].options):
            yield i, _chosen({option.strip(): likelihoods[i][option] for option in requests[i].options})


def _chosen(options: Mapping[str, Likelihood]) -> Answer:
    tokens = {letter: each.tokens for letter, each in options.items()}
    by = "log-likelihood"
    if len(set(tokens.values())) > 1:
        by += f", OPTIONS OF UNEQUAL LENGTH ({', '.join(f'{k}: {n}' for k, n in tokens.items())} tokens)"
    return {
        "prediction": max(options, key=lambda letter: options[letter].nats),
        "by": by,
        "measured": {letter: each.nats for letter, each in options.items()},
    }


def _read(backend: Backend, requests: Sequence[Request]) -> Answers:
    call = _required(backend.answer_likelihood, requests)
    for i, likelihoods in call([(request.prompt, request.sample.reference) for request in requests]):
        if isinstance(likelihoods, Exception):
            yield i, likelihoods
            continue
        named = zip(("answer", "all"), likelihoods, strict=True)
        measured = {f"{of}_{name}": value for of, each in named for name, value in each._asdict().items()}
        yield i, {"by": "log-likelihood", "measured": measured}


def _roll(backend: Backend, requests: Sequence[Request]) -> Answers:
    for wanted, method in ((False, backend.rolling_log_likelihood), (True, backend.position_likelihood)):
        indices = [i for i, request in enumerate(requests) if request.by_position == wanted]
        if not indices:
            continue
        call = _required(method, requests)
        for place, found in call([requests[i].prompt for i in indices]):
            if isinstance(found, Exception):
                yield indices[place], found
                continue
            whole, parts = found if wanted else (found, {})
            measured = {f"text_{name}": value for name, value in {**whole._asdict(), **parts}.items()}
            yield indices[place], {"by": "log-likelihood", "measured": measured}


def _required(call: Any, requests: Iterable[Request]) -> Any:
    if call is None:
        task = next(iter(requests)).sample.task
        raise UserError(
            f"task {task} needs log-probabilities, which this model does not give. Use a local model, or an "
            "endpoint with --log-probabilities."
        )
    return call
