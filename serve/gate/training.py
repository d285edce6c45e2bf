"""Make a gate from chats: `python -m serve gate --domain … --general … --output …`.

    chats ──first question of each, by source──▶ a model without each source ──▶ its scores on that source
                                                 a model of all questions    ──▶ calibration, threshold, card

The model is logistic regression with classes of equal weight. A gate meets questions of sources that it has
not seen, and scores them lower than those of the sources that it was trained on. So every number comes from
held-out sources: each source with enough questions is left out once, on both sides if it is on both, and
scored by a model of all others. The loss is a mean and its penalty fixed, so log-odds mean the same in models
of different numbers of questions. One calibration and one threshold, found on the scores of all of these
models together, are then used for the model of all questions. docs/serve.md says what that promises.
"""

import json
import math
import random
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
    from scipy.sparse import csr_array

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
    x = matrix(features(text) for text in folded)
    label = np.array([domain for _, domain in questions.places])
    source = np.array([name for name, _ in questions.places], object)
    known = np.array([name in held["domain" if domain else "general"] for name, domain in questions.places])
    scores = np.full(len(label), np.nan)
    names = sorted({*held["domain"], *held["general"]})
    for name in tqdm(names, "train", unit="model", delay=2, disable=None):
        mine = source == name
        model = fit(x, label, ~mine)
        scores[mine & known] = score(x, model)[mine & known]
    return fit(x, label, np.ones(len(label), bool)), scores


def matrix(rows: Iterable[tuple[npt.NDArray[np.int64], Scores]]) -> "csr_array":
    """The features of all questions as a sparse matrix (questions, BUCKETS)."""
    from scipy.sparse import csr_array

    columns, values, ends = [], [], [0]
    for buckets, value in rows:
        columns.append(buckets.astype(np.int32))
        values.append(value)
        ends.append(ends[-1] + len(buckets))
    parts = np.concatenate(values), np.concatenate(columns), np.array(ends)
    return csr_array(parts, shape=(len(columns), BUCKETS))


def fit(x: "csr_array", label: npt.NDArray[np.bool_], used: npt.NDArray[np.bool_]) -> Model:
    """Minimise the mean log-loss of the questions that are used, each class weighing half, plus the penalty,
    by L-BFGS with a line search (Nocedal and Wright 2006, chapter 7)."""
    from scipy.optimize import minimize
    from scipy.special import expit

    weight = np.where(label, 0.5 / max(1, (label & used).sum()), 0.5 / max(1, (~label & used).sum())) * used
    sign, transposed = np.where(label, 1.0, -1.0), x.T

    def loss(at: Scores) -> tuple[float, Scores]:
        margin = sign * (x @ at[:-1] + at[-1])
        slope = -weight * sign * expit(-margin)
        gradient = np.append(transposed @ slope + PENALTY * at[:-1], slope.sum())
        return float(weight @ np.logaddexp(0, -margin) + PENALTY / 2 * at[:-1] @ at[:-1]), gradient

    options = {"maxiter": 300, "ftol": 1e-15, "gtol": 1e-8}
    found = minimize(loss, np.zeros(BUCKETS + 1), jac=True, method="L-BFGS-B", options=options).x
    return Model(found[:-1].astype(np.float32), float(found[-1]))


def score(x: "csr_array", model: Model) -> Scores:
    """The log-odds of every question."""
    return np.asarray(x @ model.weights.astype(np.float64) + model.bias)
