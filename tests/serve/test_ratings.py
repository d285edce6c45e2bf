"""Ratings are kept whatever happens, and make the pairs that they say."""

import json
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serve.service.ratings import NAME, Ratings, read
from tests.conftest import run
from tests.serve.client import call, chat
from tests.serve.engine import assistant, engine

ASKED = [{"role": "user", "content": "What is a pump?"}]


def rated(folder: Path, *given: tuple[str, str, str | None, str, str]) -> None:
    """Write ratings: id of the answer, thumb, correction, question, text."""
    ratings = Ratings(folder)
    for answer, thumb, correction, question, text in given:
        prompt = [{"role": "user", "content": question}]
        ratings.add(answer, thumb, correction, {"prompt": prompt, "text": text})  # type: ignore[arg-type]


def made(folder: Path) -> tuple[list[tuple[str, str, str]], str]:
    """The pairs of a run (question, chosen, rejected), and what the command says."""
    done = run("serve", "pairs", folder, "--output", folder / "pairs.jsonl", "--force")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]
    return [(line["prompt"][0]["content"], line["chosen"], line["rejected"]) for line in lines], done.stdout


# Each rating: id of the answer, thumb, correction (- for none), question, text.
CASES: list[tuple[str, list[tuple[str, str, str]], str]] = [
    ("a down better q bad", [("q", "better", "bad")], "1 from corrections and 0 from thumbs"),
    ("a none better q bad", [("q", "better", "bad")], "0 thumbs make no pair"),
    ("a up - q good; b down - q bad", [("q", "good", "bad")], "1 from thumbs"),
    # another prompt, and thumbs that agree, make none
    ("a up - q 1; b down - r 2; c up 3! s 3; d up - s 4", [("s", "3!", "3")], "3 thumbs make no pair"),
    # the last word counts
    ("a up - q 1; b down - q 2; a down - q 1; b up - q 2", [("q", "2", "1")], "1 pairs"),
    # a correction that was taken back
    ("a down x q 1; a down - q 1; b up - q 2", [("q", "2", "1")], "0 from corrections"),
    # a correction that changes nothing; one text with both thumbs
    (
        "a none same q same; b up - r 1; c down - r 1; d up - r 2; e down - r 3",
        [("r", "2", "3")],
        "2 thumbs make no pair",
    ),
]


@pytest.mark.parametrize(("given", "expected", "said"), CASES, ids=[case[2] for case in CASES])
def test_ratings_make_the_pairs_that_they_say(
    tmp_path: Path, given: str, expected: list[Any], said: str
) -> None:
    for answer, thumb, correction, *asked in map(str.split, given.split(";")):
        rated(tmp_path, (answer, thumb, None if correction == "-" else correction, asked[0], asked[1]))
    pairs, printed = made(tmp_path)
    assert sorted(pairs) == sorted(expected)
    assert said in printed


def test_a_run_without_pairs_is_refused(tmp_path: Path) -> None:
    done = run("serve", "pairs", tmp_path, "--output", tmp_path / "pairs.jsonl")
    assert (done.returncode, "no ratings" in done.stderr) == (2, True)
    rated(tmp_path, ("a", "up", None, "q", "1"))
    done = run("serve", "pairs", tmp_path, "--output", tmp_path / "pairs.jsonl")
    assert (done.returncode, "1 rated answers make no pair" in done.stderr) == (2, True)
    assert not (tmp_path / "pairs.jsonl").exists()
    rated(tmp_path, ("b", "up", "x", "q", "2"))
    (tmp_path / "pairs.jsonl").write_text("mine")
    done = run("serve", "pairs", tmp_path, "--output", tmp_path / "pairs.jsonl")
    assert (done.returncode, "already exists" in done.stderr) == (2, True)
    assert (tmp_path / "pairs.jsonl").read_text() == "mine"


def test_a_line_that_a_killed_service_left_half_costs_only_itself(tmp_path: Path) -> None:
    rated(tmp_path, ("a", "up", None, "q", "1"), ("b", "down", None, "q", "2"))
    file = tmp_path / NAME
    file.write_bytes(file.read_bytes()[:-20])
    rated(tmp_path, ("c", "down", None, "q", "3"))
    assert [line["answer"] for line in read(tmp_path)] == ["a", "c"]
    assert made(tmp_path)[0] == [("q", "1", "3")]


def test_ratings_are_counted_while_others_are_kept_and_texts_stay_on_the_disk(tmp_path: Path) -> None:
    ratings = Ratings(tmp_path)
    about = {"prompt": ASKED, "text": "x" * 10_000}
    with ThreadPoolExecutor(8) as pool:
        added = [pool.submit(ratings.add, f"a{n}", "up", None, about) for n in range(400)]
        while not all(each.done() for each in added):
            ratings.counts()
    assert ratings.counts() == {"up": 400, "down": 0, "corrections": 0}
    assert len(list(read(tmp_path))) == 400
    assert len(pickle.dumps(ratings.last)) < 400 * 100


def test_the_same_ratings_make_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(8):
        rated(tmp_path, (f"u{n}", "up", None, "q", f"good{n}"), (f"d{n}", "down", None, "q", f"bad{n}"))
    written = set()
    for seed in "123":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        made(tmp_path)
        written.add((tmp_path / "pairs.jsonl").read_bytes())
    assert len(written) == 1


def test_a_rating_outlives_a_kill_and_a_second_service_counts_it(tmp_path: Path) -> None:
    with engine() as fake:
        given = ("--endpoint", fake.url, "--model", "m")
        with assistant(tmp_path, *given, end=signal.SIGKILL) as url:
            first, second = (chat(url, "What is a pump?")[1]["id"] for _ in range(2))
            assert call(url, "/v1/ratings", {"answer": first, "rating": "up"})[1]["up"] == 1
            body = {"answer": second, "rating": "down", "correction": " 一台机器。 "}
            assert call(url, "/v1/ratings", body)[1] == {"up": 1, "down": 1, "corrections": 1}
            for wrong in (
                {"answer": "x", "rating": "up"},
                {"rating": "up"},
                {"answer": ["x"], "rating": "up"},
            ):
                assert call(url, "/v1/ratings", wrong)[0] == 404
            refused: list[dict[str, Any]] = [
                {"rating": None},
                {"rating": "good"},
                {"rating": "up", "correction": 3},
                {"rating": "up", "correction": "x" * 60_000},
            ]
            for wrong in refused:
                assert call(url, "/v1/ratings", {"answer": first, **wrong})[0] == 400
        with assistant(tmp_path, *given) as url:
            assert call(url, "/v1/ratings")[1] == {"up": 1, "down": 1, "corrections": 1}
            assert 'patent_llama_ratings{rating="up"} 1' in call(url, "/metrics")[1]
    lines = list(read(tmp_path))
    assert [line["prompt"] for line in lines] == [ASKED, ASKED]
    assert lines[1]["correction"] == "一台机器。"
    assert oct((tmp_path / NAME).stat().st_mode & 0o777) == "0o600"


def test_pairs_go_into_preference_tuning_unchanged(tmp_path: Path) -> None:
    from data.chat.messages import Message
    from sft.preference_layouts import read_pair

    rated(tmp_path, ("a", "down", "better", "q", "bad"))
    made(tmp_path)
    (line,) = (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()
    chosen, rejected = read_pair(json.loads(line))
    assert chosen == [Message(role="user", content="q"), Message(role="assistant", content="better")]
    assert rejected[-1] == Message(role="assistant", content="bad")
