"""Real publications: each is read, with the claims that an independent count finds, or rejected by name."""

import csv
import re
import tarfile
import zipfile
from itertools import islice
from pathlib import Path

import pytest
from lxml import etree

from data.readers.column_mapping import Options
from data.readers.formats import read
from data.record import Record, Rejected
from data.stream import encoding

pytestmark = pytest.mark.real

READ = ("uspto/xml2004/*", "uspto/xml2006/*", "uspto/xml2014/*", "uspto/xmlApp2004/*", "epo/*")


def records(path: Path) -> list[Record]:
    """The records of a file that holds one document."""
    (outcome,) = read(path)
    assert isinstance(outcome, list), outcome
    return outcome


def test_every_document_is_read_with_all_its_claims(real: Path) -> None:
    files = [path for pattern in READ for path in sorted((real / "patents").glob(pattern))]
    assert len(files) == 8 + 81
    for path in files:
        root = etree.parse(str(path)).getroot()
        for record in records(path):
            language = (record["language"] or "").upper()
            where = f"//claims[@lang='{language}' or not(@lang)]/claim"
            assert len(record["claims"] or []) == root.xpath(f"count({where})"), path
            assert record["description"] or record["claims"], path
            assert re.fullmatch(r"(US|EP)-\d+-[AB]\d", record["id"]), path
            texts = (record["title"], record["abstract"], record["description"], *(record["claims"] or []))
            assert not [text for text in texts if text and re.search("  |\n\n|[\u2028\ufdd0]", text)], path


AS_READ_BY_A_PERSON = """
uspto/xml2004/US06859910.xml|en|2|G06F 15/00|Methods and systems for tran|A method of executing an electronic
uspto/xml2006/US07272630B2.xml|en|17|G06F 15/13|Locating potentially identic|A method implemented in a comput
uspto/xml2014/US08927118.xml|en|45|H05B 33/14|Material for organic electro|A material for an organic electrolu
uspto/xml2014/US08930553.xml|en|8|G06F 15/16|Managing mid-dialog session|A system for processing mid-dialog S
uspto/xmlApp2004/US20050004437A1.xml|en|10|A61B 5/00|Simulation device for playfu|A simulation device for disp
epo/EP-1116605-B1.xml|de|3|B60C 15/00|Luftreifen mit verbesserter|Luftreifen, der wenigstens eine Karkassen
epo/EP-1128635-B1.xml|en|19|H04L 12/28|Naming convention for differ|A method for resolving a device name
epo/EP-1510435-A2.xml|de|10|B62D 1/19|Lenksäule und Verstellverfah|Lenksäule für ein Fahrzeug, mit Verstellein
epo/EP-1510572-A2.xml|fr|3|A01H 1/04|Lignées isotransgeniques|Lignée isotransgénique, par rapport à une lig
epo/EP2339031A1.xml|en|0|None|None|None
"""
"""File, language, number of claims, first IPC symbol, start of the title, start of the first claim."""


@pytest.mark.parametrize("line", AS_READ_BY_A_PERSON.strip().splitlines())
def test_publications_as_a_person_reads_them(real: Path, line: str) -> None:
    file, language, claims, ipc, title, first = line.split("|")
    (record,) = (found for found in records(real / "patents" / file) if found["language"] == language)
    assert len(record["claims"] or []) == int(claims)
    assert str((record["ipc"] or ("None",))[0]) == ipc
    assert str(record["title"]).startswith(title)
    assert (record["claims"] or ["None"])[0].startswith(first)


def test_no_row_of_a_table_vanishes(real: Path) -> None:
    for path in sorted((real / "patents" / "cn").rglob("*.csv")):
        columns = {
            "publication_number": "id",
            "publication_numbers": "id",
            "patent_title": "title",
            "labels": "ipc",
        }
        with path.open(encoding="utf-8-sig", newline="") as file:
            _, *rows = csv.reader(file)
        outcomes = list(read(path, Options(columns)))
        assert len(outcomes) == len(rows), path
        for row, outcome in zip(rows, outcomes, strict=True):
            if any(row):
                assert isinstance(outcome, list), path
                assert outcome[0]["id"].startswith("CN"), path
            else:
                assert isinstance(outcome, Rejected), path
                assert outcome.reason == "empty-row", path


def test_the_members_of_a_zip_are_seen(real: Path) -> None:
    (path,) = (real / "patents" / "uspto" / "xml4ip").iterdir()
    with zipfile.ZipFile(path) as archive:
        files = [info.filename for info in archive.infolist() if not info.is_dir()]
    outcomes = list(read(path))
    assert len(outcomes) == len(files) == 13
    for name, outcome in zip(files, outcomes, strict=True):
        source = outcome.source if isinstance(outcome, Rejected) else outcome[0]["source"]
        assert source == f"{path}/{name}"


@pytest.mark.parametrize("office", ["epo", "uspto/xml2014"])
def test_an_archive_of_archives_gives_what_its_files_give(real: Path, tmp_path: Path, office: str) -> None:
    files = sorted((real / "patents" / office).iterdir())[:10]
    plain = [record for path in files for record in records(path)]
    with zipfile.ZipFile(tmp_path / "inner.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.name)
    with tarfile.open(tmp_path / "outer.tar.gz", "w:gz") as outer:
        outer.add(tmp_path / "inner.zip", "deep/inner.zip")
    packed = [record for found in read(tmp_path / "outer.tar.gz") for record in found]  # type: ignore[union-attr]
    assert [{**record, "source": None} for record in packed] == [
        {**record, "source": None} for record in plain
    ]
    assert packed[0]["source"] == f"{tmp_path}/outer.tar.gz/deep/inner.zip/{files[0].name}"


def test_a_csv_with_a_mark_and_blank_rows_maps_its_columns_by_itself(real: Path) -> None:
    path = real / "patents" / "cn" / "zh_patent_titles" / "oof_predictions.csv"
    for outcome in islice(read(path), 1000):
        assert isinstance(outcome, list), outcome
        (record,) = outcome
        assert re.fullmatch(r"CN-\d+-[ABCUY]", record["id"]), record["id"]
        assert (record["office"], record["language"]) == ("CN", "zh")
        assert record["title"]


def test_chinese_and_korean_texts_are_told_apart_in_encodings_that_are_not_declared(real: Path) -> None:
    path = real / "patents" / "cn" / "zh_patent_titles" / "oof_predictions.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        titles = [row["patent_title"] for row in csv.DictReader(file)][:2000]
    chunks = ["\n".join(titles[start : start + 5]) for start in range(0, len(titles), 5)]
    found = [encoding(chunk.encode("gb18030")) for chunk in chunks]
    assert found.count("gb18030") >= 0.97 * len(found)
    chats = real / "instructions" / "user_oriented_instructions_eval.jsonl"
    korean = re.findall("[가-힣][가-힣 ,.]+", chats.read_text("utf-8"))
    text = "".join(korean)
    assert len(text) > 20_000
    pieces = [text[start : start + 200].encode("euc-kr", "ignore") for start in range(0, 20_000, 200)]
    found = [encoding(piece) for piece in pieces]
    assert found.count("cp949") >= 0.97 * len(found)
    assert set(found) <= {"cp949", "utf-8"}
