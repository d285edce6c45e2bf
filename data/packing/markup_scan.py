"""What looks like markup in packed text: tags, entities, codes of the offices' text formats.

A reader that knows its source leaves none. `scan` counts them in each document; the run and the report show
the sums by source, so that a source of an unknown make does not fill a corpus with `<tb>` unnoticed.
"""

import re

_TAGS = (
    "a|abstract|b|br|chemistry|claim|claim-ref|claim-text|description|div|em|EMI|entry|figref|font|h[1-6]|heading|hr"
    "|html|i|image|img|invention-title|li|math|maths|mfrac|mi|mn|mo|mrow|msub|msup|ol|o|p|patcit|pre|row|sep|small"
    "|span|strong|su[bp]|tables?|tb|tbody|td|tgroup|th|thead|title|tr|tt|u|ul|xref"
)
KINDS = {
    "tags": (("<",), re.compile(rf"</?(?:[\w-]+:)?(?:{_TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)),
    "entities": (("&",), re.compile(r"&(?:[a-z]{2,8}|#\d{2,6}|#x[0-9a-f]{2,5});", re.IGNORECASE)),
    "APS codes": (
        (".sub.", ".sup.", ".Iadd", ".[.", "##"),
        re.compile(r"\.su[bp]\.|\.Iadd(?:end)?\.|\.\[\.|##(?:EQU|STR)\d+##"),
    ),
    "invisible characters": (
        ("\u200b", "\u2060", "\ufeff", "\ufffe"),
        re.compile("[\u200b\u2060\ufeff\ufffe]"),
    ),
    "doubled headings": (("\n",), re.compile(r"^(?!\[)([^\n]{3,60})\n\1$", re.MULTILINE)),
}
"""By the name in the report: texts of which every match has one, and the pattern."""


def scan(text: str) -> dict[str, int]:
    """How many of each kind a text has; only those that it has."""
    found = {
        kind: sum(1 for _ in pattern.finditer(text))
        for kind, (parts, pattern) in KINDS.items()
        if any(part in text for part in parts)
    }
    return {kind: number for kind, number in found.items() if number}
