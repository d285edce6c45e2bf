"""C-Eval's val split and the statutes, end to end through the OpenAI protocol on loopback."""

import json
from pathlib import Path

import pytest
from sacrebleu.metrics.bleu import BLEU

from tests.conftest import ROOT, run
from tests.eval.models.server import serve
from tests.eval.models.tiny import write_model, write_task

pytestmark = pytest.mark.real


def test_ceval_and_statutes_give_the_planted_scores(real: Path, tmp_path: Path) -> None:
    lines = (real / "translation" / "tw_ip_law_zh_en.jsonl").read_text("utf-8").splitlines()
    articles = {tree["zh"]: tree["en"] for tree in map(json.loads, lines)}

    def answer(prompt: str) -> str:
        if prompt.startswith("请将"):
            return str(articles[prompt.split("\n", 1)[1].removesuffix("\n")])
        return "A"

    arguments: list[str | Path] = [
        "--model",
        "m",
        "--tasks",
        "ceval,statutes-zh-en",
        "--data",
        real,
        "--output",
        tmp_path / "out",
    ]
    with serve(answer) as (url, _):
        done = run("eval", "run", "--endpoint", url, *arguments)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    ceval, statutes = scores["ceval"], scores["statutes-zh-en"]
    assert (ceval["n"], len(ceval["groups"]["subject"]), statutes["n"]) == (1346, 52, 1000)
    assert {name: len(set(part)) for name, part in ceval["groups"].items() if name == "category"} == {
        "category": 4
    }
    share = sum(p["scores"][1]["value"] * p["n"] for p in ceval["groups"]["subject"].values()) / 1346
    assert ceval["scores"][1]["value"] == pytest.approx(share)
    assert 0.15 < share < 0.35  # always A
    trees = [json.loads(line) for line in lines]  # some articles share their Chinese and not their English
    oracle = BLEU(tokenize="13a").corpus_score([articles[t["zh"]] for t in trees], [[t["en"] for t in trees]])
    found = {s["metric"]: s["value"] for s in statutes["scores"]}
    assert found["bleu-13a"] == pytest.approx(oracle.score, abs=1e-9)


def test_a_tiny_local_model_goes_through_ceval_and_the_statutes(real: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "model", context=512)
    for name in ("ceval", "statutes-zh-en"):
        text = (ROOT / f"configs/eval/{name}.yaml").read_text("utf-8")
        short = text.replace("max_new_tokens: 512", "max_new_tokens: 8").replace(
            "shots:", "shots_n: 1\nshots:"
        )
        write_task(tmp_path, name, short)
    write_task(
        tmp_path, "text", "layout: text\ndata: translation/tw_ip_law_zh_en.jsonl\nprompt: '{zh}'\n"
        "groups: {law: law_en}\nmetrics: [bits-per-byte]\n",
    )  # fmt: skip
    tasks = ",".join(str(tmp_path / f"{name}.yaml") for name in ("ceval", "statutes-zh-en", "text"))
    done = run(
        "eval", "run", "--model", tmp_path / "model", "--tasks", tasks, "--data", real, "--output",
        tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert {task: tree["n"] for task, tree in scores.items()} == {
        "ceval": 1346, "statutes-zh-en": 1000, "text": 1000,
    }  # fmt: skip
    accuracy = scores["ceval"]["scores"][1]
    assert accuracy["low"] < 0.35
    assert accuracy["signature"].endswith("by log-likelihood")
    bits = scores["text"]["scores"][0]["value"]
    assert 7 < bits < 12  # random weights: about the logarithm of 259 bytes and marks
