"""The terms of a text, where they stand, and the passages of a record."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data.language import convert_chinese
from data.law_citations import law_name
from serve.retrieval.passages import LONGEST_BYTES, article_key, passages
from serve.retrieval.terms import spans, terms
from tests.data.records import record


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("空调COP", "空 调 空调 cop"),
        ("空調ＣＯＰ", "空 调 空调 cop"),  # Traditional, full width
        ("泵", "泵"),
        ("특허법 제29조", "특허 허법 제 29 조"),
        ("ﾊﾟｿｺﾝ", "パソ ソコ コン"),
        ("Straße, naïve l'eau", "strasse naïve l eau"),
        ("snake_case 12.5%", "snake case 12 5"),
        ("⑩㎏ ½", "10kg 1 2"),
        ("  \n\t", ""),
        ("。，!?()", ""),
        ("a" * 100, "a" * 64),
    ],
)
def test_terms_of_a_text(text: str, expected: str) -> None:
    assert terms(text) == expected.split()


def test_traditional_and_simplified_have_the_same_terms() -> None:
    text = "一種空調系統之壓縮機，包含殼體與馬達，該馬達設於殼體內。"
    assert terms(text) == terms(convert_chinese(text, "simplified"))


@pytest.mark.parametrize(
    ("text", "question", "found"),
    [
        ("空調系統的壓縮機", "压缩机", ["壓縮機"]),
        ("the Compressor's compressors", "COMPRESSOR", ["Compressor"]),
        ("ﾊﾟｿｺﾝ特許", "パソコン", ["ﾊﾟｿｺﾝ"]),
        ("제29조 특허법", "특허법", ["특허법"]),
        ("caf\u0065\u0301 café", "café", ["cafe\u0301", "café"]),
        ("ﬁne", "fine", ["ﬁne"]),
        ("泵和水泵", "水泵", ["水泵"]),
        ("nothing here", "泵", []),
    ],
)
def test_spans_are_where_the_terms_stand(text: str, question: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in spans(text, set(terms(question)))] == found


@example("ำ")  # one character that NFKC makes two
@given(st.text(max_size=60))
def test_spans_lie_in_the_text_apart_from_each_other(text: str) -> None:
    found = spans(text, set(terms(text)))
    edges = [edge for span in found for edge in span]
    assert edges == sorted(set(edges))
    assert all(0 <= start < end <= len(text) for start, end in found)


@given(st.text(alphabet="压缩机 pump.。\n", max_size=3000))
def test_passages_keep_every_character_and_the_limit(text: str) -> None:
    found = list(passages(record(1, description=text, claims=[text], claim_numbers=[7])))
    assert all(len(each.text.encode()) <= LONGEST_BYTES for each in found)
    for part in ("description", "claim"):
        kept = "".join(each.text for each in found if each.part == part)
        assert "".join(kept.split()) == "".join(text.split())
    assert {each.label for each in found if each.part == "claim"} <= {"7"}


def test_a_long_sentence_and_a_line_without_spaces_are_cut() -> None:
    for text in ("word " * 2000, "A" * 10_000, "压" * 5000, "😀" * 3000):
        found = [each.text for each in passages(record(1, description=text)) if each.part == "description"]
        assert max(len(each.encode()) for each in found) <= LONGEST_BYTES
        assert "".join("".join(found).split()) == "".join(text.split())


LAW = "专利法\n第一条 为了保护专利权人的合法权益。\n第二条 本法所称的发明创造是指发明。\n发明是指方案。"
STATUTES = [
    (LAW, [None, "第一条", "第二条"]),
    ("제1조(목적) 이 법은 발명을 보호한다.\n제2조의2(정의) 뜻은 다음과 같다.", ["제1조", "제2조의2"]),
    ("Article 52 Inventions\nPatents …\nArticle 53 Exceptions", ["Article 52", "Article 53"]),
    ("第 22 條之 1 發明\n第二十三條　申請", ["第 22 條之 1", "第二十三條"]),
    ("According to Article 52 it is so.\nArticle 53", ["opening"]),
]


@pytest.mark.parametrize(("text", "labels"), STATUTES)
def test_a_statute_is_read_by_its_articles(text: str, labels: list[str | None]) -> None:
    found = list(passages(record(1, title=None, abstract=None, claims=None, description=text)))
    assert [each.label for each in found] == labels
    articles = {each.label for each in found if each.part == "article"}
    assert articles == set(labels) - {None, "opening"}


def test_a_patent_that_quotes_articles_is_no_statute() -> None:
    assert "article" not in {each.part for each in passages(record(1, description=LAW))}


@pytest.mark.parametrize(
    ("written", "key"),
    [("第二十二条", "22"), ("第22條", "22"), ("Article 22", "22"), ("제22조", "22"), ("第一百零三条", "103"),
     ("第 ２ 条", "2"), ("第2条之1", "2-1"), ("제2조의2", "2-2"), ("第一千零一条", "1001"), ("§ 112", "112"),
     ("Section 10a", "10a"), ("第二〇条", "20"), ("第十条", "10")],
)  # fmt: skip
def test_an_article_has_one_key_however_it_is_written(written: str, key: str) -> None:
    assert article_key(written) == key


def test_the_names_of_laws_that_answers_cite_do_not_fill_the_memory() -> None:
    assert law_name.cache_info().maxsize is not None
