"""The one writer of HTML reports: a page that needs no network, no script, and reads well on a desk and a
phone.

Sections are strings of HTML that the functions here return; everything that comes from data goes through
`escape`.
"""

import difflib
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bar: #4a7ab5; --less: #c0392b33; --more:
#27ae6033 } body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0
1rem } h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem } .scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } th, td { padding: .25rem .7rem;
border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap } th { white-space:
normal; vertical-align: bottom } td.number, th.number {
text-align: right } .bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .2rem
.7rem; max-width: 44rem } .bars div { background: var(--bar); height: 1rem; align-self: center; min-width:
1px; border-radius: 2px } details { border-bottom: 1px solid var(--line); padding: .4rem 0 } .pair {
display: grid; grid-template-columns: 1fr 1fr; gap: 1rem } .pair pre { white-space: pre-wrap; overflow-wrap:
anywhere; background: var(--soft); padding: .7rem; margin: .3rem 0 } del { background: var(--less) } ins {
background: var(--more) } del, ins { text-decoration: none } td:first-child { white-space: normal;
min-width: 6rem; max-width: 24rem } pre { white-space: pre-wrap; overflow-wrap: anywhere } .estimates {
display: grid; grid-template-columns: max-content 1fr max-content; gap: .1rem .8rem; max-width: 60rem;
align-items: center } .estimates svg { width: 100%; height: 2.2rem; display: block; overflow: visible } svg
line { stroke: var(--line); stroke-width: 1 } svg .own { stroke: var(--bar); fill: var(--bar); stroke-width:
2.5 } svg .other { stroke: #888; fill: #888; stroke-width: 2.5 } svg .chance { stroke: #c0392b;
stroke-width: 1.5; stroke-dasharray: 3 3 } .estimates small { display: block; color: #888 } @media
(max-width: 45rem) { .pair { grid-template-columns: 1fr } .estimates { grid-template-columns: 1fr; gap: 0 }
.estimates span { overflow-wrap: anywhere } .estimates .figure { margin-bottom: .9rem } }
"""
INTERVAL = re.compile(r" (\([^()]* – [^()]*\))")
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a page may load: nothing, whatever text of a model or a corpus stands in it."""


class Estimate(NamedTuple):
    """A number with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} – {self.high:.4g})"


class Line(NamedTuple):
    """A line of a plot: an estimate, another one to see it against, and what guessing gives."""

    name: str
    own: Estimate
    other: Estimate | None = None
    chance: float | None = None
    note: str = ""


def page(title: str, sections: Iterable[str]) -> str:
    """A whole HTML document."""
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def section(title: str, *content: str) -> str:
    """A heading and what stands below it."""
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(content)


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers stand to the right, with thousands marked; an interval stands below its number."""

    def cell(value: object, tag: str) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f'<{tag} class="number">{value:,}</{tag}>'
        text = INTERVAL.sub(r"<br><small>\1</small>", escape(str(value)))
        return f"<{tag}>{text}</{tag}>"

    lines = ["".join(cell(value, "td") for value in row) for row in rows]
    top = "".join(cell(name, "th") for name in header)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The same table for a terminal."""
    cells = [
        [f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in [header, *rows]
    ]
    numeric = [all(isinstance(value, int) for value in column) for column in zip(*rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )


def bars(values: Mapping[str, int]) -> str:
    """A bar for each number, the longest as wide as there is room."""
    largest = max(values.values(), default=0) or 1
    rows = [
        f"<span>{escape(name)}</span>"
        f'<div style="width:{100 * value / largest:.2f}%"></div><span>{value:,}</span>'
        for name, value in values.items()
    ]
    return f'<div class="bars">{"".join(rows)}</div>'


def estimates(lines: Sequence[Line], names: tuple[str, str] = ("", ""), shared: bool = False) -> str:
    """A plot, one line a number: points, their 95% intervals, and a dashed mark where guessing stands.

    `names` are those of the estimates (blue) and of what they are seen against (grey). Each line has an axis
    of its own, whose ends are written beside it, or all share one. An axis ends at 1, 2 or 5 times a power of
    ten; it begins at 0, or lies around 0 where there is a negative number.
    """
    ends = [_axis(lines)] * len(lines) if shared else [_axis([line]) for line in lines]
    rows = []
    for line, (left, right) in zip(lines, ends, strict=True):
        drawn = [f'<line x1="0" y1="95%" x2="100%" y2="95%"/>{_upright(0, left, right)}']
        if line.chance is not None:
            drawn.append(_upright(line.chance, left, right, "chance"))
        drawn += [
            _interval(found, left, right, y, kind)
            for found, y, kind in ((line.own, "30%", "own"), (line.other, "65%", "other"))
            if found
        ]
        words = [f"{names[0]} {line.own}".strip()]
        words += [f"{names[1]} {line.other}".strip()] if line.other else []
        words += [line.note] if line.note else []
        figure = "".join(f"<div>{escape(text)}</div>" for text in words)
        label = escape(f"{line.name}: {'; '.join(words)}")
        rows.append(
            f'<span>{escape(line.name)}</span><svg role="img" aria-label="{label}">{"".join(drawn)}</svg>'
            f'<div class="figure">{figure}<small>axis {left:g} to {right:g}</small></div>'
        )
    return f'<div class="estimates">{"".join(rows)}</div>'


def folded(summary: str, *content: str) -> str:
    """Content that opens under a line."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(content)}</details>"


def preformatted(text: str) -> str:
    """Text whose lines stay as they are."""
    return f"<pre>{escape(text)}</pre>"


def pair(
    summary: str, before: str, after: str, names: tuple[str, str] = ("before", "after"), above: str = ""
) -> str:
    """Two texts side by side, folded under a line, with what one has and the other has not marked; HTML
    `above` stands over them."""
    (left, right), (one, two) = mark_differences(before, after), map(escape, names)
    texts = f'<div class="pair"><div>{one}<pre>{left}</pre></div><div>{two}<pre>{right}</pre></div></div>'
    return folded(summary, above, texts)


def mark_differences(before: str, after: str) -> tuple[str, str]:
    """Both texts as HTML: lines that differ have their own parts marked as deleted and inserted."""
    old, new = before.splitlines(), after.splitlines()
    left, right = [], []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            left += [escape(line) for line in old[i1:i2]]
            right += [escape(line) for line in new[j1:j2]]
            continue
        for k in range(max(i2 - i1, j2 - j1)):
            mine = old[i1 + k] if i1 + k < i2 else None
            theirs = new[j1 + k] if j1 + k < j2 else None
            marked = _mark_line(mine or "", theirs or "")
            left += [marked[0]] if mine is not None else []
            right += [marked[1]] if theirs is not None else []
    return "\n".join(left), "\n".join(right)


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(text)


def _mark_line(old: str, new: str) -> tuple[str, str]:
    if len(old) * len(new) > 4_000_000:  # a comparison by characters would take too long
        return f"<del>{escape(old)}</del>", f"<ins>{escape(new)}</ins>"
    left, right = "", ""
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = escape(old[i1:i2]), escape(new[j1:j2])
        left += gone if tag == "equal" or not gone else f"<del>{gone}</del>"
        right += come if tag == "equal" or not come else f"<ins>{come}</ins>"
    return left, right


def _axis(lines: Sequence[Line]) -> tuple[float, float]:
    numbers = [
        number
        for line in lines
        for number in (*line.own, *(line.other or ()), line.chance or 0.0)
        if math.isfinite(number)
    ]
    largest = max(map(abs, numbers), default=0.0) or 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    end = power * next(step for step in (1, 2, 5, 10) if step * power >= largest * (1 - 1e-9))
    return (-end if min(numbers) < 0 else 0.0), end


def _upright(at: float, left: float, right: float, kind: str = "") -> str:
    x = _percent(at, left, right)
    return f'<line class="{kind}" x1="{x}" y1="5%" x2="{x}" y2="95%"/>'


def _interval(found: Estimate, left: float, right: float, y: str, kind: str) -> str:
    value, low, high = (_percent(number, left, right) for number in found)
    return (
        f'<line class="{kind}" x1="{low}" y1="{y}" x2="{high}" y2="{y}"/>'
        f'<circle class="{kind}" cx="{value}" cy="{y}" r="4"/>'
    )


def _percent(number: float, left: float, right: float) -> str:
    """A place on the axis; what is not finite stands at its end."""
    share = (number - left) / (right - left) if math.isfinite(number) else 1.0
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"
