"""What answers cite of their sources, and whether they refuse where none has the answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from eval.metrics.metrics import METRICS
from eval.metrics.source_citations import refuses
from eval.sample import EvalSample
from eval.tasks.task import load_task, requests
from serve.record_questions import wordings
from tests.conftest import ROOT, run

CLOSED = ROOT / "configs/eval/without-sources/grounded.yaml"


def values(*rows: tuple[str, int | None, list[int]]) -> dict[str, float]:
    """Scores of (answer, number of sources, relevant ones), without the metric's name."""
    samples = [
        EvalSample(task="t", id=str(i), prediction=p, reference="", sources=n, relevant_sources=tuple(good))
        for i, (p, n, good) in enumerate(rows)
    ]
    return {
        m.name.removeprefix("source-citations-"): float(m.combine(m.statistics.sum(axis=0)))
        for m in METRICS["source-citations"](samples)
    }


def test_an_example_by_hand() -> None:
    found = values(
        ("It is cooled [2][2], as 【4】 says.", 5, [2]),
        ("<think>[1]</think>It is [1, 3].", 5, [1, 3, 5]),
        ("No citation.", 5, [1]),
        ("The sources do not contain the answer.", 5, []),
        ("It is 7 [9].", 5, []),
        ("Sorry, none of the sources says it.", 2, [2]),
    )
    assert found["precision"] == pytest.approx(3 / 5)
    assert found["recall"] == pytest.approx(3 / 6)
    assert found["f1"] == pytest.approx(2 * 3 / (5 + 6))
    assert found["refusals"] == 1 / 2
    assert found["false-refusals"] == 1 / 4


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 9), max_size=4), st.sets(st.integers(1, 6), max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_shares_are_those_of_pairs_of_answer_and_source(rows: list[tuple[list[int], set[int]]]) -> None:
    found = values(*[("".join(f"x [{n}] " for n in cited), 6, sorted(good)) for cited, good in rows])
    cited_pairs = {(i, n) for i, (cited, _) in enumerate(rows) for n in cited}
    good_pairs = {(i, n) for i, (_, good) in enumerate(rows) for n in good}
    both = len(cited_pairs & good_pairs)
    assert found["precision"] == pytest.approx(both / max(len(cited_pairs), 1))
    assert found["recall"] == pytest.approx(both / max(len(good_pairs), 1))


def test_the_refusals_of_training_are_known_and_its_answers_are_none() -> None:
    for refusals in wordings()["refusals"].values():
        assert all(map(refuses, refusals))
    for language, answers in wordings()["answers"].items():
        slots = {"answer": wordings()["refusals"][language][0], "cited": "[1]"}
        assert not any(refuses(answer.format_map(slots)) for answer in answers)
    assert not refuses("The pump has a source of heat.")
    assert not refuses("该泵包括转子。")


@pytest.mark.parametrize(("n", "good"), [(None, []), (2, [3]), (2, [0])])
def test_samples_without_sources_are_refused(n: int | None, good: list[int]) -> None:
    with pytest.raises(UserError, match="sample 0: `sources` is"):
        values(("a", n, good))


def write(folder: Path, **more: Any) -> Path:
    """A data folder with two grounded questions."""
    row = {
        "instruction": "Which?",
        "input": "Sources: …",
        "sources": 3,
        "language": "en",
        "publication": "US-1-A",
    }
    rows = [
        row | {"id": "a", "reference": "It is x.", "relevant_sources": [2], "answerable": "yes"} | more,
        row | {"id": "b", "reference": "No source says it.", "relevant_sources": [], "answerable": "no"},
    ]
    (folder / "grounded").mkdir()
    text = "".join(json.dumps(each) + "\n" for each in rows)
    (folder / "grounded/validation.jsonl").write_text(text, "utf-8")
    return folder


def test_the_task_has_the_form_of_training_and_its_variant_no_sources(tmp_path: Path) -> None:
    write(tmp_path)
    asked = requests(*load_task("grounded"), tmp_path)
    closed = requests(*load_task(str(CLOSED)), tmp_path)
    assert [request.prompt for request in asked] == ["Which?\nSources: …"] * 2
    assert [request.prompt for request in closed] == ["Which?"] * 2
    assert [request.sample for request in asked] == [request.sample for request in closed]
    assert [(r.sample.sources, r.sample.relevant_sources) for r in asked] == [(3, (2,)), (3, ())]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sources": "many"}, "validation.jsonl:1: `sources` is many, not a number"),
        ({"relevant_sources": ["2"]}, "`relevant_sources` is .*, not a list of numbers"),
        ({"relevant_sources": 2}, "`relevant_sources` is 2, not a list of numbers"),
    ],
)
def test_data_that_says_no_sources_are_reported(tmp_path: Path, more: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        requests(*load_task("grounded"), write(tmp_path, **more))


def test_answers_with_sources_are_compared_with_those_without(tmp_path: Path) -> None:
    data = write(tmp_path)
    asked = requests(*load_task("grounded"), data)
    for name, task, answers in (
        ("without", CLOSED, ["It is y.", "It is z."]),
        ("with", "grounded", ["It is x. [2]", "The sources do not contain the answer."]),
    ):
        lines = [
            {"task": "grounded", "id": s.id, "prediction": p, "reference": s.reference}
            for s, p in zip((r.sample for r in asked), answers, strict=True)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines), "utf-8")
        given = ["--replay", tmp_path / f"{name}.jsonl", "--data", data, "--output", tmp_path / name]
        done = run("eval", "run", "--tasks", str(task), *map(str, given))
        assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "with/scores.json").read_text("utf-8"))["grounded"]["scores"]
    found = {each["metric"]: each["value"] for each in scores}
    assert (found["source-citations-f1"], found["source-citations-refusals"]) == (1.0, 1.0)
    compared = run(
        "eval", "compare", tmp_path / "without", tmp_path / "with", "--output", tmp_path / "c.json"
    )
    assert compared.returncode == 0, compared.stderr
    rows = {row["metric"]: row for row in json.loads((tmp_path / "c.json").read_text("utf-8"))}
    assert rows["token-f1"]["primary"]
    assert rows["source-citations-recall"]["difference"] == 1.0
