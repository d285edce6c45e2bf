"""An index is found in as the definition of BM25 says, filters exactly, grows without changing what it grew
from, and is refused where it is damaged."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import NothingNewError, UserError
from core.provenance import manifest
from data.record import Record
from serve.retrieval import index as index_module
from serve.retrieval.index import build
from serve.retrieval.search import Filter, Hit, Index, prior_art
from serve.retrieval.terms import terms
from tests.conftest import ROOT, run
from tests.data.records import record, write_shards

WORDS = [
    *("pump", "valve", "seal", "rotor", "motor", "housing"),
    *("水泵", "阀门", "密封", "转子", "电机", "壳体", "펌프", "밸브"),
]
IPC = (["F04D 1/00", "F16K 3/02"], ["F04D 13/06"], ["H01L 21/02"], None)


def made(number: int, words: int = 12, **fields: Any) -> Record:
    """A record with random words, dates, offices and classes; two records are one invention."""
    draw = random.Random(number)
    text = " ".join(draw.choices(WORDS, k=words))
    day = f"{draw.randint(1990, 2020)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
    language = draw.choice(["zh", "zh-Hant", "en", "ko"])
    of: dict[str, Any] = {
        "language": language,
        "office": draw.choice(["CN", "US", "KR"]),
        "date": draw.choice([day, None]),
    }
    of |= {"ipc": draw.choice(IPC), "application_id": f"X-{number // 2}", "title": text, "abstract": None}
    return record(number, **(of | {"claims": None, "description": None} | fields))


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [made(number, 5 + number % 20) for number in range(300)]


@pytest.fixture(scope="module")
def folder(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("index")
    write_shards([records[:200], records[200:]], place / "records")
    build([place / "records"], place / "index")
    return place


@pytest.fixture(scope="module")
def opened(folder: Path) -> Index:
    return Index(folder / "index")


def bm25(texts: list[Counter[str]], asked: Mapping[str, float]) -> list[float]:
    """The score of each text by the formula (Robertson and Zaragoza 2009; k1 = 1.2, b = 0.75)."""
    mean = sum(text.total() for text in texts) / len(texts)
    scores = [0.0] * len(texts)
    for term, times in asked.items():
        having = sum(term in text for text in texts)
        idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for number, text in enumerate(texts):
            length = 1.2 * (0.25 + 0.75 * text.total() / mean)
            scores[number] += times * idf * text[term] * 2.2 / (text[term] + length)
    return scores


@pytest.mark.parametrize("question", ["pump", "水泵的密封", "rotor rotor valve", "펌프 motor 转子"])
def test_scores_are_those_of_bm25(opened: Index, records: list[Record], question: str) -> None:
    texts = [Counter(terms(each["title"] or "")) for each in records]
    names = [each["id"] for each in records]
    kept = {name for name, text in zip(names, texts, strict=True) if text.total() < 40}
    # tantivy rounds the length of longer texts
    expected = dict(zip(names, bm25(texts, Counter(terms(question))), strict=True))
    hits = opened.search(question, hits=300)
    found = {passage["id"]: passage["score"] for hit in hits for passage in hit.passages}
    assert set(found) == {name for name, score in expected.items() if score > 0}
    for name in kept & found.keys():
        assert found[name] == pytest.approx(expected[name], rel=1e-4)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.score == max(passage["score"] for passage in hit.passages) for hit in hits)


def test_publications_of_one_invention_are_one_hit(opened: Index) -> None:
    hits = opened.search(" ".join(WORDS), hits=300)
    assert len(hits) == 150
    assert all(len({int(passage["id"].split("-")[1]) // 2 for passage in hit.passages}) == 1 for hit in hits)
    assert len(opened.search(" ".join(WORDS), hits=7)) == 7


FILTERS = [
    Filter(before="2005-06-15"),
    Filter(offices=("cn", "KR")),
    Filter(languages=("zh",)),
    Filter(languages=("zh-hant",)),
    Filter(ipc=("F04D",)),
    Filter(ipc=("F04D 1",)),
    Filter(ipc=("f04d13/06", "H01L 21")),
    Filter(ipc=("F",), offices=("US",), languages=("en", "ko"), before="2010-01-01"),
    Filter(without="X-3"),
]


def passes(each: Record, wanted: Filter) -> bool:
    """What a filter means, from the record itself."""
    symbols = ["".join(symbol.split()) for symbol in each["ipc"] or ()]
    main_groups = [symbol.partition("/")[0] for symbol in symbols]
    asked = ["".join(symbol.upper().split()) for symbol in wanted.ipc]
    return (
        (not wanted.before or (each["date"] or "9999") < wanted.before)
        and (not wanted.offices or (each["office"] or "") in [office.upper() for office in wanted.offices])
        and (not wanted.languages or (each["language"] or "").lower().startswith(wanted.languages))
        and (not asked or any(one in (symbol, group, symbol[:4], symbol[:1]) for one in asked
                              for symbol, group in zip(symbols, main_groups, strict=True)))
        and each["application_id"] != wanted.without
    )  # fmt: skip


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_a_filter_passes_exactly_what_it_names(opened: Index, records: list[Record], wanted: Filter) -> None:
    expected = {each["id"] for each in records if passes(each, wanted)}
    assert expected, "the filter is of no use here"
    assert len(expected) < 300
    hits = opened.search(" ".join(WORDS), 300, wanted)
    assert {passage["id"] for hit in hits for passage in hit.passages} == expected
    everything = {
        each["id"]: each["score"] for hit in opened.search(" ".join(WORDS), 300) for each in hit.passages
    }
    assert all(each["score"] == everything[each["id"]] for hit in hits for each in hit.passages)


def test_before_a_publication_is_before_its_priority_without_its_own_invention(tmp_path: Path) -> None:
    parts = [
        made(
            0, title="pump seal", date="2010-01-01", priority="2008-01-01", office="CN", id="CN-102000000-A"
        ),
        made(1, title="pump seal", date="2007-12-31", id="CN-101000000-A"),
        made(2, title="pump seal", date="2008-01-01"),
        made(4, title="pump seal", date=None),
        made(6, title="pump seal", date="2001-01-01"),
    ]
    write_shards([parts], tmp_path / "records")
    build([tmp_path / "records"], tmp_path / "index")
    index = Index(tmp_path / "index")
    for written in ("CN-102000000-A", "CN102000000A", "CN 102000000"):
        day, own = prior_art(index, written)
        assert [hit.id for hit in index.search("pump", 9, Filter(before=day, without=own))] == [
            parts[4]["id"]
        ]
    for wrong in ("CN-9-A", "2015-13-01", "2015-1-6", ""):
        with pytest.raises(UserError, match="neither a date such as 2015-01-06 nor a publication"):
            prior_art(index, wrong)


def answers(folder: Path) -> list[list[Hit]]:
    index = Index(folder)
    return [index.search(word, 300) for word in ("pump", "水泵", "펌프 seal 电机")]


@settings(deadline=None, max_examples=5)
@given(cut=st.integers(1, 299))
def test_an_index_that_grew_answers_as_one_made_at_once(
    records: list[Record], folder: Path, tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    place = tmp_path_factory.mktemp("grown")
    write_shards([records[:cut]], place / "a")
    write_shards([records[cut:]], place / "b")
    build([place / "a"], place / "first")
    before = {file.name: file.read_bytes() for file in (place / "first" / "segments").iterdir()}
    counts = build([place / "a", place / "b"], place / "second", place / "first")
    assert counts == {"records": 300, "passages": 300, "new": 300 - cut, "changed": 0}
    assert answers(place / "second") == answers(folder / "index")
    assert {file.name: file.read_bytes() for file in (place / "first" / "segments").iterdir()} == before
    manifest.verify(place / "first")
    with pytest.raises(NothingNewError, match="nothing new"):
        build([place / "b"], place / "third", place / "second")
    assert not (place / "third").exists()


def test_a_record_that_changed_replaces_the_old_one(
    records: list[Record], folder: Path, tmp_path: Path
) -> None:
    changed = {**records[5], "title": "a turbine"}
    write_shards([[changed, *records[6:9]]], tmp_path / "records")  # type: ignore[list-item]
    counts = build([tmp_path / "records"], tmp_path / "index", folder / "index")
    assert counts == {"records": 300, "passages": 300, "new": 0, "changed": 1}
    index = Index(tmp_path / "index")
    assert [hit.id for hit in index.search("turbine")] == [records[5]["id"]]
    assert records[5]["id"] not in {
        each["id"] for hit in index.search(" ".join(WORDS), 300) for each in hit.passages
    }
    assert not Index(folder / "index").search("turbine")


def test_two_texts_with_one_id_stay_two_records(tmp_path: Path) -> None:
    twins = [made(1, title="pump"), made(1, title="valve"), made(1, title="pump"), made(2, title="seal")]
    write_shards([twins], tmp_path / "a")
    assert build([tmp_path / "a"], tmp_path / "first")["passages"] == 3
    assert {hit.title for word in ("pump", "valve") for hit in Index(tmp_path / "first").search(word)} == {
        "pump",
        "valve",
    }
    write_shards([[*twins, made(3, title="rotor")]], tmp_path / "b")
    counts = build([tmp_path / "b"], tmp_path / "second", tmp_path / "first")
    assert (counts["passages"], counts["new"], counts["changed"]) == (4, 1, 0)
    write_shards([[made(1, title="motor"), made(1, title="valve")]], tmp_path / "c")
    counts = build([tmp_path / "c"], tmp_path / "third", tmp_path / "second")
    assert (counts["passages"], counts["records"], counts["changed"]) == (4, 4, 1)
    assert [len(Index(tmp_path / "third").search(word)) for word in ("motor", "valve", "pump")] == [1, 1, 0]
    write_shards([[made(1, title="valve"), made(1, title="housing")]], tmp_path / "d")  # the known one first
    counts = build([tmp_path / "d"], tmp_path / "fourth", tmp_path / "third")
    assert (counts["passages"], counts["records"], counts["changed"], counts["new"]) == (4, 4, 1, 0)
    assert [len(Index(tmp_path / "fourth").search(word)) for word in ("housing", "valve", "motor")] == [
        1,
        1,
        0,
    ]


def test_a_corpus_of_the_pipeline_is_indexed_before_test_documents_are_taken_out(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    done = run("data", "run", "--until", "decontaminate", f"output_dir={corpus}", "synthetic.inventions=5")
    assert done.returncode == 0, done.stderr
    done = run("serve", "index", "--corpus", corpus, "--output", tmp_path / "index")
    assert done.returncode == 0, done.stderr
    assert "passages of 10 records" in done.stdout
    inputs = manifest.read(tmp_path / "index")["inputs"]
    assert {Path(name).parent.name for name in inputs} == {"dedup"}


def test_articles_of_a_law_are_known_by_title_and_number(tmp_path: Path) -> None:
    text = "第一条 为了保护专利权。\n第二条 发明是指技术方案。"
    law = record(1, id="law-1", title="中华人民共和国专利法", abstract=None, claims=None, description=text)
    write_shards([[law]], tmp_path / "records")
    build([tmp_path / "records"], tmp_path / "index")
    index = Index(tmp_path / "index")
    (hit,) = index.search("发明是什么")
    assert (hit.passages[0]["part"], hit.passages[0]["label"]) == ("article", "第二条")
    assert index.has_law("《中华人民共和国专利法》")
    assert index.has_law("中華人民共和國專利法", "第2條")
    assert not index.has_law("中华人民共和国专利法", "第三条")
    assert not index.has_law("著作权法", "第一条")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "no words"),
        (" \n", "no words"),
        ("？！…", "no words"),
        ("a" * 1_000_000, "1,000,000 characters; 100,000 are"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(opened: Index, question: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        opened.search(question)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"before": "yesterday"}, "before=yesterday"),
        ({"ipc": ("H1",)}, "ipc=H1"),
        ({"ipc": ("Z01B",)}, "ipc=Z01B"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(given: dict[str, tuple[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Filter(**given)  # type: ignore[arg-type]


def test_words_that_no_document_has_find_nothing(opened: Index) -> None:
    assert opened.search("xylophone") == []
    assert len(opened.search("pump " + " ".join(f"w{i}" for i in range(5000)), 5)) == 5


def test_what_is_no_index_or_damaged_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="not a complete folder"):
        Index(tmp_path / "none")
    for ending in ("store", "json", "term"):
        copy = tmp_path / ending
        shutil.copytree(folder / "index", copy)
        for file in (copy / "segments").glob(f"*.{ending}"):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(UserError, match="is damaged"):
            Index(copy).search("pump")
    shutil.rmtree(copy / "segments")
    with pytest.raises(UserError, match="is damaged"):
        Index(copy)
    monkeypatch.setattr("serve.retrieval.terms.RULE", "another")
    with pytest.raises(UserError, match=r"made with other terms \(nfkc.*this version has another\)"):
        Index(folder / "index")


def test_what_cannot_be_indexed_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus"):
        build([tmp_path], tmp_path / "index")
    with pytest.raises(UserError, match="is not overwritten"):
        build([folder / "records"], folder / "index")
    write_shards([[made(0, title=None)]], tmp_path / "records")
    with pytest.raises(UserError, match="no record has any text"):
        build([tmp_path / "records"], tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_file_of_questions_is_answered_line_by_line(folder: Path, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [
        {"id": 7, "question": "pump\u2028\x85", "language": "zh"},
        {"question": "阀门", "before": "2000-01-01", "ipc": ["F04D"]},
    ]
    (tmp_path / "q.jsonl").write_text("\n\n".join(json.dumps(each, ensure_ascii=False) for each in asked))
    done = run("serve", "search", folder / "index", "--queries", tmp_path / "q.jsonl", "--hits", "3")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.strip().split("\n")]
    assert [{name: line[name] for name in each} for line, each in zip(found, asked, strict=True)] == asked
    assert all(hit["language"].startswith("zh") for hit in found[0]["hits"])
    assert len(found[0]["hits"]) == 3
    for line, message in (
        ('{"question": 3}', 'no JSON object with a text "question"'),
        ("{", "no JSON"),
        ('{"question": "pump", "ipc": "x"}', "ipc=x"),
    ):
        (tmp_path / "q.jsonl").write_text('{"question": "pump"}\n' + line)
        done = run("serve", "search", folder / "index", "--queries", tmp_path / "q.jsonl")
        assert done.returncode == 2
        assert f"q.jsonl:2: {message}" in done.stderr


def test_a_read_only_index_is_searched(folder: Path) -> None:
    before = sorted(file.name for file in (folder / "index").rglob("*"))
    assert run("serve", "search", folder / "index", "pump").returncode == 0
    assert sorted(file.name for file in (folder / "index").rglob("*")) == before
    assert {
        oct((folder / "index" / "segments" / name).stat().st_mode & 0o444) for name in index_module.MUTABLE
    } == {"0o444"}


def test_killed_while_it_writes_nothing_is_left_and_the_older_index_is_whole(tmp_path: Path) -> None:
    many = [made(number, 400) for number in range(4000)]
    write_shards([many[:10]], tmp_path / "a")
    write_shards([many], tmp_path / "b")
    build([tmp_path / "a"], tmp_path / "first")
    command = [sys.executable, "-m", "serve", "index", "--corpus", str(tmp_path / "b")]
    command += ["--extends", str(tmp_path / "first"), "--output", str(tmp_path / "second")]
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob(".second.partial*/segments/*.store")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "second").exists()
        manifest.verify(tmp_path / "first")
    assert subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert not any(tmp_path.glob(".second.partial*"))
    assert Index(tmp_path / "second").counts["records"] == 4000
