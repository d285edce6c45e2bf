"""A formula in MathML as one line of text: `W = ⌊1 g M/R⌋`, `∑_{k=0}^{n}2ᵏ`, `(a + b)/c`, `√(x² + y²)`.

    <math> ──pieces──▶ [W, =, ⌊, 1, g, M/R, ⌋] ──joined──▶ `W = ⌊1 g M/R⌋`

Indices are written as in running text (data/readers/offices/patent_xml.py): `x²`, `a₁`, `I_{em}`. Parentheses
are added where a reader would otherwise take the formula for another one: `(a + b)/c`, `(M/R) g`, `(x²)³`.
What has no such line gives None, and the reader writes a placeholder: matrices without brackets, cases, rows
of different length, stacked fractions without a line, embellished arrows, unknown elements. Presentation
MathML 3 only (https://www.w3.org/TR/MathML3/chapter3.html); annotations are not read.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lxml import etree

WIDE = 0.8
"""Width in em of a space that separates two formulas, which a comma then does."""
DEEPEST = 40
"""Levels of elements; deeper formulas are not read."""

Index = Callable[[str, bool], str]
"""Writes an index in running text, above the line if the second argument is true."""


class NotSimple(Exception):
    """A formula that has no unambiguous line."""


class Piece(NamedTuple):
    """A part of a line."""

    text: str
    kind: str
    """`operand`, `number`, `fraction`, `function` (`sin`), `large` (∑ with its limits), `infix` (an operator
    between spaces), `tight` (one without), `open`, `close`, `bar` (one of them), `comma`, `space`, `gap` (a
    wide one), `none`."""


START, END = Piece("", "open"), Piece("", "close")
ROWS = ("math", "mrow", "mstyle", "mpadded", "mtd", "semantics")
NOT_READ = ("annotation", "annotation-xml", "maligngroup", "malignmark")
OPERATORS = {
    "infix": "=≠≈≃≅≡<>≤≥≦≧≪≫∝∼→←↔⇒⇐⇔⇌∈∉⊂⊆∪∩∧∨+-−±∓×·⋅∗*∘⊗⊕⊥:∣",
    "tight": "/÷.∂∇¬√∀∃",
    "open": "([{⌊⌈⟨〈",
    "close": ")]}⌋⌉⟩〉!%°'′″‴",
    "bar": "|‖∥",
    "comma": ",;",
    "large": "∑∏∐∫∬∭∮⋃⋂⋀⋁",
    "operand": "∞∅",
    "none": "\u2061\u2062\u2063\u2064",  # applied to, times, comma, plus: all invisible
}
KINDS = {sign: kind for kind, signs in OPERATORS.items() for sign in signs}
SIGNS = frozenset("+-−±∓")
"""Operators that may also stand before their operand."""
_FUNCTIONS = """
sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln lg exp lim max min sup inf arg det mod sgn
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
OPERANDS = ("operand", "number", "fraction", "large", "function")
PRIMES = frozenset("'′″‴")
TIGHTENED = re.compile(r" ([^\w\s]) ")
RAISED = re.compile(r"[\^²³¹⁰⁴-⁹⁺⁻⁽⁾]")
BRACKETS = {"(": ")", "[": "]", "⌊": "⌋", "⌈": "⌉"}
LINES = frozenset("⏞⏟︷︸⏜⏝_̲")
"""Braces and lines above or below a part of a formula."""
ACCENTS = {
    **dict.fromkeys("¯‾\u0304\u0305―", "\u0304"),
    **dict.fromkeys("^ˆ\u0302", "\u0302"),
    **dict.fromkeys("~˜∼\u0303", "\u0303"),
    **dict.fromkeys("→⃗\u20d7", "\u20d7"),
    **dict.fromkeys("˙.\u0307", "\u0307"),
    **dict.fromkeys("¨\u0308", "\u0308"),
}
"""Signs over a letter, as combining characters."""


def linear(math: etree._Element, index: Index) -> str | None:
    """The formula in a `math` element as text, rows of an aligned formula separated by `\\n`; None if it is
    empty or not simple."""
    depth = deepest = 0
    for event, _ in etree.iterwalk(math, events=("start", "end")):
        depth += 1 if event == "start" else -1
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        return None
    try:
        return _Formula(index).lines(math) or None
    except NotSimple:
        return None


class _Formula:
    """Writes the elements of a formula; `index` is that of the running text."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def lines(self, math: etree._Element) -> str:
        """The lines of a formula: one, or the rows of the table that it consists of."""
        only = _unwrapped(math)
        if _name(only) == "mtable":
            return "\n".join(filter(None, (" ".join(filter(None, row)) for row in self.rows(only))))
        return self.text(math)

    def text(self, element: etree._Element) -> str:
        """The line of an element."""
        return joined(self.pieces(element))

    def pieces(self, element: etree._Element) -> list[Piece]:
        """The pieces of an element's line."""
        children = _children(element)
        match _name(element), children:
            case name, _ if name in ROWS:
                return self.row(children)
            case "mi" | "mn" | "mtext" | "ms", []:
                return _operand(element)
            case "mo", []:
                return _operator(element)
            case "mspace", _:
                return [Piece("", "gap" if _ems(element.get("width", "")) >= WIDE else "space")]
            case "none", []:
                return []
            case "mfrac", [above, below] if element.get("linethickness") not in ("0", "0pt", "0px"):
                return [Piece(f"{self.numerator(above)}/{self.operand(below)}", "fraction")]
            case "msqrt", _:
                return [Piece(f"√({joined(self.row(children))})", "operand")]
            case "mroot", [below, degree]:
                return [Piece(self.operand(below) + self.index(f"1/{self.operand(degree)}", True), "operand")]
            case "munder" | "mover" | "munderover", [_, *around] if any(
                _text(each) in LINES for each in around
            ):
                raise NotSimple
            case "msub" | "munder", [below, low]:
                return self.scripts(below, low, None)
            case "msup", [below, high]:
                return self.scripts(below, None, high)
            case "msubsup" | "munderover", [below, low, high]:
                return self.scripts(below, low, high)
            case "mover", [below, high]:
                return self.accent(below, high)
            case "mfenced", _:
                return self.fenced(element, children)
            case "mtable", _:
                raise NotSimple  # without brackets around it
            case name, _:
                raise NotSimple(name)

    def row(self, children: Sequence[etree._Element]) -> list[Piece]:
        """The pieces of elements side by side; a table between brackets is a matrix."""
        found: list[Piece] = []
        for number, child in enumerate(children):
            inner = _unwrapped(child)
            if _name(inner) == "mtable":
                around = (*children[:number][-1:], *children[number + 1 :][:1])
                if "".join(map(_text, around)) not in ("()", "[]", "||"):
                    raise NotSimple
                found.append(Piece(self.matrix(inner), "operand"))
            else:
                found += self.pieces(child)
        return found

    def matrix(self, table: etree._Element) -> str:
        """`1, 2; 3, 4`"""
        return "; ".join(", ".join(row) for row in self.rows(table))

    def rows(self, table: etree._Element) -> list[list[str]]:
        """The cells of a table, all rows of one length."""
        rows = [[self.text(cell) for cell in _children(row)] for row in _children(table)]
        if len({len(row) for row in rows}) != 1 or any(_name(row) != "mtr" for row in _children(table)):
            raise NotSimple
        return rows

    def operand(self, element: etree._Element) -> str:
        """An element as one operand, in parentheses unless it is a single sign, number or word."""
        return enclosed(self.pieces(element))

    def numerator(self, element: etree._Element) -> str:
        """As `operand`, but `f(x)` needs no parentheses."""
        pieces = self.pieces(element)
        text = joined(pieces)
        called = {piece.kind for piece in pieces} <= {"operand", "open", "close", "none"} and " " not in text
        return text if text and called else enclosed(pieces)

    def scripts(
        self, below: etree._Element, low: etree._Element | None, high: etree._Element | None
    ) -> list[Piece]:
        """What has an index below it, above it, or both."""
        pieces = [piece for piece in self.pieces(below) if piece.kind not in ("none", "space")]
        same = len(pieces) == 1 and pieces[0].kind in ("large", "function", "close", "infix")
        text = pieces[0].text if same else enclosed(pieces)
        if high is not None and RAISED.search(text) and not _has_brackets(text):
            text = f"({text})"
        for script, up in ((low, False), (high, True)):
            if script is not None and (content := TIGHTENED.sub(r"\1", self.text(script))):
                text += content if up and set(content) <= PRIMES else self.index(content, up)
        return [Piece(text, pieces[0].kind if same else "operand")]

    def accent(self, below: etree._Element, high: etree._Element) -> list[Piece]:
        """A letter with a sign over it: `x̄`; anything else over a sign is an index."""
        base, sign = self.text(below), ACCENTS.get(_text(high))
        if sign is None:
            return self.scripts(below, None, high)
        if len(base) != 1:
            raise NotSimple
        return [Piece(unicodedata.normalize("NFC", base + sign), "operand")]

    def fenced(self, element: etree._Element, children: Sequence[etree._Element]) -> list[Piece]:
        """Elements between brackets, separated by commas."""
        opening, closing = element.get("open", "(").strip(), element.get("close", ")").strip()
        if len(children) == 1 and _name(children[0]) == "mtable":
            if not (opening and closing):
                raise NotSimple
            inside = self.matrix(children[0])
        else:
            separator = (element.get("separators", ",").split() or [""])[0][:1]
            inside = (separator + " " if separator else "").join(map(self.text, children))
        return [Piece(opening, "open"), Piece(inside, "operand"), Piece(closing, "close")]


def joined(pieces: Sequence[Piece]) -> str:
    """A line: operators between spaces, factors with a space between them, a fraction in parentheses where it
    would run into what follows it."""
    line, last, open_bars, spaced = "", START, 0, False
    row = [piece for piece in pieces if piece.kind != "none"]
    for number, piece in enumerate(row):
        text, kind = piece
        starts = last.kind in ("open", "infix", "comma", "tight")
        following = next((each for each in row[number + 1 :] if each.kind not in ("space", "gap")), END)
        if kind == "gap" and last.kind in (*OPERANDS, "close") and following.kind in OPERANDS:
            text, kind = ",", "comma"
        if kind in ("space", "gap"):
            spaced = not starts
            continue
        if kind == "bar":
            kind = "open" if starts else "close" if open_bars else "tight"
            open_bars += {"open": 1, "close": -1, "tight": 0}[kind]
        if kind == "infix" and starts and text in SIGNS:
            kind = "tight"
        runs_on = following.kind in (*OPERANDS, "open", "tight") and following.text != "."
        runs_on = runs_on and "gap" not in [each.kind for each in row[number + 1 : number + 2]]
        if kind == "fraction" and (last.text in ("/", "÷") or runs_on):
            text = f"({text})"
        if "infix" in (kind, last.kind):
            spaced = bool(line)
        elif last.kind == "comma":
            spaced = kind != "close"
        elif last.kind in (*OPERANDS, "close") and kind in OPERANDS:
            spaced = spaced or not kind == last.kind == "number"
        elif last.kind in ("fraction", "large") and kind == "open":
            spaced = True
        line += " " * (spaced and kind not in ("close", "comma")) + text
        last, spaced = Piece(piece.text, kind), False
    return line


def enclosed(pieces: Sequence[Piece]) -> str:
    """A line in parentheses, unless it is one operand or has brackets around it already."""
    text = joined(pieces)
    if not text:
        raise NotSimple
    shown = [piece for piece in pieces if piece.kind not in ("none", "space")]
    plain = len(shown) == 1 and shown[0].kind != "fraction" and " " not in text
    return text if plain or _has_brackets(text) else f"({text})"


def _has_brackets(text: str) -> bool:
    """Whether the first bracket of a text is closed by its last sign."""
    opening, closing = text[:1], BRACKETS.get(text[:1])
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == opening) - (sign == closing)
        if depth == 0:
            return closing is not None and place == len(text) - 1
    return False


def _operand(element: etree._Element) -> list[Piece]:
    text = _text(element)
    if not text:
        return [Piece("", "space")]
    number = _name(element) == "mn"
    return [Piece(text, "number" if number else "function" if text in FUNCTIONS else "operand")]


def _operator(element: etree._Element) -> list[Piece]:
    text = _text(element)
    if not text:
        return [Piece("", "space")]
    if text in FUNCTIONS:
        return [Piece(text, "function")]
    if text not in KINDS and len(text) == 1 and unicodedata.category(text) == "Sm":
        return [Piece(text, "infix")]
    return [Piece(text, "close" if set(text) <= PRIMES else KINDS.get(text, "operand"))]


def _ems(width: str) -> float:
    found = re.fullmatch(r"\s*(\d*\.?\d+)em\s*", width)
    return float(found[1]) if found else 0.0


def _unwrapped(element: etree._Element) -> etree._Element:
    """The only element in rows around it."""
    while _name(element) in ROWS and len(children := _children(element)) == 1:
        element = children[0]
    return element


def _name(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _children(element: etree._Element) -> list[etree._Element]:
    return [child for child in element.iterchildren("*") if _name(child) not in NOT_READ]


def _text(element: etree._Element) -> str:
    return " ".join("".join(map(str, element.itertext())).split())
