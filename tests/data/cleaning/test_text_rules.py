"""Cleaning rules: each takes what it is named for and leaves everything else as it was."""

import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cleaning import text_rules
from data.cleaning.quality import broken_share, may_be_odd, odd_share
from data.cleaning.repetition import CHARACTERS, WORDS, repeated_lines, repeated_ngrams
from data.language import (
    FUNCTION_WORDS,
    _has_function_words,
    base,
    convert_chinese,
    is_traditional,
    main_language,
    other_language,
    script_share,
    scripts,
)

PROSE = {
    "en": "The present invention relates to a centrifugal pump whose housing is sealed against the shaft by a"
    " ring of rubber, so that no water can leave it even where the pressure rises quickly. ",
    "de": "Die Erfindung betrifft eine Kreiselpumpe, deren Gehäuse gegen die Welle durch einen Gummiring"
    " abgedichtet ist, so dass auch bei schnell steigendem Druck kein Wasser austreten kann. ",
    "fr": "L'invention concerne une pompe centrifuge dont le corps est rendu étanche par une bague en"
    " caoutchouc autour de l'arbre, de sorte que l'eau ne peut pas sortir si la pression monte. ",
    "zh": "本发明涉及一种离心泵，其壳体与轴之间通过橡胶圈密封，因此即使压力迅速上升，水也不会从壳体中漏出，"
    "结构简单，使用方便。",
    "zh-Hant": "本發明涉及一種離心泵，其殼體與軸之間通過橡膠圈密封，"
    "因此即使壓力迅速上升，水也不會從殼體中漏出。",
    "ja": "本発明は、ハウジングと軸との間がゴムのリングによって密封され、圧力が急に上昇しても水が漏れない"
    "遠心ポンプに関する。",
    "ko": "본 발명은 하우징과 축 사이가 고무 링으로 밀봉되어 압력이 급격히 상승하더라도 물이 새지 않는"
    " 원심 펌프에 관한 것이다. ",
}


@pytest.mark.parametrize(
    ("raw", "regular"),
    [
        ("A pump.", "A pump."),
        ("10³ m², H₂O, x½, ①", "10³ m², H₂O, x½, ①"),
        ("Ａ ﬁ ㎏ ｶ", "Ａ ﬁ ㎏ ｶ"),
        ("一种  半导体", "一种 半导体"),
        ("全角\u3000空格", "全角\u3000空格"),
        ("e\u0301 \u212b", "\u00e9 \u00c5"),
        ("e\u200b\u0301", "\u00e9"),
        ("a\u00a0\u2009 b", "a b"),
        ("Salt \t 5 g\t\t0.1", "Salt\t5 g\t\t0.1"),
        ("Table\n \tBefore \tAfter\t", "Table\n\tBefore\tAfter"),
        ("First\n\t indented", "First\nindented"),
        ("a \n b", "a\nb"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("a\n \n\t\n \nb", "a\n\nb"),
        ("\ufeff  a  ", "a"),
        ("a\x00b\x0cc\x85d\u200be\u2060f", "abcdef"),
        ("क्\u200dष", "क्\u200dष"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("  \n ", ""),
        ("\x00\u200b", ""),
        ("", ""),
    ],
)
def test_text_becomes_regular(raw: str, regular: str) -> None:
    assert text_rules.regular_text(raw) == regular


NASTY = st.text(
    st.sampled_from(
        "ab \t\n\r\x00\x0b\x85\u00a0\u0301\u0323\u200b\u2003\u2028\u3000\ufeff\u212be가각\u11a8三三"
        "[]【】01０１．Ａ。:："
    )
)


@settings(deadline=None)
@given(text=st.text() | NASTY)
def test_regular_text_stays_as_it_is(text: str) -> None:
    once = text_rules.regular_text(text)
    assert text_rules.regular_text(once) == once
    assert once == once.strip()
    assert unicodedata.is_normalized("NFC", once)
    assert "  " not in once
    assert "\n\n\n" not in once


@settings(deadline=None)
@given(text=st.text())
def test_no_letter_digit_or_sign_is_lost(text: str) -> None:
    def signs(value: str) -> list[str]:
        return [c for c in unicodedata.normalize("NFD", value) if unicodedata.category(c)[0] in "LNPS"]

    assert signs(text_rules.regular_text(text)) == signs(text)


@pytest.mark.parametrize(
    ("raw", "folded"),
    [
        ("厚さ３．５ｍｍ、１２０℃", "厚さ3.5mm、120℃"),
        ("ＡＢＣ（１）：甲，乙。１０％", "ABC（1）：甲，乙。10％"),
        ("10³Pa ①㎏ ﬁ ｶ", "10³Pa ①㎏ ﬁ ｶ"),
        ("plain ASCII", "plain ASCII"),
        ("图１．水泵", "图1．水泵"),
    ],
)
def test_full_width_letters_and_digits_are_folded_and_nothing_else(raw: str, folded: str) -> None:
    assert text_rules.fold_full_width(raw) == folded


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        ("[0001] A pump.\n[0002]A valve.", "A pump.\nA valve."),
        ("【０００１】\n本発明は", "本発明は"),
        ("［0012］　本发明", "本发明"),
        ("水泵漏水。[0003]为此，提供密封。【0004】还有。", "水泵漏水。\n为此，提供密封。\n还有。"),
        ("as in paragraph [0023] above", "as in paragraph [0023] above"),
        ("a reference [12] and a pump (10)", "a reference [12] and a pump (10)"),
        ("数组[0000]至[0100]", "数组[0000]至[0100]"),
        ("【図１】断面図", "【図１】断面図"),
    ],
)
def test_paragraph_numbers_go_and_references_stay(raw: str, left: str) -> None:
    assert text_rules.drop_paragraph_numbers(raw) == left


def test_placeholders_on_lines_of_their_own_are_folded_to_one() -> None:
    raw = "A pump.\n[image]\n[image]\n[image]\n[formula]\nSee [image]\n[image]\nend"
    assert text_rules.regular_text(raw) == "A pump.\n[image]\n[formula]\nSee [image]\n[image]\nend"


LISTING = """The probe of SEQ ID NO: 1 is used.
SEQUENCE LISTING
<110> Pump Company
<210> 1
<400> 1
acgtacgtac ggtacgtacg acgtacgtag 30
Met Ala Arg Asn Asp Cys Glu Gln
1 5

The primers 5'-ACGTACGTACGTTGCA-3' were bought.
He met Ala Arg in 1 5 tries"""


def test_sequence_listings_go_and_primers_in_the_text_stay() -> None:
    kept = LISTING.split("\n")
    assert text_rules.drop_sequences(LISTING).split("\n") == [kept[0], kept[-2], kept[-1]]
    assert text_rules.drop_sequences("ACGT" * 20 + "\nEnd") == "End"
    assert text_rules.drop_sequences("standard warrant strand\n1 5\n12") == "standard warrant strand\n1 5\n12"


@pytest.mark.parametrize(
    "line",
    [
        "发明人：张三 李四",
        "申请人: 某某有限公司",
        "【発明者】",
        "【氏名】山田 太郎",
        "【住所又は居所】東京都大田区一丁目１番",
        "【발명자】",
        "발명자: 홍길동",
        "Inventor: John Doe, Springfield (US)",
        "Inventors: Jane Roe",
        "Attorney, Agent or Firm: Roe LLP",
        "Erfinder: Max Mustermann",
        "Inventeur: Jean Dupont",
        "地址：北京市朝阳区大屯路1号",
        "联系电话：010-12345678",
        "Tel.: +49 (0)30 1234567",
        "E-mail: jane@example.org",
        "Address: 1 Main Street, Springfield",
    ],
)
def test_lines_about_people_go(line: str) -> None:
    assert text_rules.drop_people(f"A pump.\n{line}\nA valve.") == "A pump.\nA valve."


@pytest.mark.parametrize(
    "line",
    [
        "地址：0x1000至0x2000为只读区域",
        "Address: the memory location that the pointer names",
        "The message is sent to user@example.org, the address of the server.",
        "Agent: 5 g",
        "电话：一种通信装置",
        "Vertreter: Methyl, Ethyl",
        "发明人发现，水泵漏水。",
        "Inventors have tried: pumps",
        "申请人：" + "本" * 300,
    ],
)
def test_other_lines_with_the_same_words_stay(line: str) -> None:
    assert text_rules.drop_people(line) == line


def test_lines_are_dropped_whatever_their_paragraph_number() -> None:
    text = "[0001] 水泵。\n[0002]  以上所述仅为较佳实施例。\n密封。"
    assert text_rules.drop_lines(text, {"以上所述仅为较佳实施例。"}) == "[0001] 水泵。\n密封。"
    assert text_rules.drop_lines(text, {"水"}) is text


RULES: list[Callable[[str], str]] = [
    text_rules.fold_full_width,
    text_rules.drop_paragraph_numbers,
    text_rules.drop_sequences,
    text_rules.drop_people,
]


@settings(deadline=None)
@given(text=st.text() | NASTY, rule=st.sampled_from(RULES))
def test_a_rule_never_adds_text_and_prose_passes_unchanged(text: str, rule: Callable[[str], str]) -> None:
    regular = text_rules.regular_text(text)
    assert len(rule(regular)) <= len(regular)
    for prose in PROSE.values():
        assert rule(prose.strip()) == prose.strip()


@pytest.mark.parametrize("language", PROSE)
def test_a_language_is_told_from_the_others(language: str) -> None:
    text = PROSE[language] * 4
    assert main_language(text) == base(language)
    assert other_language(text, language) is None
    for other, wrong in PROSE.items():
        if base(other) != base(language):
            assert other_language(wrong * 4, language) == base(other)


def test_a_text_that_is_partly_in_its_language_is_not_in_another() -> None:
    assert other_language(PROSE["en"] * 10 + PROSE["de"] * 5, "en") is None
    assert other_language("H₂O 12.5 0.3\n" * 50, "en") is None, "a table"
    assert main_language("12345") is None


def test_scripts() -> None:
    assert script_share(PROSE["zh"], "zh") == 1
    assert script_share(PROSE["en"], "zh") == 0
    assert script_share(PROSE["ja"], "ja") == 1
    assert script_share("12 mm", "en") is None
    assert script_share(PROSE["en"], "xx") is None


@given(st.text(st.characters(codec="utf-8")))
def test_letters_are_counted_by_the_names_of_their_characters(text: str) -> None:
    kinds = {"CJK": "han", "HIRAGANA": "kana", "KATAKANA": "kana"}
    names = [unicodedata.name(character, "OTHER").split()[0] for character in text if character.isalpha()]
    found = [kinds.get(name, name.lower()) for name in names]
    counts = scripts(text)
    assert {name: number for name, number in counts.items() if number and name != "other"} == {
        name: found.count(name) for name in set(found) & counts.keys() - {"other"}
    }
    assert sum(counts.values()) == len(found)


NEIGHBOURS = (
    "De uitvinding heeft betrekking op een pomp die met een ring van rubber is afgedicht, en op een werkwijze"
    " voor het maken van deze pomp, waarbij de as in het huis van de pomp wordt gelegd en vastgezet.",
    "Opfindelsen angår en pumpe, der er forseglet med en ring af gummi, og en fremgangsmåde til at fremstille"
    " den, hvor akslen anbringes i huset og fastgøres, så at vandet ikke kan løbe ud ved et højt tryk.",
    "La invención se refiere a una bomba que está sellada con un anillo de goma, y a un procedimiento para la"
    " fabricación de la bomba, en el que el eje se coloca en el cuerpo y se fija para que no salga el agua.",
    "L'invenzione riguarda una pompa che è sigillata con un anello di gomma, e un procedimento per produrre"
    " la pompa, nel quale l'albero è posto nel corpo e fissato in modo che l'acqua non possa uscire da esso.",
    "A invenção refere-se a uma bomba que é vedada com um anel de borracha, e a um processo para a fabricação"
    " da bomba, no qual o eixo é colocado no corpo e fixado de modo que a água não possa sair com a pressão.",
)
"""Languages whose words look like those of English, German or French."""


@pytest.mark.parametrize("text", [*NEIGHBOURS, *PROSE.values()])
def test_function_words_are_only_those_of_their_language(text: str) -> None:
    found = [name for name in FUNCTION_WORDS if _has_function_words(text, name)]
    assert found == [language for language, prose in PROSE.items() if prose == text and language in found]
    assert _has_function_words("The pump of the claim is fed with water by the valve and a hose.", "en")


@given(st.text(st.sampled_from("水泵ab \n\t\r\u00a0\u3000\u200b\u0301é，１Ａ．")))
def test_a_text_that_is_regular_as_a_whole_is_what_its_lines_are(text: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert text_rules.regular_text(text) == text_rules._join(map(text_rules._regular_line, lines))
    halves = str.maketrans("１Ａ", "1A")
    digits = re.sub("(?<=[１Ａ])．(?=１)", ".", text)
    assert text_rules.fold_full_width(text) == text_rules._tidy(digits.translate(halves))


@given(st.text(st.sampled_from("水a \ue000\ufffd锟斤拷ï¿½Ãäâ€锛")))
def test_a_text_with_unreadable_characters_is_looked_at(text: str) -> None:
    assert may_be_odd(text) or odd_share(text) == 0


def test_traditional_is_told_from_simplified_and_converted() -> None:
    assert is_traditional(PROSE["zh-Hant"])
    assert not is_traditional(PROSE["zh"])
    assert not is_traditional("水泵")
    assert convert_chinese("發明內容", "simplified") == "发明内容"
    assert convert_chinese("发明内容", "traditional") == "發明內容"


def test_what_scanning_leaves_is_measured() -> None:
    assert all(odd_share(prose) == 0 and broken_share(prose * 20) < 0.25 for prose in PROSE.values())
    assert odd_share("ab\ufffd\ue000") == 0.5
    assert odd_share("锛屼竴绉嶆按娉") > 0.1, "UTF-8 read as GBK"
    assert broken_share("t h e p u m p " * 20) == pytest.approx(1, abs=0.01)
    assert broken_share("本 发 明 涉 及 " * 20) == pytest.approx(1, abs=0.01)
    assert broken_share("a b c") == 0, "too few words to tell"


def naive_repeated(units: list[str], n: int) -> float:
    """The share of bytes in n-grams that came before, by the definition."""
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for i in range(len(units) - n + 1):
        gram = tuple(units[i : i + n])
        if gram in seen:
            covered.update(range(i, i + n))
        seen.add(gram)
    total = sum(len(unit.encode()) for unit in units)
    return sum(len(units[i].encode()) for i in covered) / total if total else 0.0


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(["a", "pump", "é", "水泵"]), max_size=120))
def test_repeated_ngrams_are_those_of_the_definition(words: list[str]) -> None:
    text = " ".join(words)
    assert repeated_ngrams(text, "en") == pytest.approx(naive_repeated(words, WORDS))
    characters = list("".join(words))
    assert repeated_ngrams(text, "zh") == pytest.approx(naive_repeated(characters, CHARACTERS))


def test_repeated_lines_are_counted_from_the_second_on() -> None:
    assert repeated_lines("aa\nb\naa\naa") == pytest.approx(4 / 7)
    assert repeated_lines("") == 0
    assert repeated_lines("a\nb") == 0
