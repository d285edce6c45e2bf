"""What a study shows: its trainings' evaluations and costs, collected for the page.

FOLDER/steps/*.json, evaluations ──▶ results.Study ──page.py──▶ FOLDER/report/report.html, results.json
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.provenance import atomic_io, manifest
from tools.step_runner import Step, record_file
from tools.steps_file import Comparison, StudyConfig
from tools.study import page, picking
from tools.study.arms import Cell, Study
from tools.study.results import WORSE, Arm, Axis, Training
from tools.study.results import Study as Results

FOLDER = "report"
TEXT = "summary.txt"


def write(study: Study, steps: Sequence[Step], folder: Path, records: Path) -> str:
    """Write the report of all that is done, and return its text for the terminal."""
    tree = study.described.tree.study or StudyConfig()
    found = collect(study, {step.name: step for step in steps}, records)
    runs = [run for arm in found.arms for training in arm.trainings for run in training.runs]
    picking.refuse_shared_questions(study, runs)
    inputs = manifest.hash_files(run / "predictions.jsonl" for run in runs)
    comparisons = [each for each in tree.comparisons if not study.left_out(each.file)]
    inputs |= manifest.hash_files(Path(study.value(each.file)) for each in comparisons)
    tables = {each.title: _comparison(study, each) for each in comparisons}
    tables["Time, memory, disk"] = _times(steps, records)
    config = {"study": tree.model_dump(mode="json"), "decided_on": found.decided_on}
    with manifest.build(folder / FOLDER, step="study", config=config, inputs=inputs, force=True) as built:
        text = page.write(found, built.path, tables)
        atomic_io.write_text(built.path / TEXT, text + "\n")
        built.counts = {"arms": len(found.arms), "trainings": sum(len(arm.trainings) for arm in found.arms)}
    return f"\n{text}\n\nreport  {folder / FOLDER / 'report.html'}"


def collect(study: Study, steps: Mapping[str, Step], records: Path) -> Results:
    """The arms and trainings that were scored."""
    tree = study.described.tree.study or StudyConfig()
    found = picking.picked(study)
    kept = picking.cells(study, found)
    decided = tree.pick.axis if tree.pick else None
    axes = [Axis(axis, tuple(levels), None) for axis, levels in study.axes.items() if axis != decided]
    arms: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in kept:
        levels = zip(study.axes, cell.levels, strict=True)
        arms.setdefault(tuple((axis, level) for axis, level in levels if axis != decided), []).append(cell)
    rule = tree.replay_law
    shown = [
        Arm(dict(levels), tuple(_training(study, cell, steps, records) for cell in cells))
        for levels, cells in arms.items()
    ]
    return Results(
        study.described.file.stem,
        tree.title or study.described.file.stem,
        tuple(axes),
        tuple(shown),
        _decided(study, found),
        tree.headlines,
        {"domain": rule.domain, "general": rule.general} if rule else None,
        rule.most_worse if rule else WORSE,
    )


def _training(study: Study, cell: Cell, steps: Mapping[str, Step], records: Path) -> Training:
    """One training's evaluations, and what it cost beyond what all trainings share."""
    tree = study.described.tree.study or StudyConfig()
    names = [name for name in tree.scores if study.runs(name, cell)]
    runs = tuple(Path(study.output(name, cell)) for name in names)
    needed = {title for name in names for title in study.needed(name, cell) if " " in title}
    seconds, cpu_seconds, tokens = 0.0, 0.0, 0
    for title in needed:
        record: dict[str, Any] = json.loads(record_file(steps[title], records).read_text("utf-8"))
        seconds += record["seconds"]
        cpu_seconds += record["cpu_seconds"]
        tokens += _tokens(steps[title])
    return Training(cell.seed, runs, seconds, cpu_seconds, tokens or None)


def _tokens(step: Step) -> int:
    """Tokens that a step trained on: of its last model, if it has several stages with counts of their own.
    Preference tuning counts pairs, and is left out."""
    if any("sft dpo" in command for command in step.commands):
        return 0
    outputs = map(Path, step.outputs)
    counts = [manifest.read(path)["counts"] for path in outputs if (path / manifest.NAME).is_file()]
    return sum(int(each["tokens"]) for each in counts if "tokens" in each and "step" in each)


def _decided(study: Study, found: Sequence[picking.Picked]) -> dict[str, str]:
    """What was picked, in words."""
    rule = picking.rule_of(study)
    if rule is None:
        return {}
    names = [axis for axis in study.axes if axis != rule.axis]
    said = []
    for each in found:
        where = ", ".join(f"{axis} {level}" for axis, level in zip(names, each.others, strict=True))
        values = ", ".join(f"{level}: {value:.4g}" for level, value in each.values.items())
        said.append(f"{each.level}{f' for {where}' if where else ''} ({values})")
    return {rule.axis: f"{'; '.join(said)}, by {rule.metric} of {rule.task} in the step {rule.step}"}


def _comparison(study: Study, each: Comparison) -> page.Table:
    """A table of what `eval compare` or `eval ranking` wrote."""
    tree = json.loads(Path(study.value(each.file)).read_text("utf-8"))
    rows = []
    for row in tree if isinstance(tree, list) else tree["comparison"]:
        if not each.metrics or row["metric"] in each.metrics:
            values = [f"{row[key]:.3g}" for key in ("a", "b")]
            difference = f"{row['difference']:+.3g}"
            if row["low"] is not None:
                difference += f" ({row['low']:+.3g} – {row['high']:+.3g})"
            rows.append([row["task"], row["metric"], row["n"], *values, difference, row["verdict"]])
    return ["task", "metric", "n", *each.names, "difference (95%)", "verdict"], rows


def _times(steps: Sequence[Step], records: Path) -> page.Table:
    """Of each step of the file, over all its arms and seeds: seconds, the memory of the largest process, and
    the size of its outputs."""
    spent: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    for step in steps:
        name, record = step.name.split(" ")[0], json.loads(record_file(step, records).read_text("utf-8"))
        own = spent.setdefault(name, [0, 0, 0, 0, 0])
        size = sum(_size(Path(output)) for output in step.outputs) / 1e6
        values = (1, record["seconds"], record["cpu_seconds"], record["starts"], size)
        for place, value in enumerate(values):
            own[place] += value
        peaks[name] = max(peaks.get(name, 0), record.get("peak_bytes", 0))
    total = [sum(values) for values in zip(*spent.values(), strict=True)]
    peaks["total"] = max(peaks.values(), default=0)
    rows = [
        [name, *map(round, values), f"{peaks[name] / 2**30:.1f}" if peaks[name] else "–"]
        for name, values in [*spent.items(), ("total", total)]
    ]
    return [
        "step",
        "times",
        "seconds",
        "CPU seconds",
        "starts",
        "MB of outputs",
        "peak GiB of a process",
    ], rows


def _size(output: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = output.rglob("*") if output.is_dir() else [output]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())
