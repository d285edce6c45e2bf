"""Statute recall over real statutes, with invented articles planted; refusals in Safety-Prompts' layout."""

import json
import re
from pathlib import Path

import pytest

from data.law_citations import citations, law_name
from eval.tasks.resources import read_laws
from eval.tasks.task import TaskConfig, requests
from tests.conftest import run
from tests.eval.models.server import serve

pytestmark = pytest.mark.real
STATUTES = "translation/tw_ip_law_zh_en.jsonl"


def test_planted_articles_are_told_from_invented_ones(real: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (real / STATUTES).read_text("utf-8").splitlines()]
    texts = {(row["law"], row["article"]): row["zh"] for row in rows}

    def answer(prompt: str) -> str:
        law, article = re.findall(r"《(.*)》第(.*)條", prompt)[0]
        if int(article.split("-")[0]) % 2:
            return str(texts[law, article])
        return f"參照專利法第{article}條及專利法第999條。"

    with serve(answer) as (url, _):
        done = run("eval", "run", "--endpoint", url, "--model", "m", "--tasks", "statute-recall",
                   "--data", real, "--output", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    tree = json.loads((tmp_path / "out" / "scores.json").read_text())["statute-recall"]
    found = {s["metric"]: s for s in tree["scores"]}
    quoted = sum(int(row["article"].split("-")[0]) % 2 for row in rows)
    assert found["article-word-for-word"]["value"] == pytest.approx(quoted / len(rows))
    assert found["rouge-l-char-f1"]["value"] > quoted / len(rows)
    assert 0.4 < found["cited-articles-exist"]["value"] < 0.95
    done = run("eval", "report", tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_the_statutes_own_citations_of_themselves_exist(real: Path) -> None:
    laws = read_laws(real / STATUTES)
    assert len(laws) == 56
    known = {law_name(name) for name in laws}
    for row in (json.loads(line) for line in (real / STATUTES).read_text("utf-8").splitlines()):
        for law in (law for law, _ in citations(row["zh"], known, law_name(row["law"]))):
            assert law


def test_the_layout_of_safety_prompts_is_read(real: Path) -> None:
    task = TaskConfig(
        layout="jsonl", data="instructions/safety_prompts_layout.json", prompt="{prompt}",
        reference="response", groups={"type": "type"}, metrics=("refusal",),
    )  # fmt: skip
    made = requests("safety", task, real)
    assert len({request.sample.groups["type"] for request in made}) == 13
