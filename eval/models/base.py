"""What a model is asked, and what comes back: three calls, whatever the model is.

    Request ──generate | log_likelihood | rolling_log_likelihood──▶ fields of its prediction

A question with options is answered by the option whose letter is likeliest after the prompt; where a model
gives no log-probabilities it writes an answer instead, and `by` says so. It also says where the options are
not equally many tokens: a plain log-likelihood then favours the shortest, whatever the question.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from core.errors import UserError
from eval.tasks.task import Request


class Likelihood(NamedTuple):
    """Of some tokens: sums of their log-probabilities (nats) and of the entropies (nats) of what could have
    stood there, how many they are, and how many were the likeliest."""

    nats: float
    tokens: int
    correct: int = 0
    entropy: float = 0.0

    def __add__(self, other: Any) -> "Likelihood":
        return Likelihood(*(a + b for a, b in zip(self, other, strict=True)))


Found = Iterator[tuple[int, Likelihood | Exception]]
Answer = dict[str, Any]
"""Fields of a Sample that a model fills in."""
Answers = Iterator[tuple[int, Answer | Exception]]


class Backend(NamedTuple):
    """A model. Each call yields the index of what was asked and its result, as they come."""

    identity: dict[str, Any]
    """All that an answer depends on beside the request; part of the key of a cached prediction."""
    generate: Callable[[Sequence[Request]], Iterator[tuple[int, str | Exception]]]
    """Greedy continuations of prompts."""
    log_likelihood: Callable[[Sequence[tuple[str, str]]], Found] | None = None
    """Of continuations after their contexts; None where there are no log-probabilities."""
    rolling_log_likelihood: Callable[[Sequence[str]], Found] | None = None
    """Of whole texts."""
    answer_likelihood: (
        Callable[[Sequence[tuple[str, str]]], Iterator[tuple[int, tuple[Likelihood, Likelihood] | Exception]]]
        | None
    ) = None
    """Of answers with their end token, and of prompt and answer together."""
    cut: Callable[[Sequence[Request]], list[int]] | None = None
    """How many tokens of each request do not fit in the context and are cut off on the left."""
    inputs: Mapping[str, str] = {}
    """Files that it was read from, and their hashes."""


def ask(backend: Backend, requests: Sequence[Request]) -> Answers:
    """Index and answer of each request, as they come."""
    ways = {"generation": _generate, "options": _choose, "answer": _read, "text": _roll}
    for kind, way in ways.items():
        places = [i for i, request in enumerate(requests) if request.kind == kind]
        if places:
            for i, answer in way(backend, [requests[i] for i in places]):
                yield places[i], answer


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
    found: list[dict[str, Likelihood]] = [{} for _ in requests]
    failed = set()
    for pair, result in backend.log_likelihood(pairs):
        i, option = owners[pair]
        if isinstance(result, Exception):
            if i not in failed:
                yield i, result
            failed.add(i)
            continue
        found[i][option] = result
        if len(found[i]) == len(requests[i].options):
            yield i, _chosen({option.strip(): found[i][option] for option in requests[i].options})


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
    call = _there(backend.answer_likelihood, requests)
    for i, found in call([(request.prompt, request.sample.reference) for request in requests]):
        if isinstance(found, Exception):
            yield i, found
            continue
        named = zip(("answer", "all"), found, strict=True)
        measured = {f"{of}_{name}": value for of, each in named for name, value in each._asdict().items()}
        yield i, {"by": "log-likelihood", "measured": measured}


def _roll(backend: Backend, requests: Sequence[Request]) -> Answers:
    call = _there(backend.rolling_log_likelihood, requests)
    for i, found in call([request.prompt for request in requests]):
        if isinstance(found, Exception):
            yield i, found
            continue
        measured = {f"text_{name}": value for name, value in found._asdict().items()}
        yield i, {"by": "log-likelihood", "measured": measured}


def _there(call: Any, requests: Iterable[Request]) -> Any:
    if call is None:
        task = next(iter(requests)).sample.task
        raise UserError(f"task {task} needs log-probabilities of texts, which this model does not give.")
    return call
