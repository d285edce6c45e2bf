"""One bad byte, forbidden character or unknown entity costs itself, never its document, and is counted."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.chat.row_reader import rows
from data.corpus_report import describe
from data.inspect_sources import inspect
from data.readers import formats
from data.readers.column_mapping import Options
from data.readers.ingest import ingest
from data.readers.source import Source
from data.record import Noted, Record, Rejected
from data.stream import Content, are_few, stream
from tests.data.readers.reading import grant, write

WORDS = "A pump conveys water through a housing, and its rotor turns in a seal. 一种水泵。"
PROSE = WORDS * 3
MARK = "\x1a"
"""Stands where the damage comes to lie."""
LINE = json.dumps({"id": "US-1-A", "abstract": PROSE, "title": "Pump"}, ensure_ascii=False)


class Damage(NamedTuple):
    """What is put into a text, what is read there, and how it is noted."""

    written: bytes
    read: str
    reason: str


BYTE = Damage(b"\xe9", "\ufffd", "bad-bytes")
ENTITY = Damage(b"&nosuch;", "&nosuch;", "unknown-entity")
FORBIDDEN = Damage(b"&#x0;", "\ufffd", "bad-bytes")

APS = f"PATN\nWKU  039373754\nTTL  A valve\nISD  19760210\nBSUM\nPAR  {PROSE}{{}}\n"
BRS = f"*** BRS DOCUMENT BOUNDARY ***\nDID  US 1234567 A\nTTL  Pump\nABPR {PROSE}{{}}\n"
ST32 = (
    '<!DOCTYPE PATDOC PUBLIC "-//USPTO//DTD ST.32 US PATENT GRANT V2.4//EN" [ ]>\n<PATDOC><SDOBI>'
    "<B100><B110><DNUM><PDAT>06180000</PDAT></DNUM></B110></B100></SDOBI>"
    "<SDODE><PARA><PTEXT><PDAT>{}</PDAT></PTEXT></PARA></SDODE></PATDOC>"
)
SUBSET = grant(description="<p>{}</p>").replace('SYSTEM "us-patent-grant-v45-2014-04-03.dtd" [ ]', "[ ]")
PLACES = {
    # name, the file around a text, what may damage it
    "grant.xml": (grant(description="<p>{}</p>"), (BYTE, ENTITY, FORBIDDEN)),
    "subset.xml": (SUBSET, (BYTE, ENTITY, FORBIDDEN)),
    "st32.xml": (ST32, (BYTE, ENTITY, FORBIDDEN)),
    "aps.txt": (APS, (BYTE,)),
    "brs.txt": (BRS, (BYTE,)),
    "ep.txt": (f"EP\t1999013\tA1\t1994-06-08\ten\tABSTR\t<p>{PROSE}{{}}</p>\n", (BYTE, ENTITY, FORBIDDEN)),
    "ops.json": (
        '{{"documents": [{{"country": "EP", "doc_number": "1999013", "abstract": "{}"}}]}}',
        (BYTE,),
    ),
    "lines.jsonl": ('{{"id": "US-1-A", "abstract": "{}"}}\n{{"id": "US-2-A", "abstract": "b"}}\n', (BYTE,)),
    "list.json": ('[{{"id": "US-1-A", "abstract": "{}"}},\n{{"id": "US-2-A", "abstract": "b"}}]', (BYTE,)),
    "table.csv": ('id,abstract\nUS-1-A,"{}"\nUS-2-A,b\n', (BYTE,)),
    "prose.txt": ("{}", (BYTE,)),
}
CASES = [(name, damage) for name, (_, kinds) in PLACES.items() for damage in kinds]


def read(name: str, data: bytes) -> tuple[list[Record], list[Rejected]]:
    """The records of a file, and everything else."""
    content: Content = stream(name, iter([data]))
    outcomes = list(formats.read_content(content, Options()))
    found = [record for outcome in outcomes if isinstance(outcome, list) for record in outcome]
    return found, [outcome for outcome in outcomes if isinstance(outcome, Rejected)]


def shown(records: list[Record]) -> str:
    """The records without the digest of their text in an id."""
    return re.sub(r"-[0-9a-f]{12}'", "'", str(records))


@pytest.mark.parametrize(("name", "damage"), CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_record_is_the_same_but_for_that_place(name: str, damage: Damage, data: st.DataObject) -> None:
    around, _ = PLACES[name]
    at = data.draw(st.integers(1, len(PROSE) - 1))
    text = f"{PROSE[:at]}{MARK}{PROSE[at:]}"
    sound, none = read(name, around.format(text.replace(MARK, "QQQ")).encode())
    assert not none
    found, noted = read(name, around.format(text).encode().replace(MARK.encode(), damage.written))
    assert shown(found) == shown(sound).replace("QQQ", damage.read)
    assert [(type(each), each.reason) for each in noted] == [(Noted, damage.reason)]


def test_known_names_are_characters_however_the_document_declares() -> None:
    """Without an external DTD, an undeclared name is an error for libxml2, not a reference."""
    text = (
        "5&nbsp;mm &mdash; &agr;&larr2; &amp; &#8364; A&B AT & T &foo; <![CDATA[&foo; &]]><!-- &bar; --> &lt;"
    )
    for name in ("grant.xml", "subset.xml"):
        (record,), noted = read(name, PLACES[name][0].format(text).encode())
        expected = "5 mm — α⇇ & € A&B AT & T &foo; &foo; & <"
        assert record["description"] == expected
        assert [(each.reason, each.detail) for each in noted] == [
            ("unknown-entity", "&"),
            ("unknown-entity", "&foo;"),
        ]


@pytest.mark.parametrize(
    ("declared", "outcome"),
    [
        ('<!ENTITY foo "oo">', "oo"),
        ("<!ENTITY foo '&#945;&#x3b2;'>", "αβ"),
        ('<!ENTITY foo SYSTEM "a.txt">', "external-entity"),
        ('<!ENTITY foo PUBLIC "a" "a.txt">', "external-entity"),
        ('<!ENTITY bar "b"><!ENTITY foo "&bar;">', "expanding-entity"),
        (f'<!ENTITY foo "{"x" * 99}">', "expanding-entity"),
        ('<!ENTITY foo "<b>b</b>">', "expanding-entity"),
    ],
)
@pytest.mark.parametrize("beside", ["", "\x0e", "&nosuch;"])
def test_declared_entities_are_read_if_they_are_a_few_characters(
    declared: str, outcome: str, beside: str
) -> None:
    """Also in a document that needs repair beside them."""
    for name in ("grant.xml", "subset.xml"):
        whole = PLACES[name][0].replace("[ ]", f"[{declared}]").format(f"&foo;{beside}")
        found, others = read(name, whole.encode())
        if found:
            beside = "\ufffd" if beside == "\x0e" else beside
            assert found[0]["description"] == outcome + beside
        else:
            assert [each.reason for each in others] == [outcome]


def test_half_a_pair_of_surrogates_is_one_character() -> None:
    line = LINE.replace("Pump", "\\ud83d\\ude00 \\ud83d!").encode()
    (record,), (noted,) = read("a.jsonl", line + b"\n" + b"{}")[0], read("a.jsonl", line)[1]
    assert (record["title"], noted.reason) == ("😀 \ufffd!", "bad-bytes")


def test_control_characters_in_json_are_text() -> None:
    (record,), others = read("a.jsonl", LINE.replace("Pump", "A\tpump").encode())
    assert (record["title"], others) == ("A\tpump", [])


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize("name", ["grant.xml", "lines.jsonl", "aps.txt"])
@pytest.mark.parametrize(
    "german",
    [
        "Die Erfindung betrifft eine Pumpe für Öl, bei der Läufer und Gehäuse über Dichtungen schließen. "
        * 9,
        "Die Pumpe hat ein Gehäuse und einen Rotor, der gegen das Gehäuse mit einem Ring abgedichtet ist. "
        "Seine Welle ist in zwei Lagern gelagert, die mit Fett geschmiert sind, und treibt ein Rad. ",
    ],
    ids=["long", "short"],
)
def test_another_encoding_is_no_damage(name: str, encoding: str, german: str) -> None:
    _, others = read(name, PLACES[name][0].replace(PROSE, "").format(german).encode(encoding))
    assert [(type(each), each.reason) for each in others] == [(Rejected, "bad-encoding")]


def test_many_bad_bytes_are_few_only_in_a_long_text() -> None:
    assert not are_few(1, 99)
    assert are_few(5, 500)
    assert not are_few(6, 50_000)
    assert are_few(10, 100_000)


def test_damage_in_a_declared_encoding_is_repaired() -> None:
    text = grant(description=f"<p>{PROSE}{MARK}</p>").replace("UTF-8", "gb2312").encode("gb18030")
    (record,), (noted,) = read("a.xml", text.replace(MARK.encode(), b"\xff"))
    assert (record["description"], noted.reason) == (PROSE.strip() + "\ufffd", "bad-bytes")


def test_what_is_still_malformed_is_named_as_that() -> None:
    document = grant(description="<p>\x0e&foo;</q>")
    _, (rejected,) = read("a.xml", document.encode())
    line = document[: document.index("</q>")].count("\n") + 1
    assert (rejected.reason, rejected.detail.split(" of ")[0]) == ("malformed-xml", f"line {line}")


def test_unclosed_comments_take_linear_time() -> None:
    _, (rejected,) = read("a.xml", grant(description="<p>\x0e" + "<!-- " * 300_000).encode())
    assert rejected.reason == "malformed-xml"


def test_damage_is_counted_and_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    bad = grant(description=f"<p>{PROSE}{MARK}&foo;&foo;&bar;</p>").encode().replace(MARK.encode(), b"\xe9")
    write(tmp_path / "in", "a.xml", bad + grant("1000002").encode())
    (tmp_path / "out").mkdir()
    counts = ingest([Source(path=str(tmp_path / "in"))], tmp_path / "out", None)
    assert (counts["documents"], counts["records"], counts["rejected"]["total"]) == (2, 2, 0)
    assert counts["noted"] == {"bad-bytes": 1, "unknown-entity": 2}
    told = "\n".join(describe("ingest", counts))
    assert "unreadable bytes or characters" in told
    assert "#   1 bad-bytes" in inspect(tmp_path / "in", 9)


def test_a_damaged_chat_is_not_trained(tmp_path: Path) -> None:
    chats = [json.dumps({"instruction": PROSE, "output": answer}) for answer in ("a", MARK, "c")]
    path = write(tmp_path, "a.jsonl", "\n".join(chats).encode().replace(b"\\u001a", b"\xe9"))
    outcomes = [row.reason if isinstance(row, Rejected) else row["output"] for _, row in rows(path)]
    assert outcomes == ["a", "bad-encoding", "c"]


def test_a_bad_byte_in_parquet_costs_no_other_row(tmp_path: Path) -> None:
    """Writers that do not check their texts make such files; pyarrow then reads no row of a batch."""
    texts = [WORDS.encode(), WORDS.encode() * 2 + b"\xe9", "für Öl".encode("latin-1"), None]
    unchecked = pa.array(texts, pa.binary())
    columns = {
        "id": [f"US-{n}-A" for n in range(1, 5)],
        "abstract": pa.Array.from_buffers(pa.string(), len(texts), unchecked.buffers()),
        "title": ["Pump"] * 4,
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found, others = read("a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert [(record["id"], record["abstract"]) for record in found] == [
        ("US-1-A", WORDS),
        ("US-2-A", f"{WORDS * 2}\ufffd"),
        ("US-4-A", None),
    ]
    assert [(type(each), each.reason) for each in others] == [
        (Noted, "bad-bytes"),
        (Rejected, "bad-encoding"),
    ]
    assert others[1].source == "a.parquet#3"


def test_a_control_character_that_json_forbids_is_taken() -> None:
    for name in ("ops.json", "lines.jsonl", "list.json"):
        found, others = read(name, PLACES[name][0].format(f"A pump.\t{PROSE}").encode())
        assert not others
        assert (found[0]["abstract"] or "").startswith("A pump.")
