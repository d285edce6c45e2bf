"""Score predictions and compare two models; takes seconds, without torch or a model.

    predictions.jsonl ──by task──▶ metrics ──▶ value, 95% interval, n, signature ──▶ scores.json, table
    two of them ──paired by sample──▶ difference, interval, p (Holm), better, worse or not shown

A task's first metric is its primary one. A comparison tests the primary score of each task, or of each metric
that the user names, with Holm's correction over these; all other scores are shown without correction.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.errors import UserError
from core.html_report import text_table
from eval.analysis.significance import compare_scores, holm, score_interval, smallest_p
from eval.metrics.ceval import is_hard, mean_over_subjects
from eval.metrics.legal import parse_entities
from eval.metrics.measure import Measure, ratio
from eval.metrics.metrics import METRICS
from eval.metrics.patent import parse_extraction
from eval.metrics.ranking import relevance
from eval.sample import EvalSample

SMALLEST_GROUP = 30
"""Groups with fewer samples get no score, except the subjects of a benchmark."""
LENGTHS = (50, 200, 800)
"""Upper bounds of the length classes, in characters of the reference."""
IPC = re.compile(r"[A-H](?=\d\d|$)")
"""The section of an IPC symbol, alone or the first in a list."""
LEVEL = 0.05
TOO_FEW = "not shown: too few to compare"
UNADJUSTED = ", unadjusted"

Tree = dict[str, Any]


def score(samples: Sequence[EvalSample], metrics: Sequence[str] = ()) -> Tree:
    """Every task's scores: `{task: {"n", "scores": [...], "groups": {group: {value: [...]}}}}`.

    `metrics` overrides those in the predictions. Raises UserError if there are none.
    """
    result: Tree = {}
    for task, members in by_task(samples).items():
        found = _measures(members, metrics)
        names = sorted({name for s in members for name in _groups(s)})
        result[task] = {
            "n": len(members),
            "scores": _scores(found, members),
            "groups": {name: _group(name, found, members) for name in names},
        }
    return result


def compare(a: Sequence[EvalSample], b: Sequence[EvalSample], metrics: Sequence[str] = ()) -> list[Tree]:
    """Compare A and B on every metric of their common tasks, over their common samples.

    One object each: `task`, `metric`, `primary`, `n`, `a`, `b`, `difference` (B - A), `low`, `high`, `p`,
    `p_holm`, `smallest_effect`, `test`, `verdict` of B: better, worse, not shown, or that the samples are too
    few. Only primary scores are a family with a `p_holm`; other verdicts end with `, unadjusted`. What cannot
    be known is None. Raises UserError if A and B share no sample.
    """
    rows: list[Tree] = []
    mine, theirs = by_task(a), by_task(b)
    for task in [name for name in mine if name in theirs]:
        other = {s.id: s for s in theirs[task]}
        pairs = [(s, other[s.id]) for s in mine[task] if s.id in other]
        different = [x.id for x, y in pairs if x.reference != y.reference]
        if different:
            raise UserError(f"task {task}, sample {different[0]}: A and B have different references.")
        if not pairs:
            continue
        left, right = ([pair[side] for pair in pairs] for side in (0, 1))
        names = metrics or right[0].metrics
        for number, both in enumerate(zip(_measures(left, names), _measures(right, names), strict=True)):
            for x, y in zip(*both, strict=True):
                if x.name != y.name:
                    raise UserError(
                        f"task {task}: A has {x.name}, B has {y.name}. Measure both in the same way."
                    )
            alike = [(x, y) for x, y in zip(*both, strict=True) if _counts(x) and _counts(y)]
            parts = (_with_subjects(part, left) for part in zip(*alike, strict=True))
            found = list(zip(*parts, strict=True))
            first = _primary([x for x, _ in found]) if metrics or not number else None
            rows += [
                {"task": task, "metric": x.name, "primary": x is first, "n": len(pairs), **_compare(x, y)}
                for x, y in found
            ]
    if not rows:
        raise UserError("A and B have no sample in common (same task and id).")
    family = [row for row in rows if row["primary"]]
    adjusted = iter(holm([row["p"] for row in family]))
    for row in rows:
        row["p_holm"] = next(adjusted) if row["primary"] else None
        row["verdict"] = _verdict(row, row.pop("higher_is_better"))
    return rows


def _verdict(row: Tree, higher_is_better: bool) -> str:
    if smallest_p(row["n"]) > LEVEL:
        return TOO_FEW
    p = row["p_holm"] if row["primary"] else row["p"]
    if p > LEVEL or not row["difference"]:
        return "not shown"
    good = (row["difference"] > 0) == higher_is_better
    return ("better" if good else "worse") + ("" if row["primary"] else UNADJUSTED)


def by_task(samples: Sequence[EvalSample]) -> dict[str, list[EvalSample]]:
    """Samples of each task, in order."""
    tasks: dict[str, list[EvalSample]] = {}
    for s in samples:
        tasks.setdefault(s.task, []).append(s)
    return tasks


def score_table(scores: Tree) -> str:
    """Scores as a table for the terminal."""
    rows = [
        [
            task,
            s["metric"],
            f"{s['value']:.4g}",
            _ends(s, ".4g"),
            s["n"],
            "" if s["chance"] is None else f"{s['chance']:.3g}",
            s["signature"],
        ]
        for task, tree in scores.items()
        for s in tree["scores"]
    ]
    return text_table(["task", "metric", "value", "95% interval", "n", "chance", "signature"], rows)


def group_table(scores: Tree, group: str) -> str:
    """One breakdown as a table for the terminal; groups that are too small show only their size."""
    rows: list[list[object]] = []
    for task, tree in scores.items():
        for value, part in tree["groups"].get(group, {}).items():
            if part["scores"] is None:
                rows.append([task, value, f"fewer than {SMALLEST_GROUP}", "", "", part["n"]])
            rows += [
                [task, value, s["metric"], f"{s['value']:.4g}", _ends(s, ".4g"), s["n"]]
                for s in part["scores"] or ()
            ]
    return text_table(["task", group, "metric", "value", "95% interval", "n"], rows)


def comparison_table(rows: Sequence[Tree]) -> str:
    """Comparisons as a table for the terminal."""
    cells = [
        [
            r["task"],
            r["metric"],
            f"{r['a']:.4g}",
            f"{r['b']:.4g}",
            f"{r['difference']:+.4g}",
            _ends(r, "+.4g"),
            r["n"],
            p_value(r),
            "–" if r["smallest_effect"] is None else f"{r['smallest_effect']:.2g}",
            r["verdict"],
        ]
        for r in rows
    ]
    header = ["task", "metric", "A", "B", "B - A", "95% interval", "n", "p (Holm)", "smallest effect", "B is"]
    return text_table(header, cells)


def p_value(row: Tree) -> str:
    """The p-value that a comparison's verdict rests on; one that is not corrected is in brackets."""
    return f"{row['p_holm']:.2g}" if row["primary"] else f"({row['p']:.2g})"


def _ends(row: Tree, format_spec: str) -> str:
    """An interval; a dash if there is none."""
    if row["low"] is None or row["high"] is None:
        return "–"
    return f"{row['low']:{format_spec}} – {row['high']:{format_spec}}"


def _groups(s: EvalSample) -> dict[str, str]:
    groups = dict(s.groups)
    if section := IPC.search(groups.get("ipc", "")):
        groups["ipc"] = section[0]
    if s.options is None:
        bounds = [f"up to {bound}" for bound in LENGTHS] + [f"over {LENGTHS[-1]}"]
        groups["characters"] = bounds[int(np.searchsorted(LENGTHS, len(s.reference)))]
    elif is_hard(s):
        groups["hard"] = "Hard"
    return groups


def _measures(samples: Sequence[EvalSample], metrics: Sequence[str]) -> list[list[Measure]]:
    """The measures of each metric."""
    names = metrics or samples[0].metrics
    if not names:
        raise UserError(
            f"task {samples[0].task}: no metrics given. Pass --metrics, or add `metrics` to each line. "
            f"Metrics: {', '.join(METRICS)}."
        )
    if unknown := [name for name in names if name not in METRICS]:
        raise UserError(f"metric `{unknown[0]}` does not exist. Metrics: {', '.join(METRICS)}.")
    check_references(samples, names)
    return [METRICS[name](samples) for name in dict.fromkeys(names)]


def primary_measures(samples: Sequence[EvalSample], metrics: Sequence[str] = ()) -> list[Measure]:
    """What stands for each metric of one task's samples; the first alone if `metrics` names none."""
    found = [_primary(_with_subjects(measures, samples)) for measures in _measures(samples, metrics)]
    there = [measure for measure in found if measure is not None]
    return there if metrics else there[:1]


def named_measure(samples: Sequence[EvalSample], score: str) -> Measure:
    """The measure of one task's samples whose score has this name; UserError if there is none."""
    found = [m for measures in _measures(samples, ()) for m in _with_subjects(measures, samples)]
    for measure in found:
        if measure.name == score:
            return measure
    names = ", ".join(measure.name for measure in found)
    raise UserError(f"task {samples[0].task}: no score `{score}`. Its scores: {names or 'none'}.")


def check_references(samples: Sequence[EvalSample], metrics: Sequence[str] = ()) -> None:
    """Raise UserError for references that a metric cannot read: every answer to them would be wrong, or every
    unreadable one right. A run checks this before a model is asked."""
    for s in samples:
        for metric in metrics or s.metrics:
            readable = READABLE.get(metric.partition("|")[0])
            if readable and not readable(s):
                raise UserError(
                    f"task {s.task}, sample {s.id}: the reference {s.reference[:80]!r} is malformed for the "
                    f"metric `{metric}`. Correct the data."
                )


def _letters(s: EvalSample) -> bool:
    """Whether the reference names options of the question and no other letter."""
    named = {letter for letter in s.reference.upper() if "A" <= letter <= "Z"}
    return bool(named) and max(named) < chr(ord("A") + (s.options or 4))


READABLE: dict[str, Callable[[EvalSample], bool]] = {
    "accuracy": _letters,
    "extraction": lambda s: parse_extraction(s.reference) is not None,
    "entities": lambda s: parse_entities(s.reference) is not None,
    "statute": lambda s: bool(s.reference.strip()),
    "ranking": lambda s: bool(relevance(s.reference)),
    "ranking-exponential": lambda s: bool(relevance(s.reference)),
}
"""Of metrics that parse their references: whether they can."""


def _with_subjects(measures: Sequence[Measure], samples: Sequence[EvalSample]) -> list[Measure]:
    """The measures that have a value; if all samples have a subject, an accuracy is preceded by its mean over
    subjects."""
    found: list[Measure] = []
    for m in filter(_counts, measures):
        if m.name == "accuracy" and all("subject" in s.groups for s in samples):
            found.append(mean_over_subjects(m, samples))
        found.append(m)
    return found


def _primary(measures: Sequence[Measure]) -> Measure | None:
    """The measure that stands for its metric: F1 where there is one, otherwise the first."""
    return next((m for m in measures if m.name.endswith("-f1")), measures[0] if measures else None)


def _group(name: str, measures: Sequence[Sequence[Measure]], samples: Sequence[EvalSample]) -> Tree:
    """Scores of each group of a breakdown."""
    rows: dict[str, list[int]] = {}
    for i, s in enumerate(samples):
        if name in (found := _groups(s)):
            rows.setdefault(found[name], []).append(i)
    tree: Tree = {}
    for value, chosen in sorted(rows.items()):
        if len(chosen) < SMALLEST_GROUP and name not in ("subject", "category", "hard"):
            tree[value] = {"n": len(chosen), "scores": None}
            continue
        parts = [
            [
                m._replace(
                    statistics=m.statistics[chosen], chance=None if m.chance is None else m.chance[chosen]
                )
                for m in each
            ]
            for each in measures
        ]
        tree[value] = {"n": len(chosen), "scores": _scores(parts, [samples[i] for i in chosen])}
    return tree


def _scores(measures: Sequence[Sequence[Measure]], samples: Sequence[EvalSample]) -> list[Tree]:
    """Value and interval of each measure of each metric."""
    trees: list[Tree] = []
    for number, each in enumerate(measures):
        found = _with_subjects(each, samples)
        first = None if number else _primary(found)
        for m in found:
            interval = score_interval(m)
            trees.append(
                {
                    "metric": m.name,
                    "primary": m is first,
                    "value": float(m.combine(m.statistics.sum(axis=0))),
                    "low": _known(interval.low),
                    "high": _known(interval.high),
                    "n": len(samples),
                    "chance": None if m.chance is None else float(m.chance.mean()),
                    "interval": "Wilson" if m.binary else "jackknife, Student's t",
                    "signature": m.signature,
                }
            )
    return trees


def _counts(measure: Measure) -> bool:
    """Whether a ratio has a nonzero denominator; otherwise there is no score to report."""
    return measure.combine is not ratio or bool(measure.statistics[:, 1].any())


def _compare(a: Measure, b: Measure) -> Tree:
    difference, interval, p, smallest = compare_scores(a, b)
    values = [float(m.combine(m.statistics.sum(axis=0))) for m in (a, b)]
    return {
        "a": values[0],
        "b": values[1],
        "difference": difference,
        "low": _known(interval.low),
        "high": _known(interval.high),
        "p": p,
        "smallest_effect": _known(smallest),
        "higher_is_better": a.higher_is_better,
        "test": "McNemar, exact" if a.binary else "exchange of A and B",
    }


def _known(number: float) -> float | None:
    """None for what no JSON number can say."""
    return number if math.isfinite(number) else None
