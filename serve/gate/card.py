"""What a gate does on sources that it has not seen: numbers, a table for the terminal, and the card."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import UserError, printable_name
from core.html_report import text_table
from serve.gate.classifier import MAX_CHARACTERS, calibrated
from serve.gate.questions import Questions

Scores = npt.NDArray[np.float64]
Estimate = list[float]
"""A value and the ends of its interval of 95 %."""
MANY_ACCEPTED = 0.1
"""A warning is printed if more of the general questions are let through."""


def evaluate(questions: Questions, scores: Scores, refusals: float) -> dict[str, Any]:
    """Calibration, threshold, and what each held-out source meets there.

    `scores` (questions,) are log-odds by models without the question's source, NaN if there is none.
    """
    label = np.array([domain for _, domain in questions.places])
    held = ~np.isnan(scores)
    slope, intercept = calibrate(scores[held], label[held])
    if slope <= 0:
        raise UserError(
            "on sources that the model has not seen, the domain's questions do not score above the general"
            " ones: what it learns is the source, not the domain. Add sources of other origins to both sides."
        )
    chance = np.array([calibrated(each, slope, intercept) for each in scores])
    of_side: dict[bool, dict[str, Scores]] = {True: {}, False: {}}
    for name, domain in sorted(set(questions.places)):
        own = np.array([place == (name, domain) for place in questions.places]) & held
        if own.any():
            of_side[domain][name] = chance[own]
    least = {name: lowest_accepted(mine, refusals) for name, mine in of_side[True].items()}
    threshold = min(least.values())
    positive, negative = chance[held & label], chance[held & ~label]
    domains, new = {}, 0
    for name, mine in of_side[True].items():
        refused = int((mine < min(least[other] for other in least if other != name)).sum())
        new += refused
        domains[name] = {
            "questions": len(mine),
            "auc": auc(mine, negative),
            "refused": share(int((mine < threshold).sum()), len(mine)),
            "refused_when_new": share(refused, len(mine)),
        }
    return {
        "slope": slope,
        "intercept": intercept,
        "threshold": threshold,
        "threshold_set_by": min(least, key=lambda name: least[name]),
        "auc": auc(positive, negative),
        "refused": share(int((positive < threshold).sum()), len(positive)),
        "refused_when_new": share(new, len(positive)),
        "accepted": share(int((negative >= threshold).sum()), len(negative)),
        "domain": domains,
        "general": {
            name: {
                "questions": len(mine),
                "auc": auc(positive, mine),
                "accepted": share(int((mine >= threshold).sum()), len(mine)),
            }
            for name, mine in of_side[False].items()
        },
    }


def calibrate(scores: Scores, label: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept that make log-odds a probability, for classes of equal weight: Platt's fit with
    his targets a little inside 0 and 1 (Platt 1999)."""
    from scipy.optimize import minimize

    number = np.where(label, label.sum(), (~label).sum())
    target = np.where(label, (number + 1) / (number + 2), 1 / (number + 2))

    def loss(at: Scores) -> tuple[float, Scores]:
        odds = at[0] * scores + at[1]
        error = (1 / (1 + np.exp(-np.clip(odds, -700, 700))) - target) / number
        value = (np.logaddexp(0, odds) - target * odds) / number
        return float(value.sum()), np.array([error @ scores, error.sum()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return float(found[0]), float(found[1])


def lowest_accepted(values: Scores, refusals: float) -> float:
    """The highest threshold that refuses at most this share of the values: those below it."""
    return float(np.sort(values)[int(refusals * len(values) + 1e-9)])


def share(number: int, of: int) -> Estimate:
    """A share with Wilson's interval."""
    return [number / of, *wilson(number / of, of)]


def wilson(value: float, size: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion, 95 % (Wilson 1927)."""
    z2 = 1.959963984540054**2
    middle = (value + z2 / (2 * size)) / (1 + z2 / size)
    half = math.sqrt(z2 * (value * (1 - value) / size + z2 / (4 * size * size))) / (1 + z2 / size)
    return (max(0.0, middle - half) if value > 0 else 0.0, min(1.0, middle + half) if value < 1 else 1.0)


def auc(positive: Scores, negative: Scores) -> Estimate:
    """The area under the ROC curve, ties counting half, with an interval.

    Wilson's interval for the number of questions that gives a proportion the variance of DeLong et al.
    (1988), but at most twice those of the smaller side: it stays in 0 to 1, and is not empty if every pair
    is in order.
    """
    from scipy.stats import rankdata

    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[:m] - rankdata(positive)) / n
    below = (ranks[m:] - rankdata(negative)) / m
    value, size = min(1.0, float(above.mean())), 2.0 * min(m, n)
    variance = (above.var(ddof=1) / m if m > 1 else 0.0) + (below.var(ddof=1) / n if n > 1 else 0.0)
    if variance > 0:
        size = min(size, value * (1 - value) / float(variance))
    return [value, *wilson(value, size)]


def report(numbers: Mapping[str, Any]) -> str:
    """The numbers for the terminal."""
    lines = [
        text_table(*_table(numbers, intervals=False)),
        f"every source was held out; threshold {numbers['threshold']:.4f} refuses at most"
        f" {numbers['refusals']:.2%} of each of the domain, and"
        f" {printable_name(numbers['threshold_set_by'])} sets it",
    ]
    if numbers["accepted"][0] > MANY_ACCEPTED:
        lines.append(
            f"warning: {numbers['accepted'][0]:.1%} of the general questions pass at this threshold. Add"
            f" sources like {printable_name(numbers['threshold_set_by'])}, or raise --refusals."
        )
    return "\n".join(lines)


def _table(
    numbers: Mapping[str, Any], *, intervals: bool
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """The header and the rows: each held-out source, then all of a side."""
    header = ("side", "source", "questions", "AUC", "refused", "refused if new", "let through")
    rows: list[tuple[object, ...]] = []
    total = 0
    for side in ("domain", "general"):
        for name, each in numbers[side].items():
            rows.append((side, printable_name(name), each["questions"], *_cells(each, intervals)))
            total += each["questions"]
    rows.append(("all", "", total, *_cells(numbers, intervals)))
    return header, rows


def _cells(each: Mapping[str, Any], intervals: bool) -> list[str]:
    """AUC and shares, empty where the side has none."""
    area, percent = (
        ("{:.4f} ({:.4f} – {:.4f})", "{:.2%} ({:.2%} – {:.2%})") if intervals else ("{:.4f}", "{:.2%}")
    )
    shares = [each.get(key) for key in ("refused", "refused_when_new", "accepted")]
    return [area.format(*each["auc"]), *(percent.format(*share) if share else "" for share in shares)]


def card(numbers: Mapping[str, Any], least: Mapping[str, int]) -> str:
    """The README.md of a gate."""
    header, rows = _table(numbers, intervals=True)
    cells = [
        [str(cell).replace("|", "\\|") for cell in row] for row in (header, ["---"] * len(header), *rows)
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    sources = {side: len(numbers[side]) for side in ("domain", "general")}
    counts = "\n".join(
        f"- {side}: " + ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in of.items())
        for side, of in numbers["counts"].items()
    )
    warning = "" if numbers["accepted"][0] <= MANY_ACCEPTED else f"\n{report(numbers).splitlines()[-1]}\n"
    return f"""# A gate for questions of the domain

Lets a question through if its probability of being of the domain is at least **{numbers["threshold"]:.4f}**.
{warning}
## Measured

Each source was left out of the training of a model (on both sides, if it is on both) and scored by it; with
intervals of 95 % (Wilson; AUC: DeLong's variance). The intervals take questions as independent: they do not
say how sources differ.

{table}

- refused: questions of the domain below the threshold. It was chosen so that this is at most
  {numbers["refusals"]:.2%} on each source; {printable_name(numbers["threshold_set_by"])} sets it.
- refused if new: the same at the threshold that the other sources of the domain give. This is what a source
  that had no part in this gate has to expect.
- let through: general questions at or above the threshold.
- AUC: of a source's questions and all held-out questions of the other side.

If the next source of the domain is drawn as these {sources["domain"]} were, the chance that more than
{numbers["refusals"]:.2%} of it is refused is about 1 in {sources["domain"] + 1}. No threshold from these
questions can promise more; more sources can.

## Made from

{counts}

Only the first question of a chat counts. Repeated ones count once; those on both sides are left out. Sources
with fewer than {least["domain"]} (domain) or {least["general"]} (general) questions are trained on, but not
held out, and are not in the table. `manifest.json` has the files with their hashes, and the command. The
model is logistic regression on hashed n-grams of 2 to 4 characters (`{numbers["rule"]}`); its probabilities
are calibrated on the held-out scores, for a question that is as likely of the domain as not.

## Limits

- It sees words, not intent: a question that uses the domain's words passes, whatever it asks for.
- The first {MAX_CHARACTERS:,} characters of a question are read, and no earlier message.
- It is not a safety filter, and knows no language that is not in its questions.
- Sources made from the same templates are not independent: the numbers above are then too good.
"""
