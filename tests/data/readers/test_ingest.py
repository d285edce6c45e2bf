"""From sources to shards: nothing is lost, nothing depends on the number of workers."""

import json
from pathlib import Path

import pytest

from core.errors import UserError
from data.executor import EngineConfig, open_executor
from data.readers.ingest import ingest
from data.readers.source import Source
from data.readers.source_files import list_files
from data.record_store import read_records


def corpus(folder: Path) -> Path:
    """Seven documents in three files (one of them hidden), two of which cannot be read."""
    (folder / "deep").mkdir(parents=True)
    lines = [
        {"id": f"EP-{number}-A1", "office": "EP", "language": language, "title": f"title {number}"}
        for number, language in enumerate(["en", "de", "en", None])
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n")
    (folder / "deep" / "b.csv").write_text("id,text\nx,some text\n,\n")
    (folder / "deep" / ".hidden.csv").write_text("id,text\nh,hidden\n")
    (folder / ".git").mkdir()
    (folder / ".git" / "c.txt").write_text("hidden as well")
    return folder


def test_every_document_is_counted_once(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in")
    counts = ingest([Source(path=str(source))], tmp_path / "out", None)
    assert counts == {
        "documents": 7,
        "rejected": {"total": 2, "by_reason": {"bad-json": 1, "empty-row": 1}},
        "dropped": {},
        "records": 5,
        "by_office_language": {"EP": {"de": 1, "en": 2, "unknown": 1}, "unknown": {"unknown": 1}},
        "sources": {
            str(source): {
                "licence": "unknown",
                "use": "unknown",
                "documents": 7,
                "rejected": 2,
                "dropped": 0,
                "records": 5,
            }
        },
        "shards": [str(source)],
    }
    found = list(read_records(tmp_path / "out"))
    assert [record["id"] for record in found] == ["EP-0-A1", "EP-1-A1", "EP-2-A1", "EP-3-A1", "x"]
    assert found[4]["description"] == "some text"
    assert found[4]["title"] is None
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [line["source"] for line in rejected] == [f"{source}/a.jsonl#5", f"{source}/deep/b.csv#3"]
    assert all(line["detail"] for line in rejected)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "rejected.jsonl",
        "shard-00000.parquet",
    ]


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in")
    for number in range(6):
        (source / f"text{number}.txt").write_text(f"text {number} " * 40)
    sources = [Source(path=str(source)), Source(path=str(source / "a.jsonl"), columns={"title": "abstract"})]
    counts = []
    for workers in (1, 2):
        with open_executor(EngineConfig(workers=workers)) as executor:
            counts.append(ingest(sources, tmp_path / f"out{workers}", executor, shard_bytes=1000))
    assert counts[0] == counts[1]
    names = sorted(path.name for path in (tmp_path / "out1").iterdir())
    assert len(names) > 3
    assert names == sorted(path.name for path in (tmp_path / "out2").iterdir())
    for name in names:
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()


def test_columns_belong_to_their_source(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("编号,摘要\nCN1A,一种泵。\n")
    source = Source(path=str(tmp_path / "a.csv"), columns={"编号": "id", "摘要": "abstract"})
    assert ingest([source], tmp_path / "out", None)["records"] == 1
    assert next(read_records(tmp_path / "out"))["abstract"] == "一种泵。"


def test_a_corpus_of_rejected_documents_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<nothing/>")
    counts = ingest([Source(path=str(tmp_path / "a.xml"))], tmp_path / "out", None)
    assert (counts["documents"], counts["records"], counts["by_office_language"]) == (1, 0, {})
    assert list(read_records(tmp_path / "out")) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source(path="no/such/place"), "no/such/place does not exist"),
        (Source(path="empty"), "empty is an empty folder"),
        (
            Source(path="full", columns={"摘要": "abstrakt"}),
            "'摘要' is mapped to the unknown field 'abstrakt'",
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Source, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    corpus(tmp_path / "full")
    with pytest.raises(UserError, match=message):
        ingest([source], tmp_path / "out", None)
    with pytest.raises(UserError, match="no shard"):
        next(read_records(tmp_path / "full"))


def test_files_are_listed_in_order_without_hidden_ones(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "deep").symlink_to(corpus(tmp_path / "elsewhere") / "deep")
    (source / "a.jsonl").write_text("{}")
    assert list_files(source) == [source / "a.jsonl", source / "deep" / "b.csv"]
    assert list_files(source / "a.jsonl") == [source / "a.jsonl"]
    (source / "\udcb0.txt").write_text("named in another encoding")
    with pytest.raises(UserError, match="is not UTF-8"):
        list_files(source)
