"""Tables as the world publishes them: HUPD, BIGPATENT, Google Patents, the USPTO's search, vendors."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.readers.column_mapping import Options
from data.readers.formats import read
from data.record import Rejected
from tests.data.readers.reading import reasons, records, rejected, without_digest, write


def test_hupd_one_object_a_file(tmp_path: Path) -> None:
    application = {
        "application_number": "11462122", "publication_number": "US20080028416A1-20080131", "title": "Pump",
        "decision": "REJECTED", "date_published": "20080131", "main_ipcr_label": "G06F1516",
        "ipcr_labels": ["G06F1516", "H04L932"], "abstract": "A pump.", "background": "Known pumps leak.",
        "claims": "1. A pump with 2.5 mm of play. 2. The pump of claim 1.", "summary": "It does not leak.",
        "full_description": "Known pumps leak.\nIt does not leak.\nFIG. 1 shows it.",
    }  # fmt: skip
    for text in (json.dumps(application), json.dumps(application, indent=1), json.dumps([application])):
        path = write(tmp_path, "11462122.json", text)
        (record,) = records(path, Options(defaults={"language": "en"}))
        assert record == {
            "id": "US-20080028416-A1",
            "office": "US",
            "kind": "A1",
            "language": "en",
            "date": "2008-01-31",
            "application_id": "US-11462122",
            "family_id": None,
            "filed": None,
            "priority": None,
            "cites": None,
            "claim_numbers": None,
            "title": "Pump",
            "abstract": "A pump.",
            "claims": ["A pump with 2.5 mm of play.", "The pump of claim 1."],
            "description": "Known pumps leak.\nIt does not leak.\nFIG. 1 shows it.",
            "ipc": ["G06F1516", "H04L932"],
            "source": record["source"],
        }
        assert record["source"].startswith(str(path))
    sections = {key: value for key, value in application.items() if key != "full_description"}
    (record,) = records(write(tmp_path, "a.jsonl", json.dumps(sections)))
    assert record["description"] == "Known pumps leak.\nIt does not leak."


def test_bigpatent(tmp_path: Path) -> None:
    row = {"description": "The pump is round.", "abstract": "A pump."}
    defaults = Options(defaults={"office": "US", "language": "en"})
    (record,) = records(write(tmp_path, "train.jsonl", json.dumps(row) + "\n"), defaults)
    assert (without_digest(record["id"]), record["office"], record["language"]) == (
        "train-000001",
        "US",
        "en",
    )
    assert (record["description"], record["abstract"]) == ("The pump is round.", "A pump.")


GOOGLE = {
    "publication_number": "CN-103012345-A", "application_number": "CN-201210012345-A", "country_code": "CN",
    "kind_code": "A", "family_id": "47890", "publication_date": 20130403,
    "title_localized": [{"text": "泵", "language": "zh", "truncated": False},
                        {"text": "Pump", "language": "en", "truncated": False}],
    "abstract_localized": [{"text": "A pump.", "language": "en", "truncated": False}],
    "claims_localized": [{"text": "1.一种泵，包括转子。2.根据权利要求1所述的泵。", "language": "zh"}],
    "description_localized": [{"text": "泵是圆的。", "language": "zh"}],
    "ipc": [{"code": "F04D29/00", "first": False}, {"code": "F04D13/06", "first": True}],
}  # fmt: skip


def test_google_patents_give_a_record_a_language(tmp_path: Path) -> None:
    english, chinese = records(write(tmp_path, "a.jsonl", json.dumps(GOOGLE) + "\n"))
    both = ("id", "office", "kind", "date", "application_id", "family_id", "ipc")
    assert [chinese[field] for field in both] == [english[field] for field in both]  # type: ignore[literal-required]
    assert [chinese[field] for field in both] == [  # type: ignore[literal-required]
        "CN-103012345-A", "CN", "A", "2013-04-03", "CN-201210012345", "47890", ["F04D 13/06", "F04D 29/00"]
    ]  # fmt: skip
    assert (chinese["title"], chinese["claims"]) == ("泵", ["一种泵，包括转子。", "根据权利要求1所述的泵。"])
    assert (chinese["abstract"], chinese["description"]) == (None, "泵是圆的。")
    assert (english["title"], english["abstract"], english["claims"]) == ("Pump", "A pump.", None)
    short = GOOGLE | {"publication_number": "US-2007186831-A1", "country_code": "US", "kind_code": "A1"}
    assert records(write(tmp_path, "b.json", json.dumps(short)))[0]["id"] == "US-20070186831-A1"


def test_the_usptos_public_search_loses_its_markup(tmp_path: Path) -> None:
    document = {
        "guid": "US-8930553-B2", "inventionTitle": "Pump for H<sub>2</sub>O",
        "datePublished": "2015-01-06T00:00:00Z",
        "abstractHtml": "<p>A pump,<br />round.</p>", "type": "USPAT", "languageIndicator": "EN",
        "claimsHtml": "<p><b>1</b>. A pump, wherein x&lt;5.</p><p>2. The pump of claim 1.</p>",
        "backgroundTextHtml": None, "briefHtml": "<h2>FIELD</h2><p>Pumps.</p>",
        "descriptionHtml": "<table><tr><td>rotor</td><td>10</td></tr></table><script>x</script>",
    }  # fmt: skip
    path = write(tmp_path, "a.json", json.dumps({"numFound": 1, "patents": [document, document]}, indent=1))
    first, second = records(path)
    assert second == first | {"source": f"{path}#2"}
    assert (first["id"], first["title"], first["date"]) == ("US-8930553-B2", "Pump for H₂O", "2015-01-06")
    assert (first["language"], first["abstract"]) == ("en", "A pump,\nround.")
    assert first["claims"] == ["A pump, wherein x<5.", "The pump of claim 1."]
    assert first["description"] == "FIELD\nPumps.\nrotor\t10"


def sheet(path: Path, *rows: list[Any]) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.title = "导出"
    for row in rows:
        book.active.append(row)
    book.create_sheet("empty")
    book.save(path)
    return path


def test_exports_with_chinese_headers(tmp_path: Path) -> None:
    path = sheet(
        tmp_path / "export.data",
        ["检索结果导出", None],
        [],
        ["序号", "公开（公告）号", "申请号", "标题", "摘要", "权利要求", "说明书",
         "IPC主分类号", "IPC分类号", "公开（公告）日", "申请人"],
        [1, "CN103012345A", "CN201210012345.6", "泵", "一种泵。",
         "1.一种泵，包括转子。\n2.根据权利要求1所述的泵。", "泵是圆的。",
         "F04D13/06(2006.01)I", "F04D13/06; F04D29/00", "2013.04.03", "某公司"],
        [2, "CN203012345U", None, "阀", None, None, None, None, None, 20130405],
        [3, "CN303012345S", None, None, None, None],
    )  # fmt: skip
    first, second, third = read(path)
    assert isinstance(first, list)
    assert first == [
        {
            "id": "CN-103012345-A",
            "office": "CN",
            "kind": "A",
            "language": "zh",
            "date": "2013-04-03",
            "application_id": "CN-201210012345",
            "family_id": None,
            "filed": None,
            "priority": None,
            "cites": None,
            "claim_numbers": None,
            "title": "泵",
            "abstract": "一种泵。",
            "claims": ["一种泵，包括转子。", "根据权利要求1所述的泵。"],
            "description": "泵是圆的。",
            "ipc": ["F04D 13/06", "F04D 29/00"],
            "source": f"{path}#导出!4",
        }
    ]
    assert isinstance(second, list)
    assert (second[0]["id"], second[0]["date"], second[0]["ipc"]) == ("CN-203012345-U", "2013-04-05", None)
    assert isinstance(third, Rejected)
    assert (third.reason, third.source) == ("missing-text", f"{path}#导出!6")


def test_exports_with_korean_headers_also_in_an_archive(tmp_path: Path) -> None:
    path = sheet(
        tmp_path / "kipris.xlsx",
        ["출원번호", "공개번호", "발명의 명칭", "요약", "청구항", "IPC분류", "공개일자"],
        ["10-2014-0012345", "10-2015-0012345", "펌프", "펌프에 관한 발명.",
         "청구항 1\n펌프.\n청구항 2\n제1항의 펌프.", "F04D 13/06|F04D 29/00", "2015.02.03"],
    )  # fmt: skip
    (record,) = records(path)
    assert (record["id"], record["office"], record["language"]) == ("KR-20150012345", "KR", "ko")
    assert (record["application_id"], record["date"]) == ("KR-1020140012345", "2015-02-03")
    assert record["claims"] == ["펌프.", "제1항의 펌프."]
    assert record["ipc"] == ["F04D 13/06", "F04D 29/00"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "deep/kipris.xlsx")
    (packed,) = records(tmp_path / "a.zip")
    assert packed == record | {
        "source": f"{tmp_path / 'a.zip'}/deep/kipris.xlsx#Sheet!2".replace("Sheet", "导出")
    }


def test_an_office_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<document/>")
    assert rejected(path).reason == "unknown-format"


def test_parquet_with_the_same_columns(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([GOOGLE, GOOGLE | {"publication_number": "CN-103012346-A"}])
    pq.write_table(table, tmp_path / "a.bin")
    assert reasons(tmp_path / "a.bin") == ["CN-103012345-A", "CN-103012346-A"]
    assert [record["language"] for record in records(tmp_path / "a.bin")] == ["en", "zh"] * 2
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "b.parquet")
    assert reasons(tmp_path / "b.parquet") == ["unknown-columns"]
    assert reasons(write(tmp_path, "c.parquet", b"PAR1" + b"rubbish" * 9)) == ["reader-error"]


def test_a_workbook_without_a_row_is_refused(tmp_path: Path) -> None:
    assert rejected(sheet(tmp_path / "a.xlsx")).reason == "empty-file"
