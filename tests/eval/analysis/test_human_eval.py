"""Blind sheets: what judges see, the results of their judgments, and the pairs for preference tuning."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from nltk.metrics.agreement import AnnotationTask
from openpyxl import Workbook, load_workbook

from eval.analysis.human_eval import (
    COLUMNS,
    Judgment,
    preference_pairs,
    read_sheets,
    results,
    write_sheet,
)
from tests.conftest import run

N = 40


def predictions(file: Path, name: str, same: int = 4) -> Path:
    """N samples of two tasks; the first `same` are equal in all runs, and sample 7 looks like a formula."""
    lines = [
        {"task": "ab"[i % 2], "id": str(i), "reference": f"译文{i}", "source": f"text {i}",
         "prediction": f"同{i}" if i < same else f"={name}{i}\x07" if i == 7 else f"{name} 译{i}"}
        for i in range(N)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return file


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return predictions(tmp_path / "a.jsonl", "old"), predictions(tmp_path / "b.jsonl", "new")


def cells(file: Path) -> list[list[Any]]:
    """All rows of a sheet, with the header."""
    if file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as opened:
            return list(csv.reader(opened))
    return [list(row) for row in load_workbook(file).active.iter_rows(values_only=True)]


def fill(file: Path, filled: Path, answers: list[str]) -> Path:
    """The sheet with a column `better`, as somebody saves it."""
    rows = cells(file)
    for row, answer in zip(rows[1:], answers, strict=True):
        row[COLUMNS.index("better")] = answer
    if filled.suffix == ".csv":
        with filled.open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows(rows)
    else:
        book = Workbook()
        for row in rows:
            book.active.append(row)
        book.save(filled)
    return filled


@pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
def test_planted_preferences_are_recovered_and_become_pairs(
    runs: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    sheet, key = tmp_path / f"sheet{suffix}", tmp_path / "sheet.key.json"
    done = run("eval", "sheet", *runs, "--output", sheet, "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert "36 of 36 samples with different answers (4 have the same answer)" in done.stdout
    sides = ["left" if "new" in str(row[4]) else "right" for row in cells(sheet)[1:]]
    other = {"left": "right", "right": "left"}
    ann = fill(sheet, tmp_path / f"ann{suffix}", [*sides[:27], *(other[s] for s in sides[27:])])
    bob = fill(sheet, tmp_path / f"bob{suffix}", [*sides[:18], *["tie"] * 9, *[""] * 9])
    done = run("eval", "sheet", "--read", ann, bob, "--key", key, "--pairs", tmp_path / "pairs.jsonl",
               "--result", tmp_path / "r.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {r["number"]: r for r in json.loads((tmp_path / "r.json").read_text()) if r["task"] == "all"}
    rate = found["win-rate-of-b"]
    assert rate["value"] == pytest.approx((18 + 9 * 0.75) / 36)  # 18 by both, 9 by one and tied, 9 lost
    assert (rate["wins"], rate["ties"], rate["losses"], rate["n"]) == (45, 9, 9, 36)
    assert rate["low"] < rate["value"] < rate["high"]
    assert rate["p"] < 0.01  # 27 against 9
    assert (found["agreement"]["value"], found["agreement"]["n"]) == (pytest.approx(18 / 27), 27)
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert len(pairs) == 36
    assert sum("new" in pair["chosen"] for pair in pairs) == 27
    formula = next(pair for pair in pairs if pair["id"] == "7")
    assert formula["prompt"] == "text 7"
    assert {formula["chosen"], formula["rejected"]} == {"=old7\x07", "=new7\x07"}  # as the models wrote it


def test_the_sheet_is_blind_shuffled_and_the_same_for_a_seed(runs: tuple[Path, Path], tmp_path: Path) -> None:
    def made(name: str, seed: int, samples: int | None = None) -> list[list[Any]]:
        write_sheet(*runs, tmp_path / name, seed=seed, samples=samples)
        return cells(tmp_path / name)

    first = made("1.csv", 1)
    assert first == made("2.csv", 1) != made("3.csv", 2)
    sides = ["new" in row[4] for row in first[1:]]
    assert 8 < sum(sides) < 28
    assert [row[2] for row in first[1:]] != sorted(row[2] for row in first[1:])
    assert not {"a", "id"} & set(first[0])  # neither models' names nor ids
    assert "a.jsonl" not in (tmp_path / "1.csv").read_text("utf-8-sig")
    assert len(made("4.csv", 1, samples=5)) == 6


@pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
def test_a_text_never_becomes_a_formula(runs: tuple[Path, Path], tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"s{suffix}"
    write_sheet(*runs, file)
    if suffix == ".csv":
        assert {cell[:2] for row in cells(file) for cell in row if "=" in cell} == {"'="}
    else:
        texts = [cell for row in load_workbook(file).active.iter_rows() for cell in row if cell.value]
        assert {cell.data_type for cell in texts} == {"s"}


def test_alpha_and_agreement_are_those_of_nltk() -> None:
    generator = random.Random(0)
    rows = [{"row": str(i), "task": "t"} for i in range(60)]
    answers = ["a", "a", "a", "a", "b", "b", "b", "tie"]
    judgments = [
        Judgment(rater, row["row"], generator.choice(answers[int(row["row"]) % 5 :]))
        for rater in ("x", "y", "z") for row in rows if generator.random() < 0.9
    ]  # fmt: skip
    counts = {row["row"]: sum(j.row == row["row"] for j in judgments) for row in rows}
    assert {2, 3} <= set(counts.values())  # some judgments are missing
    found = {r["number"]: r["value"] for r in results({"rows": rows}, judgments)}
    paired = [j for j in judgments if counts[j.row] > 1]
    alpha = AnnotationTask(data=paired).alpha()
    assert 0 < alpha < 1
    assert found["krippendorff-alpha"] == pytest.approx(alpha)


def test_unanimous_judgments_agree_fully_and_ties_make_no_pair() -> None:
    rows = [{"row": str(i), "task": "t", "id": str(i), "prompt": "", "a": "x", "b": "y"} for i in range(4)]
    judgments = [Judgment(who, row["row"], "tie") for who in "xy" for row in rows]
    found = {r["number"]: r["value"] for r in results({"rows": rows}, judgments)}
    rates = {f"win-rate-of-b{by}": 0.5 for by in ("", " by x", " by y")}
    agreements = {f"agreement{of}": 1 for of in ("", " of x with the others", " of y with the others")}
    assert found == {**rates, **agreements, "krippendorff-alpha": 1}
    assert preference_pairs({"rows": rows}, judgments) == []


def test_errors_in_a_sheet_are_reported_with_file_and_row(runs: tuple[Path, Path], tmp_path: Path) -> None:
    sheet, key = tmp_path / "s.csv", tmp_path / "s.key.json"
    write_sheet(*runs, sheet)
    bad = fill(sheet, tmp_path / "bad.csv", ["left", "perhaps", *[""] * 34])
    other = tmp_path / "o.csv"
    write_sheet(*runs, other, seed=9)
    filled = fill(other, tmp_path / "of.csv", ["left"] * 36)
    (tmp_path / "short.csv").write_text("row,left\n1,x\n", "utf-8")
    (tmp_path / "no.xlsx").write_text("nonsense", "utf-8")
    for arguments, message in (
        (
            ["--read", bad, "--key", key],
            "bad.csv, row 3: `better` is `perhaps`; it must be left, right or tie",
        ),
        (["--read", filled, "--key", key], "which is the key of another sheet"),
        (["--read", sheet, "--key", key], "the column `better` is empty"),
        (["--read", tmp_path / "short.csv", "--key", key], "no column `better`. Its columns: row, left"),
        (["--read", tmp_path / "no.xlsx", "--key", key], "no.xlsx: cannot read the sheet"),
        ([*runs, "--output", sheet], "s.csv already exists"),
        ([runs[0], runs[0], "--output", tmp_path / "n.csv"], "all answers are the same"),
        ([runs[0]], "sheet needs A, B and --output"),
    ):
        done = run("eval", "sheet", *arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert message in done.stderr


def test_judgments_in_other_languages_and_capitals_are_accepted(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    write_sheet(*runs, tmp_path / "s.csv", samples=4)
    filled = fill(tmp_path / "s.csv", tmp_path / "f.csv", ["Left", "右 ", "平", "R"])
    key, judgments = read_sheets([filled], tmp_path / "s.key.json")
    left = {row["row"]: row["left"] for row in key["rows"]}
    sides = [
        "tie" if j.better == "tie" else "left" if j.better == left[j.row] else "right" for j in judgments
    ]
    assert sides == ["left", "right", "tie", "right"]
