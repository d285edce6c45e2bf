"""Patent instruction data: right answers, no invention on both sides, nothing alike across them."""

import json
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from data.chat.from_patents import BuildConfig, build
from data.chat.record_formats import read_row
from data.readers.ingest import ingest
from data.readers.source import Source
from data.record_store import read_records
from data.synthetic.patents import synthesize
from eval.metrics.patent import parse_extraction
from tests.conftest import run
from tests.data.records import record, write_shards


@pytest.fixture(scope="session")
def patents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up inventions: `made` with their labels, `records` read in."""
    root = tmp_path_factory.mktemp("patents")
    (root / "made").mkdir()
    (root / "records").mkdir()
    synthesize(root / "made", 120, 0)
    ingest([Source(path=str(root / "made" / "records.jsonl"))], root / "records", None)
    return root


def built(patents: Path, folder: Path, **settings: Any) -> dict[str, list[dict[str, str]]]:
    """The samples of both sides."""
    given = {"validation_share": 0.2, "labels": str(patents / "made" / "truth.jsonl"),
             "corpus": str(patents / "records")} | settings  # fmt: skip
    build(BuildConfig(output_dir=str(folder), **given))
    sides = {}
    for side in ("train", "validation"):
        lines = (folder / f"{side}.jsonl").read_text("utf-8").splitlines()
        sides[side] = [json.loads(line) for line in lines]
    return sides


def test_every_answer_is_what_the_record_says(patents: Path, tmp_path: Path) -> None:
    samples = [s for side in built(patents, tmp_path / "out").values() for s in side]
    records = {(r["id"], r["language"]): r for r in read_records(patents / "records")}
    truth = [json.loads(line) for line in (patents / "made" / "truth.jsonl").read_text("utf-8").splitlines()]
    claims = {(c["zh"], c["en"]) for invention in truth for c in invention["claims"]}
    phrases = {p for t in truth for key in ("key_information", "key_information_en")
               for found in t[key].values() for p in found}  # fmt: skip
    normal = {unicodedata.normalize("NFKC", phrase) for phrase in phrases}
    seen: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        seen[sample["task"]].add(sample["instruction"])
        chinese = any("\u4e00" <= sign <= "\u9fff" for sign in sample["input"])
        read = records[sample["id"].split()[0], "zh" if chinese or "translate" in sample["task"] else "en"]
        match sample["task"]:
            case "title":
                assert (sample["input"], sample["output"]) == (read["abstract"], read["title"])
            case "abstract":
                assert sample["output"] == read["abstract"]
                assert (read["claims"] or [])[0] in sample["input"]
            case "ipc":
                assert sample["output"] == (read["ipc"] or [])[0][0]
            case "next-claim":
                number = sample["input"].count("\n") + 2
                assert sample["output"] == (read["claims"] or [])[number - 1]
                assert str(number) in sample["instruction"]
            case "translate-zh-en":
                assert (sample["input"], sample["output"]) in claims
            case "translate-en-zh":
                assert (sample["output"], sample["input"]) in claims
            case "extract":
                found = parse_extraction(sample["output"])
                assert found is not None, sample["output"]
                assert {p for each in found.values() for p in each} <= normal
        layout, (chat,) = read_row(sample, "x")
        assert (layout, chat["task"]) == ("alpaca", sample["task"])
    assert len(seen) == 7
    assert all(len(wordings) > 1 for wordings in seen.values())


def test_an_invention_stands_on_one_side_in_every_language(patents: Path, tmp_path: Path) -> None:
    sides = built(patents, tmp_path / "out")
    inventions = {r["id"]: r["application_id"] for r in read_records(patents / "records")}
    train, held = ({inventions[s["id"].split()[0]] for s in sides[side]} for side in ("train", "validation"))
    assert train
    assert held
    assert not train & held


def test_the_seed_draws_samples_and_wordings(patents: Path, tmp_path: Path) -> None:
    few = {"title": 20, "ipc": 10}
    one, same, other = (
        built(patents, tmp_path / name, samples=few, seed=seed)
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    assert one == same
    assert one != other
    tasks = [s["task"] for side in one.values() for s in side]
    assert (tasks.count("title"), tasks.count("ipc"), len(tasks)) == (20, 10, 30)


def test_near_duplicates_across_the_split_are_removed_and_counted(tmp_path: Path) -> None:
    text = (
        "A pump moves water through a pipe of steel by means of a rotor that turns in a housing, and a valve"
    )
    alike = [record(n, abstract=f"{text} closes the pipe {n}.", claims=None) for n in range(40)]
    others = [record(n, abstract=" ".join(f"{n}-{i}" for i in range(24)), claims=None) for n in range(50, 90)]
    write_shards([[*alike, *others]], tmp_path / "records")
    counts = build(
        BuildConfig(corpus=str(tmp_path / "records"), output_dir=str(tmp_path / "out"), validation_share=0.3)
    )
    held = {
        json.loads(line)["id"].split()[0]
        for line in (tmp_path / "out/validation.jsonl").read_text().splitlines()
    }
    train = {
        json.loads(line)["id"].split()[0] for line in (tmp_path / "out/train.jsonl").read_text().splitlines()
    }
    assert held & {r["id"] for r in alike}
    assert not train & {r["id"] for r in alike}
    assert counts["near_duplicates_removed"] == 40 - len(held & {r["id"] for r in alike})
    assert len(train) == 40 - len(held & {r["id"] for r in others})


def test_what_is_too_long_is_counted_and_bad_input_named(patents: Path, tmp_path: Path) -> None:
    counts = build(
        BuildConfig(corpus=str(patents / "records"), output_dir=str(tmp_path / "a"), max_characters=700)
    )
    assert counts["too_long"] > 0
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"application_id": "x"}\n{"key_information": {}}\n')
    for settings, words in (
        ({"samples": {"poem": 1}}, "unknown task"),
        ({"labels": str(labels)}, "labels.jsonl:2"),
        ({"corpus": str(tmp_path)}, "no shard"),
    ):
        given: dict[str, Any] = {
            "corpus": str(patents / "records"),
            "output_dir": str(tmp_path / "b"),
        } | settings
        with pytest.raises(UserError, match=words):
            build(BuildConfig(**given))
        assert not (tmp_path / "b").exists()


def test_the_command_builds_and_tells_its_tasks(patents: Path, tmp_path: Path) -> None:
    done = run("data", "build", f"corpus={patents / 'records'}", f"output_dir={tmp_path / 'out'}",
               "samples={title: 7}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "title" in done.stdout
    assert "near-duplicates across the split removed" in done.stdout


def test_each_answer_is_chosen_once_and_rejected_once(patents: Path, tmp_path: Path) -> None:
    samples = built(patents, tmp_path / "out", samples={"title": 60, "ipc": 60}, pairs=("title",))["train"]
    pairs = [json.loads(line) for line in (tmp_path / "out/pairs.jsonl").read_text("utf-8").splitlines()]
    answers = {(s["instruction"], s["input"]): s["output"] for s in samples if s["task"] == "title"}
    assert {pair["task"] for pair in pairs} == {"title"}
    assert len(pairs) == len(set(answers.values())) > 20
    for pair in pairs:
        assert answers[pair["instruction"], pair["input"]] == pair["chosen"] != pair["rejected"]
        languages = {unicodedata.name(pair[key][0]).split()[0] for key in ("chosen", "rejected")}
        assert len(languages) == 1
    assert sorted(pair["chosen"] for pair in pairs) == sorted(pair["rejected"] for pair in pairs)
    with pytest.raises(UserError, match="pairs: abstract is not in `samples`"):
        built(patents, tmp_path / "other", samples={"title": 5}, pairs=("abstract",))
