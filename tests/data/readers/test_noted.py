"""What is no document, and what a reader does not know, is counted and costs nothing."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from data.chat.row_reader import rows
from data.inspect_sources import inspect
from data.readers import formats
from data.readers.ingest import ingest
from data.readers.source import Source
from data.record import Noted, Record, Rejected

ATTACHED = {
    "D00001.TIF": b"II*\0" + b"\0" * 60, "D00002": b"MM\0*" + b"\0" * 60, "fig.png": b"\x89PNG\r\n\x1a\n",
    "C00001.CDX": b"VjCD0100", "C00001.MOL": b"\n  ISIS\n", "M00001.NB": b"(* Mathematica *)",
    "front.pdf": b"%PDF-1.4", "photo": b"\xff\xd8\xff\xe0", "us-patent-grant.dtd": b"<!ELEMENT a ANY>",
}  # fmt: skip
XML = (
    b'<us-patent-grant lang="EN"><us-bibliographic-data-grant><publication-reference><document-id>'
    b"<country>US</country><doc-number>09999990</doc-number><kind>B2</kind><date>20200107</date>"
    b"</document-id></publication-reference><invention-title>Brush</invention-title>"
    b"</us-bibliographic-data-grant><abstract><p>A brush.</p></abstract></us-patent-grant>"
)


def weekly(file: Path) -> Path:
    """A TAR with a ZIP of one grant and its drawings, as the USPTO publishes them."""
    member = io.BytesIO()
    with zipfile.ZipFile(member, "w") as archive:
        for name, data in {"US09999990.XML": XML, **ATTACHED}.items():
            archive.writestr(f"US09999990/{name}", data)
    with tarfile.open(file, "w") as week:
        entry = tarfile.TarInfo("I20200107/UTIL/US09999990.ZIP")
        entry.size = len(member.getvalue())
        week.addfile(entry, io.BytesIO(member.getvalue()))
    return file


def read(file: Path) -> tuple[list[Record], list[Rejected]]:
    """The records of a file, and everything else."""
    outcomes = list(formats.read(file))
    records = [record for outcome in outcomes if not isinstance(outcome, Rejected) for record in outcome]
    return records, [outcome for outcome in outcomes if isinstance(outcome, Rejected)]


def test_drawings_in_an_archive_are_no_documents_that_failed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    records, others = read(weekly(tmp_path / "in/I20200107.tar"))
    assert [record["id"] for record in records] == ["US-9999990-B2"]
    assert [(type(each), each.reason) for each in others] == [(Noted, "attachment")] * len(ATTACHED)
    (tmp_path / "out").mkdir()
    counts = ingest([Source(path=str(tmp_path / "in"))], tmp_path / "out", None)
    assert (counts["documents"], counts["records"], counts["rejected"]["total"]) == (1, 1, 0)
    assert counts["noted"] == {"attachment": len(ATTACHED)}
    assert "attachments" in inspect(tmp_path / "in", 3)


def test_a_pdf_beside_no_archive_is_a_document_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "patent.pdf").write_bytes(b"%PDF-1.4")
    _, (rejected,) = read(tmp_path / "patent.pdf")
    assert (type(rejected), rejected.detail) == (Rejected, "a PDF file")


def test_drawings_beside_chats_are_passed_over(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "chats.zip", "w") as archive:
        archive.writestr("a.png", ATTACHED["fig.png"])
        archive.writestr("a.jsonl", '{"instruction": "a", "output": "b"}\n')
    assert [row for _, row in rows(tmp_path / "chats.zip")] == [{"instruction": "a", "output": "b"}]


HEAD = "PATN\nWKU  039373754\nTTL  A valve\nISD  19760210\n"


@pytest.mark.parametrize(
    ("text", "description", "unknown"),
    [
        ("BSUM\nPAR  One.\nTBL3 TABLE 1\n     a   b\nPAR  Two.\n", "One.\nTABLE 1\na\tb\nTwo.", []),
        (
            "BSUM\nPAR  One.\nXYZW of two\n     and three.\nPAR  Four.\n",
            "One. XYZW of two and three.\nFour.",
            ["XYZW"],
        ),
        ("DETD\nFOO  One.\nPAR  Two.\n", "FOO One.\nTwo.", ["FOO"]),
        ("DETD\nPA9  One.\nPAL  Two.\nEQU  ##EQU1##\n", "One.\nTwo.\n[formula]", []),
        ("XREF\nNAM  Doe\nBSUM\nPAR  One.\n", "One.", []),
        ("BSUM\nPAR  One.\nDETD\nDNA\nPAR  Two.\n", "One.\nDNA\nTwo.", ["DNA"]),
    ],
)
def test_an_unknown_code_of_aps_ends_no_description(
    text: str, description: str, unknown: list[str], tmp_path: Path
) -> None:
    (tmp_path / "pftaps.txt").write_text(f"{HEAD}{text}CLMS\nNUM  1.\nPAR  1. A valve.\n")
    (record,), noted = read(tmp_path / "pftaps.txt")
    assert (record["description"], record["claims"]) == (description, ["A valve."])
    assert [(type(each), each.reason, each.detail) for each in noted] == [
        (Noted, "unknown-field", code) for code in unknown
    ]
