"""What the readers of tables and texts give: fields from columns, claims, every row accounted for."""

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.readers.column_mapping import Options
from data.readers.formats import read
from data.readers.record_filter import SelectConfig, rule_that_drops
from data.record import Noted, Record, Rejected
from tests.data.readers.reading import reasons, records, rejected, without_digest, write


def test_wrong_bytes_of_a_row_are_named_by_their_offset(tmp_path: Path) -> None:
    lines = [b'\xef\xbb\xbf{"text": "one"}\n', b'{"text": "caf\xe9"}\n', b'{"text": "three"}\n']
    outcome = list(read(write(tmp_path, "c.jsonl", b"".join(lines))))[1]
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, outcome.source) == ("bad-encoding", f"{tmp_path / 'c.jsonl'}#2")
    assert f"byte {len(lines[0]) + lines[1].index(0xE9)} of the file" in outcome.detail

    table = b"\xef\xbb\xbfid,text\na,one\nb,caf\xe9\nc,three\n"
    outcomes = list(read(write(tmp_path, "d.csv", table)))
    assert [isinstance(outcome, Rejected) for outcome in outcomes] == [False, True, False]
    assert isinstance(outcomes[1], Rejected)
    assert f"byte {table.index(0xE9)} of the file" in outcomes[1].detail

    assert "byte 3 of" in rejected(write(tmp_path, "e.txt", b"caf\xe9")).detail
    assert rejected(write(tmp_path, "f.csv", b"id,text,\xe9\na,b,c")).reason == "bad-encoding"


def test_json_lines_go_on_after_a_bad_line(tmp_path: Path) -> None:
    lines = [
        '{"id": 17, "title": "a", "claims": ["b"], "ipc": "G06F 15/16|H04L 9/32", "other": 1}',
        '{"id": "x", "title": "cut off',
        "",
        '["not", "an object"]',
        '{"abstract": "no id"}',
        '{"abstract": " "}',
        '{"abstract": {"en": "nested"}}',
        '{"claims": [1, 2]}',
        '{"title": "\\ud83d"}',
        "[" * 100_000,
        '{"name": "no text here"}',
        '{"title": "last"}',
    ]
    path = write(tmp_path, "corpus.jsonl", "\n".join(lines))
    assert reasons(path) == [
        "17", "bad-json", "empty-row", "bad-json", "corpus-000005", "missing-text", "bad-value", "bad-value",
        "bad-encoding", "bad-json", "unknown-columns", "corpus-000012",
    ]  # fmt: skip
    first, second, *_ = read(path)
    assert isinstance(first, list)
    assert first[0]["ipc"] == ["G06F 15/16", "H04L 9/32"]
    assert first[0]["source"] == f"{path}#1"
    assert isinstance(second, Rejected)
    assert "line 2" in second.detail


def test_columns_map_a_users_names_to_fields(tmp_path: Path) -> None:
    columns = {"公开号": "id", "摘要": "abstract", "名称": "title"}
    path = write(
        tmp_path, "a.csv", "\ufeff公开号,名称,摘要,title\r\nCN1A,泵,一种泵。,ignored\r\n,,,\r\nCN2A,阀,,\r\n"
    )
    outcomes = list(read(path, Options(columns)))
    assert reasons(path, Options(columns)) == ["CN1A", "empty-row", "CN2A"]
    assert isinstance(outcomes[0], list)
    assert (outcomes[0][0]["title"], outcomes[0][0]["abstract"]) == ("泵", "一种泵。")
    line = '{"公开号": "CN1A", "摘要": "一种泵。", "名称": "泵"}\n'
    (record,) = records(write(tmp_path, "a.jsonl", line), Options(columns))
    assert (record["id"], record["title"], record["abstract"]) == ("CN1A", "泵", "一种泵。")
    both = write(tmp_path, "b.jsonl", '{"a": "1", "b": "2"}\n')
    assert reasons(both, Options({"a": "title", "b": "title"})) == ["duplicate-column"]


def test_csv_goes_on_after_a_bad_row(tmp_path: Path) -> None:
    rows = [
        "id,title,claims",
        'a,"one\ntwo","[""x"", ""y""]"',
        "b,short",
        'c,"quote"d,',
        "d,fine,",
        'e,"cut off',
    ]
    path = write(tmp_path, "a.csv", "\n".join(rows))
    assert reasons(path) == ["a", "bad-csv", "bad-csv", "d", "bad-csv"]
    first, second, *_ = read(path)
    assert isinstance(first, list)
    assert (first[0]["title"], first[0]["claims"], first[0]["source"]) == (
        "one\ntwo",
        ["x", "y"],
        f"{path}#2",
    )
    assert isinstance(second, Rejected)
    assert second.source == f"{path}#4"


def test_long_cells_and_texts_are_whole(tmp_path: Path) -> None:
    long = "word " * 100_000 + "end"
    assert records(write(tmp_path, "a.csv", f"title,text\nx,{long}\n"))[0]["description"] == long
    (text,) = records(write(tmp_path, "b.txt", f"\ufeff{long}\r\nmore\n"))
    assert {**text, "id": without_digest(text["id"])} == {
        **dict.fromkeys(Record.__annotations__),
        "id": "b",
        "description": f"{long}\nmore",
        "source": str(tmp_path / "b.txt"),
    }


def test_ids_of_documents_that_name_none_are_theirs_wherever_they_lie(tmp_path: Path) -> None:
    """Two files of one name, as the parts of a data set in folders by year, and the same in an archive."""

    def ids(folder: Path) -> dict[str, str]:
        paths = sorted(path for path in folder.rglob("*.*") if path.is_file())
        return {record["description"] or "": record["id"] for path in paths for record in records(path)}

    files = {
        "2019/part.jsonl": '{"text": "one"}\n{"text": "two"}\n',
        "2020/part.jsonl": '{"text": "three"}\n',
        "2019/part.csv": "text,date\nfour,2019\n",
        "2020/part.txt": "five",
    }
    for name in ("here", "elsewhere/deeper"):
        for file, content in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            write(tmp_path / name, file, content)
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "all.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "here", ".")
    found = ids(tmp_path / "here")
    assert len(found) == len(set(found.values())) == 5
    assert found["two"].startswith("part-000002-")
    assert ids(tmp_path / "elsewhere") == found == ids(tmp_path / "packed")


LAW = "第一条 为了保护专利权人的合法权益，鼓励发明创造，推动发明创造的应用，提高创新能力，制定本法。" * 2


def test_other_texts_by_their_field_or_the_longest(tmp_path: Path) -> None:
    rows = [{"case": f"({n})最高法知民终{n}号", "court": "最高人民法院", "judgment": LAW} for n in range(3)]
    path = write(tmp_path, "law.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert [record["description"] for record in records(path)] == [LAW] * 3
    (noted,) = (outcome for outcome in read(path) if isinstance(outcome, Noted))
    assert (noted.reason, noted.detail) == ("guessed-column", "judgment")
    assert records(path)[0]["language"] == "zh"
    assert records(path, Options(text_field="court"))[0]["description"] == "最高人民法院"


def test_paragraphs_are_documents_where_the_layout_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "statutes.txt", "\n第一条\n为了保护。\n \r\n\n第二条 发明。\n")
    assert [
        (without_digest(record["id"]), record["description"])
        for record in records(path, Options(layout="paragraphs"))
    ] == [
        ("statutes-000002", "第一条\n为了保护。"),
        ("statutes-000006", "第二条 发明。"),
    ]
    assert len(records(path)) == 1


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)
optional = st.none() | words
lists = st.none() | st.lists(words, min_size=1, max_size=3, unique=True)
any_record = st.fixed_dictionaries(
    {name: lists if name in ("claims", "ipc") else optional for name in Record.__annotations__}
    | dict.fromkeys(("id", "office", "kind", "language", "source"), words)
    | {
        "claim_numbers": st.none(),
        "filed": st.none(),
        "cites": st.just(["EP-1000000-B1", "US-7654321-B2"]) | st.none(),
    }
).filter(lambda record: any(record[name] for name in ("title", "abstract", "claims", "description")))


@given(st.lists(any_record, min_size=1, max_size=5))
def test_our_own_json_lines_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert records(write(tmp_path_factory.getbasetemp(), "own.jsonl", text)) == rows


@given(st.lists(any_record, min_size=1, max_size=5))
def test_our_own_csv_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "own.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Record.__annotations__))
        writer.writeheader()
        writer.writerows(
            {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}
            for row in rows
        )
    assert records(path) == rows


@pytest.mark.parametrize(
    ("cells", "symbols"),
    [
        ({"cpc": [{"code": "Y02E10/50"}, {"code": "H04L9/32", "first": True}]}, ["H04L 9/32", "Y02E 10/50"]),
        ({"ipc": "G06F 1/00", "CPC分类号": "H04L9/32; G06F1/00"}, ["G06F 1/00", "H04L 9/32"]),
    ],
)
def test_cpc_symbols_stand_behind_those_of_the_ipc(tmp_path: Path, cells: Any, symbols: list[str]) -> None:
    row = {"id": "US-1234567-B2", "title": "A pump", **cells}
    (found,) = records(write(tmp_path, "a.jsonl", json.dumps(row)))
    assert found["ipc"] == symbols
    assert rule_that_drops(SelectConfig(ipc_prefixes=("H04L",)), found) is None
