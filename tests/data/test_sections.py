"""Sections and claims: a description is cut at its headings and loses nothing; claims name their parents."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.claims import dependencies, references
from data.sections import heading, sections

HEADINGS = {
    "field": """
        技术领域|【技术领域】|一、技术领域|[0001] 技术领域|［０００１］　技术领域：|
        技 术 领 域|<技术领域>|技術領域|
        發明所屬之技術領域|【技術分野】|【기술분야】|기 술 분 야|발명이 속하는 기술분야|
        TECHNICAL FIELD|Field of the Invention|1. Field of the Invention|FIELD|Technical Field.|
        Technisches Gebiet|Gebiet der Erfindung|Domaine technique|Domaine de l’invention""",
    "background": """
        背景技术|现有技术|先前技術|【背景技術】|従来の技術|【배경기술】|
        발명의 배경이 되는 기술|BACKGROUND|
        Background of the Invention:|2. Description of the Related Art|BRIEF DESCRIPTION OF THE PRIOR ART|
        2. Background Of Related Art|Background Art|Prior Art|
        Stand der Technik|État de la technique|ETAT DE LA TECHNIQUE ANTERIEURE|Art antérieur""",
    "summary": """
        发明内容|实用新型内容|（二）发明内容|發明內容|新型內容|
        【発明の概要】|【課題を解決するための手段】|
        【발명의 내용】|해결하려는 과제|과제의 해결 수단|SUMMARY|Summary of the Invention|BRIEF SUMMARY|
        本发明要解决的技术问题|技术方案|有益效果|Overview Of The Invention|Aufgabe und Lösung|
        Brief Description of the Invention|
        Vorteilhafte Wirkungen der Erfindung|DISCLOSURE OF THE INVENTION|Technical Problem|
        Advantageous Effects of Invention|
        Zusammenfassung der Erfindung|Darstellung der Erfindung|Exposé de l'invention|
        Résumé de l'invention""",
    "drawings": """
        附图说明|圖式簡單說明|【図面の簡単な説明】|【도면의 간단한 설명】|BRIEF DESCRIPTION OF THE DRAWINGS|
        Brief Description of Drawings|BRIEF DESCRIPTION OF THE SEVERAL VIEWS OF THE DRAWINGS|
        Description of the accompanying figures|Kurze Beschreibung der Zeichnungen|
        Description sommaire des dessins|Brève description des figures""",
    "description": """
        具体实施方式|具體實施方式|實施方式|【発明を実施するための形態】|
        【발명을 실시하기 위한 구체적인 내용】|
        DETAILED DESCRIPTION|Detailed Description of the Preferred Embodiments|
        DESCRIPTION OF THE PREFERRED EMBODIMENTS|Description of Embodiments|
        BEST MODE FOR CARRYING OUT THE INVENTION|Detaillierte Beschreibung|Ausführliche Beschreibung der
        Erfindung|First Embodiment|Example Embodiments|Ausführung der Erfindung|Description détaillée|
        Description détaillée de l'invention""",
    "examples": """
        实施例1|实施例一：|對比例２|【実施例】|【実施例１】|실시예 1|EXAMPLES|Example 1|COMPARATIVE EXAMPLE 2|
        Beispiele|Vergleichsbeispiel 3|Exemple 4|Application Example 2-1|Example 3 - Blend Preparation|
        (Comparative Examples 1-3)|Beispiel B1*|Beispiel 1 (erfindungsgemäß)|
        Exemple 1 : Préparation des vecteurs""",
    "applicability": "工业实用性|【産業上の利用可能性】|【산업상 이용가능성】|INDUSTRIAL APPLICABILITY",
    "signs": "附图标记说明|【符号の説明】|【부호의 설명】|Reference Signs List|Bezugszeichenliste|"
    "LISTING OF REFERENCE NUMERALS USED IN THE DRAWINGS|Zeichnungslegende",
    "related": """
        相关申请的交叉引用|CROSS-REFERENCE TO RELATED APPLICATIONS|Related Applications|관련 출원의 상호 참조|
        RELATED APPLICATION DATA|CROSS REFERENCE TO RELATED U.S. APPLICATIONS|RELATED U.S. APPLICATION DATA|
        CLAIM OF PRIORITY|INCORPORATION BY REFERENCE|Référence à des demandes connexes""",
    "support": """
        STATEMENT REGARDING FEDERALLY SPONSORED RESEARCH OR DEVELOPMENT|GOVERNMENT LICENSE RIGHTS|
        Statement of Government Interest|GOVERNMENT SUPPORT|FEDERALLY-SPONSORED RESEARCH|
        U.S. GOVERNMENT RIGHTS|
        Acknowledgment of Federal Support|关于联邦资助研究的声明|정부 지원""",
    "notices": """
        COPYRIGHT NOTICE|Notice of Copyright|THE NAMES OF THE PARTIES TO A JOINT RESEARCH AGREEMENT|版权声明|
        STATEMENT REGARDING PRIOR DISCLOSURES BY THE INVENTOR OR A JOINT INVENTOR""",
    "citations": "【先行技術文献】|Patent Document|REFERENCES|Related Art Document|BIBLIOGRAPHIE|引用文献",
    "sequences": "序列表|【配列表】|SEQUENCE LISTING",
}


def lines(table: str) -> list[str]:
    return [" ".join(entry.split(" ")).strip() for entry in " ".join(table.split()).split("|")]


@pytest.mark.parametrize(
    ("line", "name"),
    [(line, name) for name, table in HEADINGS.items() for line in lines(table)],
)
def test_headings_in_their_languages_and_dress(line: str, name: str) -> None:
    assert heading(line) == name
    assert heading(f"  {line}\n") == name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("【技術分野】本発明は、ポンプに関する。", "field"),
        ("背景技术：现有的水泵容易漏水。", "background"),
        ("[0012] 实施例2：称取10g氯化钠。", "examples"),
        ("【실시예 3】 펌프를 준비하였다.", "examples"),
    ],
)
def test_east_asian_headings_may_stand_at_the_beginning_of_their_text(line: str, name: str) -> None:
    assert heading(line) == name


@pytest.mark.parametrize(
    "line",
    [
        "",
        "本发明涉及技术领域。",
        "如背景技术所述，水泵容易漏水。",
        "【図１】ポンプの断面図である。",
        "Background noise is filtered by the pump.",
        "Examples\t1\t2\t3",
        "The field of the invention is pumps",
        "FIG. 1",
        "Documents",
        "Overview",
        "The government supports research on pumps.",
        "[0001]",
        "1.",
        "：",
        "Background " * 20,
    ],
)
def test_text_is_no_heading(line: str) -> None:
    assert heading(line) is None


def test_a_description_is_cut_at_its_headings() -> None:
    text = "一种水泵\n技术领域\n水泵。\n背景技术\n漏水。\n\n发明内容\n密封。\n实施例1\n甲\n实施例2\n乙"
    assert sections(text) == [
        ("opening", "一种水泵\n"),
        ("field", "技术领域\n水泵。\n"),
        ("background", "背景技术\n漏水。\n\n"),
        ("summary", "发明内容\n密封。\n"),
        ("examples", "实施例1\n甲\n实施例2\n乙"),
    ]
    assert sections("") == []
    assert sections("no heading") == [("opening", "no heading")]


ANY_LINE = st.sampled_from([line for table in HEADINGS.values() for line in lines(table)]) | st.text(
    max_size=20
)


@settings(deadline=None)
@given(found=st.lists(ANY_LINE), ending=st.sampled_from(["\n", "\r\n", "\n\n", "\u2028", "\x0c"]))
def test_the_pieces_are_the_description_again(found: list[str], ending: str) -> None:
    text = ending.join(found)
    pieces = sections(text)
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.text for piece in pieces)
    assert all(one.name != other.name for one, other in pairwise(pieces))


REFERENCES = """
zh|一种水泵，包括泵体。|
zh|根据权利要求1所述的水泵，其特征在于|1
zh|如权利要求1或2所述的水泵|1 2
zh|根据权利要求1-3任一项所述的水泵|1 2 3
zh|根据权利要求１至３中任一项所述的方法|1 2 3
zh|根据权利要求2、4或6~8所述的水泵|2 4 6 7 8
zh|根据权利要求1所述的水泵，和权利要求5所述的泵体|1 5
zh|根据上述任一权利要求所述的水泵|1 2 3 4 5 6 7 8
zh-Hant|如申請專利範圍第1項或第3項所述之水泵|1 3
zh-Hant|如請求項1至3中任一項之水泵|1 2 3
en|A pump comprising 3 valves.|
en|The pump of claim 1, wherein|1
en|The pump according to any one of claims 1 to 3, wherein|1 2 3
en|A pump as claimed in claim 1 or claim 4|1 4
en|A method as in claims 1, 2, and 5-7, with 3 mm|1 2 5 6 7
en|A pump according to any of the preceding claims|1 2 3 4 5 6 7 8
ja|請求項１に記載のポンプ|1
ja|請求項１乃至３のいずれか１項に記載のポンプ|1 2 3
ja|請求項１又は請求項３～５のいずれか一項に記載の|1 3 4 5
ko|제1항에 있어서,|1
ko|제 1 항 내지 제 3 항 중 어느 한 항에 있어서|1 2 3
ko|제1항 또는 제4항에 있어서|1 4
ko|청구항 2에 있어서|2
de|Pumpe nach Anspruch 1, dadurch gekennzeichnet|1
de|Pumpe nach einem der Ansprüche 1 bis 3 oder 5|1 2 3 5
de|Pumpe nach einem der vorhergehenden Ansprüche|1 2 3 4 5 6 7 8
fr|Pompe selon la revendication 1, caractérisée|1
fr|Pompe selon l'une quelconque des revendications 1 à 3|1 2 3
fr|Pompe selon l'une des revendications précédentes|1 2 3 4 5 6 7 8
xx|The pump of claim 1|
en|The pump of claim 9, a slip, or claim 12|
"""


@pytest.mark.parametrize("line", REFERENCES.strip().splitlines())
def test_a_claim_says_to_which_it_refers(line: str) -> None:
    language, claim, numbers = line.split("|")
    assert references(claim, language, 9) == [int(number) for number in numbers.split()]


def test_without_its_number_a_claim_tells_what_it_names() -> None:
    assert references("The pump of claims 3 to 5", "en") == [3, 4, 5]
    assert references("A pump according to any preceding claim", "en") == []
    assert references("The pump of claims 1 to 999999999", "en") == [1, 999999999], "no endless list"


CLAIMS = {
    "zh": {1: "一种水泵，包括泵体。", 2: "一种水泵的制造方法，包括铸造。"},
    "en": {1: "A lock comprising a lever.", 2: "A method for opening a lock, comprising turning it."},
    "ja": {1: "弁を備えるポンプ。", 2: "ポンプの製造方法。"},
    "ko": {1: "밸브를 포함하는 펌프.", 2: "펌프를 제조하는 방법."},
    "de": {1: "Pumpe mit einem Rotor.", 2: "Verfahren zum Gießen einer Pumpe."},
    "fr": {1: "Pompe comprenant un rotor.", 2: "Procédé de fabrication d'une pompe."},
}
DEPENDENT = """
zh|根据权利要求1所述的水泵，其特征在于|1
zh|一种如权利要求1所述的水泵，包括阀|1
zh|一种包括权利要求1所述的水泵的汽车|
zh|如权利要求1所述的水泵的制造方法，包括铸造|
zh|根据权利要求2所述的制造方法，其中所述水泵为权利要求1所述的水泵|2
zh|权利要求1所述的水泵在灌溉中的应用|
en|The lock of claim 1, wherein the lever is of steel|1
en|A lock as claimed in any of the preceding claims, comprising a spring|1
en|A kit comprising the lock of claim 1 and a key|
en|A method of making the lock of claim 1|
en|The method of claim 2, using the lock of claim 1|2
en|Use of the lock of claim 1|
en|A method for opening a safe according to claim 2|2
ja|請求項１に記載のポンプであって、弁を備えるポンプ。|1
ja|前記弁を有する、請求項１に記載のポンプ。|1
ja|請求項１に記載のポンプを備える車両。|
ja|請求項１に記載のポンプの製造方法。|
ko|제1항에 있어서, 밸브를 포함하는 펌프.|1
ko|제1항의 펌프를 포함하는 차량.|
ko|제1항의 펌프의 제조 방법.|
en|The lock comprising a lever of claim 1, of steel|1
ja|請求項１に記載の弁を備えるポンプであって、弁が二つあるポンプ。|1
de|Pumpe nach Anspruch 1, dadurch gekennzeichnet|1
de|Fahrzeug, umfassend eine Pumpe nach Anspruch 1|
de|Verwendung der Pumpe nach Anspruch 1|
fr|Pompe selon l'une des revendications précédentes|1
fr|Véhicule comprenant une pompe selon la revendication 1|
"""


@pytest.mark.parametrize("line", DEPENDENT.strip().splitlines())
def test_a_claim_that_only_mentions_another_does_not_depend_on_it(line: str) -> None:
    language, claim, numbers = line.split("|")
    assert dependencies(claim, language, 3, CLAIMS[language]) == [int(number) for number in numbers.split()]
