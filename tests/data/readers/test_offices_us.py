"""United States documents in SGML and XML before 2005, and as they were filed: their known traps."""

from pathlib import Path

import pytest

from data.readers.formats import read
from data.record import Rejected
from tests.data.readers.reading import only, records, write

PATDOC = """<!DOCTYPE PATDOC PUBLIC "-//USPTO//DTD ST.32 US PATENT GRANT V2.4 2000-09-20//EN" [
<!ENTITY US06336130-20020101-D00000.TIF SYSTEM "US06336130-20020101-D00000.TIF" NDATA TIF>
]>
<PATDOC DTD="2.4" STATUS="Build 20010518"><SDOBI>
<B100><B110><DNUM><PDAT>{number}</PDAT></DNUM></B110><B130><PDAT>B1</PDAT></B130>
<B140><DATE><PDAT>20020101</PDAT></DATE></B140></B100>
<B200><B210><DNUM><PDAT>09413215</PDAT></DNUM></B210></B200>
<B500><B510><B511><PDAT>G06F  728</PDAT></B511><B512><PDAT>G06F 1300</PDAT></B512><B516><PDAT>7</PDAT>
</B516></B510>
<B540><STEXT><PDAT>Pump</PDAT></STEXT></B540><B560><B561><PCIT><DOC><DNUM><PDAT>5825759</PDAT></DNUM></DOC>
</PCIT>
<CITED-BY-EXAMINER></B561></B560><B590><B597US></B590></B500></SDOBI>
<SDOAB><BTEXT><PARA ID="P-1" LVL="0"><PTEXT><PDAT>A pump.</PDAT></PTEXT></PARA></BTEXT></SDOAB>
<SDODE><BRFSUM><BTEXT><H LVL="1"><STEXT><PDAT>BACKGROUND</PDAT></STEXT></H>
<PARA ID="P-2" LVL="0"><PTEXT><PDAT>SiO</PDAT><HIL><SB><PDAT>2 </PDAT></SB></HIL><PDAT>in </PDAT>
<FGREF ID="DRAWINGS"><PDAT>FIG. 1</PDAT></FGREF>
<PDAT> at 5&deg; and &tgr;&equals;&OHgr;&ldquo;&b.alpha;&rdquo;: </PDAT>
<CWU><MATH-US ID="M-1"><MATHEMATICA ID="M-2" FILE="a.NB"><MATHML><math><mi>&Phi;</mi></math></MATHML>
<EMI ID="E-1" ALT="embedded image" FILE="a.TIF"></MATH-US></CWU></PTEXT></PARA>
<CWU><TABLE-US><table><tgroup cols="2"><colspec colname="1"><tbody><row><entry><PTEXT><PDAT>part</PDAT>
</PTEXT></entry>
<entry><PTEXT><PDAT>share</PDAT></PTEXT></entry></row></tbody></tgroup></table></TABLE-US></CWU></BTEXT>
</BRFSUM></SDODE>
<SDOCL><H LVL="1"><STEXT><PDAT>What is claimed is: </PDAT></STEXT></H><CL>
<CLM ID="CLM-00001"><PARA ID="P-3" LVL="0"><PTEXT><PDAT>1. A pump, comprising:</PDAT></PTEXT></PARA>
<CLMSTEP LVL="2"><PTEXT><PDAT>a rotor </PDAT><HIL><BOLD><PDAT>10</PDAT></BOLD></HIL><PDAT>. </PDAT></PTEXT>
</CLMSTEP>
</CLM><CLM ID="CLM-00002"><PARA ID="P-4" LVL="0"><PTEXT><PDAT>2. The pump of </PDAT><CLREF ID="CLM-00001">
<PDAT>claim 1
</PDAT></CLREF><PDAT>.</PDAT></PTEXT></PARA></CLM></CL></SDOCL>
<SDODR ID="DRAWINGS"><EMI ID="EMI-D00000" FILE="US06336130-20020101-D00000.TIF"></SDODR></PATDOC>
"""


def test_st32_grants_are_read_as_sgml_and_as_xml(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.xml", PATDOC.replace("{number}", "06336130") + PATDOC.replace("{number}", "D0435854")
    )
    first, second = records(path)
    assert first == {
        "id": "US-6336130-B1",
        "office": "US",
        "kind": "B1",
        "language": "en",
        "date": "2002-01-01",
        "application_id": "US-09413215",
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": ["US-5825759"],
        "claim_numbers": None,
        "title": "Pump",
        "abstract": "A pump.",
        "claims": ["A pump, comprising:\na rotor 10.", "The pump of claim 1 ."],
        "description": "BACKGROUND\nSiO₂ in FIG. 1 at 5° and τ=Ω“α”: Φ\npart\tshare",
        "ipc": ["G06F 7/28", "G06F 13/00"],
        "source": f"{path}#0",
    }
    offset = len(PATDOC.replace("{number}", "06336130").encode())
    assert (second["id"], second["source"]) == ("US-D435854-B1", f"{path}#{offset}")
    closed = PATDOC.replace("{number}", "06336130")
    for tag in (
        "<CITED-BY-EXAMINER",
        "<B597US",
        '<colspec colname="1"',
        'FILE="a.NB"',
        'FILE="a.TIF"',
        'D00000.TIF"',
    ):
        closed = closed.replace(f"{tag}>", f"{tag}/>")
    path = write(tmp_path, "b.xml", '<?xml version="1.0"?>\n' + closed)
    assert only(path) == {**first, "source": str(path)}


PUBLICATION = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE patent-application-publication SYSTEM "pap-v15-2001-01-31.dtd" []>
<patent-application-publication><subdoc-bibliographic-information><document-id>
<doc-number>20010000044</doc-number>
<kind-code>A1</kind-code><document-date>20010315</document-date></document-id><domestic-filing-data>
<application-number>
<doc-number>09342866</doc-number></application-number></domestic-filing-data><technical-information>
<classification-ipc>
<classification-ipc-primary><ipc>G06F017/60</ipc></classification-ipc-primary></classification-ipc>
<title-of-invention> Systems
   and Methods </title-of-invention></technical-information></subdoc-bibliographic-information>
<subdoc-abstract><heading lvl="0">Abstract of Disclosure</heading><paragraph id="A-1">A model.</paragraph>
</subdoc-abstract>
<subdoc-description><background-of-invention><heading lvl="0">Field</heading>
<paragraph id="P-1">
<number>&lsqb;0001&rsqb;</number> Of 10<superscript>3</superscript>&thinsp;&mgr;m &agr;-Fe.</paragraph>
<section><paragraph id="P-2"><number>2.</number> See <image file="a.tif"/>.</paragraph></section>
</background-of-invention>
</subdoc-description><subdoc-claims><heading lvl="0">Claims</heading>
<claim id="CLM-00001"><claim-text><highlight><bold>1.</bold></highlight>A method:</claim-text>
<claim-text>accepting a request.</claim-text></claim>
<claim id="CLM-00002"><claim-text><highlight><bold>2</bold>
</highlight>. The method of <dependent-claim-reference
 depends_on="CLM-00001"><claim-text>claim 1</claim-text></dependent-claim-reference>.</claim-text></claim>
</subdoc-claims>
</patent-application-publication>"""


def test_united_states_publications_of_2001(tmp_path: Path) -> None:
    path = write(tmp_path, "a.xml", PUBLICATION)
    assert only(path) == {
        "id": "US-20010000044-A1",
        "office": "US",
        "kind": "A1",
        "language": "en",
        "date": "2001-03-15",
        "application_id": "US-09342866",
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": None,
        "claim_numbers": None,
        "title": "Systems and Methods",
        "abstract": "A model.",
        "claims": ["A method:\naccepting a request.", "The method of claim 1."],
        "description": "Field\nOf 10³ μm α-Fe.\nSee [image].",
        "ipc": ["G06F 17/60"],
        "source": str(path),
    }


def test_entities_are_known_without_a_doctype_and_external_ones_refused(tmp_path: Path) -> None:
    start, end = PUBLICATION.index("<!DOCTYPE"), PUBLICATION.index("<patent-app")
    assert only(write(tmp_path, "a.xml", PUBLICATION[:start] + PUBLICATION[end:]))["description"] == (
        "Field\nOf 10³ μm α-Fe.\nSee [image]."
    )
    external = PUBLICATION.replace("[]", '[<!ENTITY mgr SYSTEM "secret.txt">]').replace("&mgr;", "&secret;")
    (outcome,) = read(write(tmp_path, "a.xml", external.replace("ENTITY mgr", "ENTITY secret")))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "external-entity"


FILED = """<?xml version="1.0" encoding="UTF-8"?>
<pat:{root} xmlns:pat="urn:us:gov:doc:uspto:patent" pat:id="I2NR21PIPXXIFW3">
<pat:DocumentCode>{code}</pat:DocumentCode>
<pat:DocumentHeaderDetails><pat:ApplicationHeaderDetails>
<pat:ApplicationNumber>13962724</pat:ApplicationNumber>
</pat:ApplicationHeaderDetails></pat:DocumentHeaderDetails>
<pat:MailRoomDate>2014-11-18</pat:MailRoomDate>{body}</pat:{root}>"""

FILED_CLAIMS = """<pat:ClaimSet><pat:ClaimList><?PageStart number="1"?>
<pat:Claim pat:id="UNKNOWN-00001"><pat:ClaimNumber/><pat:ClaimText>1-16. (Canceled) </pat:ClaimText>
</pat:Claim>
<pat:Claim><pat:ClaimNumber>1</pat:ClaimNumber><pat:ClaimStatusCategory>canceled</pat:ClaimStatusCategory>
</pat:Claim>
<pat:Claim pat:id="CLM-00017"><pat:ClaimNumber>17</pat:ClaimNumber><pat:ClaimText><pat:BoundaryData>
<pat:HeaderText>PATENT
</pat:HeaderText></pat:BoundaryData>
<pat:ClaimLabelText>17. </pat:ClaimLabelText> (Currently Amended) A method,
<pat:OCRConfidenceData pat:levelNumber="55">compr</pat:OCRConfidenceData>ising: </pat:ClaimText>
<pat:ClaimText>a step <pat:PartName>in</pat:PartName><pat:BoundaryData><pat:LineNumber>5</pat:LineNumber>
</pat:BoundaryData>time.
</pat:ClaimText><pat:ClaimTypeCategory>Independent</pat:ClaimTypeCategory></pat:Claim></pat:ClaimList>
</pat:ClaimSet>"""

FILED_TEXT = """<pat:Specification><pat:BoundaryData><pat:HeaderText>KEG</pat:HeaderText></pat:BoundaryData>
<pat:Heading>ABSTRACT</pat:Heading><pat:P pat:pNumber="1">[0002]   An apparatus.</pat:P>
</pat:Specification>"""


@pytest.mark.parametrize(
    ("root", "code", "body", "field", "text"),
    [
        ("ClaimsDocument", "CLM", FILED_CLAIMS, "claims", ["A method, comprising:\na step in time."]),
        ("SpecificationDocument", "SPEC", FILED_TEXT, "description", "ABSTRACT\nAn apparatus."),
        ("SpecificationDocument", "ABST", FILED_TEXT, "abstract", "An apparatus."),
    ],
)
def test_filed_documents(
    tmp_path: Path, root: str, code: str, body: str, field: str, text: str | list[str]
) -> None:
    record = only(write(tmp_path, "a.xml", FILED.format(root=root, code=code, body=body)))
    assert record["id"] == f"US-13962724-{code}-20141118-I2NR21PIPXXIFW3"
    assert (record["application_id"], record["language"], record["date"]) == ("US-13962724", "en", None)
    assert {name: record[name] for name in ("abstract", "claims", "description") if record[name]} == {
        field: text
    }


def test_a_running_head_that_was_converted_as_a_claim_does_not_move_the_numbers(tmp_path: Path) -> None:
    claim = "<pat:Claim><pat:ClaimNumber>{}</pat:ClaimNumber><pat:ClaimText>{}</pat:ClaimText></pat:Claim>"
    head = "<pat:BoundaryData><pat:HeaderText>IN THE CLAIMS</pat:HeaderText></pat:BoundaryData>"
    claims = claim.format(1, head) + claim.format(1, "A lid.") + claim.format(2, "The lid of claim 1.")
    body = f"<pat:ClaimSet>{claims}</pat:ClaimSet>"
    record = only(write(tmp_path, "a.xml", FILED.format(root="ClaimsDocument", code="CLM", body=body)))
    assert (record["claims"], record["claim_numbers"]) == (["A lid.", "The lid of claim 1."], None)
