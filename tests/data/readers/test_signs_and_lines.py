"""What a reader makes of signs, line ends and headings that the sources write in their own way."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.readers import formats
from data.readers.column_mapping import Options
from data.readers.offices.patent_xml import index
from data.record import Record, Rejected, without_heading


def read(file: Path, options: Options | None = None) -> Record:
    """The only record of a file."""
    (outcome,) = formats.read(file, options)
    assert not isinstance(outcome, Rejected), outcome
    (record,) = outcome
    return record


def cn(folder: Path, text: str, encoding: str = "utf-8", declared: str = "utf-8") -> Record:
    """A Chinese document with a description."""
    file = folder / "cn.xml"
    file.write_bytes(
        f'<?xml version="1.0" encoding="{declared}"?><cn-patent-document><cn-bibliographic-data>'
        "<cn-publication-reference><document-id><country>CN</country><doc-number>101</doc-number><kind>A</kind>"
        "</document-id></cn-publication-reference><invention-title>阀</invention-title></cn-bibliographic-data>"
        f"<application-body><description><p>{text}</p></description></application-body></cn-patent-document>".encode(
            encoding
        )
    )
    return read(file)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("一种\n  阀门", "一种阀门"), ("阀门，\n\t\t包括阀体", "阀门，包括阀体"), ("弁の\n構造", "弁の構造"),
        ("采用（valve\n  body）的阀", "采用（valve body）的阀"), ("阀 门", "阀 门"),
        ("用PVC\n制成", "用PVC 制成"),
        ("밸브\n구조", "밸브 구조"),
    ],
)  # fmt: skip
def test_a_line_end_between_two_chinese_or_japanese_signs_is_no_space(
    written: str, text: str, tmp_path: Path
) -> None:
    assert cn(tmp_path, written)["description"] == text


@pytest.mark.parametrize("declared", ["gb2312", "GB2312", "gbk", "gb18030"])
def test_a_file_that_declares_gb2312_is_read_in_the_larger_encoding(declared: str, tmp_path: Path) -> None:
    assert cn(tmp_path, "面积为5㎡，镕炉，张喆", "gbk", declared)["description"] == "面积为5㎡，镕炉，张喆"


@pytest.mark.parametrize(
    ("content", "up", "written"),
    [("２", False, "₂"), ("２－", True, "²⁻"), ("０．８", False, "_{0.8}"), ("１＋ｚ", False, "_{1+z}"),
     ("ｉ", False, "_i"), ("®", True, "®"), ("－３", True, "⁻³"), ("2", False, "₂")],
)  # fmt: skip
def test_full_width_indices_are_those_of_their_digits(content: str, up: bool, written: str) -> None:
    assert index(content, up=up) == written


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("Na.sup..sym. and Cl.sup..crclbar.", "Na^⊕ and Cl^⊖"),
        ("Kevlar.RTM. or Spectra.TM.", "Kevlar® or Spectra™"),
        (".COPYRGT. 1999, 5 .English Pound., x.di-elect cons.A", "© 1999, 5 £, x∈A"),
        (".angle.ABC, x.gtorsim.2, y.ltorsim.3, a.ident.b", "∠ABC, x≳2, y≲3, a≡b"), ("Q.sub..alpha.", "Q_α"),
    ],
)  # fmt: skip
def test_signs_of_aps_are_written_in_unicode(written: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "pftaps.txt"
    file.write_text(f"PATN\nWKU  039373754\nTTL  A valve\nABST\nPAL  {written}\n")
    assert read(file)["abstract"] == text


@pytest.mark.parametrize(
    "heading",
    ["Abstract", "ABSTRACT OF THE DISCLOSURE", "Abstract of the Invention:", "摘 要", "【要約】", "[요약]",
     "Zusammenfassung", "Abrégé"],
)  # fmt: skip
def test_a_heading_over_an_abstract_is_left_out(heading: str, tmp_path: Path) -> None:
    assert without_heading(f"{heading}\nA lid shuts.") == "A lid shuts."
    row = {"publication_number": "US-1234567-A", "title": "Lid", "abstract_text": f"{heading}\nA lid shuts."}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert read(tmp_path / "a.jsonl")["abstract"] == "A lid shuts."


@pytest.mark.parametrize("abstract", [None, "Abstract", "A lid.", "Abstract machines\nrun.", "A\nB"])
def test_an_abstract_without_a_heading_stays(abstract: str | None) -> None:
    assert without_heading(abstract) == abstract


def test_a_description_of_paragraphs_is_their_text(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "title": "Cup",
        "description": ["The handle is of cork.", None, " ", "It stays cold."],
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert read(tmp_path / "a.jsonl")["description"] == "The handle is of cork.\nIt stays cold."


@pytest.mark.parametrize("number", ["RE43579", "PP21456", "D634512", "T100201", "H1234", "7654321"])
def test_numbers_of_letters_name_no_office(number: str, tmp_path: Path) -> None:
    file = tmp_path / "g_patent.tsv"
    file.write_text(
        f"patent_id\tpatent_date\tpatent_title\tpatent_abstract\n{number}\t2012-08-14\tPump\tA pump.\n"
    )
    record = read(file)
    assert (record["office"], record["abstract"], record["date"]) == (None, "A pump.", "2012-08-14")
    assert read(file, Options(defaults={"office": "US"}))["office"] == "US"


def test_a_docdb_document_that_stands_alone_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<exchange-document country="AP" doc-number="77" kind="A" date-publ="20030918" family-id="290">'
        '<bibliographic-data><publication-reference data-format="docdb"><document-id><country>AP</country>'
        "<doc-number>77</doc-number><kind>A</kind><date>20030918</date></document-id></publication-reference>"
        '<invention-title lang="en">Chair</invention-title></bibliographic-data>'
        '<abstract lang="en"><p>A chair folds.</p></abstract></exchange-document>'
    )
    record = read(tmp_path / "a.xml")
    assert (record["id"], record["family_id"], record["abstract"]) == ("AP-77-A", "290", "A chair folds.")
