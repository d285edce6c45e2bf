"""Next month's files: a corpus that extends another holds only what is new, and the other stays as it is."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.model.loading import load_tokenizer
from core.provenance import manifest
from data.record_store import read_records
from data.synthetic.patents import synthesize
from tests.conftest import run

SETTINGS = ["tokenizer.vocabulary_size=1400", "pack.validation_share=0.1", "engine.workers=1"]


def lines(records: list[dict[str, object]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def make(folder: Path, raw: Path, *more: str) -> str:
    done = run("data", "run", f"output_dir={folder}", f"sources=[{raw}]", *SETTINGS, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(corpus: Path) -> dict[Path, tuple[bytes, int]]:
    files = [path for path in corpus.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora `1`, `2` (extends 1) and `3` (extends 2) of a folder of files that grew by one a month."""
    folder = tmp_path_factory.mktemp("months")
    synthesize(folder / "made", inventions=60, seed=3)
    made = [json.loads(line) for line in (folder / "made" / "records.jsonl").read_text("utf-8").splitlines()]
    raw = folder / "raw"
    raw.mkdir()
    (raw / "1.jsonl").write_text(lines(made[:80]), "utf-8")
    make(folder / "1", raw)
    copies = [{**record, "id": f"{record['id']}9", "application_id": None} for record in made[:6]]
    (raw / "2.jsonl").write_text(lines([*made[80:100], *copies]), "utf-8")
    before = contents(folder / "1")
    make(folder / "2", raw, f"extends=[{folder / '1'}]")
    assert contents(folder / "1") == before
    (raw / "3.jsonl").write_text(lines([*made[100:], *made[84:90]]), "utf-8")
    make(folder / "3", raw, f"extends=[{folder / '2'}]")
    return folder


def names(corpus: Path) -> list[tuple[str, str | None]]:
    return [(record["id"], record["language"]) for record in read_records(corpus / "decontaminate")]


def test_a_corpus_holds_what_its_predecessors_do_not(months: Path) -> None:
    counts = {number: manifest.read(months / number / "dedup")["counts"] for number in ("1", "2", "3")}
    assert [counts[number]["known"] for number in counts] == [0, 80, 100]
    assert [counts[number]["records"] for number in counts] == [80, 26, 26]
    assert [counts[number]["kept"] for number in counts] == [80, 20, 20]
    found = [names(months / number) for number in counts]
    assert len(set().union(*found)) == sum(map(len, found)) == 120


def test_all_give_a_text_the_same_ids(months: Path) -> None:
    texts = [record["description"] or "" for record in read_records(months / "3" / "decontaminate")]
    ids = [load_tokenizer(str(months / number / "tokenizer"))(texts).input_ids for number in ("1", "2", "3")]
    assert ids[0] == ids[1] == ids[2]


def test_an_invention_stays_on_the_side_where_it_stood(months: Path, tmp_path: Path) -> None:
    """Here each is known again by its publication number alone."""

    def trained_on(corpus: Path) -> set[str]:
        return set(pq.read_table(corpus / "pack" / "seen.parquet")["publication"].to_pylist())

    old = list(read_records(months / "1" / "decontaminate"))
    synthesize(tmp_path / "made", inventions=40, seed=8)
    texts = [
        json.loads(line) for line in (tmp_path / "made" / "records.jsonl").read_text("utf-8").splitlines()
    ]
    new = [
        {**text, "id": f"{before['id'][:-1]}C", "application_id": None, "family_id": f"F-{number}"}
        for number, (text, before) in enumerate(zip(texts, old, strict=True))
    ]
    (tmp_path / "raw.jsonl").write_text(lines(new), "utf-8")
    make(tmp_path / "4", tmp_path / "raw.jsonl", f"extends=[{months / '1'}]")
    assert len(list(read_records(tmp_path / "4" / "decontaminate"))) == 80
    assert trained_on(tmp_path / "4") == trained_on(months / "1")


@pytest.mark.parametrize("setting", ["pack.seed=1", "pack.validation_share=0.2"])
def test_a_corpus_that_would_be_split_otherwise_is_refused(
    months: Path, tmp_path: Path, setting: str
) -> None:
    made = [f"output_dir={tmp_path}/new", f"sources=[{months / 'raw'}]", *SETTINGS]
    done = run("data", "run", *made, f"extends=[{months / '2'}]", setting)
    assert done.returncode == 2
    assert f"{setting}, but {months / '1'} was packed with" in done.stderr
    assert not (tmp_path / "new" / "ingest").exists()


def test_an_unchanged_corpus_is_up_to_date(months: Path) -> None:
    said = make(months / "3", months / "raw", f"extends=[{months / '2'}]")
    assert said.count("up to date") == 6


@pytest.mark.parametrize(
    ("extends", "status", "message"),
    [
        ("2", 3, "^nothing new: .* already have all 1 files"),
        ("no", 2, "^error: extends: .*no is not a finished corpus"),
    ],
)
def test_nothing_new_is_told_from_a_mistake(
    months: Path, tmp_path: Path, extends: str, status: int, message: str
) -> None:
    made = [f"output_dir={tmp_path}/new", f"sources=[{months / 'raw' / '1.jsonl'}]", *SETTINGS]
    done = run("data", "run", *made, f"extends=[{months / extends}]")
    assert done.returncode == status
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "new" / "ingest").exists()


def test_new_files_without_a_new_document_are_nothing_new(months: Path, tmp_path: Path) -> None:
    raw = tmp_path / "again.jsonl"
    raw.write_text((months / "raw" / "1.jsonl").read_text("utf-8") + "\n", "utf-8")  # another hash
    made = [f"output_dir={tmp_path}/new", f"sources=[{raw}]", *SETTINGS]
    done = run("data", "run", *made, f"extends=[{months / '2'}]")
    assert (done.returncode, done.stderr.splitlines()[-1].partition(":")[0]) == (3, "nothing new"), (
        done.stderr
    )


def test_too_many_bad_documents_end_the_run_and_it_goes_on_where_they_are_allowed(
    months: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text((months / "raw" / "1.jsonl").read_text("utf-8") + "{broken\n" * 101, "utf-8")
    command = ["data", "run", f"output_dir={tmp_path / 'corpus'}", f"sources=[{raw}]", *SETTINGS]
    done = run(*command)
    assert done.returncode == 2
    assert "101 of 181 documents could not be used, more than error_budget=0.1" in done.stderr
    assert not (tmp_path / "corpus" / "clean").exists()
    done = run(*command, "error_budget=0.6")
    assert done.returncode == 0, done.stderr
    assert "ingest         up to date" in done.stdout


def test_a_hundred_bad_documents_end_no_run(months: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text((months / "raw" / "1.jsonl").read_text("utf-8") + "{broken\n" * 100, "utf-8")
    make(tmp_path / "corpus", raw)
