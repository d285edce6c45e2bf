"""Runs of a local model through the command: options, answers, documents; adapters, ranks, replay, kills."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from core.provenance import manifest
from eval.models.hf import open_model
from eval.models.loglikelihood import log_likelihood
from eval.sample import read_predictions
from tests.conftest import ROOT, run
from tests.eval.in_process import here
from tests.eval.models.tiny import read_lines, write_jsonl, write_model, write_task
from tools import lineage

DOCUMENTS = [f"文件{i}：一种装置 {'x' * i}" for i in range(12)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and data: questions, answers, documents, and a task file for each."""
    folder = tmp_path_factory.mktemp("place")
    write_model(folder / "base")
    write_model(folder / "tuned", seed=1)
    rows = "".join(f"问题{i}?,甲{i},乙,丙,丁,{'ABCD'[i % 4]}\n" for i in range(40))
    (folder / "law.csv").write_text(f"question,A,B,C,D,answer\n{rows}", "utf-8")
    write_jsonl(folder / "qa.jsonl", *({"q": f"问{i}", "answer": f"答{'是' * i}"} for i in range(20)))
    write_jsonl(folder / "text/a.jsonl", *({"text": text, "ipc": "G"} for text in DOCUMENTS))
    (folder / "text/b.txt").write_text("whole file", "utf-8")
    choice = "layout: choice\ndata: law.csv\nprompt: '{ask}'\nmetrics: [accuracy]\nmax_new_tokens: 4\n"
    write_task(folder, "exam", choice)
    write_task(folder, "spaced", choice + "question: '{question} Answer:'\nbefore_letter: ' '\n")
    write_task(
        folder, "qa", "layout: jsonl\ndata: qa.jsonl\nby: log-likelihood\nprompt: '{q} '\n"
        "metrics: [answer-tokens, trl]\n",
    )  # fmt: skip
    write_task(folder, "text", "layout: text\ndata: text/*\nprompt: '{text}'\nmetrics: [bits-per-byte]\n")
    return folder


def command(place: Path, output: Path, tasks: str, *more: str | Path) -> list[str | Path]:
    names = ",".join(str(place / f"{task}.yaml") for task in tasks.split(","))
    return ["eval", "run", "--tasks", names, "--data", place, "--output", output, *more]


def scores(output: Path, task: str) -> dict[str, Any]:
    tree = json.loads((output / "scores.json").read_text("utf-8"))[task]
    return {s["metric"]: s for s in tree["scores"]}


def test_all_three_methods_and_the_provenance_of_the_run(place: Path, tmp_path: Path) -> None:
    code, output = here(*command(place, tmp_path / "out", "exam,spaced,qa,text", "--model", place / "base"))
    assert code == 0, output
    samples = {(s.task, s.id): s for s in read_predictions(tmp_path / "out")}
    local = open_model(str(place / "base"))
    exam = [s for s in samples.values() if s.task == "exam"]
    for s in exam[:5]:
        likelihoods = {
            letter: each.nats
            for letter, (_, each) in zip(
                "ABCD", sorted(log_likelihood(local, [(s.prompt, x) for x in "ABCD"])), strict=True
            )
            if not isinstance(each, Exception)
        }
        assert s.measured == pytest.approx(likelihoods, abs=1e-4)
        assert s.prediction == max(likelihoods, key=likelihoods.__getitem__)
    right = sum(s.prediction == s.reference for s in exam)
    accuracy = scores(tmp_path / "out", "exam")["accuracy"]
    assert accuracy["value"] == right / 40
    assert accuracy["chance"] == 0.25
    assert accuracy["signature"].endswith("by log-likelihood")
    # ` A` is one token and ` B` two: reported in the table, the scores and the manifest.
    unequal = "OPTIONS OF UNEQUAL LENGTH (A: 1, B: 2, C: 2, D: 2 tokens)"
    assert unequal in scores(tmp_path / "out", "spaced")["accuracy"]["signature"]
    assert unequal in output
    assert "questions have option letters with different numbers of tokens" in output
    assert all(s.prediction == "A" for s in samples.values() if s.task == "spaced")

    made = manifest.read(tmp_path / "out")
    named = {Path(name).name for name in made["inputs"]}
    assert {"model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"} <= named
    assert {"exam.yaml", "text.yaml", "law.csv", "qa.jsonl", "a.jsonl", "b.txt"} <= named
    files = [place / "base/model.safetensors", place / "exam.yaml", place / "law.csv"]
    assert manifest.hash_files(files).items() <= made["inputs"].items()
    assert not list(lineage.verify(lineage.trace(tmp_path / "out")))
    assert made["counts"]["samples"] == {"exam": 40, "spaced": 40, "qa": 20, "text": 13}


def test_bits_and_answers_are_sums_and_a_base_is_compared_by_document(place: Path, tmp_path: Path) -> None:
    asked = command(place, tmp_path / "tuned", "qa,text", "--model", place / "tuned", "--base")
    assert here(*command(place, tmp_path / "base", "qa,text", "--model", place / "base"))[0] == 0
    code, output = here(*asked, tmp_path / "base")
    assert code == 0, output
    samples = read_predictions(tmp_path / "tuned")
    text = [s.measured for s in samples if s.task == "text"]
    nats, tokens = (sum(each[f"text_{name}"] for each in text) for name in ("nats", "tokens"))
    size = sum(len(document.encode()) for document in [*DOCUMENTS, "whole file"])
    found = scores(tmp_path / "tuned", "text")
    assert found["bits-per-byte"]["value"] == pytest.approx(-nats / math.log(2) / size)
    assert found["token-perplexity"]["value"] == pytest.approx(math.exp(-nats / tokens))
    answers = [s.measured for s in samples if s.task == "qa"]
    loss = -sum(a["answer_nats"] for a in answers) / sum(a["answer_tokens"] for a in answers)
    assert scores(tmp_path / "tuned", "qa")["answer-loss"]["value"] == pytest.approx(loss)
    assert sum(a["answer_tokens"] for a in answers) == sum(3 + 3 * i + 1 + 1 for i in range(20))
    row = next(line for line in output.splitlines() if "bits-per-byte" in line and "+" in line)
    assert f"{found['bits-per-byte']['value']:.4g}" in row


def test_another_checkpoint_reuses_no_answer(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "base", tmp_path / "model")
    asked = command(place, tmp_path / "out", "exam,text", "--model", tmp_path / "model")
    assert here(*asked)[0] == 0
    first = read_lines(tmp_path / "out")
    assert "53 of 53 answers already exist" in here(*asked)[1]
    assert read_lines(tmp_path / "out") == first
    shutil.copy(place / "tuned/model.safetensors", tmp_path / "model/model.safetensors")
    assert "answers already exist" not in here(*asked)[1]
    old, new = ({line["key"] for line in lines} for lines in (first, read_lines(tmp_path / "out")))
    assert len(new) == 53
    assert not old & new


def test_a_run_killed_twice_repeats_no_sample(place: Path, tmp_path: Path) -> None:
    asked = command(place, tmp_path / "cut", "exam,text", "--model", place / "base", "--batch-tokens", "1")
    file = tmp_path / "cut" / "predictions.jsonl"
    kept: list[dict[str, object]] = []
    for lines in (5, 25):
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, asked)], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        while not file.exists() or file.read_bytes().count(b"\n") < lines:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = file.read_text("utf-8").split("\n")[:-1]
        assert len(whole) < 53
        done = [json.loads(line) for line in whole]
        assert all(line in done for line in kept), "what was done is not done again"
        kept = done
    assert here(*asked)[0] == 0
    assert here(*command(place, tmp_path / "whole", "exam,text", "--model", place / "base"))[0] == 0
    assert all(line in read_lines(tmp_path / "cut") for line in kept)
    assert (
        len({line["key"] for line in read_lines(tmp_path / "cut")}) == len(read_lines(tmp_path / "cut")) == 53
    )
    for task in ("exam", "text"):
        cut, whole_run = scores(tmp_path / "cut", task), scores(tmp_path / "whole", task)
        assert {k: v["value"] for k, v in cut.items()} == pytest.approx(
            {k: v["value"] for k, v in whole_run.items()}, rel=1e-6
        )


def test_two_processes_share_the_samples_and_give_the_same_scores(place: Path, tmp_path: Path) -> None:
    asked = command(place, tmp_path / "two", "exam,qa,text", "--model", place / "base")
    done = run("core.launch", "--processes", "2", "-m", *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert here(*command(place, tmp_path / "one", "exam,qa,text", "--model", place / "base"))[0] == 0
    assert sorted(path.name for path in (tmp_path / "two").glob("predictions*")) == ["predictions.jsonl"]
    one, two = ({s.id: s for s in read_predictions(tmp_path / name)} for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert {i: s.prediction for i, s in one.items()} == {i: s.prediction for i, s in two.items()}
    for i, s in one.items():
        assert s.measured == pytest.approx(two[i].measured, abs=1e-3)
    before = scores(tmp_path / "one", "text")["bits-per-byte"]["value"]
    assert scores(tmp_path / "two", "text")["bits-per-byte"]["value"] == pytest.approx(before, rel=1e-6)
