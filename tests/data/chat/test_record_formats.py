"""Layouts: every one is recognised by itself in every kind of file, and what fits none is named."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from core.errors import UserError
from data.chat.messages import answered, problem
from data.chat.record_formats import LAYOUTS, Unfit, read_row
from data.chat.row_reader import dataset_rows, rows
from data.record import Rejected
from tests.data.chat.chats import write_lines

PAIR = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
CALL = {"name": "f", "arguments": {"x": 1}}

RECORDS: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    ("alpaca", {"instruction": "Q", "input": "", "output": "A"}, PAIR),
    ("alpaca", {"instruction": "Q", "answer": "A"}, PAIR),
    ("alpaca", {"instruction": "Q", "input": "I", "output": "A", "system": "S"},
     [{"role": "system", "content": "S"}, {"role": "user", "content": "Q", "input": "I"}, PAIR[1]]),
    ("alpaca", {"instruction": "Q", "output": "A", "history": [["Q", "A"]]}, PAIR * 2),
    ("sharegpt", {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, PAIR),
    ("sharegpt", {"system": "S", "tools": json.dumps([CALL]), "conversations": [
        {"from": "human", "value": "Q"}, {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "R"}, {"from": "gpt", "value": "A"}]},
     [{"role": "system", "content": "S"}, PAIR[0],
      {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]},
      {"role": "tool", "content": "R"}, PAIR[1]]),
    ("messages", {"messages": PAIR}, PAIR),
    ("messages", {"conversations": PAIR}, PAIR),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, PAIR[1]]}, PAIR),
    ("belle", {"input": "Q", "target": "A"}, PAIR),
    ("firefly", {"kind": "NLI", "input": "Q", "target": "A"}, PAIR),
    ("firefly-dialogue", {"conversation_id": 1, "category": "c", "dataset": "d",
                          "conversation": [{"human": "Q", "assistant": "A"}] * 2}, PAIR * 2),
    ("pclue", {"input": "Q", "target": "A", "answer_choices": ["A", "B"], "type": "nli"}, PAIR),
    ("pclue", {"input": "Q", "target": "A", "type": "nli"}, PAIR),
    ("safety-prompts", {"prompt": "Q", "response": "A", "type": "Insult"}, PAIR),
    ("question-answer", {"question": "Q", "answer": "A"}, PAIR),
    ("question-answer", {"질문": "Q", "답변": "A"}, PAIR),
    ("self-instruct", {"instruction": "Q", "instances": [{"input": "", "output": "A"}]}, PAIR),
]  # fmt: skip


@pytest.mark.parametrize(("name", "record", "messages"), RECORDS)
def test_a_record_is_recognised_by_its_keys(
    name: str, record: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    found, chats = read_row(record, "a#1")
    assert found == name
    assert [chat["messages"] for chat in chats] == [messages]
    assert read_row(record, "a#1", layout=name) == (found, chats)
    assert problem(messages) is None
    assert chats[0]["source"] == "a#1"


def test_every_layout_is_tested() -> None:
    assert {name for name, _, _ in RECORDS} == set(LAYOUTS)


def test_tools_and_tasks_are_kept() -> None:
    tools = read_row(RECORDS[5][1], "a#1")[1][0]["tools"]
    assert tools == [{"type": "function", "function": CALL}]
    assert read_row({"kind": "NLI", "input": "Q", "target": "A"}, "a#1")[1][0]["task"] == "NLI"


WEIGHTS = [
    ({"weight": 0}, False), ({"weight": 1.0}, True), ({"train": False}, False), ({"training": True}, True),
    ({"loss": False}, False), ({"masked": True}, False), ({"weight": None}, True), ({}, True),
    ({"weight": 0.5}, None), ({"train": "no"}, None), ({"train_detail": [{"train": False}]}, None),
]  # fmt: skip


@pytest.mark.parametrize(("said", "trained"), WEIGHTS)
@pytest.mark.parametrize("kind", ["messages", "sharegpt"])
def test_a_message_says_whether_it_is_trained_on(
    kind: str, said: dict[str, Any], trained: bool | None
) -> None:
    if kind == "messages":
        record: dict[str, Any] = {"messages": [PAIR[0], PAIR[1] | said]}
    else:
        turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A", **said}]
        record = {"conversations": turns}
    if trained is None:
        with pytest.raises(Unfit, match="of a message"):
            read_row(record, "a#1")
    else:
        answer = read_row(record, "a#1")[1][0]["messages"][1]
        assert answer == PAIR[1] | ({} if trained else {"trained": False})


@pytest.mark.parametrize(
    ("record", "layout", "words"),
    [
        ({"text": "x"}, "auto", "no layout has the keys text"),
        ({}, "auto", r"\(none\)"),
        ({"instruction": "Q", "output": "A"}, "belle", "belle does not have the keys instruction, output"),
        ({"instruction": "Q", "output": {"a": 1}}, "auto", "is not a text"),
        ({"messages": "hello"}, "auto", "not in the layout messages"),
        ({"conversations": [{"value": "x"}]}, "auto", "KeyError 'from'"),
        ({"conversations": None}, "auto", "not in the layout sharegpt"),
        ({"conversation": [{"human": "Q"}]}, "auto", "KeyError 'assistant'"),
        ({"instruction": "Q", "output": "A", "history": [["Q"]]}, "auto", "not in the layout alpaca"),
        ({"conversations": [{"from": "function_call", "value": "{"}]}, "auto", "sharegpt"),
    ],
)
def test_a_record_that_fits_no_layout_says_why(record: dict[str, Any], layout: str, words: str) -> None:
    with pytest.raises(Unfit, match=words):
        read_row(record, "a#1", layout)


def write(kind: str, folder: Path, records: list[dict[str, str]]) -> Path:
    """The records in a file of some kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from openpyxl import Workbook

    file = folder / f"data.{kind}"
    text = json.dumps(records, ensure_ascii=False)
    match kind:
        case "jsonl":
            return write_lines(file, records)
        case "json":
            file.write_text(json.dumps(records, ensure_ascii=False, indent=2), "utf-8")
        case "flat.json":
            file.write_text(text, "utf-8")
        case "bom.json":
            file.write_text("\ufeff" + text, "utf-8")
        case "jsonl.gz":
            plain = write_lines(folder / "plain", records)
            file.write_bytes(gzip.compress(plain.read_bytes()))
        case "csv" | "tsv":
            import csv

            with file.open("w", encoding="utf-8", newline="") as opened:
                writer = csv.DictWriter(opened, list(records[0]), delimiter="," if kind == "csv" else "\t")
                writer.writeheader()
                writer.writerows(records)
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), file)
        case "xlsx":
            book = Workbook()
            sheet: Any = book.active
            for row in [list(records[0]), *(list(record.values()) for record in records)]:
                sheet.append(row)
            book.save(file)
    return file


@pytest.mark.parametrize(
    "kind", ["jsonl", "json", "flat.json", "bom.json", "jsonl.gz", "csv", "tsv", "parquet", "xlsx"]
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    records = [{"question": f"特许, “{i}”?\nsecond, line", "answer": f"答\t{i}"} for i in range(50)]
    found = list(rows(write(kind, tmp_path, records)))
    assert [row for _, row in found] == records
    assert len({place for place, _ in found}) == 50
    assert read_row(records[0], "x")[0] == "question-answer"


def test_a_data_set_that_datasets_can_load_is_read_split_by_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"question": f"{i}?", "answer": f"{i}"} for i in range(3)]
    write("parquet", tmp_path, records).rename(tmp_path / "train.parquet")
    write("parquet", tmp_path, records[:1]).rename(tmp_path / "test.parquet")
    found = list(dataset_rows(str(tmp_path), None, "train"))
    assert found == [(f"{tmp_path}/train#{i + 1}", record) for i, record in enumerate(records)]
    assert len(list(dataset_rows(str(tmp_path), None, None))) == 4
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"who/what, revision abc.*in the cache"):
        list(dataset_rows("who/what", "abc", None))


def test_offline_the_cache_must_hold_the_asked_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, cache = "c0ffee" + "0" * 34, tmp_path / "cache"
    file = write("parquet", tmp_path, [{"question": "?", "answer": "!"}])
    datasets.load_dataset("parquet", data_files={"train": str(file)}, cache_dir=str(cache))
    (made,) = (cache / "parquet").glob("default-*/0.0.0/*/")
    there = cache / "who___what" / "default" / "0.0.0" / commit
    there.parent.mkdir(parents=True)
    made.rename(there)
    (there / "parquet-train.arrow").rename(there / "what-train.arrow")
    info = json.loads((there / "dataset_info.json").read_text())
    info |= {"dataset_name": "what", "config_name": "default"}
    (there / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for revision in (commit, commit[:7]):
        assert [row for _, row in dataset_rows("who/what", revision, None)] == [
            {"question": "?", "answer": "!"}
        ]
    for revision in ("beef" * 10, "main", "c"):
        with pytest.raises(UserError, match=f"{revision}: the newest in the cache is commit {commit}"):
            list(dataset_rows("who/what", revision, None))


def test_a_long_json_list_is_read_item_by_item_with_the_line_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.readers.json_rows.CHUNK_BYTES", 7)  # every item is torn apart
    records = [{"instruction": f"{i}] 水", "output": '"[{\\' * i} for i in range(30)]
    file = tmp_path / "a.json"
    file.write_text(json.dumps(records, ensure_ascii=False, indent=1), "utf-8")
    found = list(rows(file))
    assert [row for _, row in found] == records
    assert [place.rpartition("#")[2] for place, _ in found] == [f"{2 + 4 * i}.{i + 1}" for i in range(30)]


def test_safety_prompts_scenarios_are_read_with_their_type(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    record = {"prompt": "Q", "response": "A"}
    file.write_text(json.dumps({"Insult": [record] * 2, "Crime": [record | {"type": "other"}]}, indent=1))
    found = [row for _, row in rows(file)]
    assert [row["type"] for row in found if isinstance(row, dict)] == ["Insult", "Insult", "other"]


@pytest.mark.parametrize(
    ("data", "good", "reason"),
    [
        (b'{"input": "a", "target": "b"}\n{"input": "\xff\xfe", "target": "b"}\n', 1, "bad-encoding"),
        (b'{"input": "a", "target": "b"}\n{"input": \n', 1, "bad-json"),
        (b'[{"input": "a", "target": "b"},\n{"input": "\xff", "target": "b"}]', 1, "bad-encoding"),
        (b'[{"input": "a", "target": "b"},\n{"input": "b"', 1, "bad-json"),
        (b'[{"input": "a", "target": "b"}\n', 1, "bad-json"),
        (b'[1]', 0, "bad-json"),
        (b"", 0, "empty-file"),
        (b"%PDF-1.4", 0, "unknown-format"),
        (b"question,answer\na,b\na,b,c\n", 1, "bad-csv"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named_and_the_rest_is_read(
    tmp_path: Path, data: bytes, good: int, reason: str
) -> None:
    file = tmp_path / ("a.csv" if data.startswith(b"question") else "a.json")
    file.write_bytes(data)
    found = [row for _, row in rows(file)]
    assert sum(isinstance(row, dict) for row in found) == good
    assert [row.reason for row in found if isinstance(row, Rejected)] == [reason]


@pytest.mark.parametrize(
    ("messages", "category"),
    [
        ([("user", "Q"), ("assistant", " ")], "empty-answer"),
        ([("user", ""), ("assistant", "A")], "empty-question"),
        ([("assistant", "A"), ("user", "Q"), ("assistant", "A")], "user-not-first"),
        ([("user", "Q"), ("narrator", "A")], "unknown-role"),
        ([("user", "Q"), ("assistant", 3)], "not-text"),
        ([("user", "Q"), ("assistant", "\ud800")], "bad-encoding"),
        ([("user", "Q"), ("assistant", "A"), ("system", "S"), ("assistant", "A")], "late-system"),
        ([("user", "Q")], "no-answer"),
        ([("system", "S")], "no-messages"),
        ([], "no-messages"),
        ([("user", "Q"), ("assistant", "A"), ("user", "thanks")], None),
    ],
)
def test_what_is_no_chat_has_a_name(messages: list[tuple[str, Any]], category: str | None) -> None:
    said = answered([{"role": role, "content": content} for role, content in messages])
    found = problem(said)
    assert (found and found[0]) == category
