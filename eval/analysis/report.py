"""The HTML page of a run, optionally compared with a base: one file that loads nothing.

RUN/predictions.jsonl ──score──▶ values, intervals, groups ─┐
BASE/predictions.jsonl ──compare──▶ differences, verdicts ──┼──core/html_report.py──▶ RUN/report.html
RUN/manifest.json ──────────────────────────────────────────┘
"""

import itertools
import json
import math
import random
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core import html_report as html
from core.html_report import Estimate, Line
from core.provenance import atomic_io, manifest
from eval.analysis import explanations, notices, scoring
from eval.metrics.measure import Floats
from eval.metrics.metrics import METRICS
from eval.sample import EvalSample, read_predictions

SHOWN = 5
"""Number of worst and of best samples shown for each task."""
LONGEST = 4_000
"""Longer texts are truncated to this many characters."""
EXAM = ("category", "hard", "subject")
"""Breakdowns of an exam, shown in a separate section."""

Tree = dict[str, Any]


class Run(NamedTuple):
    """A run: its name on the page, samples by task, scores, and manifest if it has one."""

    name: str
    tasks: dict[str, list[EvalSample]]
    scores: Tree
    manifest: Tree | None


def write_report(
    folder: Path,
    base: Path | None = None,
    output: Path | None = None,
    metrics: Sequence[str] = (),
    contaminated: Path | None = None,
    seed: int = 0,
) -> Path:
    """Write the page of a run folder or predictions file (by default RUN/report.html) and return its path.

    `metrics` overrides those in the predictions. `contaminated` (see eval/analysis/contamination.py) adds a
    breakdown into clean and contaminated samples. `seed` draws the random samples that are shown.
    """
    samples = _read(folder, metrics, contaminated)
    run, other, changes = _run(folder, samples, "this run"), None, []
    if base:
        base_samples = _read(base, metrics, contaminated)
        other = _run(base, base_samples, "base")
        changes = scoring.compare(base_samples, samples)
    sections = [_summary(run, other, folder, base, changes), *_notes(run, other), _scores(run, other)]
    sections += [_changes(changes)] if changes else []
    sections += [*_exams(run, other), *_groups(run, other), *_samples(run, other, seed)]
    sections.append(html.section("Provenance", *_origin(run), *(_origin(other) if other else ())))
    file = output or (folder / "report.html" if folder.is_dir() else folder.with_suffix(".html"))
    atomic_io.write_text(
        file, html.page(f"Evaluation of {_model(run.manifest) or folder.resolve().name}", sections)
    )
    return file


def _read(path: Path, metrics: Sequence[str], contaminated: Path | None) -> list[EvalSample]:
    samples = read_predictions(path)
    if metrics:
        samples = [s.model_copy(update={"metrics": tuple(metrics)}) for s in samples]
    if contaminated:
        from eval.analysis.contamination import split

        samples = split(samples, contaminated)
    return samples


def _run(path: Path, samples: Sequence[EvalSample], name: str) -> Run:
    made = manifest.read(path) if path.is_dir() and (path / manifest.NAME).exists() else None
    return Run(name, scoring.by_task(samples), scoring.score(samples), made)


def _notes(run: Run, other: Run | None) -> Iterator[str]:
    """What to know about the answers before their scores are read."""
    found = [(each.name, said) for each in (run, other) if each for said in _said(each)]
    if found:
        yield html.section(
            "Notes on the answers", *(html.paragraph(f"{name}: {said}") for name, said in found)
        )


def _said(run: Run) -> list[str]:
    limits = (run.manifest or {}).get("config", {}).get("limits")
    return notices.sentences([s for members in run.tasks.values() for s in members], limits)


def _summary(run: Run, other: Run | None, folder: Path, base: Path | None, changes: Sequence[Tree]) -> str:
    named = [(run, folder), *([(other, base)] if other and base else [])]
    rows = [
        (each.name, _model(each.manifest) or "unknown: no manifest", path.resolve().name,
         sum(map(len, each.tasks.values())))
        for each, path in named
    ]  # fmt: skip
    text = "All intervals are 95% intervals."
    if verdicts := [row["verdict"] for row in changes if row["primary"]]:
        better, worse, few = map(verdicts.count, ("better", "worse", scoring.TOO_FEW))
        text += (
            f" Of {len(verdicts)} primary scores, this run is better than its base in {better} and worse in "
            f"{worse}; for {len(verdicts) - better - worse} no difference is shown"
            f"{f' ({few} of them with too few samples to compare)' if few else ''}."
        )
    return html.paragraph(text) + html.table(("", "model", "folder", "samples"), rows)


def _model(made: Tree | None) -> str:
    """The name of a run's model and how it was asked, from its manifest; empty if that does not say."""
    config = (made or {}).get("config", {})
    words = shlex.split((made or {}).get("command") or "")
    name = config.get("model") or next((b for a, b in itertools.pairwise(words) if a == "--model"), "")
    backend = config.get("backend")
    backend = backend if isinstance(backend, dict) else {}
    kind = backend.get("url") or backend.get("dtype") or backend.get("backend")
    how = ", ".join(filter(None, [kind, "chat template" if backend.get("chat") else ""]))
    return f"{name} ({how})" if name and how else str(name)


def _scores(run: Run, other: Run | None) -> str:
    parts: list[str] = []
    for task, tree in run.scores.items():
        against = _by_metric(other.scores.get(task)) if other else {}
        parts.append(html.heading(f"{task}, {tree['n']:,} samples"))
        parts.append(html.estimates([_line(s, against) for s in tree["scores"]], _names(run, other)))
        parts.extend(_meanings([s["metric"] for s in tree["scores"]]))
        rows = [(s["metric"], s["n"], s["interval"], s["signature"]) for s in tree["scores"]]
        parts.append(
            html.folded("how they were computed", html.table(("metric", "n", "interval", "signature"), rows))
        )
    return html.section("Scores", *map(html.paragraph, explanations.READING), *parts)


def _meanings(scores: Sequence[str]) -> Iterator[str]:
    """A sentence for the scores that it explains."""
    names: dict[str, list[str]] = {}
    for score in scores:
        if sentence := explanations.explain(score):
            names.setdefault(sentence, []).append(score)
    for sentence, explained in names.items():
        yield html.paragraph(f"{', '.join(explained)}: {sentence}.")


def _changes(changes: Sequence[Tree]) -> str:
    lines = {
        primary: [
            Line(
                f"{row['task']}: {row['metric']}",
                _estimate(row, "difference"),
                note=f"{row['verdict']} (p {scoring.p_value(row)}, n {row['n']:,})",
            )
            for row in changes
            if row["primary"] == primary
        ]
        for primary in (True, False)
    }
    text = html.paragraph(explanations.SECONDARY)
    others = [html.folded(f"{len(lines[False])} other scores", text, html.estimates(lines[False]))]
    rows = [
        (row["task"], row["metric"], row["verdict"], _number(row["smallest_effect"]), row["test"])
        for row in changes
    ]
    header = ("task", "metric", "this run is", "smallest effect", "test")
    tests = html.folded("tests and smallest effects", html.table(header, rows))
    read = map(html.paragraph, explanations.COMPARING)
    shown = [html.estimates(lines[True]), *(others if lines[False] else []), tests]
    return html.section("Change from the base", *read, *shown)


def _exams(run: Run, other: Run | None) -> Iterator[str]:
    """The categories of an exam as a plot, and its subjects as a table."""
    for task, tree in run.scores.items():
        if not (groups := {name: tree["groups"][name] for name in EXAM if name in tree["groups"]}):
            continue
        theirs = other.scores.get(task, {}).get("groups", {}) if other else {}
        lines = [
            _line(part["scores"][0], _by_metric(theirs.get(name, {}).get(value)), value)
            for name in ("category", "hard")
            for value, part in groups.get(name, {}).items()
        ]
        plot = [html.estimates(lines, _names(run, other), shared=True)] if lines else []
        rows = [
            (value, part["n"], *_cells(part, theirs.get("subject", {}).get(value), ["accuracy"], bool(other)))
            for value, part in groups.get("subject", {}).items()
        ]
        subjects = html.table(("subject", "questions", "this run", *(["base"] if other else [])), rows)
        yield html.section(f"{task}: categories", *plot, html.folded(f"{len(rows)} subjects", subjects))


def _groups(run: Run, other: Run | None) -> Iterator[str]:
    """All other breakdowns as tables; groups that are too small show only their size."""
    for task, tree in run.scores.items():
        tables = []
        for name, parts in tree["groups"].items():
            if name in EXAM:
                continue
            metrics = [s["metric"] for s in tree["scores"]]
            theirs = other.scores.get(task, {}).get("groups", {}).get(name, {}) if other else {}
            header = [
                name,
                "n",
                *(f"{m}{of}" for m in metrics for of in (["", " (base)"] if other else [""])),
            ]
            rows = [
                (value, part["n"], *_cells(part, theirs.get(value), metrics, bool(other)))
                for value, part in sorted(parts.items(), key=_in_order)
            ]
            tables += [html.heading(f"By {name}"), html.table(header, rows)]
        if tables:
            text = f"Groups with fewer than {scoring.SMALLEST_GROUP} samples have no score."
            yield html.section(f"{task}: breakdowns", html.paragraph(text), *tables)


def _samples(run: Run, other: Run | None, seed: int) -> Iterator[str]:
    """The worst and best changes of each task, or samples without a base, and some drawn at random: the same
    ones for every model."""
    for task, members in run.tasks.items():
        before = {s.id: s for s in other.tasks.get(task, [])} if other else {}
        if other and not (members := [s for s in members if s.id in before]):
            continue
        name, values = per_sample(members)
        if other:
            values = values - per_sample([before[s.id] for s in members])[1]
        order = np.argsort(values, kind="stable").tolist()
        ends = {"worst": order[:SHOWN], "best": order[::-1][:SHOWN]}
        if other:  # unchanged samples are neither
            ends = {word: [i for i in chosen if values[i]] for word, chosen in ends.items()}
        ids = sorted(range(len(members)), key=lambda i: members[i].id)
        drawn = random.Random(f"{seed} {task}").sample(ids, min(SHOWN, len(ids)))
        ends[f"random, seed {seed}"] = drawn
        shown: list[str] = []
        for word, chosen in ends.items():
            shown += [html.heading(word.capitalize()), *([] if chosen else [html.paragraph("None.")])]
            shown += [_pair(members[i], before.get(members[i].id), values[i]) for i in chosen]
        what = f"Change of {name} from the base to this run" if other else name
        said = f"Ranked by: {what}, for each sample; higher is better. {explanations.PAIRS}"
        title = f"{task}: worst and best {'changes' if other else 'samples'}, and random ones"
        yield html.section(title, html.paragraph(said), *shown)


def per_sample(samples: Sequence[EvalSample]) -> tuple[str, Floats]:
    """A metric's name and its value for each single sample, with the sign chosen so that higher is better.

    It is chrF if the task has it (BLEU of a single text is not informative), else the task's first metric.
    """
    names = samples[0].metrics
    measure = METRICS["chrf" if "chrf" in names else names[0]](samples)[0]
    values = measure.combine(measure.statistics)
    return measure.name, values if measure.higher_is_better else -values


def _pair(s: EvalSample, before: EvalSample | None, value: float) -> str:
    texts = [("prompt", s.prompt or s.source)] + ([("reference", s.reference)] if before else [])
    above = [part for name, text in texts if text for part in (name, html.preformatted(_cut(text)))]
    left, right = (before.prediction, s.prediction) if before else (s.reference, s.prediction)
    names = ("base", "this run") if before else ("reference", "this run")
    return html.pair(
        f"{s.id}: {value:+.3g}" if before else f"{s.id}: {value:.3g}", _cut(left), _cut(right), names, *above
    )


def _origin(run: Run) -> list[str]:
    if run.manifest is None:
        return [
            html.paragraph(f"{run.name}: no manifest, because it is a predictions file or an unfinished run.")
        ]
    tree = run.manifest
    rows = [(name, str(tree.get(name))) for name in ("command", "git_commit", "created")]
    rows += [(package, version) for package, version in tree.get("versions", {}).items()]
    whole = html.preformatted(json.dumps(tree, ensure_ascii=False, indent=1))
    return [html.heading(run.name), html.table(("", ""), rows), html.folded("manifest", whole)]


def _by_metric(tree: Tree | None) -> dict[str, Tree]:
    return {s["metric"]: s for s in (tree or {}).get("scores") or []}


def _line(s: Tree, against: dict[str, Tree], name: str = "") -> Line:
    found = against.get(s["metric"])
    name = name or s["metric"] + (" (primary)" if s["primary"] else "")
    return Line(name, _estimate(s), _estimate(found) if found else None, s["chance"])


def _estimate(s: Tree, key: str = "value") -> Estimate:
    low, high = (math.nan if s[end] is None else s[end] for end in ("low", "high"))
    return Estimate(s[key], low, high)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _cells(part: Tree, theirs: Tree | None, metrics: Sequence[str], based: bool) -> Iterator[str]:
    """The scores of a group, each followed by the base's if there is a base."""
    for metric in metrics:
        for group in (part, theirs) if based else (part,):
            found = _by_metric(group).get(metric)
            yield str(_estimate(found)) if found else "–"


def _in_order(group: tuple[str, Tree]) -> tuple[bool, list[int], str]:
    """Sort key: length classes by their bounds, other groups by name."""
    name = group[0]
    bounded = re.fullmatch(r"(?:up to|over) (\d+)", name)
    return name.startswith("over"), [int(bounded[1])] if bounded else [], name


def _names(run: Run, other: Run | None) -> tuple[str, str]:
    return (run.name, other.name) if other else ("", "")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
