"""Prior-art questions: relevant is what a record cites, the index has, and was published before its date."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from serve.queries import write_queries
from serve.retrieval.index import build
from tests.conftest import run
from tests.data.records import record, write_shards


def cited(number: int, date: str | None, **more: Any) -> Any:
    """A publication of invention `number`."""
    fields = {"id": f"US-{1000 + number}-A", "title": f"Pump {number}", "date": date}
    return record(number, **(fields | more))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("queries")
    records = [
        cited(1, "2001-01-01"),
        {**record(1, "zh"), "id": "CN-2001-A", "date": "2001-06-01"},  # the same invention
        cited(2, "2010-06-01"),  # between priority and publication
        cited(3, None),
        record(4, "zh", id="CN-2004-A", date="2003-01-01"),
        cited(
            5, "2012-01-01", priority="2010-01-01",
            cites=["US-1001-B2", "CN-2001-A", "US-1002-A", "US-1003-A", "CN-2004-A", "EP-9999999-A1"],
        ),
        cited(6, "2012-01-01", priority="2010-01-01", cites=["US1004444"]),
        cited(7, None, cites=["US-1001-A"]),
        cited(8, "2012-01-01", cites=["US-1,001"], claims=None, abstract="A pump for 8 ships."),
    ]  # fmt: skip
    write_shards([records], folder / "records")
    build([folder / "records"], folder / "index")
    return folder


def test_relevant_is_what_was_cited_and_is_earlier(place: Path, tmp_path: Path) -> None:
    counts = write_queries([place / "records"], place / "index", tmp_path / "q.jsonl")
    queries = {q["id"]: q for q in map(json.loads, (tmp_path / "q.jsonl").read_text("utf-8").splitlines())}
    assert queries.keys() == {"US-1005-A", "US-1008-A"}
    first = queries["US-1005-A"]
    assert first["question"] == "A pump 5."
    assert first["before"] == "US-1005-A"
    assert first["relevant"] == [
        {"id": "US-1001-A", "invention": "X-1"},
        {"id": "CN-2004-A", "invention": "X-4"},
    ]
    assert first["groups"] == {"languages": "en-several"}
    assert queries["US-1008-A"]["question"] == "A pump for 8 ships."
    assert queries["US-1008-A"]["groups"] == {"languages": "en-en"}
    assert counts == {"records": 4, "cited_later": 2, "questions": 2, "relevant": 3}


def test_a_search_for_them_is_scored(place: Path, tmp_path: Path) -> None:
    given: list[str | Path] = [
        "--corpus",
        place / "records",
        "--index",
        place / "index",
        "--output",
        tmp_path / "q.jsonl",
    ]
    done = run("serve", "queries", *given, "--number", "1")
    assert (done.returncode, done.stdout.count("1 questions with")) == (0, 1), done.stderr
    assert run("serve", "queries", *given).returncode == 2  # nothing is overwritten
    assert run("serve", "queries", *given, "--force").returncode == 0
    found = run("serve", "search", place / "index", "--queries", tmp_path / "q.jsonl", "--hits", "100")
    (tmp_path / "found.jsonl").write_text(found.stdout, "utf-8")
    scored = run("eval", "ranking", tmp_path / "found.jsonl", "--output", tmp_path / "scores.json")
    assert scored.returncode == 0, scored.stderr
    (scores,) = json.loads((tmp_path / "scores.json").read_text("utf-8"))["scores"]
    values = {each["metric"]: each["value"] for each in scores["scores"]}
    assert values["ranking-recall@100"] == 0.75  # by words, an English question finds no Chinese document
    assert values["ranking-mrr"] == 1.0
    assert scores["n"] == 2


def test_citations_of_another_corpus_are_refused(place: Path, tmp_path: Path) -> None:
    write_shards([[cited(6, "2012-01-01", cites=["US1004444"])]], tmp_path / "records")
    with pytest.raises(UserError, match="of 1 records with citations, none is in"):
        write_queries([tmp_path / "records"], place / "index", tmp_path / "q.jsonl")
    with pytest.raises(UserError, match="--number 0: at least 1"):
        write_queries([place / "records"], place / "index", tmp_path / "q.jsonl", 0)
    assert not (tmp_path / "q.jsonl").exists()


def test_questions_of_families_cross_languages(tmp_path: Path) -> None:
    parts = [
        record(1),
        record(1, "zh"),
        record(2),
        record(3, "zh"),
        record(4),
        record(4, "zh", abstract=None),
    ]
    write_shards([parts], tmp_path / "records")
    build([tmp_path / "records"], tmp_path / "index")
    given = ("--corpus", tmp_path / "records", "--index", tmp_path / "index", "--kind", "families")
    done = run("serve", "queries", *given, "--output", tmp_path / "q.jsonl")
    assert done.returncode == 0, done.stderr
    assert "3 questions with 3 relevant documents, from 4 records of families" in done.stdout
    asked = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text("utf-8").splitlines()]
    found = {
        (line["relevant"][0]["invention"], line["groups"]["languages"], line["language"]) for line in asked
    }
    assert found == {("X-1", "en-zh", "zh"), ("X-1", "zh-en", "en"), ("X-4", "en-zh", "zh")}
    output = tmp_path / "found.jsonl"
    done = run("serve", "search", tmp_path / "index", "--queries", tmp_path / "q.jsonl", "--output", output)
    assert done.returncode == 0, done.stderr
    assert len(output.read_text("utf-8").splitlines()) == 3
    done = run("eval", "ranking", output)
    assert done.returncode == 0, done.stderr
    assert "languages" in done.stdout
    write_shards([[record(2), record(3, "zh")]], tmp_path / "apart")
    build([tmp_path / "apart"], tmp_path / "index-apart")
    with pytest.raises(UserError, match="has an abstract, and another language"):
        write_queries([tmp_path / "apart"], tmp_path / "index-apart", tmp_path / "x.jsonl", kind="families")
