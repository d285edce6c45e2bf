"""Claims keep their own numbers: those printed before them or declared by the source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import claim_numbers
from data.claim_numbers import numbered, split, unnumbered


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("1. A pump.\n2. The pump of claim 1.", {1: "A pump.", 2: "The pump of claim 1."}),
        ("1. A pump. 2. The pump of claim 1.", {1: "A pump.", 2: "The pump of claim 1."}),
        ("1 . A pump. 2 . The pump of claim 1 .", {1: "A pump.", 2: "The pump of claim 1 ."}),
        ("1、一种泵。2、根据权利要求1所述的泵。", {1: "一种泵。", 2: "根据权利要求1所述的泵。"}),
        (
            "1．一种泵，\n包括转子。\n2．如权利要求1的泵。",
            {1: "一种泵，\n包括转子。", 2: "如权利要求1的泵。"},
        ),
        ("【청구항 1】\n펌프.\n【청구항 2】\n제1항의 펌프.", {1: "펌프.", 2: "제1항의 펌프."}),
        ("권리요구 1: 펌프.\n권리요구 2: 제1항의 펌프.", {1: "펌프.", 2: "제1항의 펌프."}),
        ("权利要求1：一种泵。\n权利要求1所述的泵。", {1: "一种泵。\n权利要求1所述的泵。"}),
        ("1. A pump", {1: "A pump"}),
        ("What is claimed is: 1. A pump. 2. The pump of claim 1.", {1: "A pump.", 2: "The pump of claim 1."}),
        ("I claim:\n1 . A pump.\n2 . The pump of claim 1", {1: "A pump.", 2: "The pump of claim 1"}),
        ("The embodiments in which property is claimed are:\n1. A.\n2. B.", {1: "A.", 2: "B."}),
        ("权利要求书\n1.一种泵。\n2.如权利要求1所述的泵。", {1: "一种泵。", 2: "如权利要求1所述的泵。"}),
        ("Patentansprüche\n1. Pumpe.\n2. Pumpe nach Anspruch 1.", {1: "Pumpe.", 2: "Pumpe nach Anspruch 1."}),
        (
            "1) A pump: a) x; b) y.\n2) The pump of claim 1.",
            {1: "A pump: a) x; b) y.", 2: "The pump of claim 1."},
        ),
        (
            "1. A method:\n1) mixing;\n2) heating.\n2. It.",
            {1: "A method:\n1) mixing;\n2) heating.", 2: "It."},
        ),
        ("1-3. (canceled) 4. A pump.", {4: "A pump."}),
        ("1 - 18 . (canceled)\n19 . A pump.\n20 . It.", {19: "A pump.", 20: "It."}),
        ("1. A pump.\n2. (Cancelled)\n3. A valve.", {1: "A pump.", 3: "A valve."}),
        ("2. A pump.\n3. A valve.", {2: "A pump.", 3: "A valve."}),
        ("1. A pump. 3. A valve.", {1: "1. A pump. 3. A valve."}),
        ("1. A pump.\n1. mixing\n2. heating", {1: "1. A pump.\n1. mixing\n2. heating"}),
        ("A pump. 1. B. 2. C.", {1: "A pump. 1. B. 2. C."}),
    ],
)
def test_one_text_is_split_where_its_numbers_are_certain(text: str, claims: dict[int, str]) -> None:
    assert split(text) == claims


@pytest.mark.parametrize(
    ("texts", "declared", "claims"),
    [
        (["1. A", "2) B", "3、丙"], [], {1: "A", 2: "B", 3: "丙"}),
        (["A", "B"], [], {1: "A", 2: "B"}),
        (["A", "B"], ["00004", "00007"], {4: "A", 7: "B"}),
        (["1-18. (canceled)", "19. A", "20. B"], ["01-18", "00019", "00020"], {19: "A", 20: "B"}),
        (["1.-18. (canceled)", "19. A"], [], {19: "A"}),
        (["A", "(canceled)", "B"], ["1", "2", "3"], {1: "A", 3: "B"}),
        (["1. A", "2. (currently cancelled)", "3. B"], [], {1: "A", 3: "B"}),
        (["Claims 1-4 (canceled)", "5. A"], [], {5: "A"}),
        (["1. A", "2. (削除)", "3. B"], [], {1: "A", 3: "B"}),
        (["1. A", "", "3. B"], [], {1: "A", 3: "B"}),
        (["", "A", "", "B"], ["1", "1", "2", "2"], {1: "A", 2: "B"}),
        (["1. A", "1. B"], ["1", "2"], {1: "A", 2: "B"}),
        (["2. A", "1. B"], [], {1: "A", 2: "B"}),
        (["What is claimed is:", "1. A", "2. B"], [], {1: "A", 2: "B"}),
        (["1.3,5-二甲基", "2.如它", "3.3-甲基"], ["1", "2", "3"], {1: "3,5-二甲基", 2: "如它", 3: "3-甲基"}),
        (["1.3D打印机", "2.如权利要求1"], ["0001", "0002"], {1: "3D打印机", 2: "如权利要求1"}),
        (["1.5 mm thick", "2. B"], ["1", "2"], {1: "1.5 mm thick", 2: "B"}),
        (["1.5 mm thick"], ["1"], {1: "1.5 mm thick"}),
        (["(canceled)", "2. (deleted)"], [], {}),
        ([], [], {}),
    ],
)  # fmt: skip
def test_a_claim_has_its_own_number(texts: list[str], declared: list[str], claims: dict[int, str]) -> None:
    assert numbered(texts, declared) == claims


def test_in_a_list_whose_texts_may_begin_with_numbers_all_or_none_are_the_claims() -> None:
    assert numbered(["1. A", "2. B"], partly=False) == {1: "A", 2: "B"}
    assert numbered(["A", "2. B"], partly=False) == {1: "A", 2: "2. B"}


def test_the_number_before_a_claim_goes_where_every_claim_has_its_own() -> None:
    assert unnumbered({1: "1. A", 3: "3、丙"}) == {1: "A", 3: "丙"}
    for claims in ({1: "1.5 mm thick", 2: "2. b"}, {1: "A", 2: "2. B"}, {1: "2. A", 2: "1. B"}, {}):
        assert unnumbered(claims) == claims


words = st.text("abc ", min_size=1, max_size=9).map(str.strip).filter(bool)


@given(st.dictionaries(st.integers(1, 300), words, min_size=2))
def test_claims_with_any_ascending_numbers_are_read_as_they_were_printed(claims: dict[int, str]) -> None:
    claims = dict(sorted(claims.items()))
    text = claim_numbers.printed(claims)
    assert split(text) == claims
    assert numbered(text.split("\n")) == claims
