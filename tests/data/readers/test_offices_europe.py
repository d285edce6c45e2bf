"""European and WIPO publications and the answers of Open Patent Services: their known traps."""

import json
from pathlib import Path

import pytest

from data.readers.formats import read
from data.record import Rejected
from tests.data.readers.reading import only, records, write

WEEKLY = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE ep-patent-document PUBLIC "-//EPO//EP PATENT DOCUMENT 1.7//EN" "ep-patent-document-v1-7.dtd">
<ep-patent-document id="EP12783558B1" lang="en" country="EP" doc-number="2912867" kind="B1"
 date-publ="20250129"><SDOBI lang="en">
<B100><B110>2912867</B110><B140><date>20250129</date></B140></B100>
<B200><B210>12783558.5</B210><B220><date>20121029</date></B220></B200><B500><B510EP>
<classification-ipcr sequence="1">
<text>H04W  36/00        20090101ALI20240805BHEP        </text></classification-ipcr><classification-ipcr>
<text>H04W  12/04        20210101AFI20240805BHEP        </text></classification-ipcr></B510EP>
<B540><B541>de</B541><B542>VERFAHREN</B542><B541>en</B541><B542>METHODS</B542><B541>fr</B541>
<B542>PROCÉDÉS</B542></B540>
</B500></SDOBI><description id="desc" lang="en"><heading id="h1">Field</heading><p id="p1" num="0001">A key
 <maths><math><mi>x</mi></math></maths> of 10.</p></description>
<claims id="claims01" lang="en"><claim num="0001"><claim-text>A key:<claim-text>a lock.</claim-text>
</claim-text></claim>
<claim num="0002"><claim-text>The key of claim 1.</claim-text></claim></claims>
<claims id="claims02" lang="de"><claim num="0001"><claim-text>Ein Schlüssel.</claim-text></claim></claims>
<claims id="claims03" lang="fr"><claim num="0001"><claim-text>Une clé.</claim-text></claim></claims>
</ep-patent-document>"""


def test_the_european_weekly_has_three_claim_sets_and_flat_titles(tmp_path: Path) -> None:
    german, english, french = records(write(tmp_path, "a.xml", WEEKLY))
    shared = {
        "id": "EP-2912867-B1",
        "office": "EP",
        "kind": "B1",
        "date": "2025-01-29",
        "application_id": "EP-12783558",
        "family_id": None,
        "filed": "2012-10-29",
        "priority": "2012-10-29",
        "cites": None,
        "claim_numbers": None,
        "abstract": None,
        "ipc": ["H04W 12/04", "H04W 36/00"],
        "source": str(tmp_path / "a.xml"),
    }
    assert english == {
        **shared,
        "language": "en",
        "title": "METHODS",
        "claims": ["A key:\na lock.", "The key of claim 1."],
        "description": "Field\nA key x of 10.",
    }
    assert german == {
        **shared,
        "language": "de",
        "title": "VERFAHREN",
        "claims": ["Ein Schlüssel."],
        "description": None,
    }
    assert french == {
        **shared,
        "language": "fr",
        "title": "PROCÉDÉS",
        "claims": ["Une clé."],
        "description": None,
    }
    older = "<B510><B516>7</B516><B511> 7B 60C  15/00   A</B511></B510>"
    start, end = WEEKLY.index("<B510EP>"), WEEKLY.index("<B540>")
    assert records(write(tmp_path, "a.xml", WEEKLY[:start] + older + WEEKLY[end:]))[0]["ipc"] == [
        "B60C 15/00"
    ]


ANSWER = """<?xml version="1.0" encoding="UTF-8"?>
<?xml-stylesheet type="text/xsl" href="/3.2/style/exchange.xsl"?>
<ops:world-patent-data xmlns="http://www.epo.org/exchange" xmlns:ops="http://ops.epo.org">{body}</ops:world-patent-data>"""

EXCHANGE = """<exchange-documents><exchange-document system="ops.epo.org" family-id="19768124" country="EP"
 doc-number="1000000" kind="A1"><bibliographic-data><publication-reference>
<document-id document-id-type="docdb">
<country>EP</country><doc-number>1000000</doc-number><kind>A1</kind><date>20000517</date></document-id>
</publication-reference><classifications-ipcr><classification-ipcr sequence="1">
<text>B28B   1/    29            A I  </text>
</classification-ipcr></classifications-ipcr><application-reference><document-id document-id-type="docdb">
<country>EP</country><doc-number>99203729</doc-number></document-id></application-reference>
<invention-title lang="de">Ziegel</invention-title><invention-title lang="en">Bricks</invention-title>
</bibliographic-data>
<abstract lang="en"><p>The invention relates to bricks (1).</p></abstract></exchange-document>
<exchange-document country="EP" doc-number="1000000" kind="B1"/></exchange-documents>"""

FULLTEXT = """<ftxt:fulltext-documents xmlns="http://www.epo.org/fulltext" xmlns:ftxt="http://www.epo.org/fulltext">
<ftxt:fulltext-document system="ops.epo.org" fulltext-format="text-only"><bibliographic-data>
<publication-reference data-format="docdb"><document-id><country>WO</country>
<doc-number>2009085664</doc-number>
<kind>A2</kind></document-id></publication-reference></bibliographic-data>{text}</ftxt:fulltext-document>
</ftxt:fulltext-documents>"""


def test_answers_of_open_patent_services(tmp_path: Path) -> None:
    path = write(tmp_path, "a.xml", ANSWER.format(body=EXCHANGE))
    first, second = read(path)
    expected = {
        "id": "EP-1000000-A1",
        "office": "EP",
        "kind": "A1",
        "language": "en",
        "date": "2000-05-17",
        "application_id": "EP-99203729",
        "family_id": "19768124",
        "filed": None,
        "priority": None,
        "cites": None,
        "claim_numbers": None,
        "title": "Bricks",
        "abstract": "The invention relates to bricks (1).",
        "claims": None,
        "description": None,
        "ipc": ["B28B 1/29"],
        "source": str(path),
    }
    assert first == [expected]
    assert isinstance(second, Rejected)
    assert second.reason == "missing-text"
    tree = {
        "ops:world-patent-data": {
            "@xmlns": {"ops": "http://ops.epo.org"},
            "exchange-documents": {
                "exchange-document": {
                    "@system": "ops.epo.org",
                    "@family-id": "19768124",
                    "@country": "EP",
                    "@doc-number": "1000000",
                    "@kind": "A1",
                    "bibliographic-data": {
                        "publication-reference": {"document-id": [{"date": {"$": "20000517"}}]},
                        "application-reference": {"document-id": {"doc-number": {"$": "99203729"}}},
                        "classifications-ipcr": {"classification-ipcr": {"text": {"$": "B28B   1/ 29"}}},
                        "invention-title": [{"@lang": "de", "$": "Ziegel"}, {"@lang": "en", "$": "Bricks"}],
                    },
                    "abstract": {"@lang": "en", "p": {"$": "The invention relates to bricks (1)."}},
                }
            },
        }
    }  # fmt: skip
    for indent in (None, 1):
        path = write(tmp_path, "a.json", json.dumps(tree, indent=indent))
        assert only(path) == {**expected, "source": str(path)}


@pytest.mark.parametrize(
    ("text", "field", "content"),
    [
        ("<claims lang='EN'><claim><claim-text>1. A brick.</claim-text><claim-text>2. The brick of claim 1."
         "</claim-text></claim></claims>", "claims", ["A brick.", "The brick of claim 1."]),
        ("<claims lang='EN'><claim><claim-text>Claims\n1. A method:\n1. weighing 2.5 g;\n3. mixing.\n2. It."
         "\n</claim-text></claim></claims>", "claims", ["A method:\n1. weighing 2.5 g;\n3. mixing.", "It."]),
        ("<claims lang='EN'><claim><claim-text>It.</claim-text></claim></claims>", "claims", ["It."]),
        ("<description lang='EN'><p>FIELD</p><p>[0011]    In it:\nfigure 1 shows <i>a\nb</i>;\nfigure 2.</p>"
         "</description>", "description", "FIELD\nIn it:\nfigure 1 shows a\nb;\nfigure 2."),
    ],
)  # fmt: skip
def test_full_texts_of_open_patent_services(
    tmp_path: Path, text: str, field: str, content: str | list[str]
) -> None:
    record = only(write(tmp_path, "a.xml", ANSWER.format(body=FULLTEXT.format(text=text))))
    assert (record["id"], record["language"]) == ("WO-2009085664-A2", "en")
    assert record[field] == content  # type: ignore[literal-required]


def test_what_clients_of_open_patent_services_keep(tmp_path: Path) -> None:
    publication = {"country": "EP", "doc_number": "1000000", "kind": "A1"}
    claims = [{"number": 1, "limitations": ["A method:", "mixing."]}, {"number": 2, "limitations": ["It."]}]
    path = write(tmp_path, "a.json", json.dumps({"document_id": publication, "claims": claims}, indent=2))
    assert (only(path)["id"], only(path)["claims"]) == ("EP-1000000-A1", ["A method:\nmixing.", "It."])
    text = {"document_id": publication, "description": "[0001]    A brick.\n\n[0002]    It is red."}
    assert only(write(tmp_path, "b.json", json.dumps(text)))["description"] == "A brick.\n\nIt is red."
    row = {
        **publication,
        "family_id": "77",
        "filed": None,
        "priority": None,
        "cites": None,
        "claim_numbers": None,
        "intl_class": ["B28B 1/ 29 A I"],
        "title": "Bricks",
        "abstract": "A brick.",
    }
    broken = {"country": "EP", "doc_number": "2", "claims": "none"}
    good, bad = read(write(tmp_path, "c.json", json.dumps({"documents": [row, broken]})))
    assert isinstance(good, list)
    assert (good[0]["title"], good[0]["family_id"], good[0]["ipc"]) == ("Bricks", "77", ["B28B 1/29"])
    assert isinstance(bad, Rejected)
    assert bad.reason == "reader-error"


def test_wipo_publications_are_of_the_european_family(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.xml",
        '<wo-published-application lang="en"><wo-bibliographic-data><publication-reference><document-id>'
        "<country>WO</country><doc-number>WO/2025/078629</doc-number><kind>A1</kind><date>20250417</date></document-id></publication-reference>"
        "<application-reference><document-id><country>IB</country><doc-number>PCT/IB2025/000001</doc-number></document-id>"
        "</application-reference><classifications-ipcr><classification-ipcr><section>G</section><class>06</class>"
        "<subclass>F</subclass><main-group>15</main-group><subgroup>16</subgroup></classification-ipcr>"
        "</classifications-ipcr>"
        '<invention-title lang="en">Pump</invention-title><invention-title lang="fr">Pompe</invention-title>'
        '</wo-bibliographic-data><abstract lang="en"><p>A pump.</p></abstract><description>'
        "<p>[0001] It pumps.</p></description><claims><claim><claim-text>1. A pump.</claim-text></claim>"
        "</claims>"
        "</wo-published-application>",
    )
    record = only(path)
    assert (record["id"], record["application_id"]) == ("WO-2025078629-A1", "WO-IB2025000001")
    assert (record["title"], record["abstract"], record["claims"]) == ("Pump", "A pump.", ["A pump."])
    assert (record["description"], record["ipc"]) == ("It pumps.", ["G06F 15/16"])
