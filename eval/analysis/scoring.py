"""Score predictions and compare two models; takes seconds, without torch or a model.

    predictions.jsonl ──by task──▶ metrics ──▶ value, 95% interval, n, signature ──▶ scores.json, table
    two of them ──paired by sample──▶ difference, interval, p (Holm), better, worse or not shown

Intervals are Wilson's for right-or-wrong metrics, and from a bootstrap of 10,000 resamples for all others.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.errors import UserError
from core.html_report import text_table
from eval.analysis.significance import (
    RESAMPLES,
    holm,
    mcnemar,
    paired_bootstrap,
    percentiles,
    resample_sums,
    wilson,
)
from eval.metrics.ceval import is_hard, mean_over_subjects
from eval.metrics.measure import Measure, ratio
from eval.metrics.metrics import METRICS
from eval.sample import EvalSample

SMALLEST_GROUP = 30
"""Groups with fewer samples get no score, except the subjects of a benchmark."""
LENGTHS = (50, 200, 800)
"""Upper bounds of the length classes, in characters of the reference."""
IPC = re.compile(r"[A-H](?=\d\d|$)")
"""The section of an IPC symbol, alone or the first in a list."""
LEVEL = 0.05
BOOTSTRAP = f"bootstrap, {RESAMPLES:,} resamples, seed 0"

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

    One object each: `task`, `metric`, `n`, `a`, `b`, `difference` (B - A), `low`, `high`, `p`, `p_holm`,
    `smallest_effect`, `verdict` of B (better, worse, not shown). Raises UserError if they share no sample.
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
        names = metrics or left[0].metrics
        both = [_with_subjects(_measures(part, names), left) for part in (left, right)]
        for one, two in zip(*both, strict=True):
            if not (_counts(one) and _counts(two)):
                continue
            rows.append({"task": task, "metric": one.name, "n": len(pairs), **_compare(one, two)})
    if not rows:
        raise UserError("A and B have no sample in common (same task and id).")
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        good = (row["difference"] > 0) == row.pop("higher_is_better")
        row["p_holm"] = p
        row["verdict"] = "not shown" if p > LEVEL or not row["difference"] else "better" if good else "worse"
    return rows


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
            f"{s['low']:.4g} – {s['high']:.4g}",
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
                [task, value, s["metric"], f"{s['value']:.4g}", f"{s['low']:.4g} – {s['high']:.4g}", s["n"]]
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
            f"{r['low']:+.4g} – {r['high']:+.4g}",
            r["n"],
            f"{r['p_holm']:.2g}",
            f"{r['smallest_effect']:.2g}",
            r["verdict"],
        ]
        for r in rows
    ]
    header = ["task", "metric", "A", "B", "B - A", "95% interval", "n", "p (Holm)", "smallest effect", "B is"]
    return text_table(header, cells)


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


def _measures(samples: Sequence[EvalSample], metrics: Sequence[str]) -> list[Measure]:
    names = metrics or samples[0].metrics
    if not names:
        raise UserError(
            f"task {samples[0].task}: no metrics given. Pass --metrics, or add `metrics` to each line. "
            f"Metrics: {', '.join(METRICS)}."
        )
    if unknown := [name for name in names if name not in METRICS]:
        raise UserError(f"metric `{unknown[0]}` does not exist. Metrics: {', '.join(METRICS)}.")
    return [measure for name in names for measure in METRICS[name](samples)]


def _with_subjects(measures: Sequence[Measure], samples: Sequence[EvalSample]) -> list[Measure]:
    """The measures; if all samples have a subject, accuracy is preceded by its mean over subjects."""
    if not all("subject" in s.groups for s in samples):
        return list(measures)
    return [
        part
        for m in measures
        for part in ([mean_over_subjects(m, samples), m] if m.name == "accuracy" else [m])
    ]


def _group(name: str, measures: Sequence[Measure], samples: Sequence[EvalSample]) -> Tree:
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
            m._replace(statistics=m.statistics[chosen], chance=None if m.chance is None else m.chance[chosen])
            for m in measures
        ]
        tree[value] = {"n": len(chosen), "scores": _scores(parts, [samples[i] for i in chosen])}
    return tree


def _scores(measures: Sequence[Measure], samples: Sequence[EvalSample]) -> list[Tree]:
    """Value and interval of each measure; bootstrap intervals use the same resamples."""
    measures = [m for m in _with_subjects(measures, samples) if _counts(m)]
    intervals = {m.name: wilson(float(m.statistics[:, 0].sum()), len(samples)) for m in measures if m.binary}
    for strata in {m.strata for m in measures if not m.binary}:
        together = [m for m in measures if not m.binary and m.strata == strata]
        sums = resample_sums(np.hstack([m.statistics for m in together]), strata)
        ends = np.cumsum([m.statistics.shape[1] for m in together])[:-1]
        for m, part in zip(together, np.split(sums, ends, axis=1), strict=True):
            intervals[m.name] = percentiles(m.combine(part))
    return [
        {
            "metric": m.name,
            "value": float(m.combine(m.statistics.sum(axis=0))),
            "low": intervals[m.name].low,
            "high": intervals[m.name].high,
            "n": len(samples),
            "chance": None if m.chance is None else float(m.chance.mean()),
            "interval": "Wilson" if m.binary else BOOTSTRAP,
            "signature": m.signature,
        }
        for m in measures
    ]


def _counts(measure: Measure) -> bool:
    """Whether a ratio has a nonzero denominator; otherwise there is no score to report."""
    return measure.combine is not ratio or bool(measure.statistics[:, 1].any())


def _compare(a: Measure, b: Measure) -> Tree:
    if a.binary:
        result = mcnemar(a.statistics[:, 0] > 0.5, b.statistics[:, 0] > 0.5)
    else:
        result = paired_bootstrap(a.statistics, b.statistics, a.combine, a.strata)
    difference, interval, p, smallest = result
    values = [float(m.combine(m.statistics.sum(axis=0))) for m in (a, b)]
    return {
        "a": values[0],
        "b": values[1],
        "difference": difference,
        "low": interval.low,
        "high": interval.high,
        "p": p,
        "smallest_effect": smallest,
        "higher_is_better": a.higher_is_better,
        "test": "McNemar, exact" if a.binary else f"paired {BOOTSTRAP}",
    }
