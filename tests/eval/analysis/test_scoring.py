"""`python -m eval score` and `compare` as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval.analysis.scoring import compare, score
from eval.sample import EvalSample
from tests.conftest import ROOT, run


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return path


def line(i: int, prediction: str, reference: str, **more: object) -> dict[str, Any]:
    return {"task": "t", "id": str(i), "prediction": prediction, "reference": reference, **more}


def test_scores_have_values_intervals_n_chance_and_signature(tmp_path: Path) -> None:
    lines = [line(i, "A", "A" if i % 4 else "B", options=4, metrics=["accuracy"]) for i in range(40)]
    write(tmp_path / "predictions.jsonl", lines)
    done = run("eval", "score", tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "scores.json").read_text())["t"]["scores"]
    assert (found["value"], found["n"], found["chance"], found["interval"]) == (0.75, 40, 0.25, "Wilson")
    assert found["low"] < 0.75 < found["high"]
    assert "accuracy" in done.stdout


def test_scoring_loads_no_torch(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", [line(i, "一种装置", "一种方法") for i in range(3)])
    code = (
        "import sys; sys.argv=['eval','score',sys.argv[1],'--metrics','bleu-zh','chrf','rouge-l-jieba'];"
        "import eval.__main__ as m\ntry: m.main()\nexcept SystemExit as e: assert not e.code\n"
        "assert not {'torch','transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], cwd=ROOT, check=True, capture_output=True)


def test_subjects_have_equal_weight_in_all_averages() -> None:
    plan = {
        "law": (10, 1.0, "Humanities"),
        "college_physics": (40, 0.25, "STEM"),
        "biology": (20, 0.5, "STEM"),
    }
    samples = [
        EvalSample(
            task="ceval", id=f"{subject}-{i}",
            prediction="A" if i < n * share else "B", reference="A", options=4,
            metrics=("accuracy",), groups={"subject": subject, "category": category},
        )
        for subject, (n, share, category) in plan.items() for i in range(n)
    ]  # fmt: skip
    tree = score(samples)["ceval"]

    def value(part: dict[str, Any], metric: str = "accuracy-mean-of-subjects") -> float:
        return float(next(s["value"] for s in part["scores"] if s["metric"] == metric))

    assert value(tree) == pytest.approx((1 + 0.25 + 0.5) / 3)
    assert value(tree, "accuracy") == pytest.approx(30 / 70)
    assert value(tree["groups"]["category"]["STEM"]) == pytest.approx(0.375)
    assert value(tree["groups"]["hard"]["Hard"]) == pytest.approx(0.25)
    assert value(tree["groups"]["subject"]["law"], "accuracy") == 1


def test_small_groups_have_no_score() -> None:
    samples = [
        EvalSample(
            task="t", id=str(i), prediction="一种", reference="一种", metrics=("chrf",), groups={"ipc": s}
        )
        for i, s in enumerate("G" * 30 + "A" * 29)
    ]
    groups = score(samples)["t"]["groups"]["ipc"]
    assert groups["A"] == {"n": 29, "scores": None}
    assert groups["G"]["scores"][0]["value"] == pytest.approx(100)


def test_compare_says_better_worse_and_not_shown(tmp_path: Path) -> None:
    good = [line(i, f"一种装置{i}号的方法", f"一种装置{i}号的方法") for i in range(30)]
    bad = [line(i, f"另外装置{i}", f"一种装置{i}号的方法") for i in range(40)]
    for a, b, verdict in ((bad, good, "better"), (good, bad, "worse"), (good, good, "not shown")):
        output = tmp_path / "c.json"
        files = write(tmp_path / "a.jsonl", a), write(tmp_path / "b.jsonl", b)
        done = run("eval", "compare", *files, "--metrics", "bleu-zh", "ter", "--output", output)
        assert done.returncode == 0, done.stderr
        rows = json.loads(output.read_text())
        assert [(r["metric"], r["n"], r["verdict"]) for r in rows] == [
            ("bleu-zh", 30, verdict), ("ter", 30, verdict)
        ]  # fmt: skip


def test_a_worse_model_can_fail_a_pipeline(tmp_path: Path) -> None:
    good = [line(i, f"一种装置{i}号的方法", f"一种装置{i}号的方法") for i in range(30)]
    bad = [line(i, f"另外装置{i}", f"一种装置{i}号的方法") for i in range(30)]
    files = write(tmp_path / "good.jsonl", good), write(tmp_path / "bad.jsonl", bad)
    how = ("--metrics", "chrf", "--output", tmp_path / "c.json")
    assert run("eval", "compare", *files, *how).returncode == 0
    done = run("eval", "compare", *files, *how, "--fail-if-worse")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        1, "B is worse in 1 of its primary scores: t: chrf"
    )  # fmt: skip
    assert json.loads((tmp_path / "c.json").read_text())[0]["verdict"] == "worse"
    for same in (files[::-1], files[:1] * 2):
        assert run("eval", "compare", *same, *how, "--fail-if-worse").returncode == 0


def test_compare_pairs_by_id_and_not_by_position() -> None:
    a = [EvalSample.model_validate(line(i, f"{i}", f"{i}", metrics=("bleu-char",))) for i in range(5)]
    assert compare(a, a[::-1])[0]["difference"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"task":"t","id":"1","prediction":"x","reference":"y"}\n{oops\n', "p.jsonl:2: not valid JSON"),
        ('{"task":"t","id":"1","answer":"x","reference":"y"}\n',
         "p.jsonl:1: no field `prediction`. Its fields: task, id, answer, reference"),
        ('{"task":"t","id":1,"prediction":"x","reference":"y"}\n', "p.jsonl:1: `id`"),
        ("[1]\n", "p.jsonl:1: each line must be a JSON object, not list"),
        ("\n", "the file has no predictions"),
        ('{"task":"t","id":"1","prediction":"x","reference":"y"}\n', "task t: no metrics given"),
        ('{"task":"t","id":"1","prediction":"x","reference":"y","metrics":["blue"]}\n',
         "metric `blue` does not exist"),
    ],
)  # fmt: skip
def test_bad_predictions_are_reported_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(text, "utf-8")
    done = run("eval", "score", tmp_path / "p.jsonl")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def compared(n: int, *metrics: str) -> list[dict[str, Any]]:
    """A model that is right on every sample against one that is not, on n samples."""
    reference = "一种数据处理系统及其方法"
    a, b = (
        [
            EvalSample.model_validate(line(i, text, reference, metrics=("chrf", "rouge-l-char")))
            for i in range(n)
        ]
        for text in (reference[:-3], reference[:-1])
    )
    return compare(a, b, metrics)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_too_few_samples_to_show_a_difference_are_named_as_too_few(n: int) -> None:
    rows = compared(n)
    assert {row["verdict"] for row in rows if row["primary"]} == {
        "better" if n == 6 else "not shown: too few to compare"
    }
    assert all(row["low"] < row["difference"] < row["high"] for row in rows)


def test_the_family_is_the_primary_scores_or_the_metrics_that_were_named() -> None:
    first, *others = compared(7)
    assert (first["metric"], first["p_holm"], first["verdict"]) == ("chrf", first["p"], "better")
    assert {(row["p_holm"], row["verdict"]) for row in others if row["difference"]} == {
        (None, "better, unadjusted")
    }
    named = {row["metric"]: row for row in compared(7, "chrf", "rouge-l-char")}
    family = [name for name, row in named.items() if row["primary"]]
    assert family == ["chrf", "rouge-l-char-f1"]
    assert [named[name]["p_holm"] for name in family] == [2 * first["p"]] * 2
