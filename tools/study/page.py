"""The page of a study: report.html, results.json with every number, and the text for the terminal.

Study ──tools/study/results.py, tools/study/cost.py──▶ numbers ──▶ results.json
numbers ──▶ scores, differences, curves, worth, replay, cost, runs ──core/html_report.py──▶ report.html
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from core import html_report as html
from core.html_report import Curve, Estimate
from core.provenance import atomic_io
from eval.analysis.trainings import LEAST
from tools.study import cost
from tools.study.results import Study, arms_by_key, axis_numbers, found, over_questions_only

FEW = f"over questions only: with {LEAST} seeds or more they are over both"
WORTH = (
    "The number that gives the same score without the change, minus the number with it. Beyond the scores "
    "that were seen without the change nothing is extrapolated: it is at least, or less than, that."
)

Tree = dict[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[object]]]


def write(study: Study, folder: Path, more: Mapping[str, Table] | None = None) -> str:
    """Write `folder`/report.html and `folder`/results.json, and return the text for the terminal; `more` are
    other tables by title. Raises UserError for runs or arms that do not fit together."""
    arms = arms_by_key(study)
    tree = found(study) | {"cost": cost.costs(arms), "runs": cost.runs(arms)}
    folder.mkdir(parents=True, exist_ok=True)
    atomic_io.write_text(folder / "results.json", json.dumps(tree, ensure_ascii=False, indent=1) + "\n")
    others = [html.section(title, html.table(*table)) for title, table in (more or {}).items()]
    sections = [*_sections(study, tree, folder), *others]
    atomic_io.write_text(folder / "report.html", html.page(study.title, sections))
    texts = [f"{title}\n{html.text_table(*table)}" for title, table in (more or {}).items()]
    return "\n\n".join([_text(study, tree), *texts])


def _sections(study: Study, tree: Tree, folder: Path) -> Iterator[str]:
    yield from map(html.paragraph, _read(tree))
    if study.decided_on:
        rows = list(study.decided_on.items())
        yield html.section("What was picked, and on which split", html.table(("picked", "on"), rows))
    parts = [html.table(*_overview(tree))]
    for task in tree["tasks"]:
        parts.append(html.folded(f"{_name(task)}: seeds and variance", html.table(*_scores(tree, task))))
    yield html.section("Scores of the arms", *parts)
    for place, axis in enumerate(study.axes):
        if axis_numbers(axis) and len(axis.levels) > 1:
            varied = [task for task in tree["tasks"] if axis.name in task["varies"]]
            charts = [part for task in varied for part in _chart(study, tree, place, task)]
            yield html.section(f"Scores against {axis.name}", *charts)
    if tree["worth"]:
        parts = [html.paragraph(each) for each in (f"{_prefix(row)}{row['said']}." for row in tree["worth"])]
        parts.insert(0, html.paragraph(WORTH))
        yield html.section(f"What {_both(tree, 'axis')} is worth in {_both(tree, 'unit')}", *parts)
    for table in filter(lambda table: table["rows"], tree["differences"]):
        read = (
            f"Each level against {table['rows'][0]['against']}. p is Holm's, over this table. Smallest: the "
            "effect that would have been shown with 80% power. Seeds needed: to show what was seen."
        )
        yield html.section(
            f"Differences: {table['axis']}", html.paragraph(read), html.table(*_differences(table))
        )
    for law in tree["replay"]:
        yield _law(law)
    yield html.section("Cost of a training", html.table(*_cost(tree)))
    yield html.section("Runs", *_runs(tree, folder))


def _read(tree: Tree) -> Iterator[str]:
    """How to read the page."""
    trainings = sum(row["trainings"] for row in tree["cost"])
    yield (
        f"{len(tree['cost'])} arms, {trainings} trainings. A score is the mean of an arm's seeds, "
        "in brackets its 95% interval over trainings and questions."
    )
    if over_questions_only(tree):
        yield f"Intervals of arms with fewer than {LEAST} seeds are {FEW}."
    for task in tree["tasks"]:
        if task["left_out"]:
            yield f"{task['task']}: {task['left_out']:,} questions are left out, as a training lacks them."


def _text(study: Study, tree: Tree) -> str:
    """The text for the terminal."""
    names = [axis.name for axis in study.axes]
    rows = [
        [row["task"], row["metric"], *row["arm"].values(), row["trainings"], row["n"],
         str(_estimate(row)), _share(row)]
        for row in _by_task(tree)
    ]  # fmt: skip
    header = ["task", "score", *names, "trainings", "n", "mean (95%)", "variance that is training's"]
    parts = [f"{study.title}\n{html.text_table(header, rows)}"]
    if over_questions_only(tree):
        parts[0] += f"\nintervals of arms with fewer than {LEAST} seeds are {FEW}"
    for table in filter(lambda table: table["rows"], tree["differences"]):
        parts.append(f"Differences: {table['axis']}\n{html.text_table(*_differences(table))}")
    parts += ["\n".join(f"{_prefix(row)}{row['said']}" for row in tree["worth"])] if tree["worth"] else []
    parts += ["\n".join(f"{_at(law)}{said}" for said in _said(law)) for law in tree["replay"]]
    parts.append(f"Cost of a training\n{html.text_table(*_cost(tree))}")
    parts += [f"{what}: decided on {split}" for what, split in study.decided_on.items()]
    return "\n\n".join(parts)


def _overview(tree: Tree) -> Table:
    """Arms × tasks, and what a training of the arm cost."""
    scores = {(_arm(row), row["task"]): row for row in tree["scores"]}
    rows = []
    for spent in tree["cost"]:
        cells = [scores.get((_arm(spent), task["task"])) for task in tree["tasks"]]
        few = ", over questions only" if spent["trainings"] < LEAST else ""
        shown = ["–" if row is None else str(_estimate(row)) for row in cells]
        rows.append([_arm(spent), *shown, f"{spent['trainings']}{few}", _hours(tree, spent)])
    hours = "GPU-hours" if _gpus(tree) else "CPU-hours"
    return ["arm", *map(_name, tree["tasks"]), "trainings", hours], rows


def _scores(tree: Tree, task: Tree) -> Table:
    rows = [
        [_arm(row), row["trainings"], ", ".join(map(str, row["seeds"])), row["n"],
         str(_estimate(row)), _share(row)]
        for row in tree["scores"]
        if row["task"] == task["task"]
    ]  # fmt: skip
    return ["arm", "trainings", "seeds", "questions", "mean (95%)", "variance that is training's"], rows


def _differences(table: Tree) -> Table:
    rows = []
    for row in table["rows"]:
        needed = row["needed"] or (
            "more questions" if row["trainings"] >= LEAST and row["difference"] else "–"
        )
        few = "" if row["trainings"] >= LEAST else ", over questions only"
        smallest = "–" if row["smallest_effect"] is None else f"{row['smallest_effect']:.2g}"
        difference = f"{row['difference']:+.3g} ({row['low']:+.3g} – {row['high']:+.3g})"
        rows.append(
            [*row["at"].values(), row["level"], row["task"], row["metric"], f"{row['a']:.4g}",
             f"{row['b']:.4g}", difference, row["verdict"], f"{row['p_holm']:.2g}", smallest, str(needed),
             f"{row['trainings']}{'' if row['paired'] else ', not paired'}{few}", row["n"]]
        )  # fmt: skip
    against = f"{table['axis']} {table['rows'][0]['against']}"
    header = [
        *table["rows"][0]["at"], table["axis"], "task", "score", against, "here", "difference (95%)",
        "verdict", "p (Holm)", "smallest", "seeds needed", "seeds", "n",
    ]  # fmt: skip
    return header, rows


def _chart(study: Study, tree: Tree, place: int, task: Tree) -> Iterator[str]:
    """A task's scores against a numeric axis, with a curve for each combination of the others."""
    axis = study.axes[place]
    numbers = dict(zip(axis.levels, axis_numbers(axis) or (), strict=True))
    curves: dict[str, dict[float, Estimate]] = {}
    for row in tree["scores"]:
        if row["task"] == task["task"]:
            rest = [f"{name} {level}" for name, level in row["arm"].items() if name != axis.name]
            points = curves.setdefault(", ".join(rest) or task["metric"], {})
            points[numbers[row["arm"][axis.name]]] = _estimate(row)
    if curves:
        ticks = {number: level for level, number in numbers.items()}
        lines = [Curve(name, points) for name, points in curves.items()]
        better = "higher" if task["higher_is_better"] else "lower"
        yield html.heading(_name(task))
        yield html.chart(f"{_name(task)} against {axis.name}; {better} is better", lines, ticks)


def _law(law: Tree) -> str:
    """The laws of the replay share: constants, and what they predict for each share that is left out."""
    parts = [html.paragraph(said) for said in _said(law)]
    for loss, tree in law["laws"].items():
        rows = [
            (f"{level['share']:.3g}", f"{level['seen']:.4g}", _with_ends(level, "fitted"),
             f"{level['left_out']:.4g}", f"{level['error']:+.2g}",
             "–" if level["expected_error"] is None else f"{level['expected_error']:.2g}")
            for level in tree["levels"]
        ]  # fmt: skip
        header = ("share", "seen", "fitted", "predicted without it", "missed by", "by noise alone")
        constants = [(name, _with_ends(each, "value")) for name, each in tree["constants"].items()]
        parts += [html.heading(f"{loss} loss: {tree['law']}, {tree['formula']}"), html.table(header, rows)]
        parts.append(html.folded("constants", html.table(("constant", "value"), constants)))
    return html.section(f"{_at(law)}Replay share", *parts)


def _said(law: Tree) -> Iterator[str]:
    if not law["laws"]:
        yield law["said"]
    for tree in law["laws"].values():
        yield tree["said"]
    yield law["recommended"]["said"]
    if law["trainings"] < LEAST:
        yield f"With fewer than {LEAST} seeds the laws have no intervals over seeds."


def _cost(tree: Tree) -> Table:
    rows = [
        [_arm(row), row["trainings"], round(row["seconds"]), round(row["cpu_seconds"]),
         "–" if row["tokens"] is None else round(row["tokens"]), _hours(tree, row)]
        for row in tree["cost"]
    ]  # fmt: skip
    return [
        "arm",
        "trainings",
        "seconds",
        "CPU seconds",
        "tokens",
        "GPU-hours" if _gpus(tree) else "CPU-hours",
    ], rows


def _runs(tree: Tree, folder: Path) -> Iterator[str]:
    """Of each arm its runs, their manifests, and how to trace them."""
    by_arm: dict[str, list[Tree]] = {}
    for row in tree["runs"]:
        by_arm.setdefault(_arm(row), []).append(row)
    for arm, rows in by_arm.items():
        cells = [(r["seed"], r["run"], (r["manifest"] or "no manifest")[:19], r["lineage"]) for r in rows]
        yield html.folded(
            f"{arm}: {len(rows)} runs",
            html.links({row["run"]: _address(Path(row["run"]), folder) for row in rows}),
            html.table(("seed", "run", "manifest", "where it is from"), cells),
        )


def _address(run: Path, folder: Path) -> str:
    page = run / "report.html"
    target = page if page.is_file() else run
    return quote(Path(os.path.relpath(target, folder)).as_posix())


def _by_task(tree: Tree) -> Iterator[Tree]:
    for task in tree["tasks"]:
        yield from (row for row in tree["scores"] if row["task"] == task["task"])


def _prefix(row: Tree) -> str:
    return f"{row['task']}{''.join(f', {name} {level}' for name, level in row['at'].items())}: "


def _at(law: Tree) -> str:
    at = ", ".join(f"{name} {level}" for name, level in law["at"].items())
    return f"{at}: " if at else ""


def _both(tree: Tree, key: str) -> str:
    return " and ".join(dict.fromkeys(row[key] for row in tree["worth"]))


def _arm(row: Tree) -> str:
    return ", ".join(f"{name} {level}" for name, level in row["arm"].items()) or "the arm"


def _name(task: Tree) -> str:
    return f"{task['task']}: {task['metric']}"


def _estimate(row: Tree) -> Estimate:
    return Estimate(row["value"], row["low"], row["high"])


def _with_ends(row: Mapping[str, Any], key: str) -> str:
    if row["low"] is None:
        return f"{row[key]:.4g}"
    return f"{row[key]:.4g} ({row['low']:.4g} – {row['high']:.4g})"


def _share(row: Tree) -> str:
    return "over questions only" if row["share_of_trainings"] is None else f"{row['share_of_trainings']:.0%}"


def _gpus(tree: Tree) -> bool:
    return any(row["gpu_hours"] is not None for row in tree["cost"])


def _hours(tree: Tree, row: Tree) -> str:
    """GPU-hours if any arm has them, else CPU-hours."""
    hours = row["gpu_hours"] if _gpus(tree) else row["cpu_hours"]
    return "–" if hours is None else f"{hours:.2g}"
