"""HTML reports: tables, bars, interval plots and texts side by side; one file, no scripts, no requests.

    text, numbers ──table, bars, estimates, pair, …──▶ HTML of each part ──section, page──▶ one HTML file

The markup is in html_report.html.jinja, which escapes every text. What the functions here return is HTML
(markupsafe's Markup) and is inserted unchanged.
"""

import difflib
import functools
import itertools
import math
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from markupsafe import Markup

INTERVAL = re.compile(r" (\([^()]* – [^()]*\))")
MOST_STEPS = 2_000_000
"""Steps (0.3 s) for the differences of two texts; what is not aligned by then is marked as changed."""

LOGARITHMIC = 8
"""How many times the smallest number the largest is from which on an axis is logarithmic."""
LEFT, RIGHT, HIGH, LOW = 17.0, 95.0, 4.0, 86.0
"""Where the points of a chart end, in percent of its width and height."""
NUDGE = 0.7
"""Percent of the width between curves, so that their bars do not hide each other."""
COLOURS = 6
WIDEST = 2.0
"""Width of a character, in percent of the narrowest chart."""

Segment = tuple[str, str]
"""A part of a text, and its tag: `del`, `ins`, or empty if both texts have it."""


Aligned = tuple[bool, int, int, int, int]


class Estimate(NamedTuple):
    """A number with its interval, whose ends are NaN if there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{self.value:.4g} (no interval)"
        return f"{self.value:.4g} ({self.low:.4g} – {self.high:.4g})"


class Line(NamedTuple):
    """One line of a plot: an estimate, optionally the one to compare it with, and the score of guessing."""

    name: str
    own: Estimate
    other: Estimate | None = None
    chance: float | None = None
    note: str = ""


class Plot(NamedTuple):
    """A line as it is drawn: positions on its axis are percentages of its width."""

    name: str
    label: str
    captions: list[str]
    axis: str
    zero: str
    chance: str | None
    intervals: list[tuple[str, str, str, str, str]]
    """Class, height, and positions of value, low and high end."""


class Chart(NamedTuple):
    """A chart as it is drawn: places are percentages of its width and height."""

    label: str
    curves: list[tuple[str, str, list[tuple[str, ...]], list[tuple[tuple[str, ...], tuple[str, ...]]]]]
    """Class, name, points (x, value, low and high end), and pairs of neighbours."""
    rows: list[tuple[str, str]]
    columns: list[tuple[str, str]]
    """Numbers on the axes, and their places."""
    scale: str


class Curve(NamedTuple):
    """A line of a chart: its name, and an estimate at each place that it has."""

    name: str
    points: Mapping[float, Estimate]


def page(title: str, sections: Iterable[str]) -> str:
    """A complete HTML document."""
    return str(_render("page", title, list(sections)))


def section(title: str, *content: str) -> "Markup":
    """A heading (h2) and its content."""
    return _render("section", title, content)


def heading(text: str) -> "Markup":
    """A heading within a section (h3)."""
    return _render("heading", text)


def paragraph(text: str) -> "Markup":
    """A paragraph."""
    return _render("paragraph", text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> "Markup":
    """A table. Numbers are right-aligned with thousands separators; an interval goes below its number."""
    return _render("table", list(map(_cell, header)), [list(map(_cell, row)) for row in rows])


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table for the terminal."""
    cells = [
        [f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in [header, *rows]
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    numeric = [all(isinstance(value, int) for value in column) for column in columns]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )


def bars(values: Mapping[str, int]) -> "Markup":
    """A horizontal bar for each number, relative to the largest."""
    largest = max(values.values(), default=0) or 1
    rows = [(name, f"{100 * value / largest:.2f}%", f"{value:,}") for name, value in values.items()]
    return _render("bars", rows)


def estimates(lines: Sequence[Line], names: tuple[str, str] = ("", ""), shared: bool = False) -> "Markup":
    """A plot, one line for each number: points, 95% intervals, and a dashed mark at the score of guessing.

    `names` are those of `own` (blue) and `other` (grey). Each line has its own axis, labelled with its ends,
    unless the axis is `shared`. An axis ends at 1, 2 or 5 times a power of ten. It starts at 0, or is
    symmetric around 0 if any number is negative.
    """
    axes = [_axis(lines)] * len(lines) if shared else [_axis([line]) for line in lines]
    return _render("estimates", [_plot(line, axis, names) for line, axis in zip(lines, axes, strict=True)])


def chart(label: str, curves: Sequence[Curve], ticks: Mapping[float, str]) -> "Markup":
    """Scores against a number: a line for each curve, its points with bars for their 95% intervals.

    `ticks` names the numbers on the axis, which is logarithmic if all are positive and the largest is at
    least LOGARITHMIC times the smallest. The other axis ends at round numbers beside the intervals.
    """
    return _render("chart", drawn_chart(label, curves, ticks))


def links(addresses: Mapping[str, str]) -> "Markup":
    """A list of links: text to address, relative to the page."""
    return _render("links", list(addresses.items()))


def folded(summary: str, *content: str) -> "Markup":
    """Content that opens on a click on its summary."""
    return _render("folded", summary, content)


def preformatted(text: str) -> "Markup":
    """Text with its line breaks."""
    return _render("preformatted", text)


def pair(
    summary: str, before: str, after: str, names: tuple[str, str] = ("before", "after"), *above: str
) -> "Markup":
    """Two texts side by side with their differences marked, folded under `summary`, below `above`."""
    return folded(summary, *above, _render("pair", names, mark_differences(before, after)))


def mark_differences(before: str, after: str) -> tuple["Markup", "Markup"]:
    """Both texts as HTML: what changed within a line is in <del> and <ins>."""
    old, new = before.splitlines(), after.splitlines()
    left: list[list[Segment]] = []
    right: list[list[Segment]] = []
    budget = [MOST_STEPS]
    for equal, i1, i2, j1, j2 in _aligned(old, new, budget):
        if equal:
            left += [[("", line)] for line in old[i1:i2]]
            right += [[("", line)] for line in new[j1:j2]]
            continue
        for k in range(max(i2 - i1, j2 - j1)):
            mine = old[i1 + k] if i1 + k < i2 else None
            theirs = new[j1 + k] if j1 + k < j2 else None
            deleted, inserted = _compare_lines(mine or "", theirs or "", budget)
            left += [deleted] if mine is not None else []
            right += [inserted] if theirs is not None else []
    return _render("marked", _join(left)), _render("marked", _join(right))


@functools.cache
def _macros() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("html_report.html.jinja").module


def _render(macro: str, *arguments: object) -> "Markup":
    from markupsafe import Markup

    return Markup(getattr(_macros(), macro)(*arguments))


def _cell(value: object) -> tuple[bool, list[str]]:
    """Whether the value is a number, and its text: text, interval, text, …"""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return True, [f"{value:,}"]
    return False, INTERVAL.split(str(value))


def _join(lines: Sequence[Sequence[Segment]]) -> list[Segment]:
    return [each for i, line in enumerate(lines) for each in ([("", "\n")] if i else []) + list(line)]


def _compare_lines(old: str, new: str, budget: list[int]) -> tuple[list[Segment], list[Segment]]:
    left, right = [], []
    for equal, i1, i2, j1, j2 in _aligned(old, new, budget):
        left += [("" if equal else "del", old[i1:i2])] if i1 < i2 else []
        right += [("" if equal else "ins", new[j1:j2])] if j1 < j2 else []
    return left, right


def _aligned(old: Sequence[str], new: Sequence[str], budget: list[int]) -> Iterator[Aligned]:
    """Whether a part of both is equal, and its ends in both: difflib's blocks, largest first, while the steps
    of `budget` last. Text that repeats itself takes difflib the third power of its length."""
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    places = Counter(new)
    steps = [0, *itertools.accumulate(1 + places[item] for item in old)]
    start = _common(zip(old, new, strict=False))
    end = _common(zip(reversed(old[start:]), reversed(new[start:]), strict=False))
    blocks = [(0, 0, start), (len(old) - end, len(new) - end, end)]
    ranges = deque([(start, len(old) - end, start, len(new) - end)])
    while ranges:
        i1, i2, j1, j2 = ranges.popleft()
        if i1 == i2 or j1 == j2 or steps[i2] - steps[i1] > budget[0]:
            continue
        budget[0] -= steps[i2] - steps[i1]
        i, j, size = matcher.find_longest_match(i1, i2, j1, j2)
        if size:
            blocks.append((i, j, size))
            ranges += [(i1, i, j1, j), (i + size, i2, j + size, j2)]
    i1 = j1 = 0
    for i, j, size in sorted(blocks):
        if i1 < i or j1 < j:
            yield False, i1, i, j1, j
        if size:
            yield True, i, i + size, j, j + size
        i1, j1 = i + size, j + size


def _common(pairs: Iterable[tuple[str, str]]) -> int:
    """How many of the first pairs are equal."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _plot(line: Line, axis: tuple[float, float], names: tuple[str, str]) -> Plot:
    left, right = axis

    def position(number: float) -> str:
        """A position on the axis; what is infinite is drawn at its end."""
        share = (number - left) / (right - left) if math.isfinite(number) else 1.0
        return f"{100 * min(1.0, max(0.0, share)):.2f}%"

    captions = [f"{names[0]} {line.own}".strip()]
    captions += [f"{names[1]} {line.other}".strip()] if line.other else []
    captions += [line.note] if line.note else []
    return Plot(
        line.name,
        f"{line.name}: {'; '.join(captions)}",
        captions,
        f"{left:g} to {right:g}",
        position(0),
        None if line.chance is None else position(line.chance),
        [
            (kind, y, position(each.value), position(each.low), position(each.high))
            for each, kind, y in ((_drawn(line.own), "own", "30%"), (_drawn(line.other), "other", "65%"))
            if each
        ],
    )


def drawn_chart(label: str, curves: Sequence[Curve], ticks: Mapping[float, str]) -> Chart:
    """The places of everything in a chart."""
    numbers = sorted(ticks)
    logarithmic = numbers[0] > 0 and numbers[-1] >= LOGARITHMIC * numbers[0]
    places = {each: math.log(each) if logarithmic else each for each in numbers}
    first, width = places[numbers[0]], (places[numbers[-1]] - places[numbers[0]]) or 1.0
    ends = [end for curve in curves for each in curve.points.values() for end in each if math.isfinite(end)]
    bottom, step, steps = _round_axis(min(ends), max(ends))
    height = step * steps

    def across(number: float, nudge: float) -> str:
        return f"{LEFT + (RIGHT - LEFT) * (places[number] - first) / width + nudge:.2f}%"

    def up(number: float) -> str:
        share = min(1.0, max(0.0, (number - bottom) / height))
        return f"{LOW - (LOW - HIGH) * share:.2f}%"

    lines = []
    for place, curve in enumerate(curves):
        nudge = NUDGE * (place - (len(curves) - 1) / 2)
        points = [
            (across(number, nudge), *(up(each) for each in _drawn(curve.points[number]) or ()))
            for number in numbers
            if number in curve.points
        ]
        lines.append((f"c{place % COLOURS}", curve.name, points, list(itertools.pairwise(points))))
    rows = [(f"{bottom + step * i:.6g}", up(bottom + step * i)) for i in range(steps + 1)]
    columns = [(ticks[number], across(number, 0.0)) for number in numbers]
    return Chart(label, lines, rows, _apart(columns), "logarithmic" if logarithmic else "")


def _apart(columns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The names below an axis without those that would touch the one before on a narrow page."""
    shown: list[tuple[str, str]] = []
    end = -math.inf
    for name, place in columns:
        middle, half = float(place[:-1]), 1.0 + WIDEST * len(name) / 2
        shown.append((name if middle - half >= end else "", place))
        end = middle + half if shown[-1][0] else end
    return shown


def _round_axis(low: float, high: float) -> tuple[float, float, int]:
    """Start, step and number of steps of an axis: few steps of 1, 2 or 5 times a power of ten."""
    spread = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / 3))
    step = next(each * power for each in (1, 2, 5, 10) if spread / (each * power) <= 5.5)
    start = math.floor(low / step + 1e-9)
    return start * step, step, max(1, math.ceil(high / step - 1e-9) - start)


def _drawn(estimate: Estimate | None) -> Estimate | None:
    """Without an interval only the point is drawn."""
    if estimate is None or not (math.isnan(estimate.low) or math.isnan(estimate.high)):
        return estimate
    return Estimate(*[estimate.value] * 3)


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
