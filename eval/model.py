"""A Hugging Face model on this machine: greedy generation, log-likelihoods, whole-text likelihoods.

    texts ──tokens──▶ sorted, longest first ──batches of a token budget──▶ model ──▶ answers as they come

A batch that does not fit in memory halves the budget and is tried again. What is longer than the model's
context loses its left end, which is counted and said.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from core.errors import UserError
from core.manifest import hash_files
from core.model import load_model, load_tokenizer, weight_files
from core.schema import ModelConfig
from eval.tasks import Request

T = TypeVar("T")


class Likelihood(NamedTuple):
    """Of a continuation: the sum of its tokens' log-probabilities (nats), and their number."""

    nats: float
    tokens: int


@dataclass
class Local:
    """A loaded model; `batch_tokens` shrinks when memory runs out, `truncated` counts cut texts."""

    path: str
    model: Any
    tokenizer: Any
    context: int
    batch_tokens: int
    truncated: int = 0


def open_model(path: str, batch_tokens: int = 16_384) -> Local:
    """The model and tokenizer in a folder, in bf16 on a GPU, else in fp32 on the CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(path)
    model = load_model(path, ModelConfig(path=path), torch.bfloat16 if device == "cuda" else torch.float32)
    model.set_attn_implementation("sdpa")  # texts of unequal length are padded, which needs a mask
    model = model.to(device).eval()
    return Local(path, model, tokenizer, model.config.max_position_embeddings, batch_tokens)


def identity(path: str) -> dict[str, Any]:
    """What an answer depends on: hashes of weights, configuration and tokenizer."""
    weights = weight_files(path)
    if not weights:
        raise UserError(f"{path}: no weights there. Give a model folder, or an endpoint with --endpoint.")
    others = [p for p in sorted(Path(path).glob("*")) if p.suffix in (".json", ".model", ".jinja", ".txt")]
    hashes = {Path(file).name: digest for file, digest in (weights | hash_files(others)).items()}
    dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    return {"backend": "transformers", "dtype": dtype, "files": {k: hashes[k] for k in sorted(hashes)}}


def generate(local: Local, requests: Sequence[Request]) -> Iterator[tuple[int, str | Exception]]:
    """Index and greedy continuation of each request; texts of `stop` end it."""
    tokens = []
    for request in requests:
        room = local.context - request.max_new_tokens
        if room < 1:
            raise UserError(
                f"task {request.sample.task}: max_new_tokens {request.max_new_tokens} leaves no room for a "
                f"prompt in a context of {local.context} tokens. Lower it."
            )
        ids = local.tokenizer(request.prompt)["input_ids"]
        local.truncated += len(ids) > room
        tokens.append(ids[-room:])
    sizes = [len(ids) + request.max_new_tokens for ids, request in zip(tokens, requests, strict=True)]

    def answer(batch: list[int]) -> list[str]:
        longest = max(requests[i].max_new_tokens for i in batch)
        ids, mask = _pad([tokens[i] for i in batch], local, left=True)
        out = local.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=longest, do_sample=False, use_cache=True,
            pad_token_id=_padding(local), eos_token_id=local.tokenizer.eos_token_id,
        )  # fmt: skip
        texts = []
        for row, i in zip(out[:, ids.shape[1] :].tolist(), batch, strict=True):
            text = local.tokenizer.decode(row[: requests[i].max_new_tokens], skip_special_tokens=True)
            texts.append(min((text.split(stop)[0] for stop in requests[i].stop), key=len, default=text))
        return texts

    yield from _in_batches(local, sizes, answer)


def log_likelihood(local: Local, pairs: Sequence[tuple[str, str]]) -> list[Likelihood | Exception]:
    """Of each continuation after its context. Spaces that end a context belong to the continuation."""
    jobs = []
    for context, continuation in pairs:
        kept = context.rstrip(" ")
        before = local.tokenizer(kept)["input_ids"] if kept else [_start(local)]
        whole = local.tokenizer(context + continuation)["input_ids"] if kept else [
            *before, *local.tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
        ]  # fmt: skip
        jobs.append((before, whole[len(before) :]))
    return _score(local, jobs)


def rolling_log_likelihood(local: Local, texts: Sequence[str]) -> list[Likelihood | Exception]:
    """Of each whole text, in windows of the context's length; the first token follows the start token."""
    jobs, owners = [], []
    for owner, text in enumerate(texts):
        ids = [_start(local), *local.tokenizer(text, add_special_tokens=False)["input_ids"]]
        for begin in range(0, len(ids) - 1, local.context):
            jobs.append((ids[begin : begin + 1], ids[begin + 1 : begin + 1 + local.context]))
            owners.append(owner)
    found: list[Likelihood | Exception] = [Likelihood(0.0, 0) for _ in texts]
    for owner, part in zip(owners, _score(local, jobs), strict=True):
        total = found[owner]
        if isinstance(part, Exception) or isinstance(total, Exception):
            found[owner] = part if isinstance(part, Exception) else total
        else:
            found[owner] = Likelihood(total.nats + part.nats, total.tokens + part.tokens)
    return found


def unequal_options(local: Local, letters: Sequence[str], before: str = "答案：") -> dict[str, int]:
    """Token counts of the options after `before`, where they differ (a plain log-likelihood then favours
    the shortest); empty where they are equal."""
    base = len(local.tokenizer(before)["input_ids"])
    counts = {x: len(local.tokenizer(before + x)["input_ids"]) - base for x in letters}
    return counts if len(set(counts.values())) > 1 else {}


def _score(local: Local, jobs: Sequence[tuple[list[int], list[int]]]) -> list[Likelihood | Exception]:
    local.truncated += sum(len(before) + len(after) - 1 > local.context for before, after in jobs)
    inputs = [(before + after)[:-1][-local.context :] for before, after in jobs]

    def answer(batch: list[int]) -> list[Likelihood]:
        ids, mask = _pad([inputs[i] for i in batch], local, left=False)
        logits = local.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found = []
        for row, i in enumerate(batch):
            after = jobs[i][1][-len(inputs[i]) :]
            end = len(inputs[i])
            part = logits[row, end - len(after) : end].float().log_softmax(-1)
            target = torch.tensor(after, device=part.device)[:, None]
            found.append(Likelihood(float(part.gather(1, target).double().sum()), len(after)))
        return found

    results: list[Likelihood | Exception] = [Likelihood(0.0, 0) for _ in jobs]
    for i, result in _in_batches(local, [max(1, len(ids)) for ids in inputs], answer):
        results[i] = result
    return results


def _in_batches(
    local: Local, sizes: Sequence[int], answer: Callable[[list[int]], list[T]]
) -> Iterator[tuple[int, T | Exception]]:
    left = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    while left:
        n = max(1, local.batch_tokens // sizes[left[0]])
        batch = left[:n]
        try:
            with torch.inference_mode():
                answers = answer(batch)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if len(batch) == 1:
                yield batch[0], MemoryError(f"{sizes[batch[0]]} tokens do not fit in memory ({error})")
                left = left[1:]
            else:
                local.batch_tokens = len(batch) * sizes[batch[0]] // 2
            continue
        yield from zip(batch, answers, strict=True)
        left = left[n:]


def _pad(rows: Sequence[list[int]], local: Local, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and mask, both (rows x longest)."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), _padding(local))
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return ids.to(local.model.device), mask.to(local.model.device)


def _padding(local: Local) -> int:
    tokenizer = local.tokenizer
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def _start(local: Local) -> int:
    tokenizer = local.tokenizer
    return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)
