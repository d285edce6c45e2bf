"""Sheets for blind side-by-side judging by people, and the analysis of their judgments.

    A, B ──common samples whose answers differ──▶ shuffled rows and sides ──▶ sheet.xlsx (or .csv)
                                                                     └──▶ sheet.key.json, kept separately
    filled sheets + key ──▶ win rate and agreement with intervals; pairs.jsonl (prompt, chosen, rejected)

Only the key says which side belongs to which run. Intervals are over samples with all their judgments,
because judgments of the same sample are correlated.
"""

import csv
import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.errors import UserError
from core.html_report import text_table
from core.provenance import atomic_io
from eval.analysis.significance import mcnemar, score_interval
from eval.metrics.measure import Floats, Measure, mean, ratio
from eval.sample import EvalSample, read_predictions

COLUMNS = ("row", "task", "source", "reference", "left", "right", "better", "comment")
ANSWERS = {
    "left": ("left", "l", "左"),
    "right": ("right", "r", "右"),
    "tie": ("tie", "t", "=", "equal", "same", "平", "平局", "一样", "一樣", "相同"),
}
"""Accepted answers in the column `better`."""
KEY_FIELDS = {"row", "task", "id", "left", "prompt", "source", "reference", "a", "b"}
"""What the key says of each row."""
LONGEST_CELL = 32_000
"""Maximum length in characters; a spreadsheet cell is limited to 32,767."""

Tree = dict[str, Any]


class Judgment(NamedTuple):
    """One judgment of one row by a person or a model: `a`, `b` or `tie`."""

    rater: str
    row: str
    better: str


def write_sheet(
    a: Path, b: Path, output: Path, *, key: Path | None = None, samples: int | None = None, seed: int = 0
) -> str:
    """Write the sheet (.xlsx or .csv) and its key (by default NAME.key.json); returns a message about them.

    `samples` is the number drawn. Raises UserError if a file exists (it may be filled in) or nothing differs.
    """
    key = key or output.with_suffix(".key.json")
    check_new(output, key)
    ours = {(s.task, s.id): s for s in read_predictions(a)}
    pairs = [(ours[s.task, s.id], s) for s in read_predictions(b) if (s.task, s.id) in ours]
    different = [(x, y) for x, y in pairs if x.prediction.strip() != y.prediction.strip()]
    if not pairs:
        raise UserError(f"{a} and {b} have no sample in common (same task and id).")
    if not different:
        raise UserError(f"{a} and {b} have {len(pairs)} samples in common, and all answers are the same.")
    generator = random.Random(seed)
    chosen = sorted(different, key=lambda pair: (pair[0].task, pair[0].id))
    generator.shuffle(chosen)
    chosen = chosen[:samples]
    name = hashlib.sha256(
        repr([(seed, x.task, x.id, x.prediction, y.prediction) for x, y in chosen]).encode()
    )
    rows = [
        _row(f"{name.hexdigest()[:6]}-{number}", x, y, generator.choice("ab"))
        for number, (x, y) in enumerate(chosen, 1)
    ]
    atomic_io.write_text(
        key,
        json.dumps(
            {"a": str(a), "b": str(b), "seed": seed, "same": len(pairs) - len(different), "rows": rows},
            ensure_ascii=False,
            indent=1,
        )
        + "\n",
    )
    save_sheet(output, rows)
    return (
        f"{output}: {len(rows)} of {len(different)} samples with different answers "
        f"({len(pairs) - len(different)} have the same answer). {key} says which side is which run: "
        "do not show it to the judges."
    )


def check_new(sheet: Path, *others: Path) -> None:
    """Raise UserError if `sheet` is not named as one, or if a file exists (it may be filled in)."""
    if sheet.suffix not in (".xlsx", ".csv"):
        raise UserError(f"{sheet}: a sheet must be a .xlsx or .csv file.")
    for file in (sheet, *others):
        if file.exists():
            raise UserError(f"{file} already exists and is not overwritten. Choose another name.")


def save_sheet(output: Path, rows: Sequence[Tree]) -> None:
    """Write the rows of a key, with `better` and `comment` if they are filled in, as a sheet."""
    cells = [[cell_text(row, column) for column in COLUMNS] for row in rows]
    (_write_csv if output.suffix == ".csv" else _write_xlsx)(output, cells)


def read_key(key: Path) -> Tree:
    """The key of a sheet; UserError if the file is none."""
    try:
        tree: Tree = json.loads(key.read_text("utf-8"))
        whole = all(row.keys() >= KEY_FIELDS and row["left"] in ("a", "b") for row in tree["rows"])
    except FileNotFoundError:
        raise UserError(f"{key}: file not found. It was written with the sheet.") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(f"{key}: not the key of a sheet.")
    return tree


def read_sheets(files: Sequence[Path], key: Path) -> tuple[Tree, list[Judgment]]:
    """Read the key and the judgments of filled sheets, one sheet per rater (identified by its file name).

    Raises UserError, with file and row, for an invalid judgment or a sheet that does not match the key.
    """
    tree = read_key(key)
    sides = {row["row"]: row["left"] for row in tree["rows"]}
    judgments = []
    for file in files:
        if [other.resolve() for other in files].count(file.resolve()) > 1:
            raise UserError(f"--read names {file} twice.")
        seen: set[str] = set()
        for number, row in _read_rows(file):
            place = f"{file}, row {number}"
            if row["row"] not in sides:
                raise UserError(
                    f"{place}: `{row['row']}` is not in {key}, which is the key of another sheet."
                )
            if row["row"] in seen:
                raise UserError(f"{place}: duplicate row `{row['row']}`.")
            seen.add(row["row"])
            answer = row["better"].strip().casefold()
            if not answer:
                continue
            side = next((name for name, accepted in ANSWERS.items() if answer in accepted), None)
            if side is None:
                raise UserError(f"{place}: `better` is `{row['better']}`; it must be left, right or tie.")
            left = sides[row["row"]]
            other = "b" if left == "a" else "a"
            better = {"left": left, "right": other, "tie": "tie"}[side]
            judgments.append(Judgment(str(file), row["row"], better))
    if not judgments:
        raise UserError(f"{', '.join(map(str, files))}: the column `better` is empty.")
    return tree, judgments


def results(key: Mapping[str, Any], judgments: Sequence[Judgment]) -> list[Tree]:
    """B's win rate, overall and by task, and agreement: `task`, `number`, `value`, `low`, `high`, `n`, …

    `win-rate-of-b` counts a tie as half; `p` is from the exact sign test over samples, without ties.
    `krippendorff-alpha` is nominal (Krippendorff 2011), over samples with at least two judgments. With two or
    more raters, each also has the win rate of its own judgments and its agreement with the others, with its
    name as `rater`.
    """
    tasks = {row["row"]: row["task"] for row in key["rows"]}
    names = sorted(set(tasks.values()))
    found = []
    for task in ["all", *(names if len(names) > 1 else [])]:
        votes: dict[str, Counter[str]] = {}
        for judgment in judgments:
            if task in ("all", tasks[judgment.row]):
                votes.setdefault(judgment.row, Counter())[judgment.better] += 1
        if not votes:
            continue
        shares = np.array([(v["b"] + v["tie"] / 2) / v.total() for v in votes.values()])
        total = sum(votes.values(), Counter[str]())
        sign = mcnemar(shares < 0.5, shares > 0.5)
        found.append(
            number_row(task, mean("win-rate-of-b", shares, "ties count half"))
            | {"wins": total["b"], "ties": total["tie"], "losses": total["a"], "p": sign.p}
        )
        if several := [v for v in votes.values() if v.total() > 1]:
            found += [number_row(task, measure) for measure in _agreement(several)]
    raters = list(dict.fromkeys(judgment.rater for judgment in judgments))
    for rater in raters if len(raters) > 1 else ():
        found += [number_row("all", measure) | {"rater": rater} for measure in _of_rater(rater, judgments)]
    return found


def results_table(rows: Sequence[Tree]) -> str:
    """The results as a table for the terminal."""
    cells = [
        [
            r["task"],
            r["number"],
            f"{r['value']:.3f}",
            "–" if r["low"] is None else f"{r['low']:.3f} – {r['high']:.3f}",
            r["n"],
            f"{r['wins']} / {r['ties']} / {r['losses']}" if "wins" in r else "",
            f"{r['p']:.2g}" if "p" in r else "",
        ]
        for r in rows
    ]
    header = ["task", "number", "value", "95% interval", "samples", "B won / tied / lost", "p (sign test)"]
    return text_table(header, cells)


def preference_pairs(key: Mapping[str, Any], judgments: Sequence[Judgment]) -> list[Tree]:
    """`prompt`, `chosen`, `rejected` of each sample for which a majority preferred one side."""
    votes: dict[str, int] = Counter()
    for judgment in judgments:
        votes[judgment.row] += {"a": -1, "b": 1, "tie": 0}[judgment.better]
    return [
        {
            "prompt": row["prompt"],
            "chosen": row["b" if votes[row["row"]] > 0 else "a"],
            "rejected": row["a" if votes[row["row"]] > 0 else "b"],
            "task": row["task"],
            "id": row["id"],
            "margin": abs(votes[row["row"]]),
        }
        for row in key["rows"]
        if votes.get(row["row"])
    ]


def _row(name: str, x: EvalSample, y: EvalSample, left: str) -> Tree:
    return {
        "row": name,
        "task": x.task,
        "id": x.id,
        "left": left,
        "prompt": x.prompt or x.source,
        "source": x.source or x.prompt,
        "reference": x.reference,
        "a": x.prediction,
        "b": y.prediction,
    }


def cell_text(row: Tree, column: str) -> str:
    if column in ("left", "right"):
        return str(row[row["left"] if column == "left" else "ab".replace(row["left"], "")])
    return str(row.get(column, ""))


def _write_csv(file: Path, rows: Sequence[Sequence[str]]) -> None:
    partial = atomic_io.beside(file, "partial")
    with partial.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        # A spreadsheet would run text that starts like a formula.
        writer.writerows(
            [f"'{cell}" if cell[:1] in "=+-@" and cell else cell for cell in row] for row in rows
        )
    atomic_io.replace(partial, file)


def _write_xlsx(file: Path, rows: Sequence[Sequence[str]]) -> None:
    from openpyxl import Workbook
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    from openpyxl.styles import Alignment, Font
    from openpyxl.worksheet.datavalidation import DataValidation

    book = Workbook()
    sheet = book.active
    for number, row in enumerate([COLUMNS, *rows], 1):
        for place, text in enumerate(row, 1):
            shown = text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}…"
            cell = sheet.cell(number, place, ILLEGAL_CHARACTERS_RE.sub("", shown))
            cell.data_type = "s"  # never a formula
            cell.alignment = Alignment(wrap_text=True, vertical="top")
            cell.font = Font(bold=number == 1)
    for place, width in enumerate((12, 14, 50, 50, 60, 60, 10, 30)):
        sheet.column_dimensions["ABCDEFGH"[place]].width = width
    sheet.freeze_panes = "A2"
    choice = DataValidation(type="list", formula1='"left,right,tie"', allow_blank=True)
    sheet.add_data_validation(choice)
    choice.add(f"G2:G{len(rows) + 1}")
    partial = atomic_io.beside(file, "partial")
    book.save(partial)
    atomic_io.replace(partial, file)


def _read_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield row number, and the cells `row` and `better`, of each non-empty row."""
    if not file.exists():
        raise UserError(f"{file}: file not found.")
    if file.suffix == ".csv":
        csv.field_size_limit(1 << 26)  # whole descriptions
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.reader(opened))
    else:
        from openpyxl import load_workbook

        try:
            sheet = load_workbook(file, read_only=True).active
        except Exception as error:  # openpyxl also passes on errors of zipfile and lxml
            raise UserError(f"{file}: cannot read the sheet ({error}).") from None
        rows = [["" if v is None else str(v) for v in row] for row in sheet.iter_rows(values_only=True)]
    header = rows[0] if rows else []
    for column in ("row", "better"):
        if column not in header:
            raise UserError(f"{file}: no column `{column}`. Its columns: {', '.join(header) or 'none'}.")
    places = {column: header.index(column) for column in ("row", "better")}
    for number, row in enumerate(rows[1:], 2):
        found = {column: row[place] if place < len(row) else "" for column, place in places.items()}
        if found["row"].strip():
            yield number, found


def _agreement(votes: Sequence[Counter[str]]) -> list[Measure]:
    """Share of agreeing pairs of judgments, and Krippendorff's alpha, over samples with several judgments."""
    counts = np.array([[v["a"], v["b"], v["tie"]] for v in votes], dtype=np.float64)
    total = counts.sum(axis=1)
    pairs = total * (total - 1)
    agreeing = (counts * (counts - 1)).sum(axis=1)
    disagreement = (pairs - agreeing) / (total - 1)
    return [
        Measure("agreement", np.column_stack([agreeing, pairs]), ratio, "share of pairs of judgments"),
        Measure("krippendorff-alpha", np.column_stack([disagreement, counts]), _alpha, "nominal"),
    ]


def _alpha(sums: Floats) -> Floats:
    """sums (..., 4): disagreeing pairs over (judgments of the sample - 1), and judgments a, b, tie.

    1 if all judgments are the same.
    """
    counts = sums[..., 1:]
    total = counts.sum(axis=-1)
    expected = (total**2 - (counts**2).sum(axis=-1)) / np.maximum(total - 1, 1)
    return np.asarray(np.where(expected > 0, 1 - sums[..., 0] / np.where(expected > 0, expected, 1), 1.0))


def _of_rater(rater: str, judgments: Sequence[Judgment]) -> list[Measure]:
    """B's win rate by one rater, and the share of pairs of its and another's judgments that agree, over the
    samples that others judged too."""
    own = {each.row: each.better for each in judgments if each.rater == rater}
    others: dict[str, Counter[str]] = {}
    for each in judgments:
        if each.rater != rater and each.row in own:
            others.setdefault(each.row, Counter())[each.better] += 1
    shares = [{"a": 0.0, "tie": 0.5, "b": 1.0}[better] for better in own.values()]
    found = [mean(f"win-rate-of-b by {rater}", shares, "ties count half")]
    if others:
        pairs = np.array([[votes[own[row]], votes.total()] for row, votes in others.items()], np.float64)
        found.append(Measure(f"agreement of {rater} with the others", pairs, ratio, "share of pairs"))
    return found


def number_row(task: str, measure: Measure) -> Tree:
    """A row of the results: `task`, `number`, `value`, `low`, `high` (None if unknown), `n`."""
    low, high = (end if math.isfinite(end) else None for end in score_interval(measure))
    value = float(measure.combine(measure.statistics.sum(axis=0)))
    n = len(measure.statistics)
    return {"task": task, "number": measure.name, "value": value, "low": low, "high": high, "n": n}
