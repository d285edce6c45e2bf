"""United States grants of 1976 to 2001 as APS text (the "green book"): fields under codes of 3 or 4 letters.

    PATN                    a group; the first one begins a document
    WKU  039373754          a field from column 6, here the number with a check digit
    ABST
    PAL  A unit mountable on a rear bumper of a vehicle, and which does not
          interfere with the conventional trailer hookup        (a line from column 7 continues)

Characters outside ASCII are written between full stops, as in the BRS text: `.alpha.`, `.times.`, `CO.sub.2`;
formulas are separate files, replaced by `##EQU1##`.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from data import claim_numbers
from data.readers.offices import patent_xml
from data.readers.offices.uspto_st32 import in_columns, without_zeros
from data.record import Noted, Record, assemble, bad_bytes
from data.stream import Content, decoded

BEGINNING = re.compile(rb"PATN\s|HHHHHT")
MARK = b"PATN"

FIELD = re.compile(r"([A-Z][A-Z0-9]{1,3})(?: +(.*))?$")
TEXT_FIELD = re.compile(r"PA[A-Z0-9]|TBL\d?|EQU|STM|NUM")
"""Fields of the groups of text: paragraphs (`PAR`, `PAC` a heading, `PA1` indented, …), tables, claims."""
GROUPS = frozenset(
    (
        "PATN", "INVT", "ASSG", "PRIR", "REIS", "RLAP", "CLAS", "UREF", "FREF", "OREF", "LREP", "PCTA",
        "ABST", "GOVT", "PARN", "BSUM", "DRWD", "DETD", "CLMS", "DCLM",
    )
)  # fmt: skip
OF_TEXT = frozenset(("ABST", "GOVT", "PARN", "BSUM", "DRWD", "DETD", "CLMS", "DCLM"))
DESCRIPTION = ("PARN", "GOVT", "BSUM", "DRWD", "DETD")
KINDS = {"D": "S", "PP": "P", "RE": "E", "H": "H", "T": "I5"}
"""WIPO ST.16 kind by the letters of a number; a number without letters is a patent, A."""

SIGNS = {
    "about": "~", "ang": "Å", "ANG": "Å", "apprxeq": "≅", "circle": "○", "circle-solid": "●", "cndot": "·",
    "dbd": "=", "degree": "°", "DELTA": "Δ", "differential": "∂", "div": "÷", "fwdarw": "→", "GAMMA": "Γ",
    "gradient": "∇", "gtoreq": "≥", "infin": "∞", "intg": "∫", "LAMBDA": "Λ", "ltoreq": "≤", "multidot": "·",
    "noteq": "≠", "OMEGA": "Ω", "perp": "⊥", "PHI": "Φ", "PI": "Π", "PSI": "Ψ", "rarw": "←", "reg": "®",
    "revreaction": "⇌", "sctn": "§", "SIGMA": "Σ", "sqroot": "√", "tbd": "≡", "THETA": "Θ", "times": "×",
    "varies": "∝", "sym": "⊕", "crclbar": "⊖", "angle": "∠", "gtorsim": "≳", "ltorsim": "≲", "ident": "≡",
    "RTM": "®", "TM": "™", "XI": "Ξ", "+-": "±", "-+": "∓",
    "COPYRGT": "©", "cent": "¢", "English Pound": "£", "permill": "‰", "dagger": "†", "dagger-dbl": "‡",
    "uparw": "↑", "dwnarw": "↓", "parallel": "∥", "thrfore": "∴", "BECAUSE": "∵", "di-elect cons": "∈",
    "andgate": "∩", "orgate": "∪", "A-inverted": "∀", "E-backward": "∃", "perspectiveto": "≃",
    "notident": "≢", "apprch": "≐", "congruent": "≅", "smallcircle": "∘", "largecircle": "◯",
    "circle-w/dot": "⊙", "quadrature": "□", "box-solid": "▪", "tangle-solidup": "▴", "star-solid": "★",
    "diamond": "⋄", "diamond-solid": "♦", "ae butted": "æ", "UPSILON": "Υ", "lamda": "λ", "omicron": "ο",
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η",
    "theta": "θ", "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π",
    "rho": "ρ", "sigma": "σ", "tau": "τ", "upsilon": "υ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
SIGN = re.compile(r"\.(" + "|".join(map(re.escape, sorted(SIGNS, key=len, reverse=True))) + r")\.")
INDEX = re.compile(r"\.(su[bp])\.([+-]?\d+(?:[-,.]\d+)*(?:[+-](?!\w))?|[+-]|\([^()\s]*\)|[^\W\d]+|[⊕⊖∠®™°])")
OBJECT = re.compile(r"##([A-Z]+)\d*##")
OBJECTS = {"EQU": "[formula]", "STR": "[chemistry]"}
DELETED = re.compile(r"\.\[\..*?\.\]\.", re.DOTALL)
"""What a reissue takes out, 37 CFR 1.173: `.[.ply/wood.].`; what it puts in is `.Iadd.plywood.Iaddend.`."""
ADDED = re.compile(r"\.\[\.|\.\]\.|\.Iadd(?:end)?\.")
ADDED_CLAIM = re.compile(r"(?:\.Iadd\.|(?<=[.;]) )\s*(\d{1,3})\s*\.\s+(?=[A-Z])")
RULE = re.compile(r"[\s_=-]*")
"""A line across a table."""


class Field(NamedTuple):
    """A field: its code and its lines; a group has none."""

    code: str
    lines: list[str]


def split(content: Content, mark: bytes) -> Iterator[patent_xml.Document]:
    """The documents of a file, each from a line that begins with `mark`; memory holds one at a time."""
    lines: list[bytes] = []
    start = offset = 0
    for line in content.file:
        if line.startswith(mark):
            if lines:
                yield patent_xml.Document(f"{content.name}#{start}", start, b"".join(lines))
            lines, start = [line], offset
        elif lines:
            lines.append(line)
        offset += len(line)
    if lines:
        yield patent_xml.Document(f"{content.name}#{start}", start, b"".join(lines))


def read(document: patent_xml.Document, noted: list[Noted]) -> list[Record]:
    """The grant's record, none if it has no text; adds the codes that it does not know, and bad bytes, to
    `noted`."""
    groups = grouped(document, noted)
    if b".[." in document.data:
        groups |= _without_deletions({name: groups[name] for name in groups if name in OF_TEXT})
    head = {field.code: paragraph(field) for field in reversed(groups["PATN"])}
    number = without_zeros(head.get("WKU", "")[:8])  # without the check digit
    letters = re.match(r"[A-Z]*", number or "")
    applied = head.get("APN")
    classes = groups.get("CLAS", [])
    return assemble(
        source=document.source,
        office="US",
        number=number,
        kind=KINDS.get(letters[0], "A") if letters else None,
        date=patent_xml.iso_date(head.get("ISD")),
        applied=f"{head.get('SRC', '').zfill(2)}{applied[:6]}" if applied else None,
        filed=patent_xml.iso_date(head.get("APD")),
        priority=[
            patent_xml.iso_date(field.lines[0])
            for name in ("PRIR", "RLAP")
            for field in groups.get(name, ())
            if field.code == "APD"
        ],
        cites=_cited(groups),
        language="en",
        title=head.get("TTL"),
        abstract=_text(groups.get("ABST", ())),
        claims=_claims(groups.get("CLMS") or groups.get("DCLM") or []),
        description=_text(field for name in DESCRIPTION for field in groups.get(name, ())),
        ipc=patent_xml.ipc_symbols(in_columns(field.lines[0]) for field in classes if field.code == "ICL"),
    )


def fields(document: patent_xml.Document, noted: list[Noted]) -> list[Field]:
    """The fields and groups of a document, in order; bad bytes are added to `noted`."""
    found: list[Field] = []
    text, bad = decoded(document.data, document.offset)
    if bad:
        noted.append(bad_bytes(document.source, bad))
    for line in text.splitlines():
        if start := FIELD.match(line):
            found.append(Field(start[1], [start[2] or ""]))
        elif found:
            found[-1].lines.append(line)
    return found


def grouped(document: patent_xml.Document, noted: list[Noted]) -> dict[str, list[Field]]:
    """The fields of each group. In a group of text, an unknown code and its lines are text of the open
    field; elsewhere an unknown code is a field or a group that nothing reads."""
    groups: dict[str, list[Field]] = {}
    name = ""
    for field in fields(document, noted):
        group = groups.setdefault(name, [])
        if field.code in GROUPS:
            name = field.code
            groups.setdefault(name, [])
        elif name not in OF_TEXT:
            if len(field.code) == 4:
                name = field.code
            else:
                group.append(field)
        elif TEXT_FIELD.fullmatch(field.code):
            group.append(field)
        else:
            noted.append(Noted(document.source, "unknown-field", field.code))
            lines = [f"{field.code} {field.lines[0]}".rstrip(), *field.lines[1:]]
            if group:
                group[-1].lines.extend(lines)
            else:
                group.append(Field("PAR", lines))
    return groups


def paragraph(field: Field) -> str:
    """A field's text on one line, or a table's line by line with tabs between its columns."""
    if not field.code.startswith("TBL"):
        return plain(" ".join(" ".join(field.lines).split()))
    rows = (re.split(r" {2,}", line.strip()) for line in field.lines if not RULE.fullmatch(line))
    return plain("\n".join("\t".join(cells) for cells in rows))


def plain(text: str) -> str:
    """The text with symbols, indices and formulas written in Unicode."""
    if ".I" in text or ".[." in text:
        text = re.sub(" {2,}", " ", ADDED.sub("", DELETED.sub("", text))).strip(" ")
    text = SIGN.sub(lambda sign: SIGNS[sign[1]], text)
    text = INDEX.sub(lambda found: patent_xml.index(found[2], up=found[1] == "sup"), text)
    return OBJECT.sub(lambda found: OBJECTS.get(found[1], "[image]"), text)


def _without_deletions(groups: dict[str, list[Field]]) -> dict[str, list[Field]]:
    """The groups without what the reissue takes out, which may begin in one field and end in another."""
    whole = "\f".join("\v".join(field.lines) for group in groups.values() for field in group)
    left = iter(DELETED.sub(lambda deleted: re.sub(r"[^\v\f]", "", deleted[0]), whole).split("\f"))
    return {
        name: [Field(field.code, next(left).split("\v")) for field in group] for name, group in groups.items()
    }


def _cited(groups: dict[str, list[Field]]) -> Iterator[str]:
    """United States patents (`UREF`), and foreign ones (`FREF`), whose country is three letters: `DEX`."""
    yield from (f"US-{field.lines[0].strip()}" for field in groups.get("UREF", ()) if field.code == "PNO")
    number = ""
    for field in groups.get("FREF", ()):
        if field.code == "PNO":
            number = field.lines[0].strip()
        elif field.code == "CNT":
            yield f"{field.lines[0][:2]}-{number}"


def _text(group: Iterable[Field]) -> str | None:
    return "\n".join(filter(None, map(paragraph, group))) or None


def _claims(group: list[Field]) -> dict[int, str]:
    """One text for each `NUM`; a design has one claim without a number. `STM` is the phrase before them."""
    claims: list[list[str]] = []
    for field in group:
        if field.code == "NUM" or (not claims and field.code != "STM"):
            claims.append([])
        if field.code not in ("NUM", "STM"):
            text, *added = _added_claims(field, len(claims) + 1)
            claims[-1].append(paragraph(text))
            claims += [[paragraph(claim)] for claim in added]
    return claim_numbers.numbered("\n".join(claim) for claim in claims)


def _added_claims(field: Field, expected: int) -> list[Field]:
    """The field, and the claims that a reissue adds after it in the same field, which begin with `expected`
    and the numbers after it."""
    text = " ".join(" ".join(field.lines).split())
    if ".Iadd." not in text:
        return [field]
    starts = [0]
    for start in ADDED_CLAIM.finditer(text, text.index(".Iadd.")):
        if int(start[1]) == expected:
            starts.append(start.start())
            expected += 1
    return [Field(field.code, [text[a:b]]) for a, b in zip(starts, [*starts[1:], None], strict=True)]
