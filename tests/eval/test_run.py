"""Runs against a served model whose mistakes are planted: scores, retries, resume after kill -9."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from eval.models.openai_api import EvalEndpointConfig, generate
from eval.sample import EvalSample
from eval.tasks.task import Request
from tests.conftest import ROOT, run
from tests.eval.models.server import Answer, serve

PLAN = {
    "law": ("法学", "Humanities", 10, 9),
    "college_physics": ("大学物理", "STEM", 20, 5),
    "logic": ("逻辑学", "Humanities", 6, 3),
}
"""Subject: name in the prompt, category, questions, right answers planted."""


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    """A C-Eval folder whose question N of a subject is right with option N mod 4."""
    for split, count in (("dev", 5), ("val", None)):
        (tmp_path / "ceval" / split).mkdir(parents=True)
        for subject, (_, _, n, _) in PLAN.items():
            rows = "".join(
                f"{i},{split}问{subject}#{i}#,NA,乙,丙,丁,{'ABCD'[i % 4]}\n" for i in range(count or n)
            )
            file = tmp_path / "ceval" / split / f"{subject}_{split}.csv"
            file.write_text(f"id,question,A,B,C,D,answer\n{rows}", "utf-8")
    names = {subject: [subject, plan[0], plan[1]] for subject, plan in PLAN.items()}
    (tmp_path / "ceval" / "subject_mapping.json").write_text(json.dumps(names), "utf-8")
    return tmp_path


def planted(prompt: str) -> Answer:
    """The first answers of each subject are right, the others are the next letter."""
    question = prompt.rpartition("val问")[2]
    subject, number = question.split("#")[:2]
    right = int(number) < PLAN[subject][3]
    return f" {'ABCD'[(int(number) + (0 if right else 1)) % 4]}"


def command(url: str, data: Path, output: Path, *more: str) -> list[str | Path]:
    return [
        "eval", "run", "--endpoint", url, "--model", "m", "--tasks", "ceval", "--data", data,
        "--output", output, *more
    ]  # fmt: skip


def accuracies(output: Path) -> dict[str, Any]:
    tree = json.loads((output / "scores.json").read_text())["ceval"]

    def values(part: dict[str, Any]) -> dict[str, float]:
        return {s["metric"]: s["value"] for s in part["scores"]}

    return {"all": values(tree)} | {
        f"{group}:{name}": values(part)
        for group, parts in tree["groups"].items()
        for name, part in parts.items()
    }


def test_planted_mistakes_give_exactly_the_planted_scores(exam: Path) -> None:
    with serve(planted) as (url, asked):
        done = run(*command(url, exam, exam / "out", "--chat"))
    assert done.returncode == 0, done.stderr
    got, mean = accuracies(exam / "out"), "accuracy-mean-of-subjects"
    assert got["all"][mean] == pytest.approx((0.9 + 0.25 + 0.5) / 3)
    assert got["all"]["accuracy"] == pytest.approx(17 / 36)
    assert got["category:Humanities"][mean] == pytest.approx(0.7)
    assert got["hard:Hard"][mean] == pytest.approx(0.25)
    for subject, (_, _, n, right) in PLAN.items():
        assert got[f"subject:{subject}"]["accuracy"] == pytest.approx(right / n)
    prompts = [a["messages"][0]["content"] for a in asked]
    prompt = next(p for p in prompts if "val问law#3#" in p)
    assert prompt.startswith(
        "以下是中国关于法学考试的单项选择题，请选出其中的正确答案。\n\ndev问law#0#\nA. NA\nB. 乙\n"
    )
    assert prompt.endswith("答案：")
    assert prompt.count("答案：") == 6
    assert "答案：B\n\ndev问law#2#" in prompt


def test_a_run_killed_twice_ends_with_the_scores_of_one_that_was_not(exam: Path) -> None:
    with serve(planted) as (url, _):
        assert run(*command(url, exam, exam / "whole")).returncode == 0
    with serve(planted, seconds=0.2) as (url, asked):
        file = exam / "cut" / "predictions.jsonl"
        arguments = [sys.executable, "-m", *map(str, command(url, exam, exam / "cut", "--concurrency", "2"))]
        written: list[str] = []
        asked_then = 0

        def again_asked() -> set[str]:
            done = {json.loads(line)["prompt"] for line in written}
            return done & {str(each["prompt"]) for each in asked[asked_then:]}

        for lines in (8, 16):
            process = subprocess.Popen(arguments, cwd=ROOT)
            while not file.exists() or file.read_text("utf-8").count("\n") < lines:
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()
            process.wait()
            assert not again_asked()
            written, asked_then = file.read_text("utf-8").split("\n")[:-1], len(asked)
        with file.open("a") as out:
            out.write('{"task": "ceval", "id": "la')  # as a write that was cut short
        done = run(*arguments[2:])
        assert done.returncode == 0, done.stderr
        assert not again_asked()
        asked_before = len(asked)
        again = run(*arguments[2:])
        assert again.returncode == 0
        assert len(asked) == asked_before  # nothing is asked again
    assert accuracies(exam / "cut") == accuracies(exam / "whole")
    ids = [
        [json.loads(line)["id"] for line in (exam / run / "predictions.jsonl").open()]
        for run in ("cut", "whole")
    ]
    assert ids[0] == ids[1], "in the order of the data"
    assert len(ids[0]) == len(set(ids[0])) == 36


def test_another_model_reuses_no_answer(exam: Path) -> None:
    with serve(planted) as (url, asked):
        run(*command(url, exam, exam / "out"))
        run(*command(url, exam, exam / "out"), "--model", "other")
    assert len(asked) == 72


@pytest.mark.parametrize("failure", [429, 500, b"nonsense", b'{"choices": []}', None], ids=str)
def test_transient_errors_are_retried(failure: Answer) -> None:
    left, lock = [2], threading.Lock()

    def answer(_: str) -> Answer:
        with lock:
            left[0] -= 1
            return failure if left[0] >= 0 else "fine"

    with serve(answer) as (url, asked):
        config = EvalEndpointConfig(url=url, model="m", first_wait_seconds=0.01)
        request = Request("p", EvalSample(task="t", id="1", prediction="", reference=""), 8, ("\n",))
        assert list(generate(config, [request])) == [(0, "fine")]
    assert len(asked) == 3
    assert asked[0] == {"model": "m", "max_tokens": 8, "temperature": 0, "stop": ["\n"], "prompt": "p"}


def test_permanent_failures_are_reported_and_other_answers_are_kept(exam: Path) -> None:
    with serve(lambda prompt: 404 if "val问logic#2#" in prompt else planted(prompt)) as (url, _):
        done = run(*command(url, exam, exam / "out"))
    assert done.returncode == 2
    assert "1 of 36 requests failed (first: ceval logic-2: HTTP 404" in done.stderr
    assert not (exam / "out" / "scores.json").exists()
    assert (exam / "out" / "predictions.jsonl").read_text("utf-8").count("\n") == 35
