"""What the demo shows at its end: the scores of all models, what is shown by them, and the time of each step.

    RUNS/scores/*/scores.json, *.json ──▶ tables (summary.txt), the same with plots (report.html)

No number is made here: all are read from what the evaluation wrote.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import html_report as html
from core.html_report import Estimate, Line
from core.provenance import atomic_io
from tools.demo.steps import Sizes, Step, slug

HEADLINES = {
    "title": "rouge-l-char-f1",
    "extraction": "extraction-f1",
    "claims-zh-en": "chrf",
    "claims-en-zh": "chrf",
    "text-general": "bits-per-byte",
    "text-domain": "bits-per-byte",
}
"""The number that stands for each task; less is better of bits per byte."""
MODELS = {
    "copy": "copies its input",
    "base": "base, 2 examples",
    "cpt": "continued, 2 examples",
    "general": "general chat",
    "without-cpt": "domain chat, not continued",
    "domain": "domain chat",
}
"""Runs under scores/, and what they are called."""
Table = tuple[Sequence[str], Sequence[Sequence[object]]]


def summarise(sizes: Sizes, todo: Sequence[Step]) -> str:
    """Write summary.txt and report.html into `sizes.runs`, and return what a terminal shows."""
    runs = Path(sizes.runs)
    scores = {name: _read(runs / "scores" / name / "scores.json") for name in MODELS}
    shown = _verdicts(runs, "base", "domain")
    beside = _verdicts(runs, "without-cpt", "domain")
    times = _times(runs, todo)
    page = runs / "report.html"
    parts = [
        ("Scores on held-out inventions, with 95% intervals", _table(scores)),
        ("The domain model against the base that sees two examples", shown),
        ("The domain model against one that was tuned without continued pretraining", beside),
        ("Time", times),
    ]
    plots = [
        html.section(f"{task}: {metric}", _plot(scores, task, metric)) for task, metric in HEADLINES.items()
    ]
    tables = [html.section(title, html.table(*table)) for title, table in parts]
    atomic_io.write_text(
        page, html.page("What continued pretraining and tuning gained", [*tables[:3], *plots, tables[3]])
    )
    text = "\n\n".join(f"{title}\n{html.text_table(*table)}" for title, table in parts)
    pages = f"report         {page}\nsample by sample {runs / 'scores/domain/report.html'}"
    atomic_io.write_text(runs / "summary.txt", text + "\n")
    return f"\n{text}\n\n{pages}"


def _table(scores: dict[str, Any]) -> Table:
    rows = []
    for task, metric in HEADLINES.items():
        found = {name: _score(tree, task, metric) for name, tree in scores.items()}
        n = max(tree[task]["n"] for tree in scores.values() if task in tree)
        rows.append([task, metric, n, *(_short(score) if score else "" for score in found.values())])
    return ["task", "metric", "n", *MODELS.values()], rows


def _plot(scores: dict[str, Any], task: str, metric: str) -> str:
    """A line for each model, all on one scale."""
    found = {name: _score(scores[name], task, metric) for name in MODELS}
    return html.estimates([Line(MODELS[name], score) for name, score in found.items() if score], shared=True)


def _score(tree: Any, task: str, metric: str) -> Estimate | None:
    for score in tree.get(task, {}).get("scores", ()):
        if score["metric"] == metric:
            return Estimate(score["value"], score["low"], score["high"])
    return None


def _verdicts(runs: Path, a: str, b: str) -> Table:
    """What the evaluation's comparison says of the headline metrics."""
    rows = [
        [row["task"], row["metric"], row["n"], *(f"{row[key]:.3g}" for key in ("a", "b")),
         f"{row['difference']:+.3g} ({row['low']:+.3g} – {row['high']:+.3g})", f"{row['p_holm']:.2g}",
         row["verdict"]]
        for row in _read(runs / "scores" / f"{b}-against-{a}.json")
        if HEADLINES[row["task"]] == row["metric"]
    ]  # fmt: skip
    return ["task", "metric", "n", MODELS[a], MODELS[b], "difference (95%)", "p (Holm)", "it is"], rows


def _times(runs: Path, todo: Sequence[Step]) -> Table:
    rows: list[Sequence[object]] = []
    whole = [0.0, 0.0]
    for step in todo:
        record = _read(runs / "steps" / f"{slug(step)}.json")
        spent = [record.get("seconds", 0.0), record.get("cpu_seconds", 0.0)]
        whole = [a + b for a, b in zip(whole, spent, strict=True)]
        rows.append([step.name, *(round(seconds) for seconds in spent), record["starts"]])
    return ["step", "seconds", "CPU seconds", "starts"], [*rows, ["all", *map(round, whole), ""]]


def _short(score: Estimate) -> str:
    return f"{score.value:.3g} ({score.low:.3g} – {score.high:.3g})"


def _read(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))
