"""The whole pipeline: nothing is lost on the way, a second run does nothing, a kill costs little, and people
can look."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.provenance import manifest
from data.synthetic.patents import synthesize
from tests.conftest import ROOT, run

SETTINGS = [
    "synthetic.inventions=60",
    "shard_bytes=100_000",
    "tokenizer.vocabulary_size=1400",
    "pack.validation_share=0.1",
]
STEPS = ("synthetic", "ingest", "clean", "dedup", "decontaminate", "tokenizer", "pack")


def files(corpus: Path) -> dict[str, bytes]:
    """Every file that holds data: manifests have times, the report has the manifests."""
    return {
        str(path.relative_to(corpus)): path.read_bytes()
        for step in STEPS
        for path in (corpus / step).rglob("*")
        if path.is_file() and path.name != manifest.NAME
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus, made in one go."""
    folder = tmp_path_factory.mktemp("pipeline") / "corpus"
    done = run("data", "run", f"output_dir={folder}", *SETTINGS, "engine.workers=2")
    assert done.returncode == 0, done.stderr
    return folder


def test_every_record_is_packed_or_counted_as_dropped(corpus: Path) -> None:
    counts = {step: manifest.read(corpus / step)["counts"] for step in STEPS}
    ingested, cleaned, packed = counts["ingest"], counts["clean"], counts["pack"]
    assert ingested["documents"] == counts["synthetic"]["records"] == 120
    assert ingested["records"] == cleaned["records_in"]
    assert cleaned["records_in"] == cleaned["records_out"] + sum(cleaned["dropped"].values())
    unique, final = counts["dedup"], counts["decontaminate"]
    assert cleaned["records_out"] == unique["records"] == unique["kept"] + sum(unique["dropped"].values())
    assert unique["kept"] == final["records"] == final["kept"] + sum(final["contaminated"].values())
    documents = sum(packed[split]["documents"] for split in ("train", "validation"))
    assert final["kept"] == documents + sum(packed["dropped"].values())


def test_every_step_can_be_followed_back_to_its_inputs(corpus: Path) -> None:
    for step in STEPS:
        manifest.verify(corpus / step)
    packed = manifest.read(corpus / "pack")
    known = {digest for step in STEPS[:-1] for digest in manifest.read(corpus / step)["outputs"].values()}
    assert set(packed["inputs"].values()) <= known


def test_terms_go_through_every_manifest(corpus: Path) -> None:
    terms = {str(corpus / "synthetic" / "records.jsonl"): {"licence": "made by this program", "use": "any"}}
    assert [manifest.read(corpus / step)["sources"] for step in STEPS] == [terms] * len(STEPS)


def test_a_second_run_does_nothing_and_says_so(corpus: Path) -> None:
    times = {path: path.stat().st_mtime_ns for step in STEPS for path in (corpus / step).rglob("*")}
    done = run("data", "run", f"output_dir={corpus}", *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("up to date") == len(STEPS)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_an_altered_raw_file_is_noticed(corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "raw.jsonl"
    records = (corpus / "synthetic" / "records.jsonl").read_text("utf-8")
    source.write_text(records, "utf-8")
    command = ["data", "run", f"output_dir={tmp_path / 'corpus'}", f"sources=[{source}]", *SETTINGS[2:]]
    assert run(*command).returncode == 0
    source.write_text(records.replace("一种", "一個", 1), "utf-8")
    done = run(*command)
    assert done.returncode == 2
    assert "input" in done.stderr
    assert "raw.jsonl: changed" in done.stderr


def test_every_manifest_says_the_terms_of_every_source_and_tokens_are_counted_by_them(tmp_path: Path) -> None:
    synthesize(tmp_path / "made", inventions=60, seed=3)
    lines = (tmp_path / "made" / "records.jsonl").read_text("utf-8").splitlines(keepends=True)
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    terms = [{"licence": "CC-BY-4.0", "use": "any"}, {"licence": "ours", "use": "research"}]
    for file, part in zip(files, (lines[:80], lines[80:]), strict=True):
        Path(file).write_text("".join(part), "utf-8")
    sources = [{"path": file, **each} for file, each in zip(files, terms, strict=True)]
    settings = [f"sources={json.dumps(sources)}", *SETTINGS[1:], "engine.workers=1"]
    done = run("data", "run", f"output_dir={tmp_path / 'corpus'}", *settings)
    assert done.returncode == 0, done.stderr
    for step in STEPS[1:]:
        assert manifest.read(tmp_path / "corpus" / step)["sources"] == dict(zip(files, terms, strict=True))
    counts = manifest.read(tmp_path / "corpus" / "pack")["counts"]
    documents = [each["documents"] for each in counts["by_source"].values()]
    assert (list(counts["by_source"]), documents) == (files, [80, 40])
    for language in ("zh", "en"):
        amounts = counts["by_language"][language]
        shown = f"{language}: {amounts['tokens_per_character']:.3f} tokens per character"
        assert shown in done.stdout


def test_the_report_shows_counts_and_records(corpus: Path) -> None:
    page = (corpus / "report.html").read_text("utf-8")
    tokens = manifest.read(corpus / "pack")["counts"]["tokens"]["CN"]["zh"]
    assert f"{tokens:,}" in page
    assert page.count("<details>") == 20
    assert "python" in page, "the commands that made it"


def test_show_prints_every_step(corpus: Path) -> None:
    done = run("data", "show", corpus)
    assert done.returncode == 0, done.stderr
    for step in STEPS:
        assert f"{step:<15}" in done.stdout


def test_stats_prints_the_tables_of_a_corpus_from_its_manifests(corpus: Path) -> None:
    done = run("data", "stats", corpus)
    assert done.returncode == 0, done.stderr
    header, first, *_ = done.stdout.splitlines()
    assert header.split() == ["office", "language", *STEPS[1:5], "documents", "tokens"]
    packed = manifest.read(corpus / "pack")["counts"]
    office, language, *numbers = first.replace(",", "").split()
    assert int(numbers[-1]) == packed["tokens"][office][language]
    assert (
        int(numbers[0]) == manifest.read(corpus / "ingest")["counts"]["by_office_language"][office][language]
    )
    missing = run("data", "stats", corpus / "pack" / "no")
    assert missing.returncode == 2
    assert "no corpus found" in missing.stderr


def test_a_run_ends_at_the_step_that_is_asked_for_and_a_later_one_goes_on(
    corpus: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "raw.jsonl"
    lines = (corpus / "synthetic" / "records.jsonl").read_text("utf-8").splitlines(keepends=True)
    raw.write_text("".join([*lines, "{broken\n"]), "utf-8")
    command = ["data", "run", f"output_dir={tmp_path / 'corpus'}", f"sources=[{raw}]", *SETTINGS[1:]]
    for until, steps in (("ingest", STEPS[1:2]), ("dedup", STEPS[1:4])):
        done = run(*command, "--until", until)
        assert done.returncode == 0, done.stderr
        made = {path.name for path in (tmp_path / "corpus").iterdir() if not path.name.startswith(".")}
        assert made == {*steps}
        assert done.stdout.count("up to date") == (0 if until == "ingest" else 1)
    shown = run("data", "stats", tmp_path / "corpus").stdout
    assert re.search(r"^ingest +bad-json +1$", shown, re.MULTILINE)
    assert "tokens" not in shown
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("up to date") == 3
    assert files(tmp_path / "corpus")["pack/train.bin"] == files(corpus)["pack/train.bin"]
    assert run(*command, "--until", "lunch").returncode == 2


@pytest.mark.slow
def test_killed_at_ten_moments_the_corpus_is_that_of_one_run(corpus: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    folder = tmp_path / "corpus"
    command = [sys.executable, "-m", "data", "run", f"output_dir={folder}", *SETTINGS, "engine.workers=2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    killed = 0
    while killed < 10:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(draw.uniform(0.3, 2.5))
        killed += process.poll() is None
        process.kill()
        if process.wait() == 0:  # it came to its end: that must be the same, and it begins anew
            assert files(folder) == files(corpus)
            shutil.rmtree(folder)
    done = run(*command[2:])
    assert done.returncode == 0, done.stderr
    assert files(folder) == files(corpus)
    assert not [path for path in folder.iterdir() if path.name.endswith((".unfinished", ".partial"))]


@pytest.mark.parametrize("workers", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_the_corpus_is_the_same_with_any_number_of_workers(
    corpus: Path, tmp_path: Path, workers: int
) -> None:
    assert len(list((corpus / "clean").glob("shard-*.parquet"))) > 4
    done = run("data", "run", f"output_dir={tmp_path / 'corpus'}", *SETTINGS, f"engine.workers={workers}")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "corpus") == files(corpus)
