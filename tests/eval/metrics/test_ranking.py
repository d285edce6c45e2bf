"""Scores of rankings equal their definitions, written here a second time; a hit is known by its number or its
invention."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from eval.analysis.ranking import read_found
from eval.metrics.metrics import METRICS
from eval.sample import EvalSample
from tests.conftest import run

NAMES = [f"US{1000 + n}" for n in range(130)]


def sample(ranked: Any, grades: Any, number: int = 0) -> EvalSample:
    return EvalSample(
        task="ranking", id=str(number), prediction=json.dumps(ranked), reference=json.dumps(grades)
    )


def values(samples: list[EvalSample], metric: str = "ranking") -> dict[str, float]:
    """Scores by name, without the metric's."""
    measures = METRICS[metric](samples)
    assert all(m.name.startswith(f"{metric}-") for m in measures)
    return {m.name.removeprefix(f"{metric}-"): float(m.combine(m.statistics.sum(axis=0))) for m in measures}


def by_definition(ranked: list[str], grades: dict[str, int], exponential: bool) -> dict[str, float]:
    """As trec_eval and ranx describe them, with a loop over ranks for each."""
    once = [name for i, name in enumerate(ranked) if name not in ranked[:i]]
    good = {name for name, grade in grades.items() if grade > 0}

    def dcg(found: list[int]) -> float:
        total = 0.0
        for place in range(min(10, len(found))):
            gain = 2 ** found[place] - 1 if exponential else found[place]
            total += gain / (math.log(place + 2) / math.log(2))
        return total

    scores = {"ndcg@10": dcg([grades.get(n, 0) for n in once]) / dcg(sorted(grades.values(), reverse=True))}
    for k in (1, 5, 10, 100):
        scores[f"recall@{k}"] = len(good & set(once[:k])) / len(good)
    precisions = [len(good & set(once[: i + 1])) / (i + 1) for i in range(len(once)) if once[i] in good]
    scores["map"] = sum(precisions) / len(good)
    first = [i for i, name in enumerate(once) if name in good]
    scores["mrr"] = 1 / (first[0] + 1) if first else 0.0
    return scores


questions = st.tuples(
    st.lists(st.sampled_from(NAMES), max_size=130),
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 4), max_size=20).filter(lambda g: any(g.values())),
)


@given(st.lists(questions, min_size=1, max_size=4), st.booleans())
def test_scores_are_those_of_their_definitions(
    asked: list[tuple[list[str], dict[str, int]]], exponential: bool
) -> None:
    metric = "ranking-exponential" if exponential else "ranking"
    found = values([sample(*each, number) for number, each in enumerate(asked)], metric)
    expected = [by_definition(*each, exponential) for each in asked]
    assert found.keys() == expected[0].keys()
    for name, value in found.items():
        assert value == pytest.approx(sum(each[name] for each in expected) / len(asked)), name


def test_an_example_by_hand() -> None:
    found = values([sample(["x", "a", "x", "b"], {"a": 1, "b": 1, "c": 0, "d": 1})])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert found["ndcg@10"] == pytest.approx((1 / math.log2(3) + 1 / 2) / ideal)
    assert found["recall@1"] == 0
    assert found["recall@5"] == pytest.approx(2 / 3)
    assert found["map"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert found["mrr"] == 0.5


@pytest.mark.parametrize(
    ("ranked", "grades", "message"),
    [
        ("a, b", {"a": 1}, "is no ranking"),
        ([1], {"a": 1}, "is no ranking"),
        (["a"], {"a": 0}, "names no relevant document"),
        (["a"], {"a": -1}, "names no relevant document"),
        (["a"], ["a"], "names no relevant document"),
    ],
)
def test_what_is_no_ranking_is_refused(ranked: Any, grades: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        values([sample(ranked, grades)])


def write(file: Path, *rows: Any) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def hit(name: str, invention: str = "", score: float = 1.0) -> dict[str, Any]:
    return {"id": name, "invention": invention or name, "score": score}


def test_hits_are_told_by_number_or_invention(tmp_path: Path) -> None:
    relevant = [
        "US 8,930,553 B2",
        {"id": "CN-1-A", "invention": "F1", "grade": 3},
        {"id": "KR-20130121923-A", "invention": "F1", "grade": 1},  # the same document as the one before
        {"id": "EP-1000000-A1", "grade": 0},
    ]
    hits = [hit("US-8930553-A1"), hit("JP-7-B", "F1"), hit("EP-1000000-B1"), hit("KR-20130121923-B", "F9")]
    found = read_found(write(tmp_path / "f.jsonl", {"id": "q", "relevant": relevant, "hits": hits}))
    (s,) = found.samples
    assert json.loads(s.reference) == {"US8930553": 1.0, "CN-1-A": 3.0}
    assert json.loads(s.prediction) == ["US8930553", "CN-1-A", "EP1000000", "CN-1-A"]
    by_grade = read_found(
        write(tmp_path / "g.jsonl", {"relevant": {"US8930553": 2}, "hits": hits}), "exponential"
    )
    assert json.loads(by_grade.samples[0].reference) == {"US8930553": 2.0}
    assert by_grade.samples[0].metrics == ("ranking-exponential",)


def test_ties_missing_hits_and_unjudged_questions_are_noted(tmp_path: Path) -> None:
    file = write(
        tmp_path / "f.jsonl",
        {"id": "tied", "relevant": ["US1000"], "hits": [hit("US1001"), hit("US1000")]},
        {"id": "none", "relevant": ["US1000"], "hits": []},
        {"id": "unjudged", "hits": [hit("US1000")]},
    )
    found = read_found(file)
    assert values(found.samples)["mrr"] == 0.25
    assert [note.partition(": ")[2] for note in found.notes] == [
        "1 questions without relevant documents are left out",
        "1 questions without a hit count as 0",
        "1 questions have hits of equal score: the file's order counts",
        "no question has more than 2 hits, which bounds recall@5, recall@10, recall@100:"
        " search with --hits 100",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"relevant": ["US1000"]}, r"f.jsonl:1: no list of `hits`"),
        ({"relevant": ["US1000"], "hits": [{}]}, "no list of `hits`"),
        ({"relevant": "US1000", "hits": []}, "`relevant` is no list"),
        ({"relevant": [{"grade": 1}], "hits": []}, "`relevant` has"),
        ({"relevant": [{"id": "a", "grade": -1}], "hits": []}, "`relevant` has"),
        ({"relevant": ["a"], "groups": "zh", "hits": []}, "`groups` is no object"),
        ({"hits": []}, "no question has `relevant` documents"),
    ],
)
def test_files_that_are_no_findings_are_refused(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_found(write(tmp_path / "f.jsonl", row))
    twice = write(tmp_path / "t.jsonl", *2 * [{"id": 1, "relevant": ["US1000"], "hits": []}])
    with pytest.raises(UserError, match=r"t.jsonl:2: the id `1` is there twice"):
        read_found(twice)


def test_the_command_compares_two_searches_by_question_and_shows_groups(tmp_path: Path) -> None:
    def rows(places: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "id": f"q{n}",
                "relevant": ["US5000"],
                "groups": {"languages": "zh-en" if n % 2 else "en-en"},
                "hits": [hit(f"US{6000 + i}", score=9 - i) for i in range(place)] + [hit("US5000", score=0)],
            }
            for n, place in enumerate(places)
        ]

    good, bad = [0, 1, 0, 0, 2] * 16, [3, 1, 2, 4, 2] * 16
    a = write(tmp_path / "a.jsonl", *rows(bad))
    b = write(tmp_path / "b.jsonl", *rows([*good, 0]))
    done = run("eval", "ranking", a, b, "--output", tmp_path / "s.json")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "s.json").read_text("utf-8"))
    first, *others = written["comparison"]
    assert (first["metric"], first["n"], first["verdict"]) == ("ranking-ndcg@10", 80, "better")
    assert all(row["verdict"].endswith("unadjusted") or row["verdict"] == "not shown" for row in others)
    mrr = next(row for row in others if row["metric"] == "ranking-mrr")
    expected = sum(1 / (x + 1) - 1 / (y + 1) for x, y in zip(good, bad, strict=True)) / 80
    assert mrr["difference"] == pytest.approx(expected)
    assert mrr["low"] < expected < mrr["high"]
    scores = written["scores"][0]
    assert scores["groups"].keys() == {"languages"}
    assert {each["n"] for each in scores["groups"]["languages"].values()} == {40}
    assert all(each["low"] <= each["value"] <= each["high"] for each in scores["scores"])
    assert "1 questions are in one of the files only" in done.stdout
    assert "linear gain" in done.stdout
    assert "zh-en" in done.stdout
    over = run("eval", "ranking", a, b, "--output", a)
    assert over.returncode == 2
    assert "--output" in over.stderr
