"""Make a gate from chats: `python -m serve gate --domain … --general … --output …`.

    chats ──first question of each, by source──▶ a model without each source ──▶ its scores on that source
                                                 a model of all questions    ──▶ calibration, threshold, card

The model is logistic regression with classes of equal weight. A gate meets questions of sources that it has
not seen, and on those its scores are lower than on a held-out part of the sources that it was trained on: a
threshold from such a part refuses most of them. So every number comes from held-out sources. Each source with
enough questions is left out once, on both sides if it is on both, and scored by a model of all others (of
more than MAX_HELD on a side, so many are drawn). The loss is a mean and its penalty fixed, so log-odds mean
the same in models of different numbers of questions. One calibration and one threshold, found on the scores
of all of these models together, are then used for the model of all questions.

What is claimed: at the threshold at most `refusals` of the questions of each held-out source of the domain
are refused, by a model that has not seen the source; the one with the lowest scores sets the threshold. What
is not claimed: that this holds for the next source. If that is drawn as these K were, more than `refusals` of
it are refused with a probability of about 1 / (K + 1). The card also says how often each source is refused at
the threshold that the others give: what a new one has to expect.
"""

import json
import math
import random
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import UserError, printable_name
from core.provenance import manifest
from serve.gate.card import Scores, card, evaluate, report
from serve.gate.classifier import BUCKETS, NUMBERS, RULE, WEIGHTS, features
from serve.gate.questions import SIDES, Questions, read

if TYPE_CHECKING:
    import torch

PENALTY = 1e-5
"""Half of this times the squared norm of the weights is added to the mean loss."""
LEAST = 50
"""Questions that a source needs to be held out."""
MAX_HELD = 20
"""Sources of each side that are held out: each costs a model."""


class Model(NamedTuple):
    """Logistic regression: one weight per bucket, and a bias."""

    weights: npt.NDArray[np.float32]
    bias: float


def build(
    domain: Sequence[Path],
    general: Sequence[Path],
    output: Path,
    *,
    refusals: float = 0.01,
    seed: int = 0,
    force: bool = False,
) -> dict[str, Any]:
    """Make the folder of a gate; returns the numbers of its gate.json.

    UserError if a file cannot be read, or a side has fewer than two sources with enough questions.
    """
    if not 0 < refusals <= 0.5:
        raise UserError(f"--refusals {refusals:g} must be above 0 and at most 0.5.")
    questions = read(domain, general)
    least = {"domain": max(LEAST, math.ceil(1 / refusals - 1e-9)), "general": LEAST}
    held = {side: held_out(questions, side, least[side], seed) for side in SIDES}
    config = {"rule": RULE, "refusals": refusals, "seed": seed, "penalty": PENALTY, "least": least}
    inputs = manifest.hash_files(questions.files)
    with manifest.build(output, step="gate", config=config, inputs=inputs, force=force) as built:
        model, scores = _train(questions, held)
        numbers = {"format": 1, "rule": RULE, "buckets": BUCKETS, "bias": model.bias}
        numbers |= evaluate(questions, scores, refusals)
        numbers |= {"refusals": refusals, "seed": seed, "counts": questions.counts}
        from safetensors.numpy import save

        (built.path / WEIGHTS).write_bytes(save({"weights": model.weights}))
        text = json.dumps(numbers, ensure_ascii=False, indent=1) + "\n"
        (built.path / NUMBERS).write_text(text, "utf-8")
        (built.path / "README.md").write_text(card(numbers, least), "utf-8")
        built.counts = questions.counts
    print(f"done: {output}\n{report(numbers)}")
    return numbers


def held_out(questions: Questions, side: str, least: int, seed: int) -> list[str]:
    """The sources of a side that are held out.

    UserError if fewer than two sources have `least` questions.
    """
    found = Counter(name for name, domain in questions.places if (domain == (side == "domain")))
    names = sorted(name for name, number in found.items() if number >= least)
    if len(names) < 2:
        have = ", ".join(f"{printable_name(name)} ({number:,})" for name, number in found.most_common(5))
        raise UserError(
            f"--{side}: {len(names)} of {len(found)} sources with at least {least} different questions, and"
            " two are needed: the threshold is measured on sources that the model has not seen. Found:"
            f" {have or 'none'}. Add chats of another origin: the `source` of a chat, or else its file, says"
            " where it is from."
        )
    return names if len(names) <= MAX_HELD else sorted(random.Random(seed).sample(names, MAX_HELD))


def _train(questions: Questions, held: dict[str, list[str]]) -> tuple[Model, Scores]:
    """The model of all questions, and each question's log-odds by a model without its source, NaN if that
    is not held out."""
    from tqdm import tqdm

    folded = tqdm(questions.texts, "read", unit="question", delay=2, disable=None)
    x, transposed = matrix(features(text) for text in folded)
    label = np.array([domain for _, domain in questions.places])
    source = np.array([name for name, _ in questions.places], object)
    known = np.array([name in held["domain" if domain else "general"] for name, domain in questions.places])
    scores = np.full(len(label), np.nan)
    names = sorted({*held["domain"], *held["general"]})
    for name in tqdm(names, "train", unit="model", delay=2, disable=None):
        mine = source == name
        model = fit(x, transposed, label, ~mine)
        scores[mine & known] = score(x, model)[mine & known]
    return fit(x, transposed, label, np.ones(len(label), bool)), scores


def matrix(rows: Iterable[tuple[npt.NDArray[np.int64], Scores]]) -> "tuple[torch.Tensor, torch.Tensor]":
    """The features of all questions as a sparse matrix (questions, BUCKETS), and its transpose."""
    import scipy.sparse
    import torch

    columns, values, ends = [], [], [0]
    for buckets, value in rows:
        columns.append(buckets.astype(np.int32))
        values.append(value)
        ends.append(ends[-1] + len(buckets))
    shape = (len(columns), BUCKETS)
    made = scipy.sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.array(ends)), shape=shape
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse matrices are called a beta, and unchecked
        x, transposed = (
            torch.sparse_csr_tensor(
                torch.from_numpy(each.indptr.astype(np.int32)),
                torch.from_numpy(each.indices.astype(np.int32)),
                torch.from_numpy(each.data),
                each.shape,
            )
            for each in (made, made.T.tocsr())
        )
    return x, transposed


def fit(
    x: "torch.Tensor", transposed: "torch.Tensor", label: npt.NDArray[np.bool_], used: npt.NDArray[np.bool_]
) -> Model:
    """Minimise the mean log-loss of the questions that are used, each class weighing half, plus the penalty,
    by L-BFGS with a line search (Nocedal and Wright 2006, chapter 7)."""
    import torch

    share = np.where(label, 0.5 / max(1, (label & used).sum()), 0.5 / max(1, (~label & used).sum())) * used
    weight, sign = torch.from_numpy(share), torch.from_numpy(np.where(label, 1.0, -1.0))
    theta = torch.zeros(BUCKETS + 1, dtype=torch.float64)

    def loss() -> torch.Tensor:
        margin = sign * (x @ theta[:-1] + theta[-1])
        slope = -weight * sign * torch.sigmoid(-margin)
        theta.grad = torch.cat([transposed @ slope + PENALTY * theta[:-1], slope.sum()[None]])
        return weight @ torch.nn.functional.softplus(-margin) + PENALTY / 2 * theta[:-1] @ theta[:-1]

    optimizer: Any = torch.optim.LBFGS(
        [theta],
        max_iter=300,
        history_size=10,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(loss)
    return Model(theta[:-1].numpy().astype(np.float32), float(theta[-1]))


def score(x: "torch.Tensor", model: Model) -> Scores:
    """The log-odds of every question."""
    import torch

    found: Scores = (x @ torch.from_numpy(model.weights.astype(np.float64)) + model.bias).numpy()
    return found
