"""The gate: lets a question through if it is of the domain (patents, law) that the model is for.

    question ──fold──▶ characters ──2- to 4-grams, hashed──▶ 2^18 buckets ──weights──▶ log-odds
             ──calibration──▶ probability ──threshold──▶ accepted or refused

A gate is a folder, made by `serve.gate.training`, with `gate.safetensors` (`weights`, float32, one per
bucket), `gate.json` (the rule of the hashing, bias, calibration, threshold, and what was measured), the card
`README.md` and `manifest.json`. Here it is only used: numpy and OpenCC are enough, and torch is not loaded.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.errors import UserError
from core.provenance import manifest
from serve.retrieval import terms

RULE = "hashed-character-2-4-grams-1"
"""The name of what `features` computes: weights of another rule do not fit."""
BUCKETS = 1 << 18
SIZES = (2, 3, 4)
"""Lengths of the n-grams, in characters."""
MAX_CHARACTERS = 2000
"""What comes after these in a question is not read."""
WEIGHTS, NUMBERS = "gate.safetensors", "gate.json"
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: Fibonacci hashing (Knuth)
_SHIFT = np.uint64(64 - 18)

Features = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""The buckets of a text, sorted, and their values."""


def fold(text: str) -> str:
    """The text that is compared: NFKC, without case, Simplified Chinese, single spaces, its beginning."""
    folded = terms.fold(text.lstrip()[:MAX_CHARACTERS])
    return " ".join(folded.split())[:MAX_CHARACTERS]


def features(folded: str) -> Features:
    """The hashed n-grams of a folded text: 1 + ln(count), divided by their Euclidean norm; none if it is
    empty."""
    if not folded:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    codes = np.frombuffer(f" {folded} ".encode("utf-32-le"), np.uint32).astype(np.uint64)
    hashed, found = codes * _MULTIPLIER, []
    for size in range(2, SIZES[-1] + 1):
        hashed = ((hashed[:-1] ^ (hashed[:-1] >> np.uint64(29))) + codes[size - 1 :]) * _MULTIPLIER
        found.append(hashed >> _SHIFT)
    buckets, counts = np.unique(np.concatenate(found), return_counts=True)
    values = 1.0 + np.log(counts)
    return buckets.astype(np.int64), values / math.sqrt(float(values @ values))


@dataclass(frozen=True)
class Gate:
    """A gate in memory, about 1 MB; scoring a question changes nothing, so threads may share it."""

    weights: npt.NDArray[np.float32]
    bias: float
    slope: float
    intercept: float
    threshold: float
    """The least probability that is let through."""

    @classmethod
    def open(cls, folder: Path | str) -> "Gate":
        """Load a gate; UserError if it is incomplete, damaged, or made by another rule."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such gate. `python -m serve --help` shows how to make one.")
        recorded = manifest.read(folder)["outputs"]
        if WEIGHTS not in recorded or NUMBERS not in recorded:
            raise UserError(f"{folder} is not a gate: its {manifest.NAME} has no {WEIGHTS} and {NUMBERS}.")
        files = {name: recorded[name] for name in (WEIGHTS, NUMBERS)}
        manifest.refuse_damage(folder, *manifest.damage(folder, files))
        numbers = json.loads((folder / NUMBERS).read_text("utf-8"))
        if (rule := numbers.get("rule")) != RULE:
            raise UserError(
                f"{folder / NUMBERS}: rule {rule!r}; this version of the code reads {RULE!r}."
                " Build the gate again from its questions."
            )
        from safetensors.numpy import load_file

        weights = load_file(folder / WEIGHTS)["weights"]
        keys = ("bias", "slope", "intercept", "threshold")
        values = [numbers.get(key) for key in keys]
        if weights.shape != (BUCKETS,) or not all(isinstance(value, float) for value in values):
            raise UserError(
                f"{folder} is damaged: needs {BUCKETS} weights and the numbers {', '.join(keys)}."
            )
        bias, slope, intercept, threshold = values
        return cls(weights, bias, slope, intercept, threshold)

    def probability(self, text: str) -> float:
        """The probability that a question is of the domain if one of two is; 0 without any character.

        Only the first MAX_CHARACTERS characters are read.
        """
        buckets, values = features(fold(text))
        if not len(buckets):
            return 0.0
        return calibrated(float(values @ self.weights[buckets]) + self.bias, self.slope, self.intercept)

    def accepts(self, text: str) -> bool:
        """Whether the gate lets a question through."""
        return bool(self.probability(text) >= self.threshold)


def calibrated(score: float, slope: float, intercept: float) -> float:
    """The probability that belongs to the model's log-odds (Platt 1999)."""
    odds = slope * score + intercept
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


def check(folder: Path, questions: list[str]) -> None:
    """Print the probability of each question and what the gate does with it."""
    gate = Gate.open(folder)
    if not questions:
        raise UserError(
            f'--check {folder}: no question. Add one or more behind the folder, each in quotes: "…".'
        )
    print(f"threshold {gate.threshold:.4f}")
    for question in questions:
        decision = "accepted" if gate.accepts(question) else "refused "
        print(f"{gate.probability(question):.4f}  {decision}  {question}")
