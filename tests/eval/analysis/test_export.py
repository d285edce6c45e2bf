"""Scores as CSV and LaTeX: every number of score(), and text that stays text."""

import csv
import json
import re
from pathlib import Path

import pytest
import wandb

from core.errors import UserError
from eval.analysis.export import COLUMNS, export, rows_of
from eval.analysis.scoring import score
from eval.sample import read_predictions
from tests.eval.in_process import here
from tests.eval.models.tiny import write_jsonl


def predictions(folder: Path, wrong: int, task: str = "=a_b&c%") -> Path:
    lines = [
        {"task": task, "id": str(i), "prediction": "一种装置" if i % wrong else "设备",
         "reference": "一种装置", "metrics": ["chrf", "rouge-l-char"]}
        for i in range(12)
    ]  # fmt: skip
    write_jsonl(folder / "predictions.jsonl", *lines)
    return folder


def test_a_csv_has_every_score_with_its_interval(tmp_path: Path) -> None:
    runs = [predictions(tmp_path / name, wrong) for name, wrong in (("one", 3), ("two", 5))]
    code, said = here("eval", "export", *runs, "--output", tmp_path / "s.csv")
    assert code == 0, said
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text("utf-8").splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert {row["task"] for row in rows} == {"'=a_b&c%"}
    for run in runs:
        scores = score(read_predictions(run))["=a_b&c%"]["scores"]
        mine = [row for row in rows if row["run"] == run.name]
        assert [(row["metric"], float(row["value"]), float(row["low"])) for row in mine] == [
            (s["metric"], s["value"], s["low"]) for s in scores
        ]
    only = export(rows_of(runs, primary=True), tmp_path / "p.csv").splitlines()
    assert len(only) == 1 + 2


def test_a_latex_table_has_a_column_for_each_run_and_escapes_names(tmp_path: Path) -> None:
    runs = [predictions(tmp_path / name / "answers", 3) for name in ("base_1", "tuned")]
    text = export(rows_of(runs), tmp_path / "s.tex")
    assert r"\begin{tabular}{llrrr}" in text
    assert r"base\_1/answers & tuned/answers" in text
    assert r"=a\_b\&c\% & chrf & 12 & " in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {4}
    (tmp_path / "other").mkdir()
    other = predictions(tmp_path / "other", 3, task="other")
    assert "--" in export(rows_of([runs[0], other]), tmp_path / "s.tex")


def test_what_cannot_be_a_table_is_refused(tmp_path: Path) -> None:
    run = predictions(tmp_path / "one", 3)
    with pytest.raises(UserError, match=r"must be a \.csv or \.tex file"):
        export(rows_of([run]), tmp_path / "s.xlsx")
    with pytest.raises(UserError, match="is named twice"):
        export(rows_of([run, run]), tmp_path / "s.csv")
    code, said = here("eval", "export", run, "--output", run / "predictions.jsonl")
    assert code == 2
    assert "Choose another file" in said


def test_one_sample_without_an_interval_is_an_empty_cell(tmp_path: Path) -> None:
    line = {"task": "t", "id": "1", "prediction": "a b", "reference": "a b", "metrics": ["ter"]}
    write_jsonl(tmp_path / "p.jsonl", line)
    (row,) = csv.DictReader(export(rows_of([tmp_path / "p.jsonl"]), tmp_path / "s.csv").splitlines())
    assert (row["value"], row["low"], row["high"]) == ("0.0", "", "")


def test_scores_go_to_a_weights_and_biases_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = predictions(tmp_path / "one", 3, "title")
    (run / "manifest.json").write_text(json.dumps({"step": "eval", "config": {"model": "mine"}}))
    code, said = here("eval", "export", run, "--wandb", "patents")
    assert code == 0, said
    wandb.teardown()  # its service writes the file to the end, as when the command ends
    (folder,) = run.glob("wandb/offline-run-*")
    (file,), (table,) = folder.glob("*.wandb"), folder.glob("files/media/table/*.json")
    assert json.loads(table.read_text("utf-8"))["columns"] == list(COLUMNS)
    assert len(json.loads(table.read_text("utf-8"))["data"]) == len(rows_of([run]))
    logged = file.read_bytes()
    for row in rows_of([run]):
        for name, value in (("", row["value"]), ("/low", row["low"]), ("/n", row["n"])):
            place = logged.index(f"title/{row['metric']}{name}".encode())
            assert repr(value).encode() in logged[place : place + 120]
    assert b'"mine"' in logged


def test_an_export_without_a_target_is_refused(tmp_path: Path) -> None:
    assert here("eval", "export", predictions(tmp_path / "one", 3))[0] == 2
