"""What the readers make of each office's vocabulary, on small made-up documents that hold its known traps."""

import json
from pathlib import Path

import pytest

from data.formats import Rejected, read
from data.record import Record


def write(folder: Path, content: str | bytes, name: str = "a.xml") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def records(path: Path) -> list[Record]:
    """All records of a file that has no rejected document."""
    outcomes = list(read(path))
    assert not [outcome for outcome in outcomes if isinstance(outcome, Rejected)], outcomes
    return [record for outcome in outcomes if isinstance(outcome, list) for record in outcome]


def only(path: Path) -> Record:
    (record,) = records(path)
    return record


CHINESE_OLD = """\ufeff<?xml version="1.0" encoding="UTF-8"?>
<?xml-stylesheet type="text/xsl" href="/showxml/xsl/XSL0117new.xsl"?>
<cn-patent-document lang="ZH" country="CN"><cn-bibliographic-data>
<cn-publication-reference><document-id><country>CN</country><doc-number>104223352</doc-number><kind>A</kind>
<date>20141224</date></document-id></cn-publication-reference>
<application-reference appl-type="发明专利"><document-id><country>CN</country>
<doc-number>201410408762.5</doc-number></document-id></application-reference>
<classifications-ipcr><classification-ipcr><text>A24B   15/18    (2006.01)</text></classification-ipcr>
</classifications-ipcr><invention-title>一种水泵</invention-title>
<abstract><p num="1">一种水泵。</p><p num="bio"><bio-deposit><depositary>CGMCC 6645</depositary>
</bio-deposit></p>
</abstract><cn-parties><cn-inventors><cn-inventor><name>张三</name></cn-inventor></cn-inventors>
</cn-parties>
</cn-bibliographic-data><application-body lang="CN" country="CN"><description>
<invention-title id="tilte1">一种水泵</invention-title>
<p id="p0001" num="0001">技术领域
        <br /></p>
<p id="p0002" num="0002">CaCO<sub>3</sub>、颜料等，是一种菲涅尔(Linear
        <br />Fresnel)器，见图1
        <br />				的基材10和<!-- SIPO <DP n="1"> -->专利No.
        <br />4821497，在100
        <br />rpm时。
        <br /></p><p><img file="a.tif"/></p></description>
<claims><claim id="cl0001" num="0001"><claim-text>1.一种水泵，包
        <br />括：
        <br /></claim-text><claim-text>转子10；以及
        <br /></claim-text><claim-text>外壳，联接</claim-text></claim>
<claim><claim-text><!-- SIPO <DP n="10"> -->成移动以吸纳膨胀。</claim-text></claim>
<!-- SIPO <DP n="11"> --><claim id="cl0002" num="0002"><claim-text>2、根据权利要求1所述的水泵。</claim-text>
</claim>
</claims></application-body></cn-patent-document>"""

CHINESE_NEW = """<?xml version="1.0" encoding="utf-8" standalone="no"?>
<business:PatentDocumentAndRelated xmlns:base="http://www.sipo.gov.cn/XMLSchema/base"
 xmlns:business="http://www.sipo.gov.cn/XMLSchema/business" xmlns:tbl="http://oasis-open.org/specs/soextblx"
 xsdVersion="V2.2.1" lang="zh" country="CN" docNumber="113781974" kind="B" datePublication="20211210">
<business:BibliographicData>
<business:ApplicationReference dataFormat="original"><base:DocumentID>
<base:WIPOST3Code>CN</base:WIPOST3Code>
<base:DocNumber>202111286633.X</base:DocNumber></base:DocumentID></business:ApplicationReference>
<business:ApplicationReference dataFormat="standard"><base:DocumentID>
<base:DocNumber>102021001286633</base:DocNumber>
</base:DocumentID></business:ApplicationReference>
<business:ClassificationIPCRDetails><business:ClassificationIPCR><business:Section>G</business:Section>
<base:Text>G09G    3/36    (2006.01)</base:Text></business:ClassificationIPCR>
</business:ClassificationIPCRDetails>
<business:InventionTitle lang="zh">显示设备</business:InventionTitle></business:BibliographicData>
<business:Abstract lang="zh">
<base:Paragraphs num="0001">一种设备，含H<base:Sub>2</base:Sub>O。</base:Paragraphs>
<business:AbstractFigure><base:Figure><base:Image file="a.jpg"/></base:Figure></business:AbstractFigure>
</business:Abstract>
<business:Description lang="zh"><business:InventionTitle id="title1">显示设备</business:InventionTitle>
<business:TechnicalField><base:Paragraphs id="p0001">技术领域</base:Paragraphs>
<base:Paragraphs id="p0002">见图1中的面板110<base:Image file="b.jpg"/>。</base:Paragraphs>
</business:TechnicalField>
<business:InventionMode><base:Paragraphs>表：<base:TableDetails><base:Table><base:Title/>
<tbl:tgroup cols="2">
<tbl:tbody><tbl:row><tbl:entry>字段</tbl:entry><tbl:entry>类型</tbl:entry></tbl:row></tbl:tbody>
</tbl:tgroup></base:Table>
</base:TableDetails></base:Paragraphs></business:InventionMode></business:Description>
<business:Claims><business:Claim id="cl0001" num="0001">
<business:ClaimText>1.显示设备，包括：</business:ClaimText>
<business:ClaimText>显示面板。</business:ClaimText></business:Claim>
<business:Claim id="cl0002" num="0002"><business:ClaimText>2.如权利要求1所述的设备。</business:ClaimText>
</business:Claim>
</business:Claims></business:PatentDocumentAndRelated>"""

JAPANESE = """<jp-official-gazette kind-of-jp="A" kind-of-st16="A" lang="ja" country="JP" xmlns:jp="http://www.jpo.go.jp">
<bibliographic-data><publication-reference><document-id><country>JP</country>
<doc-number>2021044377</doc-number>
<kind>公開特許公報(A)</kind><date>20210318</date></document-id></publication-reference>
<application-reference><document-id><doc-number>2019165329</doc-number></document-id>
</application-reference>
<invention-title>加工方法</invention-title><classification-ipc><edition/>
<main-clsf>H01L  21/301       20060101AFI20210219BHJP        </main-clsf>
<further-clsf>B23K  26/53        20140101ALI20210219BHJP        </further-clsf></classification-ipc>
</bibliographic-data><description><technical-field><p num="0001">
  本発明は、方法に関する。
</p></technical-field><citation-list><patent-literature><p num="0002">
<patcit num="1"><text>特許第６１５１号公報</text></patcit></p></patent-literature></citation-list>
<description-of-drawings><p num="0003"><figref num="12">図１２は、斜視図である。</figref></p>
</description-of-drawings>
<reference-signs-list><p num="0004">
  １  ウェーハ<br/>
  ３ａ  溝
</p></reference-signs-list></description>
<claims><claim num="1"><claim-text>
  ウェーハを分割する工程と、<br/>
  を備える加工方法。
</claim-text></claim></claims><abstract><p num="">【課題】形成する。<br/>【解決手段】分割する。</p>
</abstract>
<jp:written-amendment-group><description><p>補正</p></description><claims><claim num="1">
<claim-text>補正</claim-text>
</claim></claims></jp:written-amendment-group></jp-official-gazette>"""


def test_old_chinese_lines_are_joined_and_cut_claims_rejoined(tmp_path: Path) -> None:
    path = write(tmp_path, CHINESE_OLD)
    assert only(path) == {
        "id": "CN-104223352-A",
        "office": "CN",
        "kind": "A",
        "language": "zh",
        "date": "2014-12-24",
        "application_id": "CN-201410408762.5",
        "family_id": None,
        "title": "一种水泵",
        "abstract": "一种水泵。",
        "claims": [
            "一种水泵，包括：\n转子10；以及\n外壳，联接成移动以吸纳膨胀。",
            "根据权利要求1所述的水泵。",
        ],
        "description": "技术领域\nCaCO₃、颜料等，是一种菲涅尔(Linear Fresnel)器，"
        "见图1的基材10和专利No.4821497，在100rpm时。\n[image]",
        "ipc": ["A24B 15/18"],
        "source": str(path),
    }


def test_a_claim_cut_at_the_start_of_the_file_stays_a_claim(tmp_path: Path) -> None:
    start, end = CHINESE_OLD.index('<claim id="cl0001"'), CHINESE_OLD.index("<claim><claim-text><!--")
    (first, second) = only(write(tmp_path, CHINESE_OLD[:start] + CHINESE_OLD[end:]))["claims"] or []
    assert (first, second) == ("成移动以吸纳膨胀。", "根据权利要求1所述的水泵。")


def test_new_chinese_publications(tmp_path: Path) -> None:
    path = write(tmp_path, CHINESE_NEW)
    assert only(path) == {
        "id": "CN-113781974-B",
        "office": "CN",
        "kind": "B",
        "language": "zh",
        "date": "2021-12-10",
        "application_id": "CN-202111286633.X",
        "family_id": None,
        "title": "显示设备",
        "abstract": "一种设备，含H₂O。",
        "claims": ["显示设备，包括：\n显示面板。", "如权利要求1所述的设备。"],
        "description": "技术领域\n见图1中的面板110[image]。\n表：\n字段\t类型",
        "ipc": ["G09G 3/36"],
        "source": str(path),
    }


def test_japanese_gazettes_get_the_headings_that_are_printed(tmp_path: Path) -> None:
    path = write(tmp_path, JAPANESE)
    assert only(path) == {
        "id": "JP-2021044377-A",
        "office": "JP",
        "kind": "A",
        "language": "ja",
        "date": "2021-03-18",
        "application_id": "JP-2019165329",
        "family_id": None,
        "title": "加工方法",
        "abstract": "【課題】形成する。\n【解決手段】分割する。",
        "claims": ["ウェーハを分割する工程と、\nを備える加工方法。"],
        "description": "【技術分野】\n本発明は、方法に関する。\n【先行技術文献】\n"
        "【特許文献】\n【特許文献１】特許第６１５１号公報\n"
        "【図面の簡単な説明】\n【図１２】図１２は、斜視図である。\n【符号の説明】\n１ ウェーハ\n３ａ 溝",
        "ipc": ["H01L 21/301", "B23K 26/53"],
        "source": str(path),
    }


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
    path = write(tmp_path, PATDOC.replace("{number}", "06336130") + PATDOC.replace("{number}", "D0435854"))
    first, second = records(path)
    assert first == {
        "id": "US-6336130-B1",
        "office": "US",
        "kind": "B1",
        "language": "en",
        "date": "2002-01-01",
        "application_id": "US-09413215",
        "family_id": None,
        "title": "Pump",
        "abstract": "A pump.",
        "claims": ["A pump, comprising:\na rotor 10.", "The pump of claim 1 ."],
        "description": "BACKGROUND\nSiO₂ in FIG. 1 at 5° and τ=Ω“α”: [formula]\npart\tshare",
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
    path = write(tmp_path, '<?xml version="1.0"?>\n' + closed, "b.xml")
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
    path = write(tmp_path, PUBLICATION)
    assert only(path) == {
        "id": "US-20010000044-A1",
        "office": "US",
        "kind": "A1",
        "language": "en",
        "date": "2001-03-15",
        "application_id": "US-09342866",
        "family_id": None,
        "title": "Systems and Methods",
        "abstract": "A model.",
        "claims": ["A method:\naccepting a request.", "The method of claim 1."],
        "description": "Field\nOf 10³ μm α-Fe.\nSee [image].",
        "ipc": ["G06F 17/60"],
        "source": str(path),
    }


def test_entities_are_known_without_a_doctype_and_external_ones_refused(tmp_path: Path) -> None:
    start, end = PUBLICATION.index("<!DOCTYPE"), PUBLICATION.index("<patent-app")
    assert only(write(tmp_path, PUBLICATION[:start] + PUBLICATION[end:]))["description"] == (
        "Field\nOf 10³ μm α-Fe.\nSee [image]."
    )
    external = PUBLICATION.replace("[]", '[<!ENTITY mgr SYSTEM "secret.txt">]').replace("&mgr;", "&secret;")
    (outcome,) = read(write(tmp_path, external.replace("ENTITY mgr", "ENTITY secret")))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "external-entity"


GREEN_BOOK = """HHHHHT        APS1        ISSUE - 760210
PATN
WKU  039373754
SRC  5
APN  5184541
TTL  Bumper support for a
      boat loader
ISD  19760210
NCL  2
INVT
NAM  Daniels; Everette E.
CLAS
ICL  B60R  900
ICL  G01G 1904
UREF
PNO  2542907
ISD  19510200
ABST
PAL  A unit of CO.sub.2 and R.sub.(i+1) at 10.sup.-3 .mu.m, C.sub.1-10, i.e. small,
      which goes on.
BSUM
PAC  BACKGROUND OF THE INVENTION
PAR  It is .times.5.degree. of ##EQU1## and ##STR2##.
TBL                 TABLE 1
     ______________________
     Part           Share
     rotor          5 %
DETD
PAR  See 10.
CLMS
STM  What I claim is:
NUM  1.
PAR  1. A support, comprising:
PA1  (a) a strap (1); and
PA1  (b) a hook.
NUM  2.
PAR  2. The support of claim 1.
PATN
WKU  D02384567
SRC  5
APN  6000001
TTL  Bottle
ISD  19760217
DCLM
PAR  The ornamental design for a bottle, as shown.
"""


def test_the_green_book(tmp_path: Path) -> None:
    path = write(tmp_path, GREEN_BOOK, "pftaps.txt")
    patent, design = records(path)
    assert patent == {
        "id": "US-3937375-A",
        "office": "US",
        "kind": "A",
        "language": "en",
        "date": "1976-02-10",
        "application_id": "US-05518454",
        "family_id": None,
        "title": "Bumper support for a boat loader",
        "abstract": "A unit of CO₂ and R_{(i+1)} at 10⁻³ μm, C₁₋₁₀, i.e. small, which goes on.",
        "claims": ["A support, comprising:\n(a) a strap (1); and\n(b) a hook.", "The support of claim 1."],
        "description": "BACKGROUND OF THE INVENTION\nIt is ×5° of [formula] and [chemistry].\n"
        "TABLE 1\nPart\tShare\nrotor\t5 %\nSee 10.",
        "ipc": ["B60R 9/00", "G01G 19/04"],
        "source": f"{path}#{GREEN_BOOK.index('PATN')}",
    }
    assert (design["id"], design["kind"], design["claims"]) == (
        "US-D238456-S", "S", ["The ornamental design for a bottle, as shown."]
    )  # fmt: skip


def test_a_green_book_goes_on_after_wrong_bytes(tmp_path: Path) -> None:
    data = GREEN_BOOK.encode().replace(b"See 10", b"See \xb5 10")
    bad, good = read(write(tmp_path, data, "a.txt"))
    assert isinstance(bad, Rejected)
    assert bad.reason == "bad-encoding"
    assert f"byte {data.index(0xB5)} of the file" in bad.detail
    assert isinstance(good, list)


BRS = """09204581	B2	20151201	13676098	43247
Method for reduction
*** BRS DOCUMENT BOUNDARY ***
WKU 09204581
DID US 9204581 B2
GISD 20151201
APNR 13676098
IPCG 20060101 A H01Q H01Q15/00 L I B US H 20151201
IPCG 20060101 A H05K H05K9/00 F I B US H 20151201
TTL Method for reduction,
      and apparatus
ASTX N/A
ABPR  A method is provided.
BSTX BACKGROUND
BSTX  The invention relates to V.sub.2O.sub.3 in a 4.sup.th generation
      device.
DETX  See 10.
CLST What is claimed is:
CLPR  1. A method, comprising: providing
      a circuit.
CLPR  2. The method of claim 1.
DSRC US
09204582	B2	20151201	14577134	75551
Electronic device protection
*** BRS DOCUMENT BOUNDARY ***
DID US 9204582 B2
TTL Electronic device protection
CLPR  1. A device.
"""


def test_brs_exports(tmp_path: Path) -> None:
    path = write(tmp_path, BRS, "css.txt")
    first, second = records(path)
    assert first == {
        "id": "US-9204581-B2",
        "office": "US",
        "kind": "B2",
        "language": "en",
        "date": "2015-12-01",
        "application_id": "US-13676098",
        "family_id": None,
        "title": "Method for reduction, and apparatus",
        "abstract": "A method is provided.",
        "claims": ["A method, comprising: providing a circuit.", "The method of claim 1."],
        "description": "BACKGROUND\nThe invention relates to V₂O₃ in a 4^{th} generation device.\nSee 10.",
        "ipc": ["H05K 9/00", "H01Q 15/00"],
        "source": f"{path}#{BRS.index('***')}",
    }
    assert (second["id"], second["title"], second["claims"]) == (
        "US-9204582-B2", "Electronic device protection", ["A device."]
    )  # fmt: skip


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
    record = only(write(tmp_path, FILED.format(root=root, code=code, body=body)))
    assert record["id"] == f"US-13962724-{code}-20141118-I2NR21PIPXXIFW3"
    assert (record["application_id"], record["language"], record["date"]) == ("US-13962724", "en", None)
    assert {name: record[name] for name in ("abstract", "claims", "description") if record[name]} == {
        field: text
    }


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
    german, english, french = records(write(tmp_path, WEEKLY))
    shared = {
        "id": "EP-2912867-B1",
        "office": "EP",
        "kind": "B1",
        "date": "2025-01-29",
        "application_id": "EP-12783558",
        "family_id": None,
        "abstract": None,
        "ipc": ["H04W 12/04", "H04W 36/00"],
        "source": str(tmp_path / "a.xml"),
    }
    assert english == {
        **shared,
        "language": "en",
        "title": "METHODS",
        "claims": ["A key:\na lock.", "The key of claim 1."],
        "description": "Field\nA key [formula] of 10.",
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
    assert records(write(tmp_path, WEEKLY[:start] + older + WEEKLY[end:]))[0]["ipc"] == ["B60C 15/00"]


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
    path = write(tmp_path, ANSWER.format(body=EXCHANGE))
    first, second = read(path)
    expected = {
        "id": "EP-1000000-A1",
        "office": "EP",
        "kind": "A1",
        "language": "en",
        "date": "2000-05-17",
        "application_id": "EP-99203729",
        "family_id": "19768124",
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
        path = write(tmp_path, json.dumps(tree, indent=indent), "a.json")
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
    record = only(write(tmp_path, ANSWER.format(body=FULLTEXT.format(text=text))))
    assert (record["id"], record["language"]) == ("WO-2009085664-A2", "en")
    assert record[field] == content  # type: ignore[literal-required]


def test_what_clients_of_open_patent_services_keep(tmp_path: Path) -> None:
    publication = {"country": "EP", "doc_number": "1000000", "kind": "A1"}
    claims = [{"number": 1, "limitations": ["A method:", "mixing."]}, {"number": 2, "limitations": ["It."]}]
    path = write(tmp_path, json.dumps({"document_id": publication, "claims": claims}, indent=2), "a.json")
    assert (only(path)["id"], only(path)["claims"]) == ("EP-1000000-A1", ["A method:\nmixing.", "It."])
    text = {"document_id": publication, "description": "[0001]    A brick.\n\n[0002]    It is red."}
    assert only(write(tmp_path, json.dumps(text), "b.json"))["description"] == "A brick.\n\nIt is red."
    row = {
        **publication,
        "family_id": "77",
        "intl_class": ["B28B 1/ 29 A I"],
        "title": "Bricks",
        "abstract": "A brick.",
    }
    broken = {"country": "EP", "doc_number": "2", "claims": "none"}
    good, bad = read(write(tmp_path, json.dumps({"documents": [row, broken]}), "c.json"))
    assert isinstance(good, list)
    assert (good[0]["title"], good[0]["family_id"], good[0]["ipc"]) == ("Bricks", "77", ["B28B 1/29"])
    assert isinstance(bad, Rejected)
    assert bad.reason == "reader-error"


def test_wipo_publications_are_of_the_european_family(tmp_path: Path) -> None:
    path = write(
        tmp_path,
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
    assert (record["id"], record["application_id"]) == ("WO-2025078629-A1", "IB-PCT/IB2025/000001")
    assert (record["title"], record["abstract"], record["claims"]) == ("Pump", "A pump.", ["A pump."])
    assert (record["description"], record["ipc"]) == ("It pumps.", ["G06F 15/16"])


def test_korean_answers_give_one_outcome_an_item(tmp_path: Path) -> None:
    item = (
        "<PatentUtilityInfo><SerialNumber>1</SerialNumber><ApplicationNumber>{applied}</ApplicationNumber><InventionName>메모리"
        " 장치</InventionName><Applicant>회사</Applicant>{more}</PatentUtilityInfo>"
    )
    opened = "<OpeningNumber>1020260000001</OpeningNumber><OpeningDate>20260501</OpeningDate>"
    items = [
        item.format(applied="1020250000001", more=opened + "<Abstract>장치에 관한 것이다.</Abstract><"
                    "InternationalpatentclassificationNumber>G11C 11/4091|H01L  21/00<"
                    "/InternationalpatentclassificationNumber>"),
        item.format(applied="2020250000002", more=opened + "<RegistrationNumber>2004567890000"
                    "</RegistrationNumber><RegistrationDate>20260701</RegistrationDate>"),
        item.format(applied="1020250000003", more="<Abstract/>"),
        "<PatentUtilityInfo><ApplicationNumber>1020250000004</ApplicationNumber></PatentUtilityInfo>",
    ]  # fmt: skip
    answer = f"<response><header/><body><items>{''.join(items)}</items></body></response>"
    patent, model, applied, empty = read(write(tmp_path, answer))
    assert isinstance(patent, list)
    assert patent[0] == {
        **dict.fromkeys(Record.__annotations__),
        "id": "KR-20260000001-A",
        "office": "KR",
        "kind": "A",
        "language": "ko",
        "date": "2026-05-01",
        "application_id": "KR-1020250000001",
        "title": "메모리 장치",
        "abstract": "장치에 관한 것이다.",
        "ipc": ["G11C 11/4091", "H01L 21/00"],
        "source": str(tmp_path / "a.xml"),
    }
    assert isinstance(model, list)
    assert (model[0]["id"], model[0]["date"]) == ("KR-200456789-Y1", "2026-07-01")
    assert isinstance(applied, list)
    assert applied[0]["id"] == "KR-1020250000003"
    assert isinstance(empty, Rejected)
    (nothing,) = read(write(tmp_path, "<response><header/></response>"))
    assert isinstance(nothing, Rejected)
    assert nothing.reason == "missing-text"
