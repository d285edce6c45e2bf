"""Samples planted in a corpus are found by the rule they were planted for, and scored separately."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from data.dedup.training_index import seen_rows
from data.record import SCHEMA
from eval.analysis.contamination import contamination, split
from eval.tasks.task import load_task, requests
from tests.conftest import run
from tests.eval.models.tiny import write_jsonl, write_task

COMMON = "凡在本发明的精神和原则之内所作的任何修改等同替换改进等均应包含在本发明的保护范围之内"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """100 samples, of which a corpus of parquet shards holds 40 and JSON lines hold another."""
    trees = [
        {
            "abstract": _own_words(i) + COMMON,
            "title": f"标题{i}",
            "number": f"CN-{9000000 + i}-A",
        }
        for i in range(100)
    ]
    write_jsonl(tmp_path / "t.jsonl", *trees)
    write_task(
        tmp_path, "t", "layout: jsonl\ndata: t.jsonl\nprompt: '标题？{abstract}'\nreference: title\n"
        "publication: number\nmetrics: [rouge-legacy]\n",
    )  # fmt: skip
    records = [_record(f"CN-{i}-A", f"没有关系的摘要{i}。{COMMON}") for i in range(20)]
    records += [_record(f"CN-{100 + i}-A", f"另有：{trees[i]['abstract'][:45]}等等") for i in range(20)]
    records += [_record(f"CN{9000000 + i}B", "正文不同") for i in range(20, 40)]
    # A passage of twelve records is boilerplate, even if only one sample has it.
    records += [_record(f"CN-{200 + i}-A", f"模板{i}{trees[60]['abstract'][:45]}") for i in range(12)]
    folder = tmp_path / "corpus" / "decontaminate"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(records, SCHEMA), folder / "shard-00000.parquet")
    return tmp_path


def _own_words(i: int) -> str:
    """60 characters that no other sample has in this order."""
    return "".join(map(chr, random.Random(i).choices(range(0x4E00, 0x9000), k=60)))


def _record(name: str, abstract: str) -> dict[str, str]:
    return {"id": name, "source": "test", "abstract": abstract}


def test_planted_samples_are_found_by_their_rule_and_boilerplate_is_not(place: Path) -> None:
    asked = requests(*load_task(str(place / "t.yaml")), place)
    found = contamination(asked, [place / "corpus"])
    by_rule: dict[str, set[str]] = {}
    for each in found:
        by_rule.setdefault(each.rule, set()).add(each.id)
    assert by_rule == {
        "overlap": {f"t-{i}" for i in range(20)},
        "publication": {f"t-{i}" for i in range(20, 40)},
    }
    text = asked[50].texts[0]
    write_jsonl(place / "chats/a.jsonl", {"messages": [{"content": text}]}, {"messages": []})
    (place / "linked").mkdir()
    (place / "linked/chats").symlink_to(place / "chats")
    for folder in ("chats", "linked"):
        (also,) = {each.id for each in contamination(asked, [place / folder])}
        assert also == "t-50"


def test_what_was_packed_is_found_without_its_texts(place: Path) -> None:
    asked = requests(*load_task(str(place / "t.yaml")), place)
    (place / "packed" / "pack").mkdir(parents=True)
    batch = pa.RecordBatch.from_pylist([_record("US-1-A", asked[7].texts[0])], SCHEMA)
    pq.write_table(pa.Table.from_batches([seen_rows(batch)]), place / "packed/pack/seen.parquet")
    found = {(each.id, each.rule) for each in contamination(asked, [place / "packed"])}
    assert found == {("t-7", "seen: abstract"), ("t-7", "seen: text")}


def test_clean_and_dirty_samples_are_scored_separately(place: Path) -> None:
    done = run(
        "eval", "contamination", "--corpus", place / "corpus", "--tasks", place / "t.yaml", "--data", place,
        "--output", place / "contaminated.jsonl",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "40.0%" in done.stdout
    right = {*range(30), *range(40, 70)}  # 30 of the 40 dirty ones, 30 of the 60 clean ones
    predictions = [
        {
            "task": "t",
            "id": f"t-{i}",
            "prediction": f"标题{i}" if i in right else "?",
            "reference": f"标题{i}",
        }
        for i in range(100)
    ]
    write_jsonl(place / "predictions.jsonl", *predictions)
    done = run(
        "eval", "score", place / "predictions.jsonl", "--metrics", "rouge-legacy", "--contaminated",
        place / "contaminated.jsonl", "--output", place / "scores.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts = json.loads((place / "scores.json").read_text())["t"]["groups"]["corpus"]
    assert {name: (part["n"], part["scores"][0]["value"]) for name, part in parts.items()} == {
        "dirty": (40, 0.75), "clean": (60, 0.5),
    }  # fmt: skip
    assert any("dirty" in line and "0.75" in line for line in done.stdout.splitlines())


def test_unsearched_samples_and_missing_corpora_are_reported(place: Path) -> None:
    from eval.sample import EvalSample

    write_jsonl(place / "other.jsonl", {"task": "t", "id": "1"})
    with pytest.raises(UserError, match="task t, sample 2 is missing"):
        split([EvalSample(task="t", id="2", prediction="", reference="")], place / "other.jsonl")
    (place / "empty").mkdir()
    with pytest.raises(UserError, match="no corpus"):
        contamination([], [place / "empty"])
