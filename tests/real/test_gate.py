"""A gate from real questions: statutes and examinations in law against the instruction files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from serve.gate.classifier import Gate
from serve.gate.training import build

LAW = ("law", "legal_professional")
GENERAL = (
    "alpaca_en_demo.json", "alpaca_zh_demo.json", "belle_dev1K.jsonl", "belle_eval_set.jsonl",
    "kullm-v1.jsonl", "sharegpt_zh_first500.jsonl", "user_oriented_instructions_eval.jsonl",
)  # fmt: skip


def write(file: Path, rows: list[tuple[str, str]]) -> Path:
    """Chats of questions and their sources."""
    with file.open("w", encoding="utf-8") as opened:
        for question, source in rows:
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "-"}]
            opened.write(json.dumps({"messages": messages, "source": source}, ensure_ascii=False) + "\n")
    return file


def examinations(real: Path) -> dict[bool, list[tuple[str, str]]]:
    """C-Eval's questions on law, and on all other subjects."""
    found: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for file in sorted((real / "ceval").glob("*/*.csv")):
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = [(row["question"], "ceval") for row in csv.DictReader(opened)]
        found[file.stem.rpartition("_")[0] in LAW] += rows
    return found


def statutes(real: Path) -> list[tuple[str, str]]:
    """Articles on intellectual property in Chinese and English; each kind of statute is a source."""
    found = []
    for line in (real / "translation/tw_ip_law_zh_en.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        kinds = (kind for kind in ("Patent", "Trademark", "Copyright") if kind in row["law_en"])
        kind = next(kinds, "Courts").lower()
        found += [(row["zh"], kind), (row["en"], kind)]
    return found


@pytest.fixture(scope="module")
def gates(real: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The numbers of a gate that is made with C-Eval's questions on law, and of one without."""
    folder = tmp_path_factory.mktemp("gates")
    exams, articles = examinations(real), statutes(real)
    general = [write(folder / "general.jsonl", exams[False])]
    general += [real / "instructions" / name for name in GENERAL]
    found: dict[str, Any] = {"folder": folder}
    for name, rows in (("with", articles + exams[True]), ("without", articles)):
        file = write(folder / f"{name}.jsonl", rows)
        found[name] = build([file], general, folder / name, refusals=0.02)
    return found


def test_a_gate_tells_statutes_it_has_not_seen_from_instructions(gates: dict[str, Any]) -> None:
    numbers = gates["without"]
    assert set(numbers["domain"]) == {"patent", "trademark", "copyright", "courts"}
    assert len(numbers["general"]) == len(GENERAL) + 1
    assert numbers["auc"][0] > 0.97
    assert numbers["accepted"][0] < 0.15
    assert all(each["refused"][0] <= 0.02 for each in numbers["domain"].values())
    gate = Gate.open(gates["folder"] / "without")
    assert gate.accepts("專利申請權人得申請專利。")
    assert gate.accepts("专利申请权人得申请专利。")
    assert not gate.accepts("请给我一个番茄炒蛋的食谱")


def test_the_card_says_that_statutes_do_not_teach_the_questions_of_examinations(
    gates: dict[str, Any],
) -> None:
    numbers = gates["with"]
    assert numbers["threshold_set_by"] == "ceval"
    assert numbers["domain"]["ceval"]["questions"] == 57
    assert numbers["domain"]["ceval"]["refused"][0] <= 0.02
    assert numbers["domain"]["ceval"]["refused_when_new"][0] > 0.5
    assert "warning: " in (gates["folder"] / "with" / "README.md").read_text("utf-8")
