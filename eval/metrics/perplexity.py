"""Likelihood metrics: how well a model predicts an answer (question answering) or a document (forgetting).

All are ratios of sums over samples, i.e. weighted by tokens or bytes. `trl-…` are what TRL's SFTTrainer (1.3
and newer) logs as mean_token_accuracy, entropy and eval_loss for batches of 8 in file order: averages of the
batches' means.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from core.errors import UserError
from eval.metrics.measure import Combine, Floats, Measure, ratio, scaled
from eval.sample import EvalSample

POSITIONS = (4096, 8192, 16384, 32768)
"""Ends of the parts of a document, in tokens; later ones are in none."""
TRL_BATCH = 8
"""TRL's default per_device_eval_batch_size."""


def answer_tokens(samples: Sequence[EvalSample]) -> list[Measure]:
    """Token accuracy, loss and entropy (nats) over answer tokens (with the end token) and over all tokens."""
    measures = []
    for of in ("answer", "all"):
        correct, nats, entropy, tokens = _sums(samples, of, ("correct", "nats", "entropy", "tokens"))
        signature = f"{of} tokens|weighted by tokens|teacher forcing"
        measures += [
            _ratio(f"{of}-token-accuracy", correct, tokens, signature),
            _ratio(f"{of}-loss", -nats, tokens, f"{signature}|nats", higher_is_better=False),
            _ratio(f"{of}-entropy", entropy, tokens, f"{signature}|nats", higher_is_better=False),
        ]
    return measures


def trl(samples: Sequence[EvalSample]) -> list[Measure]:
    """Token accuracy, entropy and loss over answer tokens, averaged as by TRL."""
    correct, nats, entropy, tokens = _sums(samples, "answer", ("correct", "nats", "entropy", "tokens"))
    batch = np.arange(len(samples)) // TRL_BATCH
    of_batch = np.bincount(batch, tokens)[batch]
    size = np.bincount(batch)[batch]
    one = np.ones(len(samples))
    signature = f"answer tokens|means of batches of {TRL_BATCH} in order|TRL>=1.3"
    return [
        _ratio("trl-token-accuracy", correct / of_batch, 1 / size, signature),
        _ratio("trl-entropy", entropy / of_batch, 1 / size, signature, higher_is_better=False),
        _ratio("trl-eval-loss", -nats * size / of_batch, one, signature, higher_is_better=False),
    ]


def bits_per_byte(samples: Sequence[EvalSample]) -> list[Measure]:
    """Bits per UTF-8 byte, which does not depend on the tokenizer, and perplexity per token, which does."""
    nats, tokens = _sums(samples, "text", ("nats", "tokens"))
    size = np.array([len(s.reference.encode()) for s in samples], np.float64)
    perplexity = np.column_stack([-nats, tokens])
    return [
        _ratio("bits-per-byte", -nats, size, "sum of bits over bytes", scaled(1 / math.log(2)), False),
        Measure("token-perplexity", perplexity, _exponential, "weighted by tokens", higher_is_better=False),
    ]


def bits_per_byte_by_position(samples: Sequence[EvalSample]) -> list[Measure]:
    """Bits per UTF-8 byte of the tokens at positions 0 to 4k, 4k to 8k, … of their documents, for every part
    that some document reaches: where a model that uses a longer context gains."""
    measures = []
    for start, end in pairwise((0, *POSITIONS)):
        nats, size = _sums(samples, "text", (f"nats_to_{end}", f"bytes_to_{end}"))
        if size.any():
            name = f"bits-per-byte-{start // 1024}k-{end // 1024}k"
            signature = f"sum of bits over bytes|tokens {start} to {end} of each document"
            measures.append(_ratio(name, -nats, size, signature, scaled(1 / math.log(2)), False))
    return measures


def _ratio(
    name: str,
    above: Floats,
    below: Floats,
    signature: str,
    combine: Combine = ratio,
    higher_is_better: bool = True,
) -> Measure:
    return Measure(name, np.column_stack([above, below]), combine, signature, higher_is_better)


def _exponential(sums: Floats) -> Floats:
    return np.asarray(np.exp(ratio(sums)))


def _sums(samples: Sequence[EvalSample], of: str, names: Sequence[str]) -> Floats:
    """One row for each name, one column for each sample."""
    keys = [f"{of}_{name}" for name in names]
    if lacking := [s for s in samples if not s.measured.keys() >= set(keys)]:
        raise UserError(
            f"task {lacking[0].task}, sample {lacking[0].id}: no likelihoods in the predictions. "
            "Set `by: log-likelihood` in the task file and run it again."
        )
    return np.array([[s.measured[key] for s in samples] for key in keys])
