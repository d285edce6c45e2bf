"""The one writer of HTML reports: a page that needs no network, no script, and reads well on a desk and a
phone.

Sections are strings of HTML that the functions here return; everything that comes from data goes through
`escape`.
"""

import difflib
import html
from collections.abc import Iterable, Mapping, Sequence

STYLE = """ :root { color-scheme: light dark; --line: #8884; --soft: #8881; --bar: #4a7ab5; --less: #c0392b33;
--more: #27ae6033 } body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding:
0 1rem } h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem } .scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } th, td { padding: .25rem .7rem;
border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap } td.number, th.number {
text-align: right } .bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .2rem
.7rem; max-width: 44rem } .bars div { background: var(--bar); height: 1rem; align-self: center; min-width:
1px; border-radius: 2px } details { border-bottom: 1px solid var(--line); padding: .4rem 0 } .pair { display:
grid; grid-template-columns: 1fr 1fr; gap: 1rem } .pair pre { white-space: pre-wrap; overflow-wrap: anywhere;
background: var(--soft); padding: .7rem; margin: .3rem 0 } del { background: var(--less) } ins { background:
var(--more) } del, ins { text-decoration: none } @media (max-width: 45rem) { .pair { grid-template-columns:
1fr } }
"""


def page(title: str, sections: Iterable[str]) -> str:
    """A whole HTML document."""
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def section(title: str, *content: str) -> str:
    """A heading and what stands below it."""
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(content)


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers stand to the right, with thousands marked."""

    def cell(value: object, tag: str) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f'<{tag} class="number">{value:,}</{tag}>'
        return f"<{tag}>{escape(str(value))}</{tag}>"

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


def pair(summary: str, before: str, after: str) -> str:
    """Two texts side by side, folded under a line, with what one has and the other has not marked."""
    left, right = mark_differences(before, after)
    texts = f'<div class="pair"><div>before<pre>{left}</pre></div><div>after<pre>{right}</pre></div></div>'
    return f"<details><summary>{escape(summary)}</summary>{texts}</details>"


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
