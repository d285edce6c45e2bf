"""Sentences of a description that stand in its claims are left out; nothing else is, and nothing is torn."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.packing.repeated_claims import sentences, without_repeated

CLAIMS = {
    "zh": [
        "一种水泵，包括泵体和叶轮，所述叶轮设置在泵体内。",
        "根据权利要求1所述的水泵，其特征在于，所述泵体由不锈钢铸造而成，壁厚为3.5mm。",
    ],
    "ja": ["ハウジングと羽根車とを備えるポンプであって、該羽根車が樹脂からなるポンプ。"],
    "ko": [
        "상기 하우징 안에서 회전하는 임펠러를 포함하는 펌프에 있어서, 상기 임펠러는 수지로 이루어진 펌프."
    ],
    "en": [
        "A pump comprising a housing and a rotor that turns in the housing at 3.5 turns per second.",
        "The pump of claim 1, wherein the rotor is made of a light alloy of aluminium and zinc.",
    ],
    "de": ["Pumpe, umfassend ein Gehäuse und einen Rotor, der sich in dem Gehäuse um eine Achse dreht."],
    "fr": ["Pompe comprenant un carter et un rotor qui tourne dans le carter autour d'un axe vertical."],
}
LEFT_OUT = """
zh 一种水泵，包括泵体和叶轮，所述叶轮设置在泵体内。
zh 本发明提供了一种水泵，包括：泵体和叶轮；所述叶轮设置在泵体内。
zh 优选地，所述泵体由不锈钢铸造而成，壁厚为３．５ｍｍ。
zh 此外，在一些实施例中，所述泵体由不锈钢铸造而成，壁厚为3.5mm。
ja 本発明によれば、ハウジングと羽根車とを備えるポンプであって、該羽根車が樹脂からなるポンプが提供される。
ko 또한, 상기 하우징 안에서 회전하는 임펠러를 포함하는 펌프에 있어서, 상기 임펠러는 수지로 이루어진 펌프.
en A pump comprising: a housing and a rotor that turns in the housing at 3.5 turns per second.
en In some embodiments, the rotor is made of a light alloy of aluminium and zinc.
en More preferably, in another embodiment, the rotor is made of a light alloy of aluminium and zinc.
de Die Erfindung betrifft ein Gehäuse und einen Rotor, der sich in dem Gehäuse um eine Achse dreht.
fr De préférence, un carter et un rotor qui tourne dans le carter autour d'un axe vertical.
"""
KEPT = """
zh 所述叶轮设置在泵体外，一种水泵包括泵体和叶轮。
zh 优选地，所述泵体由不锈钢铸造而成，壁厚为35mm。
zh 泵体和叶轮。
zh (2)所述泵体由不锈钢铸造而成，壁厚为3.5mm。
zh 一种水泵，包括泵体和叶轮，所述叶轮设置在泵体内，该泵体不漏水。
ja ハウジングと羽根車とを備えるポンプは知られている。
en The rotor is not made of a light alloy of aluminium and zinc.
en A pump comprising a housing and a rotor that turns in the housing at 35 turns per second.
en he rotor is made of a light alloy of aluminium and zinc.
en The rotor is made of a light alloy of aluminium and zin.
en A housing and a rotor that turns in the housing at < 3.5 turns per second.
en the rotor is made of a light alloy of aluminium and zinc
de Die Erfindung betrifft kein Gehäuse und einen Rotor, der sich in dem Gehäuse um eine Achse dreht.
"""


@pytest.mark.parametrize("line", LEFT_OUT.strip().splitlines())
def test_a_sentence_of_a_claim_is_left_out_with_its_introduction(line: str) -> None:
    language, sentence = line.split(" ", 1)
    space = "" if language in ("zh", "ja") else " "
    stop = "。" if language in ("zh", "ja") else "."
    before, after = f"Xabcd{stop}", f"Yabcd{stop}"
    for join in (space, "\n"):
        text = before + join + sentence + join + after
        assert without_repeated(text, CLAIMS[language], language) == before + join + after


@pytest.mark.parametrize("line", KEPT.strip().splitlines())
def test_what_differs_by_a_word_a_sign_or_a_part_stays(line: str) -> None:
    language, sentence = line.split(" ", 1)
    assert without_repeated(sentence, CLAIMS[language], language) == sentence


ROTOR = "The rotor is made of a light alloy of aluminium and zinc."


@pytest.mark.parametrize(
    ("text", "left"),
    [
        # a known heading goes with its text, if all of it goes
        (f"FIELD\nPumps.\nSUMMARY\n{ROTOR}\nDRAWINGS\nFIG. 1", "FIELD\nPumps.\nDRAWINGS\nFIG. 1"),
        (f"SUMMARY\n{ROTOR} It is cheap.", "SUMMARY\nIt is cheap."),
        (f"SUMMARY\n{ROTOR}", ""),
        # a heading that is not known keeps it
        (f"The Rotor\n{ROTOR}\nThe Housing\nIt is cheap.", None),
        # an introduction, a list and an abbreviation are not torn
        (f"It is so:\n{ROTOR}", None),
        (f"the housing and\n{ROTOR}", None),
        (f"Made e.g. as in No. {ROTOR}", None),
        # a list that is in the claim as a whole
        ("A pump comprising:\na housing and\na rotor that turns in the housing at 3.5 turns per second.", ""),
        ("A pump comprising:\na housing;\na rotor that turns in the housing at 3.5 turns per second.", None),
    ],
)
def test_nothing_is_torn(text: str, left: str | None) -> None:
    assert without_repeated(text, CLAIMS["en"], "en") == (text if left is None else left)


def test_a_table_is_left_out_whole_or_not_at_all() -> None:
    table = "The fields of the message that is sent to the server are:\nName\tText\nKind\tNumber"
    claims = [f"A server, wherein {table.lower()}."]
    after = "\nIt is cheap."
    text = f"It is a server.\n{table}."
    assert without_repeated(text + after, claims, "en") == "It is a server." + after
    other = text.replace("Number", "Text")
    assert without_repeated(other + after, claims, "en") == other + after


TEXTS = st.lists(
    st.sampled_from(
        [*LEFT_OUT.strip().split("\n"), *KEPT.strip().split("\n"), "SUMMARY", "FIG. 1", "a\tb", ""]
    )
).map("\n".join)


@settings(deadline=None)
@given(text=TEXTS | st.text(alphabet="ab .。\n\t：,"))
def test_sentences_are_the_text_and_only_whole_ones_are_left_out(text: str) -> None:
    found = [text[start:end] for start, end in sentences(text)]
    assert "".join(found) == text
    left = without_repeated(text, CLAIMS["en"], "en")
    lines = iter(text.split("\n"))
    assert all(any(line in whole for whole in lines) for line in left.split("\n") if line)


def test_time_grows_with_the_text_and_no_faster() -> None:
    """Claims that repeat themselves, and a description of sentences that begin as they do."""
    seconds = []
    for size in (500, 4000):
        claim = "The rotor is made of a light alloy of aluminium and zinc, "
        text = "".join(f"{claim}{number}. " for number in range(size))
        start = time.process_time()
        assert without_repeated(text, [claim * size], "en") == text
        seconds.append(time.process_time() - start)
    assert seconds[1] < 24 * seconds[0] + 0.1
