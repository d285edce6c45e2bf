"""What folders hold besides patents: each bad file costs itself, is named, and nothing else is lost."""

import codecs
import gzip
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from core.provenance import manifest
from data.record_store import read_records
from data.synthetic.patents import synthesize
from tests.conftest import ROOT, run
from tests.data.readers.reading import grant

SETTINGS = ["tokenizer.vocabulary_size=1400", "pack.validation_share=0.1", "engine.workers=1"]
GOOD = 40

CN = (
    '<?xml version="1.0" encoding="{declared}"?>{doctype}<cn-patent-document lang="zh" country="CN">'
    "<cn-bibliographic-data><cn-publication-reference><document-id><country>CN</country>"
    "<doc-number>1234567</doc-number><kind>A</kind></document-id></cn-publication-reference>"
    "<invention-title>一种用于输送水的水泵&more;</invention-title></cn-bibliographic-data>"
    "<application-body><description><p>本发明涉及一种水泵，包括转子和密封件，用于输送液体和气体，其中所述转子设于壳体内。"
    "</p></description></application-body></cn-patent-document>"
)
BOMB = '<!DOCTYPE x [<!ENTITY a "' + "boom" * 100 + '">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 100}">' for before, name in zip("abcd", "bcde", strict=True)
) + '<!ENTITY more "&e;">]>'  # fmt: skip
FILE_ENTITY = '<!DOCTYPE x [<!ENTITY more SYSTEM "file:///etc/passwd">]>'


def chinese(encoding: str, declared: str, doctype: str = "", more: str = "") -> bytes:
    text = CN.format(declared=declared, doctype=doctype)
    return (text if doctype else text.replace("&more;", more)).encode(encoding)


def zip_of(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def tar_of(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


LINE = json.dumps({"id": "US-1-A", "title": "A pump", "description": "It pumps water. " * 20}).encode()

ROW = json.dumps({"id": "CN-1-A", "title": "一种用于输送水的水泵"}, ensure_ascii=False)
NOISE = b"".join(
    json.dumps({"id": f"US-{number}-A", "description": random.Random(number).randbytes(500).hex()}).encode()
    + b"\n"
    for number in range(400)
)

HOSTILE: list[tuple[str, Callable[[], bytes], list[str], int]] = [
    # file, its content, the reasons of its rejections, the records that it gives nevertheless
    ("bomb.xml", lambda: chinese("utf-8", "utf-8", BOMB), ["malformed-xml"], 0),
    ("entity.xml", lambda: chinese("utf-8", "utf-8", FILE_ENTITY), ["external-entity"], 0),
    ("undeclared-entity.xml", lambda: chinese("utf-8", "utf-8", more="&secret;"), [], 1),
    ("bomb.zip", lambda: zip_of(("a.xml", b"<a>" + b" " * (200 << 20))), ["archive-bomb"], 0),
    ("out.zip", lambda: zip_of(("../../out.jsonl", LINE), ("in.jsonl", LINE)), ["unsafe-name"], 1),
    ("absolute.tar", lambda: tar_of("/etc/cron.d/x.jsonl", LINE), ["unsafe-name"], 0),
    ("cut.xml.gz", lambda: gzip.compress(grant().encode())[:-40], ["truncated-archive"], 0),
    ("up.tar", lambda: tar_of("../../up.jsonl", LINE), ["unsafe-name"], 0),
    ("cut.jsonl.zst", lambda: zstandard.compress(NOISE)[:-3000], ["truncated-archive"], 252),
    ("rows.xml/deep.jsonl", lambda: LINE, [], 1),  # a folder with the name of a file
    ("mixed.zip", lambda: zip_of(("a.xml", b"<a>"), ("b.gz", b"\x1f\x8b\x08"), ("c.xml", grant().encode())),
     ["unknown-format", "truncated-archive"], 1),
    ("utf16.jsonl", lambda: codecs.BOM_UTF16_BE + LINE.decode().encode("utf-16-be"), [], 1),
    ("gb18030.jsonl", lambda: ROW.encode("gb18030"), ["bad-encoding"], 0),
    ("nul.jsonl", lambda: LINE + b"\n{\"title\": \"a\0b\"}\n" + LINE + b"\n\0\0\0", ["bad-json"], 3),
    ("noise.xml.gz", lambda: b"\x1f\x8b\x08" + bytes(range(256)) * 9, ["damaged-archive"], 0),
    ("cut.zip", lambda: zip_of(("a.jsonl", LINE * 50))[:-60], ["damaged-archive"], 0),
    ("utf16.xml", lambda: codecs.BOM_UTF16_LE + chinese("utf-16-le", "utf-16"), [], 1),
    ("gb18030.xml", lambda: chinese("gb18030", "gb18030"), [], 1),
    ("gb18030-undeclared.xml", lambda: chinese("gb18030", "utf-8"), ["bad-encoding"], 0),
    ("gb18030.csv", lambda: "公开号,摘要\nCN1234567A,一种用于输送水的水泵。\n".encode("gb18030"), [], 1),
    ("latin1.jsonl", lambda: LINE + b'\n{"id": "DE1", "title": "f\xfcr"}\n' + LINE, ["bad-encoding"], 2),
    ("nul.txt", lambda: b"text\0\0\0 and more", ["unknown-format"], 0),
    ("long.jsonl", lambda: LINE + b'\n{"title": "' + b"x" * (65 << 20) + b'"}\n' + LINE, ["too-long"], 2),
    ("deep.json", lambda: b"[" * 100_000, ["bad-json"], 0),
    ("empty.xml", lambda: b"", ["empty-file"], 0),
    ("photo.jpg", lambda: b"\xff\xd8\xff\xe0\x00\x10JFIF", [], 0),
    ("brief.pdf", lambda: b"%PDF-1.7 ...", ["unknown-format"], 0),
    ("other.xml", lambda: b"<html><body>Not found</body></html>", ["unknown-format"], 0),
    ("cut.xml", lambda: grant().encode()[:-300], ["malformed-xml"], 0),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A corpus made of all of these and of 40 good records, by the command that users run."""
    folder = tmp_path_factory.mktemp("hostile")
    raw = folder / "raw"
    raw.mkdir()
    synthesize(folder / "made", inventions=GOOD // 2, seed=3)
    (folder / "made" / "records.jsonl").rename(raw / "good.jsonl")
    for name, content, _, _ in HOSTILE:
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).write_bytes(content())
    (raw / "loop").symlink_to(raw)
    return folder, run("data", "run", f"output_dir={folder / 'corpus'}", f"sources=[{raw}]", *SETTINGS)


def test_a_run_ends_well_and_counts_everything(made: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = made
    assert done.returncode == 0, done.stderr
    counts = manifest.read(folder / "corpus" / "ingest")["counts"]
    assert counts["records"] == GOOD + sum(records for _, _, _, records in HOSTILE)
    assert counts["rejected"]["total"] == sum(len(reasons) for _, _, reasons, _ in HOSTILE)
    assert counts["noted"] == {"attachment": 1, "unknown-entity": 1}, "the photograph, &secret;"
    assert "unknown entities, which stay in the text as they are written (&name;): 1" in done.stdout
    assert "rejected.jsonl lists each rejected document with its reason" in done.stdout


@pytest.mark.parametrize(("name", "reasons", "records"), [(row[0], row[2], row[3]) for row in HOSTILE])
def test_each_bad_file_is_named_with_its_reason_and_the_rest_of_it_is_read(
    made: tuple[Path, subprocess.CompletedProcess[str]], name: str, reasons: list[str], records: int
) -> None:
    folder, _ = made
    lines = (folder / "corpus" / "ingest" / "rejected.jsonl").read_text("utf-8").splitlines()

    def is_of_it(source: str) -> bool:
        return re.fullmatch(rf".*/raw/{re.escape(name)}(?:[#/].*)?", source) is not None

    rejected = [line for line in map(json.loads, lines) if is_of_it(line["source"])]
    assert [line["reason"] for line in rejected] == reasons
    assert all(line["detail"] for line in rejected)
    found = [record for record in read_records(folder / "corpus" / "ingest") if is_of_it(record["source"])]
    assert len(found) == records
    assert not any("root:" in (record["title"] or "") for record in found)
    assert not list(folder.glob("*.jsonl")), "nothing is written beside the corpus"


def test_one_id_with_two_texts_stays_two_records_and_is_told(tmp_path: Path) -> None:
    texts = ["一种水泵，包括转子和密封件，用于输送液体。" * 9, "一种阀门，包括弹簧和阀芯，用于切断气体。" * 9]
    rows = [{"id": "CN-1234567-A", "language": "zh", "title": "泵", "description": text} for text in texts]
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]), "utf-8")
    made = [
        "data",
        "run",
        f"output_dir={tmp_path / 'c'}",
        f"sources=[{raw}]",
        "tokenizer.vocabulary_size=300",
    ]
    done = run(*made, "pack.validation_share=0", "clean.min_script_share=0", "clean.max_repeated_lines=1",
               "clean.max_repeated_ngrams=1", "engine.workers=1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = [record["description"] for record in read_records(tmp_path / "c" / "dedup")]
    assert sorted(kept, key=str) == sorted(texts)


@pytest.mark.parametrize("what", ["empty", "missing", "dangling"])
def test_a_folder_that_cannot_be_read_ends_with_one_message(tmp_path: Path, what: str) -> None:
    raw = tmp_path / "raw"
    if what != "missing":
        raw.mkdir()
    if what == "dangling":
        (raw / "gone.xml").symlink_to(raw / "nowhere.xml")
    done = run("data", "run", f"output_dir={tmp_path / 'corpus'}", f"sources=[{raw}]", *SETTINGS)
    assert done.returncode == 2
    assert str(raw) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_loses_nothing_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The limit on a file's size stands for the full disk: what writes gets an error of the system."""
    settings = ["synthetic.inventions=60", "shard_bytes=100_000", *SETTINGS]
    command = [sys.executable, "-m", "data", "run", f"output_dir={tmp_path / 'corpus'}", *settings]

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))

    environment = {
        name: value for name, value in os.environ.items() if "COVERAGE" not in name
    }  # it writes too
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, preexec_fn=small, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    again = run(*command[2:])
    assert again.returncode == 0, again.stderr
    whole = run("data", "run", f"output_dir={tmp_path / 'whole'}", *settings)
    assert whole.returncode == 0
    for name in ("train.bin", "train.idx", "validation.bin", "seen.parquet"):
        assert (tmp_path / "corpus/pack" / name).read_bytes() == (tmp_path / "whole/pack" / name).read_bytes()
