"""`python -m data inspect`: what it says is there, and a configuration that loads and runs."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from core.config.loader import load
from core.errors import UserError
from data.inspect_sources import inspect
from data.pipeline import DataConfig
from tests.conftest import run
from tests.data.readers.reading import grant, write


def raw(folder: Path) -> Path:
    """Three folders: a weekly archive, tables under several names, and nothing that is read."""
    for name in ("uspto", "tables", "other"):
        (folder / name).mkdir(parents=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("week.xml", grant("1000001") + grant("1000002") + "<?xml version='1.0'?><other/>")
    write(folder / "uspto", "week.zip", packed.getvalue())
    write(
        folder / "tables",
        "a.csv",
        '\ufeff公开号,公开日,标题,"# odd\nname"\nCN101234567A,2009.01.02,一种泵,x\n',
    )
    write(
        folder / "tables",
        "b.jsonl.gz",
        gzip.compress(b'{"title": "a"}\n{"title": "b", "language": "en"}\n{x\n'),
    )
    write(folder / "other", "c.pdf", b"%PDF-1.4")
    write(folder / "other", "d.gz", gzip.compress(b"x" * 999)[:-20])
    return folder


def test_the_report_counts_what_is_there(tmp_path: Path) -> None:
    report = inspect(raw(tmp_path / "in"), 1000)
    lines = [" ".join(line.removeprefix("#").split()) for line in report.splitlines()]
    for expected in (
        "format files documents records rejected languages offices years",
        "XML us-patent-grant 1 3 2 1 en 2 US 2 2015-2015",
        "CSV 1 1 1 0 zh 1 CN 1 2009-2009",
        "JSON 1 3 2 1 ? 1, en 1 ? 2",
        "a PDF file 1 1 0 1",
        "公开号 -> id", "公开日 -> date", "标题 -> title", "# odd name -> not used",
        "title -> title", "language -> language",
        "1 bad-json", "1 truncated-archive", "2 unknown-format",
    ):  # fmt: skip
        assert expected in lines, (expected, lines)


def test_the_report_is_a_configuration_that_loads(tmp_path: Path) -> None:
    source = raw(tmp_path / "in")
    done = run("data", "inspect", str(source))
    assert done.returncode == 0, done.stderr
    (tmp_path / "mine.yaml").write_text(done.stdout, "utf-8")
    config = load(DataConfig, tmp_path / "mine.yaml")
    assert [getattr(source, "path", None) for source in config.sources] == [
        str(source / "tables"),
        str(source / "uspto"),
    ]
    (tmp_path / "one.yaml").write_text(inspect(source / "tables", 1000), "utf-8")
    (single,) = load(DataConfig, tmp_path / "one.yaml").sources
    assert getattr(single, "path", None) == str(source / "tables")
    (tmp_path / "file.yaml").write_text(inspect(source / "tables" / "a.csv", 1000), "utf-8")
    assert load(DataConfig, tmp_path / "file.yaml").sources


def test_only_the_first_documents_of_a_file_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", b'{"text": "a"}\n' * 5000)
    assert "JSON    1      10         10" in inspect(path, 10)
    with pytest.raises(UserError, match="does not exist"):
        inspect(tmp_path / "nowhere", 10)
