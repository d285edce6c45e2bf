"""Publications of China, Japan and Korea: small made-up documents that hold the known traps of each."""

from pathlib import Path

from data.readers.formats import read
from data.record import Record, Rejected
from tests.data.readers.reading import only, write

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
    path = write(tmp_path, "a.xml", CHINESE_OLD)
    assert only(path) == {
        "id": "CN-104223352-A",
        "office": "CN",
        "kind": "A",
        "language": "zh",
        "date": "2014-12-24",
        "application_id": "CN-201410408762",
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": None,
        "claim_numbers": None,
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
    (first, second) = only(write(tmp_path, "a.xml", CHINESE_OLD[:start] + CHINESE_OLD[end:]))["claims"] or []
    assert (first, second) == ("成移动以吸纳膨胀。", "根据权利要求1所述的水泵。")


def test_new_chinese_publications(tmp_path: Path) -> None:
    path = write(tmp_path, "a.xml", CHINESE_NEW)
    assert only(path) == {
        "id": "CN-113781974-B",
        "office": "CN",
        "kind": "B",
        "language": "zh",
        "date": "2021-12-10",
        "application_id": "CN-202111286633",
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": None,
        "claim_numbers": None,
        "title": "显示设备",
        "abstract": "一种设备，含H₂O。",
        "claims": ["显示设备，包括：\n显示面板。", "如权利要求1所述的设备。"],
        "description": "技术领域\n见图1中的面板110[image]。\n表：\n字段\t类型",
        "ipc": ["G09G 3/36"],
        "source": str(path),
    }


def test_japanese_gazettes_get_the_headings_that_are_printed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.xml", JAPANESE)
    assert only(path) == {
        "id": "JP-2021044377-A",
        "office": "JP",
        "kind": "A",
        "language": "ja",
        "date": "2021-03-18",
        "application_id": "JP-2019165329",
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": ["JP-6151"],
        "claim_numbers": None,
        "title": "加工方法",
        "abstract": "【課題】形成する。\n【解決手段】分割する。",
        "claims": ["ウェーハを分割する工程と、\nを備える加工方法。"],
        "description": "【技術分野】\n本発明は、方法に関する。\n【先行技術文献】\n"
        "【特許文献】\n【特許文献１】特許第６１５１号公報\n"
        "【図面の簡単な説明】\n【図１２】図１２は、斜視図である。\n【符号の説明】\n１ ウェーハ\n３ａ 溝",
        "ipc": ["H01L 21/301", "B23K 26/53"],
        "source": str(path),
    }


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
    patent, model, applied, empty = read(write(tmp_path, "a.xml", answer))
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
    assert applied[0]["id"] == "KR-20250000003"
    assert isinstance(empty, Rejected)
    (nothing,) = read(write(tmp_path, "a.xml", "<response><header/></response>"))
    assert isinstance(nothing, Rejected)
    assert nothing.reason == "missing-text"
