"""Characters by their entity names: HTML's, and those of ISO 8879 that older publications also use.

The publications before 2005 use entities that their DTD declares; the DTD is never fetched, so the names
are listed here. HTML took over most of the ISO sets, but not the Greek letters of running text (`&agr;`),
bold Greek (`&b.alpha;`) and a few arrows under their old names.
"""

import html
import re

LETTERS = re.findall(r"\w+", "a b g d e z ee th i k l m n x o p r s t u ph kh ps oh")
GREEK = {
    **{f"{name}gr": letter for name, letter in zip(LETTERS, "αβγδεζηθικλμνξοπρστυφχψω", strict=True)},
    **{f"{name.upper()}gr": letter for name, letter in zip(LETTERS, "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ", strict=True)},
    "sfgr": "ς",
    "epsis": "ε",
    "phis": "φ",
    "thetas": "θ",
}
ARROWS = {
    "larr2": "⇇",
    "rarr2": "⇉",
    "uarr2": "⇈",
    "darr2": "⇊",
    "lrarr2": "⇆",
    "rlarr2": "⇄",
    "lrhar2": "⇋",
    "rlhar2": "⇌",
}


def character(reference: str) -> str | None:
    """The characters of `&NAME;`; None if the name is unknown."""
    name = reference.strip("&;").removeprefix("b.")
    if name in GREEK:
        return GREEK[name]
    if name in ARROWS:
        return ARROWS[name]
    found = html.unescape(f"&{name};")
    return None if found == f"&{name};" else found
