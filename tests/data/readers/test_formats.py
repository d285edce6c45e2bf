"""What a reader gives for each kind of file; every document comes out as records or as one rejection."""

from pathlib import Path

import pytest

from data.readers.formats import read
from data.record import Rejected
from tests.data.readers.reading import grant, only, reasons, records, rejected, write

EUROPEAN = """<?xml version="1.0" encoding="UTF-8"?>
<patent-document lang="DE" country="EP" doc-number="1116605" kind="B1" date="20050622" family-id="77">
<bibliographic-data>
<application-reference><document-id><country>EP</country><doc-number>01300267</doc-number></document-id>
</application-reference><technical-data><classifications-ipcr>
<classification-ipcr>B60C  15/06        20060101A I20051008RMEP        </classification-ipcr>
<classification-ipcr>B60C  15/00        20060101AFI20051008RMEP        </classification-ipcr>
<classification-ipcr>B60C  15/00        20060101C I20051008RMEP        </classification-ipcr>
</classifications-ipcr>
<invention-title lang="DE">Reifen</invention-title><invention-title lang="EN">Tire</invention-title>
<invention-title lang="FR">Pneu</invention-title></technical-data></bibliographic-data>
<abstract lang="DE" source="EPO"><p>Kurz &lt;IMAGE&gt;</p></abstract>
<abstract lang="DE"><p>Ein Reifen.</p></abstract>
<description lang="DE"><p>Der Reifen ist rund.</p></description>
<claims lang="DE"><claim num="xx"><claim-text>Reifen.</claim-text></claim></claims>
<claims lang="EN"><claim num="0001"><claim-text>A tire.</claim-text></claim></claims>
</patent-document>"""


def test_a_us_grant_gives_every_field(tmp_path: Path) -> None:
    path = write(tmp_path, "grant.bin", grant())
    assert records(path) == [
        {
            "id": "US-8930553-B2",
            "office": "US",
            "kind": "B2",
            "language": "en",
            "date": "2015-01-06",
            "application_id": "US-13648029",
            "family_id": None,
            "filed": None,
            "priority": None,
            "cites": None,
            "claim_numbers": None,
            "title": "Pump for H₂O",
            "abstract": "A pump that pumps.",
            "claims": ["A pump, comprising:\na rotor; and\na seal.", "The pump of claim 1."],
            "description": "It pumps.",
            "ipc": ["G06F 15/16", "H04L 9/32"],
            "source": str(path),
        }
    ]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<heading>FIELD</heading>\n<p>One\n  two.</p><p>Three.</p>", "FIELD\nOne two.\nThree."),
        ("<p>CO<sub>2 </sub>at 10<sup>-3</sup> Pa</p>", "CO₂ at 10⁻³ Pa"),
        ("<p>x<sub>i</sub>, CID<sub>me </sub>and e<sup>x+y</sup>, T<sub>a<sup>2</sup></sub></p>",
         "x_i, CID_{me} and e^{x+y}, T_{a²}"),
        ("<p>Brand<sup>®</sup></p>", "Brand®"),
        ("<p>One<br/>two</p>", "One\ntwo"),
        ("<p>Here <maths><math><mi>x</mi></math></maths> and <chemistry><img file='a'/></chemistry>.</p>",
         "Here x and [chemistry]."),
        ("<p>See <img file='a'/> there</p>", "See [image] there"),
        ("<p>Parts: <ul><li>a rotor</li><li>a seal</li></ul> only</p>", "Parts:\na rotor\na seal\nonly"),
        ("<p><dl><dt>10</dt><dd>rotor</dd><dt>11</dt><dd>seal</dd></dl></p>", "10 rotor\n11 seal"),
        ("<p><tables><table><tgroup><thead><row><entry/><entry>V</entry></row></thead><tbody><row><entry><p>m<sup>2"
         "</sup></p><p>x</p></entry><entry>5.3</entry></row><row><entry/></row></tbody></tgroup></table></tables></p>",
         "\tV\nm² x\t5.3"),
        ("<p>kept <!-- dropped --><?pi dropped?>text &mdash; &amp;</p>", "kept text — &"),
        ("<p><b>bold</b><i>face</i></p>", "boldface"),
    ],
)  # fmt: skip
def test_layout_becomes_plain_text(tmp_path: Path, markup: str, text: str) -> None:
    (record,) = records(write(tmp_path, "a.xml", grant(description=markup)))
    assert record["description"] == text


def test_an_application_with_the_older_ipc(tmp_path: Path) -> None:
    text = grant().replace("us-patent-grant", "us-patent-application").replace("B2", "A1")
    start, end = text.index("<classifications-ipcr>"), text.index("<invention-title")
    older = "<main-classification>A61B005/00</main-classification>"
    older += "<further-classification>G06F 17/60</further-classification><edition>07</edition>"
    text = f"{text[:start]}<classification-ipc>{older}</classification-ipc>{text[end:]}"
    (record,) = records(write(tmp_path, "a.xml", text))
    assert (record["id"], record["ipc"]) == ("US-8930553-A1", ["A61B 5/00", "G06F 17/60"])


def test_leading_zeros_of_a_number_are_dropped(tmp_path: Path) -> None:
    design = grant().replace("08930553", "D0435854").replace("B2", "S1")
    assert reasons(write(tmp_path, "a.xml", design)) == ["US-D435854-S1"]


def test_a_european_document_gives_one_record_a_language(tmp_path: Path) -> None:
    german, english = records(write(tmp_path, "ep.xml", EUROPEAN))
    both = ("id", "office", "kind", "date", "application_id", "family_id", "ipc", "source")
    assert [german[field] for field in both] == [english[field] for field in both]  # type: ignore[literal-required]
    assert german["id"] == "EP-1116605-B1"
    assert german["application_id"] == "EP-01300267"
    assert german["family_id"] == "77"
    assert german["ipc"] == ["B60C 15/00", "B60C 15/06"]
    assert [german[field] for field in ("language", "title", "abstract", "claims", "description")] == [
        "de", "Reifen", "Ein Reifen.", ["Reifen."], "Der Reifen ist rund."
    ]  # fmt: skip
    assert [english[field] for field in ("language", "title", "abstract", "claims", "description")] == [
        "en", "Tire", None, ["A tire."], None
    ]  # fmt: skip


def test_a_fulltext_document_loses_its_paragraph_numbers(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.xml",
        '<f:fulltext-document xmlns:f="http://www.epo.org/fulltext"><f:bibliographic-data><f:publication-reference>'
        "<f:document-id><f:country>EP</f:country><f:doc-number>2339031</f:doc-number><f:kind>A1</f:kind>"
        "</f:document-id></f:publication-reference></f:bibliographic-data><f:description lang='EN'>"
        "<f:p>FIELD</f:p><f:p>[0001]   A mouse.</f:p></f:description></f:fulltext-document>",
    )
    (record,) = records(path)
    assert (record["id"], record["description"], record["claims"]) == (
        "EP-2339031-A1",
        "FIELD\nA mouse.",
        None,
    )


def test_a_weekly_file_goes_on_after_a_bad_document(tmp_path: Path) -> None:
    documents = [
        grant("1000001"),
        grant("1000002").replace("</abstract>", ""),
        '<?xml version="1.0"?>\n<sequence-cwu><p>ACGT</p></sequence-cwu>\n',
        '<?xml version="1.0"?>\n<?xml-stylesheet href="a.xsl"?>' + grant("1000003").partition("?>")[2],
        EUROPEAN,
        '<?xml version="1.0"?>\n<us-patent-grant/>\n',
        grant("1000004").replace("<doc-number>01000004</doc-number>", ""),
        grant("1000005")[:-300],
    ]
    path = write(tmp_path, "weekly.xml", "".join(documents))
    assert reasons(path) == [
        "US-1000001-B2", "malformed-xml", "unknown-format", "US-1000003-B2", "EP-1116605-B1",
        "missing-text", "missing-id", "malformed-xml",
    ]  # fmt: skip
    offset = len(documents[0].encode())
    bad = list(read(path))[1]
    assert isinstance(bad, Rejected)
    assert bad.source == f"{path}#{offset}"
    assert "line" in bad.detail


DOCDB = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE exch:exchange-documents SYSTEM "exchange-documents.dtd">
<exch:exchange-documents xmlns:exch="http://www.epo.org/exchange" date-of-exchange="20260101">
<!-- made weekly -->
"""
EXCHANGE = """<exch:exchange-document country="EP" doc-number="{number}" kind="A1" family-id="7">
<exch:bibliographic-data><exch:invention-title lang="en">Brick</exch:invention-title>
</exch:bibliographic-data>
<exch:abstract lang="en"><exch:p>{text}</exch:p></exch:abstract></exch:exchange-document>
"""
DOCDB_END = "</exch:exchange-documents>\n<!-- the end -->\n"


def test_a_collection_is_read_one_publication_after_the_other(tmp_path: Path) -> None:
    documents = [EXCHANGE.format(number=number, text="A brick.") for number in range(1, 5)]
    documents[1] = documents[1].replace("</exch:p>", "")
    documents[2] = documents[2].replace("brick", "\x00" * 9)
    whole = (DOCDB + "".join(documents) + DOCDB_END).encode().replace(b"\0", b"\xe9")
    path = write(tmp_path, "docdb.xml", whole)
    expected = ["EP-0000001-A1", "malformed-xml", "bad-encoding", "EP-0000004-A1"]
    assert reasons(path) == expected
    records, bad, encoded, _ = read(path)
    assert isinstance(records, list)
    first = records[0]
    assert (first["source"], first["family_id"], first["abstract"]) == (
        f"{path}#{len(DOCDB)}",
        "7",
        "A brick.",
    )
    assert isinstance(bad, Rejected)
    assert bad.source == f"{path}#{len(DOCDB) + len(documents[0])}"
    assert isinstance(encoded, Rejected)
    assert f"byte {whole.index(0xE9)} of the file" in encoded.detail
    assert reasons(write(tmp_path, "two.xml", whole + whole)) == expected * 2
    assert reasons(write(tmp_path, "cut.xml", whole[: whole.index(b"EP", -500)])) == [
        *expected[:3],
        "malformed-xml",
    ]
    assert reasons(write(tmp_path, "empty.xml", DOCDB + DOCDB_END)) == ["missing-text"]


def test_external_entities_are_refused(tmp_path: Path) -> None:
    secret = write(tmp_path, "secret.txt", "secret")
    entity = f'[<!ENTITY e SYSTEM "{secret}">]'
    path = write(tmp_path, "a.xml", grant(description="<p>&e;</p>").replace("[ ]", entity))
    assert rejected(path).reason == "external-entity"
    parameter = f'[<!ENTITY % e SYSTEM "{secret}"> %e;]'
    path = write(tmp_path, "b.xml", grant().replace("[ ]", parameter))
    assert all("secret" not in str(outcome) or isinstance(outcome, list) for outcome in read(path))


def test_xml_bombs_are_refused(tmp_path: Path) -> None:
    laughs = '<!ENTITY x0 "ha">' + "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 10))
    path = write(tmp_path, "a.xml", grant(description="<p>&x9;</p>").replace("[ ]", f"[{laughs}]"))
    assert rejected(path).reason in ("malformed-xml", "expanding-entity")
    quadratic = f'<!ENTITY x "{"ha" * 10_000}">'
    path = write(
        tmp_path, "b.xml", grant(description=f"<p>{'&x;' * 9000}</p>").replace("[ ]", f"[{quadratic}]")
    )
    assert rejected(path).reason in ("malformed-xml", "expanding-entity")
    path = write(tmp_path, "c.xml", grant(description="<p>" * 3000 + "</p>" * 3000))
    assert rejected(path).reason == "malformed-xml"


def test_wrong_bytes_are_named_by_their_offset(tmp_path: Path) -> None:
    first, second = (
        grant("1000001").encode(),
        grant("1000002", "<p>caf" + "\0" * 6 + "</p>").encode().replace(b"\0", b"\xe9"),
    )
    path = write(tmp_path, "a.xml", first + second)
    good, bad = read(path)
    assert isinstance(good, list)
    assert isinstance(bad, Rejected)
    assert bad.reason == "bad-encoding"
    assert f"byte {len(first) + second.index(0xE9)} of the file" in bad.detail
    latin = grant(description="<p>café</p>").replace("UTF-8", "ISO-8859-1").encode("latin-1")
    assert records(write(tmp_path, "b.xml", latin))[0]["description"] == "café"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.xml", b"", "empty-file"),
        ("blank.csv", b" \n\n", "empty-file"),
        ("binary.txt", b"some\x00thing", "unknown-format"),
        ("aps.txt", b"PATN\nWKU  039327094\n", "missing-text"),
        ("noise.dat", b"nothing that is known", "unknown-format"),
        ("page.txt", b"<!DOCTYPE html>\n<html><p>x</p></html>", "unknown-format"),
        ("comment.xml", b"<!-- never closed", "malformed-xml"),
        ("cut.xml", b'<?xml version="1.0"?><!DOCTYPE us-pat', "malformed-xml"),
        ("columns.csv", b"one,two\n1,2\n", "unknown-columns"),
        ("twice.csv", b"id,title,title\n1,a,b\n", "duplicate-column"),
        ("text.csv", b"id,text,text\n1,a,b\n", "duplicate-column"),
    ],
)
def test_what_is_not_read_is_rejected_by_name(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    assert rejected(write(tmp_path, name, content)).reason == reason


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    assert reasons(write(tmp_path, "a.csv", grant())) == ["US-8930553-B2"]
    assert reasons(write(tmp_path, "b.txt", '{"id": "x", "text": "y"}\n')) == ["x"]
    assert reasons(write(tmp_path, "c.data", "id;abstract\nx;y\n")) == ["x"]
    assert reasons(write(tmp_path, "d.txt", "id, abstract and more prose.\n")) == ["d"]


def test_cpc_symbols_of_both_offices_stand_behind_those_of_the_ipc(tmp_path: Path) -> None:
    """What both schemes name stands once; national schemes beside the CPC are left out."""
    parts = "<section>{}</section><class>{}</class><subclass>{}</subclass>"
    parts += "<main-group>{}</main-group><subgroup>{}</subgroup>"
    green = parts.format("Y", "02", "E", "10", "50")
    shared = parts.format("G", "06", "F", "15", "16") + "<symbol-position>F</symbol-position>"
    american = "".join(
        f"<further-cpc><classification-cpc>{s}</classification-cpc></further-cpc>" for s in (shared, green)
    )
    end = "</us-bibliographic-data-grant>"
    filed = grant().replace(end, f"<classifications-cpc>{american}</classifications-cpc>{end}")
    assert only(write(tmp_path, "us.xml", filed))["ipc"] == ["G06F 15/16", "H04L 9/32", "Y02E 10/50"]

    schemes = (("CPCI", green), ("USPC", parts.format("A", "01", "B", "1", "00")))
    entries = "".join(
        f'<patent-classification><classification-scheme office="EP" scheme="{scheme}"/>{symbol}'
        "</patent-classification>"
        for scheme, symbol in schemes
    )
    european = (
        '<exchange-documents xmlns="http://www.epo.org/exchange"><exchange-document country="EP"'
        ' doc-number="1" kind="A1"><bibliographic-data><patent-classifications>'
        f"{entries}</patent-classifications><invention-title>Bricks</invention-title></bibliographic-data>"
        "</exchange-document></exchange-documents>"
    )
    assert only(write(tmp_path, "ep.xml", european))["ipc"] == ["Y02E 10/50"]
