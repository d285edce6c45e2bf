"""Classification: accuracy and macro F1 over labels, of IPC symbols or of any labels.

    prediction, reference ──label of each──▶ counts by label ──▶ accuracy, macro F1

Macro F1 is the mean F1 over the labels of the references. A prediction without such a label is wrong, but
adds no label of its own (as scikit-learn's f1_score with `labels` set to those of the references).
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from core.errors import UserError
from eval.metrics.answers import value
from eval.metrics.measure import Floats, Measure, mean
from eval.metrics.overlap import words
from eval.sample import EvalSample

# `A61K 31/00`, `H04L`, `G 06 F`; a section alone is `G` or `section G`.
_SUBCLASS = re.compile(r"(?<![A-Za-z0-9])([A-HY])\s?(\d{2})\s?([A-Z])(?![A-Za-z])", re.IGNORECASE)
_CLASS = re.compile(r"(?<![A-Za-z0-9])([A-HY])\s?\d{2}(?!\d)", re.IGNORECASE)
_ARTICLE = re.compile(r"\b(?:a|an|the|The|An)\b(?! *$)")
_SECTION = re.compile(r"(?<![A-Za-z0-9])([A-HY])(?![A-Za-z0-9])(?! [a-z])")


def ipc(level: str) -> Callable[[Sequence[EvalSample]], list[Measure]]:
    """Accuracy and macro F1 of the first IPC symbol: its `section` (`G`) or `subclass` (`G06F`)."""

    def measure(samples: Sequence[EvalSample]) -> list[Measure]:
        find = ipc_section if level == "section" else ipc_subclass
        return _classified(f"ipc-{level}", samples, find, find, f"first IPC {level}")

    return measure


def ipc_section(text: str) -> str:
    """The section of the first IPC symbol of a text, or the first section alone; empty if there is none."""
    text = unicodedata.normalize("NFKC", text)
    found = _CLASS.search(text) or _SECTION.search(text)
    return found[1].upper() if found else ""


def ipc_subclass(text: str) -> str:
    """The subclass of the first IPC symbol of a text; empty if there is none."""
    found = _SUBCLASS.search(unicodedata.normalize("NFKC", text))
    return "".join(found.groups()).upper() if found else ""


def classification(samples: Sequence[EvalSample]) -> list[Measure]:
    """Accuracy and macro F1 of any labels: the whole answer, or else the one label that it contains."""
    labels = {_label(s.reference) for s in samples}

    def label(text: str) -> str:
        whole = _label(text)
        if whole in labels:
            return whole
        inside = [each for each in labels if each and f" {each} " in f" {whole} "]
        longest = [each for each in inside if not any(each != other and each in other for other in inside)]
        return longest[0] if len(longest) == 1 else ""

    return _classified("classification", samples, label, label, "label equal, or the only one in the answer")


def _label(text: str) -> str:
    """The words of a text without articles in lower case: a capital A is a label."""
    text = value(text)
    return " ".join(words(_ARTICLE.sub(" ", text)) or words(text))


def label_sets(samples: Sequence[EvalSample]) -> list[Measure]:
    """Several labels per sample: mean F1 of the sets and share of equal sets, as in LawBench.

    References separate labels by `;` or, if none of the task does, by `,`, `、`, `和` or lines. A prediction
    has the labels of the references that occur in it, but not one within a longer one.
    """
    semicolons = any(re.search("[;；]", s.reference) for s in samples)
    split = re.compile(r"[;；\n]" if semicolons else r"[,，、\n]|和|及")
    expected = [{_plain(part) for part in split.split(value(s.reference)) if _plain(part)} for s in samples]
    labels = sorted(set().union(*expected), key=len, reverse=True)
    pattern = re.compile("|".join(rf"(?<![a-z]){re.escape(label)}(?![a-z])" for label in labels) or "(?!)")
    exact, f1 = [], []
    for s, right in zip(samples, expected, strict=True):
        predicted = set(pattern.findall(_plain(s.prediction)))
        size = len(predicted) + len(right)
        exact.append(float(predicted == right))
        f1.append(2 * len(predicted & right) / size if size else 1.0)
    signature = f"{len(labels)} labels of the references|NFKC|lower case"
    return [
        mean("label-set-f1", f1, f"{signature}|F1 of sets|mean of samples"),
        mean("label-set-exact", exact, f"{signature}|equal sets")._replace(binary=True),
    ]


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip(" \n\r。.")


def _classified(
    name: str,
    samples: Sequence[EvalSample],
    of_prediction: Callable[[str], str],
    of_reference: Callable[[str], str],
    how: str,
) -> list[Measure]:
    predicted = [of_prediction(s.prediction) for s in samples]
    expected = [of_reference(s.reference) for s in samples]
    if "" in expected:
        s = samples[expected.index("")]
        raise UserError(
            f"task {s.task}, sample {s.id}: the reference {s.reference[:80]!r} has no label ({how})."
        )
    labels = sorted(set(expected))
    rows = np.zeros((len(samples), len(labels), 3))
    for i, (mine, right) in enumerate(zip(predicted, expected, strict=True)):
        for k, each in enumerate(labels):
            rows[i, k] = mine == right == each, mine == each, right == each
    accuracy = mean(
        f"{name}-accuracy", [float(a == b) for a, b in zip(predicted, expected, strict=True)], how
    )
    macro = Measure(
        f"{name}-macro-f1",
        rows.reshape(len(samples), -1),
        _macro_f1,
        f"{how}|mean F1 of {len(labels)} labels",
    )
    return [accuracy._replace(binary=True), macro]


def _macro_f1(sums: Floats) -> Floats:
    """Mean F1 of the labels that are expected, from sums (..., 3 x labels): right, predicted, expected."""
    per_label = sums.reshape(*sums.shape[:-1], -1, 3)
    right, predicted, expected = (per_label[..., k] for k in range(3))
    there = expected > 0
    f1 = np.where(there, 2 * right / np.maximum(predicted + expected, 1), 0)
    return np.asarray(f1.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1))
