"""Log-likelihoods of a local model: of options, answers and whole texts.

    (context, continuation) ──tokens──▶ deduplicated inputs ──batches──▶ logits where needed ──▶ sums

Tokenization of contexts and continuations and the windows over whole texts are those of
lm-evaluation-harness; tests check that the sums are equal.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from core.errors import UserError
from eval.metrics.measure import Floats
from eval.metrics.perplexity import POSITIONS
from eval.models.base import Likelihood, Likelihoods, PositionLikelihoods
from eval.models.hf import Local, batched, encode, in_batches, sharing

CHUNK_TOKENS = 512
"""Number of positions whose log-probabilities are computed in fp32 at a time."""


class Job(NamedTuple):
    """Context tokens, and the tokens after them whose likelihood is measured."""

    before: list[int]
    after: list[int]


def log_likelihood(local: Local, pairs: Sequence[tuple[str, str]]) -> Likelihoods:
    """Of each continuation after its context. A context's trailing whitespace belongs to the continuation."""
    for i, rows in _score(local, [_job(local, *pair) for pair in pairs]):
        yield i, rows if isinstance(rows, Exception) else _sum(rows)


def rolling_log_likelihood(local: Local, texts: Sequence[str]) -> Likelihoods:
    """Of each whole text, in windows of the context length; a start token is put before the first token."""
    for owner, found in _rolling(local, texts):
        yield owner, found if isinstance(found, Exception) else found[0]


def position_likelihood(local: Local, texts: Sequence[str]) -> PositionLikelihoods:
    """As `rolling_log_likelihood`; and nats and bytes of the tokens between each two of `POSITIONS`."""
    if not local.tokenizer.is_fast:
        raise UserError(f"{local.path}: bits per byte by position need a tokenizer.json.")
    for owner, found in _rolling(local, texts):
        if isinstance(found, Exception):
            yield owner, found
            continue
        size = _bytes_at(local, texts[owner])
        measured: dict[str, float] = {}
        for end, nats, taken in zip(POSITIONS, found[1].tolist(), np.diff(size, prepend=0), strict=True):
            measured |= {f"nats_to_{end}": nats, f"bytes_to_{end}": int(taken)}
        yield owner, (found[0], measured)


def _bytes_at(local: Local, text: str) -> npt.NDArray[np.int64]:
    """Bytes of a text up to the end of its token at each of `POSITIONS`."""
    spans = local.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    # A character of several tokens belongs to the first, a space that a token leaves out to the next.
    ends = np.maximum.accumulate([0, *(end for _, end in spans)])
    ends[-1] = len(text)
    return np.array([len(text[: ends[min(each, len(spans))]].encode()) for each in POSITIONS])


def _rolling(
    local: Local, texts: Sequence[str]
) -> Iterator[tuple[int, tuple[Likelihood, Floats] | Exception]]:
    """Of each whole text, and the nats of its tokens between each two of `POSITIONS`."""
    jobs, owners, begins = [], [], []
    for owner, text in enumerate(texts):
        ids = [_start(local), *local.tokenizer(text, add_special_tokens=False)["input_ids"]]
        for begin in range(0, len(ids) - 1, local.context):
            end = min(begin + local.context, len(ids) - 1)
            jobs.append(Job(ids[max(0, end - local.context) : begin + 1], ids[begin + 1 : end + 1]))
            owners.append(owner)
            begins.append(begin)
    left = np.bincount(owners, minlength=len(texts)) if owners else np.zeros(len(texts), int)
    nothing = (Likelihood(0.0, 0), np.zeros(len(POSITIONS)))
    yield from ((owner, nothing) for owner in np.flatnonzero(left == 0).tolist())
    totals: list[tuple[Likelihood, Floats] | Exception] = [nothing for _ in texts]
    for i, rows in _score(local, jobs):
        owner = owners[i]
        total = totals[owner]
        if isinstance(rows, Exception):
            totals[owner] = rows
        elif not isinstance(total, Exception):
            places = np.searchsorted(POSITIONS, begins[i] + np.arange(rows.shape[1]), side="right")
            parts = np.bincount(places, rows[0], len(POSITIONS) + 1)[:-1]
            totals[owner] = (total[0] + _sum(rows), total[1] + parts)
        left[owner] -= 1
        if not left[owner]:
            yield owner, totals[owner]


def answer_likelihood(
    local: Local, pairs: Sequence[tuple[str, str]]
) -> Iterator[tuple[int, tuple[Likelihood, Likelihood] | Exception]]:
    """Of each answer with its end token, and of all tokens except the first (it has no context)."""
    jobs, answers = [], []
    for context, answer in pairs:
        job = _job(local, context, answer)
        ids = [*job.before, *job.after, local.tokenizer.eos_token_id]
        jobs.append(Job(ids[:1], ids[1:]))
        answers.append(len(job.after) + 1)
    for i, rows in _score(local, jobs):
        if isinstance(rows, Exception):
            yield i, rows
        else:
            yield i, (_sum(rows[:, -answers[i] :]), _sum(rows))


def _job(local: Local, context: str, continuation: str) -> Job:
    context = local.render(context)
    kept = context.rstrip()
    if not kept:
        return Job([_start(local)], encode(local, context + continuation, special=False))
    before, whole = encode(local, kept), encode(local, context + continuation)
    return Job(before, whole[len(before) :])


def _sum(rows: Floats) -> Likelihood:
    nats, correct, entropy = rows.sum(axis=1)
    return Likelihood(float(nats), rows.shape[1], int(correct), float(entropy))


def _score(local: Local, jobs: Sequence[Job]) -> Iterator[tuple[int, Floats | Exception]]:
    """Log-probability, whether it is the most likely token, and entropy (3 x tokens), for `after`.

    Jobs with the same input tokens, such as the options of a question, share one row of a batch.
    """
    local.truncated += sum(len(job.before) + len(job.after) - 1 > local.context for job in jobs)
    same: dict[tuple[int, ...], list[int]] = {}
    for i, job in enumerate(jobs):
        same.setdefault(tuple((job.before + job.after)[:-1][-local.context :]), []).append(i)
    inputs = [list(ids) or [_start(local)] for ids in same]
    owners = list(same.values())

    first_read = [
        max(0, min(len(ids) - len(jobs[j].after) for j in of)) for ids, of in zip(inputs, owners, strict=True)
    ]

    def answer(batch: list[int], shared: int) -> list[list[Floats]]:
        ids, mask, cache = batched([inputs[i] for i in batch], local, shared, left=False)
        first, last = min(first_read[i] for i in batch), max(len(inputs[i]) for i in batch)
        kept = torch.arange(first - shared, last - shared, device=ids.device)
        logits = local.model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=kept,
        ).logits
        results = []
        for row, i in enumerate(batch):
            read = logits[row, : len(inputs[i]) - first]
            results.append([_tokens(read[-len(jobs[j].after) :], jobs[j].after) for j in owners[i]])
        return results

    beginnings = [ids[:first] for ids, first in zip(inputs, first_read, strict=True)]
    for i, result in in_batches(local, [len(ids) for ids in inputs], answer, sharing(local, beginnings)):
        for place, owner in enumerate(owners[i]):
            yield owner, result if isinstance(result, Exception) else result[place]


def _tokens(logits: torch.Tensor, after: list[int]) -> Floats:
    """Scores of `after` from logits (tokens x vocabulary); its truncated first tokens are not counted."""
    targets = torch.tensor(after[len(after) - len(logits) :], device=logits.device)
    parts = []
    for start in range(0, len(logits), CHUNK_TOKENS):
        chunk = slice(start, start + CHUNK_TOKENS)
        logs, expected = logits[chunk].float().log_softmax(-1), targets[chunk]
        nats = logs.gather(1, expected[:, None])[:, 0]
        entropy = torch.special.entr(logs.exp()).sum(-1)
        parts.append(torch.stack([nats, (logs.argmax(-1) == expected).float(), entropy]))
    return torch.cat(parts, dim=1).double().cpu().numpy()


def _start(local: Local) -> int:
    tokenizer = local.tokenizer
    return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)
