"""Formulas in MathML as lines of text that have one reading, or none."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from data.readers.offices import mathml, patent_xml


def short(formula: str) -> str:
    """MathML of a short form: `{frac a b}` is `<mfrac>…`, words are `mi`, numbers `mn`, other signs `mo`."""
    names = (
        "row sup sub subsup frac sqrt root under over underover fenced table tr td space style text padded"
    )

    def write(found: re.Match[str]) -> str:
        opening, closing, number, word, sign = found.groups()
        if opening:
            name = f"m{opening}" if opening in names.split() else opening
            stack.append(name)
            return f"<{name}>"
        if closing:
            return f"</{stack.pop()}>"
        if number or word:
            return f"<mn>{number}</mn>" if number else f"<mi>{word}</mi>"
        return f"<mo>{sign.replace('&', '&amp;').replace('<', '&lt;')}</mo>"

    stack: list[str] = []
    inner = re.sub(r"\{(\w+)|(\})|(\d[\d.]*)|([^\W\d_]+)|([^\s\w])", write, formula)
    assert not stack
    return inner


def line(inner: str) -> str | None:
    math = etree.fromstring(f"<math>{inner}</math>")
    return mathml.linear(math, lambda content, up: patent_xml.index(content, up=up))


@pytest.mark.parametrize(
    "case",
    """
    {sup x 2}                                                | x²
    {sub a 1} + {sub b i}                                    | a₁ + b_i
    {sub x {row i , j}} {sup y {row n + 1}}                  | x_{i, j} y^{n+1}
    {subsup x 1 2}                                           | x₁²
    {sup {sup x 2} 3}                                        | (x²)³
    {sup {row ( a + b )} 2}                                  | (a + b)²
    {sup {row a + b} 2}                                      | (a + b)²
    {sup {row ( a ) ( b )} 2}                                | ((a)(b))²
    {sup e {row - {frac t τ}}}                               | e^{-t/τ}
    {frac a b}                                               | a/b
    {frac {row a + b} c}                                     | (a + b)/c
    {frac a {row b c}}                                       | a/(b c)
    {frac {frac a b} c}                                      | (a/b)/c
    {frac a {frac b c}}                                      | a/(b/c)
    {frac {row f ( x )} {row g ( x )}}                       | f(x)/(g(x))
    {frac a b} c                                             | (a/b) c
    a {frac b c}                                             | a b/c
    a / {frac b c}                                           | a/(b/c)
    {frac a b} × c                                           | a/b × c
    {frac a b} ( c + d )                                     | (a/b) (c + d)
    {frac a b} .                                             | a/b.
    {sup {frac a b} 2}                                       | (a/b)²
    y = {sqrt {sup x 2} + 1}                                 | y = √(x² + 1)
    {root {row x + 1} 3}                                     | (x + 1)^{1/3}
    {underover ∑ {row i = 1} n} {sub x i}                    | ∑_{i=1}^n x_i
    {subsup ∫ 0 1} f ( x ) d x                               | ∫₀¹ f(x) d x
    {under lim {row n → ∞}} {sub a n}                        | lim_{n→∞} a_n
    - x + - y                                                | -x + -y
    ( - 2 ) · a ≤ 50 % - b                                   | (-2) · a ≤ 50% - b
    2 x y                                                    | 2 x y
    1 0 . 5                                                  | 10.5
    | x | = | - x |                                          | |x| = |-x|
    P ( A | B )                                              | P(A|B)
    f ′ ( x ) = n !                                          | f′(x) = n!
    sin α = {sup cos 2} ( β )                                | sin α = cos²(β)
    {over x ¯} + {over a →} + {over y ^}                     | x̄ + a⃗ + ŷ
    {fenced a b}                                             | (a, b)
    f {fenced x}                                             | f(x)
    [ {table {tr {td a} {td b}} {tr {td c} {td d}}} ]        | [a, b; c, d]
    {fenced {table {tr {td 1} {td 2}}}}                      | (1, 2)
    {table {tr {td a} {td = b}} {tr {td c} {td = d}}}        | a = b⏎c = d
    {row {table {tr {td E = m {sup c 2}} {td ( 1 )}}}}       | E = m c² (1)
    {style {padded x}}                                       | x
    {frac {row ∂ f} {row ∂ x}}                               | (∂f)/(∂x)
    a < b                                                    | a < b
    """.strip().splitlines(),
)
def test_a_simple_formula_is_a_line(case: str) -> None:
    formula, _, wanted = case.strip().partition("  | ")
    assert line(short(formula.rstrip())) == wanted.strip().replace("⏎", "\n")


@pytest.mark.parametrize(
    ("inner", "wanted"),
    [
        ("<mi>a</mi><mo>\u2062</mo><mi>b</mi>", "a b"),
        ("<mi>f</mi><mo>\u2061</mo><mo>(</mo><mi>x</mi><mo>)</mo>", "f(x)"),
        ("<mi>Gel content</mi><mi> </mi><mo>(</mo><mo>%</mo><mo>)</mo>", "Gel content (%)"),
        ('<mi>a</mi><mspace width="0.3em"/><mi>b</mi><mspace width="2em"/><mi>c</mi>', "a b, c"),
        ('<mi>a</mi><mo>=</mo><mspace width="2em"/><mi>c</mi>', "a = c"),
        ("<mfrac><mi>the whole</mi><mi>all parts</mi></mfrac>", "(the whole)/(all parts)"),
        ("<semantics><mi>x</mi><annotation>\\beta</annotation></semantics>", "x"),
        ("<semantics><mrow><mi>x</mi></mrow><annotation-xml><ci>y</ci></annotation-xml></semantics>", "x"),
        ('<mfenced open="[" close="[" separators=";"><mi>x</mi><mi>y</mi></mfenced>', "[x; y["),
        ("<mtext>if </mtext><mi>x</mi><mo>&gt;</mo><mn>0</mn>", "if x > 0"),
        ("<mi>&#x3b1;</mi><!-- no text -->", "α"),
    ],
)
def test_spaces_and_what_is_not_shown(inner: str, wanted: str) -> None:
    assert line(inner) == wanted


@pytest.mark.parametrize(
    "inner",
    [
        "",
        "<mi/>",
        short("{table {tr {td a}} {tr {td b} {td c}}}"),
        "<mo>{</mo>" + short("{table {tr {td a}} {tr {td b}}}"),  # cases
        '<mfrac linethickness="0"><mi>n</mi><mi>k</mi></mfrac>',
        "<mfrac><mrow/><mi>k</mi></mfrac>",
        "<mfrac><mi>k</mi></mfrac>",
        "<mover><mrow><mi>a</mi><mi>b</mi></mrow><mo>¯</mo></mover>",
        "<munder><mi>a</mi><mo>⏟</mo></munder>",
        "<mmultiscripts><mi>a</mi><mn>1</mn><mn>2</mn></mmultiscripts>",
        "<mphantom><mi>x</mi></mphantom>",
        "<mi>x<sub>1</sub></mi>",
        "<mrow>" * 200 + "<mi>x</mi>" + "</mrow>" * 200,
    ],
)
def test_what_has_no_line_is_left_to_the_placeholder(inner: str) -> None:
    assert line(inner) is None


NAMES = (
    "mrow",
    "msup",
    "msub",
    "mfrac",
    "msqrt",
    "munderover",
    "mover",
    "mfenced",
    "mtable",
    "mtr",
    "mtd",
    "mo",
    "mi",
)
TREES = st.recursive(
    st.sampled_from(
        ["<mi>x</mi>", "<mn>2</mn>", "<mo>+</mo>", "<mo>(</mo>", "<mo>|</mo>", "<mo>∑</mo>", "<mspace/>"]
    ),
    lambda inner: st.builds(
        lambda name, parts: f"<{name}>{''.join(parts)}</{name}>",
        st.sampled_from(NAMES),
        st.lists(inner, max_size=3),
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=300)
@given(TREES)
def test_any_tree_has_a_line_with_all_its_signs_or_none(inner: str) -> None:
    found = line(inner)
    if found is not None:
        signs = "".join(re.findall(r">([^<]+)<", inner))
        shown = unicodedata.normalize("NFKC", found)
        assert [shown.count(sign) >= signs.count(sign) for sign in "x2∑"] == [True] * 3
        assert found == found.strip()
        assert "  " not in found
        assert "\n\n" not in found


@pytest.mark.parametrize(
    ("maths", "text"),
    [
        ('<maths><math><msup><mi>x</mi><mn>2</mn></msup></math><img file="a.tif"/></maths>', "So x² is"),
        ('<m:math xmlns:m="http://www.w3.org/1998/Math/MathML"><m:mi>x</m:mi></m:math>', "So x is"),
        ("<maths><math><mi>x</mi></math><math><mi>y</mi></math></maths>", "So x y is"),
        ("<maths><math><mphantom/></math></maths>", "So [formula] is"),
        ('<maths><img file="a.tif"/></maths>', "So [formula] is"),
        (
            "<p>Row <math><mtable><mtr><mtd><mi>a</mi></mtd></mtr><mtr><mtd><mi>b</mi></mtd></mtr></mtable>"
            "</math></p>",
            "So\nRow a\nb\nis",
        ),
        ("<maths><math><mi>a</mi><mo>&lt;</mo><mi>b</mi></math></maths>", "So a < b is"),
    ],
)  # fmt: skip
def test_a_reader_writes_formulas_into_the_text(maths: str, text: str) -> None:
    document = patent_xml.Document("a.xml", 0, f"<d>So {maths} is</d>".encode())
    root = patent_xml.parse(document, {}, [])
    assert isinstance(root, etree._Element)
    assert patent_xml.text(root) == text
