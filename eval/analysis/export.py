"""Scores for other programs: CSV, one row a score; LaTeX, one column a run; Weights & Biases, one run a run.

RUN/predictions.jsonl, … ──score──▶ rows ──▶ scores.csv | scores.tex | a project
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance import manifest
from eval.analysis import scoring
from eval.sample import read_predictions

COLUMNS = (
    "run", "task", "metric", "primary", "value", "low", "high", "n", "chance", "interval", "signature"
)  # fmt: skip
Row = dict[str, Any]


def rows_of(runs: Sequence[Path], metrics: Sequence[str] = (), primary: bool = False) -> list[Row]:
    """The scores of run folders or predictions files; with `primary` only one a task. Raises UserError for
    a run that is named twice."""
    return [
        {"run": name, "task": task, **score}
        for name, run in zip([_name(run, runs) for run in runs], runs, strict=True)
        for task, tree in scoring.score(read_predictions(run), metrics).items()
        for score in tree["scores"]
        if score["primary"] or not primary
    ]


def export(rows: Sequence[Row], output: Path) -> str:
    """Scores as the text of `output`. Raises UserError for another suffix than .csv and .tex."""
    match output.suffix:
        case ".csv":
            return _csv(rows)
        case ".tex":
            return _latex(rows, list(dict.fromkeys(row["run"] for row in rows)))
    raise UserError(f"--output {output}: must be a .csv or .tex file.")


def log_to_wandb(rows: Sequence[Row], runs: Sequence[Path], project: str) -> None:
    """Write the scores of each run to a Weights & Biases project: `TASK/METRIC` with `/low`, `/high` and `/n`
    in the run's summary, all in the table `scores`; its manifest is the run's configuration.

    The same run again updates its scores. Raises UserError if wandb is not installed or does not start.
    """
    try:
        import wandb
    except ImportError:
        raise UserError(
            "--wandb needs the package wandb, which is not installed: pip install wandb."
        ) from None
    for path in runs:
        name = _name(path, runs)
        mine = [row for row in rows if row["run"] == name]
        made = path / manifest.NAME
        config = json.loads(made.read_text("utf-8"))["config"] if made.is_file() else {}
        key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
        try:
            run = wandb.init(
                project=project, name=name, id=key, resume="allow", job_type="eval", config=config,
                dir=path if path.is_dir() else path.parent,
                settings=wandb.Settings(console="off"),
            )  # fmt: skip
        except wandb.Error as error:
            raise UserError(f"--wandb {project}: {error}. WANDB_MODE=offline needs no account.") from None
        ends = {"": "value", "/low": "low", "/high": "high", "/n": "n"}
        with run:
            run.summary.update(
                {
                    f"{row['task']}/{row['metric']}{end}": row[column]
                    for row in mine
                    for end, column in ends.items()
                }
            )
            run.log(
                {"scores": wandb.Table(list(COLUMNS), [[row[column] for column in COLUMNS] for row in mine])}
            )


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
