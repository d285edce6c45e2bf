"""Scores as a table for other programs: CSV, one row a score; LaTeX, one column a run.

RUN/predictions.jsonl, … ──score──▶ rows ──by the suffix of the file──▶ scores.csv | scores.tex
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from eval.analysis import scoring
from eval.sample import read_predictions

COLUMNS = (
    "run", "task", "metric", "primary", "value", "low", "high", "n", "chance", "interval", "signature"
)  # fmt: skip
Row = dict[str, Any]


def export(runs: Sequence[Path], output: Path, metrics: Sequence[str] = (), primary: bool = False) -> str:
    """The scores of run folders or predictions files as the text of `output`; with `primary` only one score a
    task. Raises UserError for another suffix than .csv and .tex, and for runs of the same name."""
    names = [_name(run, runs) for run in runs]
    rows = [
        {"run": name, "task": task, **score}
        for name, run in zip(names, runs, strict=True)
        for task, tree in scoring.score(read_predictions(run), metrics).items()
        for score in tree["scores"]
        if score["primary"] or not primary
    ]
    match output.suffix:
        case ".csv":
            return _csv(rows)
        case ".tex":
            return _latex(rows, names)
    raise UserError(f"--output {output}: must be a .csv or .tex file.")


def _name(run: Path, runs: Sequence[Path]) -> str:
    """The last part of a run's path that tells it from the others."""
    own = run.resolve()
    for parts in range(1, len(own.parts)):
        name = "/".join(own.parts[-parts:])
        if sum(other.resolve().parts[-parts:] == own.parts[-parts:] for other in runs) == 1:
            return name
    raise UserError(f"{run} is named twice.")


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row[column]) for column in COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A cell; a spreadsheet would run text that starts like a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _latex(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A booktabs table with the interval below each value. The highest value is not marked: the intervals and
    `python -m eval compare` say what differs."""
    cells = {(row["task"], row["metric"], row["run"]): row for row in rows}
    lines = dict.fromkeys((row["task"], row["metric"]) for row in rows)
    body = []
    for task, metric in lines:
        found = [cells.get((task, metric, name)) for name in names]
        sizes = ", ".join(f"{n:,}" for n in dict.fromkeys(row["n"] for row in found if row))
        shown = ["--" if row is None else f"{row['value']:.4g}" for row in found]
        ends = [
            "" if row is None or row["low"] is None or row["high"] is None
            else rf"{{\scriptsize {row['low']:.4g}--{row['high']:.4g}}}"
            for row in found
        ]  # fmt: skip
        body.append(" & ".join([_escape(task), _escape(metric), sizes, *shown]) + r" \\")
        body.append(" & ".join(["", "", "", *ends]) + r" \\")
    head = " & ".join(["task", "metric", "$n$", *map(_escape, names)])
    return "\n".join(
        ["% needs \\usepackage{booktabs}; 95% intervals below the values",
         rf"\begin{{tabular}}{{llr{'r' * len(names)}}}", r"\toprule", rf"{head} \\", r"\midrule", *body,
         r"\bottomrule", r"\end{tabular}", ""]
    )  # fmt: skip


def _escape(text: str) -> str:
    """Text whose special characters LaTeX prints."""
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}]", lambda match: named.get(match[0], "\\" + match[0]), text)
