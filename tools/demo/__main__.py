"""The whole pipeline on a laptop: from raw texts to a published model with scores, using the everyday
commands.

    python -m tools.demo                       run all steps that are not up to date; same as `make demo`
    python -m tools.demo --list                print the commands without running them
    python -m tools.demo inventions=500 runs=runs/small corpora=corpora/small     --keys lists all sizes

    steps (tools/demo/steps.py) ──tools/step_runner.py──▶ RUNS/scores/*, *.json ──▶ summary.txt, report.html

A second run does nothing that is already done; a killed demo continues where it stopped. The summary at the
end computes no numbers of its own: all are read from the output of the evaluation.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core import html_report as html
from core.config.loader import add_arguments, from_arguments
from core.errors import run_command
from core.html_report import Estimate, Line
from core.provenance import atomic_io
from tools.demo.steps import Sizes, demo_steps
from tools.step_runner import Step, record_file, run

HEADLINES = {
    "title": "rouge-l-char-f1",
    "extraction": "extraction-f1",
    "claims-zh-en": "chrf",
    "claims-en-zh": "chrf",
    "text-general": "bits-per-byte",
    "text-domain": "bits-per-byte",
}
"""The main metric of each task. Lower is better for bits per byte, higher for the others."""
MODELS = {
    "copy": "copies its input",
    "base": "base, 2 examples",
    "cpt": "continued, 2 examples",
    "general": "general chat",
    "without-cpt": "domain chat, not continued",
    "domain": "domain chat",
}
"""Folders in scores/, and the names of their models in the tables."""
CITED = ("token-f1", "source-citations-f1", "source-citations-refusals")
"""What is shown of answers with sources."""
Table = tuple[Sequence[str], Sequence[Sequence[object]]]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, default=None)
    parser.add_argument("--list", action="store_true", help="print the commands and exit")
    arguments = parser.parse_intermixed_args()
    sizes = from_arguments(Sizes, arguments)
    if sizes is None:
        return 0
    steps = demo_steps(sizes)
    if arguments.list:
        for step in steps:
            print("\n".join([f"# {step.name}", *(f"python -m {command}" for command in step.commands)]))
        return 0
    records = Path(sizes.runs) / "steps"
    records.mkdir(parents=True, exist_ok=True)
    with atomic_io.lock(records / atomic_io.LOCK, f"{sizes.runs}: another demo is already running there"):
        if not run(steps, records):
            print(f"all {len(steps)} steps are up to date: {sizes.runs}")
    print(summarise(sizes, steps))
    return 0


def summarise(sizes: Sizes, steps: Sequence[Step]) -> str:
    """Write summary.txt and report.html to `sizes.runs`, and return the text for the terminal."""
    runs = Path(sizes.runs)
    scores = {name: _read(runs / "scores" / name / "scores.json") for name in MODELS}
    parts = [
        ("Scores on held-out inventions, with 95% intervals", _scores(scores)),
        ("The domain model against the base with two examples", _comparison(runs, "base", "domain")),
        (
            "The domain model against one tuned without continued pretraining",
            _comparison(runs, "without-cpt", "domain"),
        ),
        ("The assistant's searches across languages, by terms alone and with vectors", _searches(runs)),
        ("The domain model's answers without sources and with them", _sourced(runs)),
        ("Time", _times(runs, steps)),
    ]
    plots = [
        html.section(f"{task}: {metric}", _plot(scores, task, metric)) for task, metric in HEADLINES.items()
    ]
    tables = [html.section(title, html.table(*table)) for title, table in parts]
    page = runs / "report.html"
    atomic_io.write_text(
        page, html.page("What continued pretraining and tuning gained", [*tables[:3], *plots, *tables[3:]])
    )
    text = "\n\n".join(f"{title}\n{html.text_table(*table)}" for title, table in parts)
    atomic_io.write_text(runs / "summary.txt", text + "\n")
    return f"\n{text}\n\nreport           {page}\nsample by sample {runs / 'scores/domain/report.html'}"


def _scores(scores: dict[str, Any]) -> Table:
    rows = []
    for task, metric in HEADLINES.items():
        estimates = [_estimate(tree, task, metric) for tree in scores.values()]
        n = max(tree[task]["n"] for tree in scores.values() if task in tree)
        rows.append([task, metric, n, *(_short(estimate) if estimate else "" for estimate in estimates)])
    return ["task", "metric", "n", *MODELS.values()], rows


def _plot(scores: dict[str, Any], task: str, metric: str) -> str:
    """One line per model, on a common scale."""
    estimates = {name: _estimate(scores[name], task, metric) for name in MODELS}
    lines = [Line(MODELS[name], estimate) for name, estimate in estimates.items() if estimate]
    return html.estimates(lines, shared=True)


def _estimate(tree: Any, task: str, metric: str) -> Estimate | None:
    for score in tree.get(task, {}).get("scores", ()):
        if score["metric"] == metric:
            return Estimate(score["value"], score["low"], score["high"])
    return None


def _comparison(runs: Path, a: str, b: str) -> Table:
    """The evaluation's comparison of two models on the main metrics."""
    rows = []
    for row in _read(runs / "scores" / f"{b}-against-{a}.json"):
        if HEADLINES[row["task"]] == row["metric"]:
            values = [f"{row[key]:.3g}" for key in ("a", "b")]
            difference = f"{row['difference']:+.3g} ({row['low']:+.3g} – {row['high']:+.3g})"
            p = f"{row['p_holm']:.2g}" if row["primary"] else f"({row['p']:.2g})"
            rows.append([row["task"], row["metric"], row["n"], *values, difference, p, row["verdict"]])
    return ["task", "metric", "n", MODELS[a], MODELS[b], "difference (95%)", "p (Holm)", "verdict"], rows


def _searches(runs: Path) -> Table:
    """What both searches found, and whether vectors found more."""
    tree = _read(runs / "assistant" / "ranking.json")
    rows = []
    for row in tree["comparison"]:
        if row["metric"] in ("ranking-ndcg@10", "ranking-recall@10"):
            values = [_short(_of(scores["scores"], row["metric"])) for scores in tree["scores"]]
            rows.append([row["metric"], row["n"], *values, row["verdict"]])
    return ["metric", "n", "terms", "terms and vectors", "verdict"], rows


def _sourced(runs: Path) -> Table:
    rows = []
    for row in _read(runs / "scores" / "with-sources-against-without-sources.json"):
        if row["metric"] not in CITED:
            continue
        values = [f"{row[key]:.3g}" for key in ("a", "b")]
        difference = f"{row['difference']:+.3g}"
        rows.append([row["metric"], row["n"], *values, difference, row["verdict"]])
    return ["metric", "n", "without sources", "with sources", "difference", "verdict"], rows


def _of(scores: Sequence[Any], metric: str) -> Estimate:
    return next(
        Estimate(each["value"], each["low"], each["high"]) for each in scores if each["metric"] == metric
    )


def _times(runs: Path, steps: Sequence[Step]) -> Table:
    rows: list[Sequence[object]] = []
    total = [0.0, 0.0]
    for step in steps:
        record = _read(record_file(step, runs / "steps"))
        spent = [record.get("seconds", 0.0), record.get("cpu_seconds", 0.0)]
        total = [a + b for a, b in zip(total, spent, strict=True)]
        rows.append([step.name, *(round(seconds) for seconds in spent), record["starts"]])
    return ["step", "seconds", "CPU seconds", "starts"], [*rows, ["total", *map(round, total), ""]]


def _short(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} ({estimate.low:.3g} – {estimate.high:.3g})"


def _read(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))


if __name__ == "__main__":
    run_command(main)
