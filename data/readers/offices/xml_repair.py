"""What keeps a document from being parsed though its text is whole: one bad byte, one unknown entity.

`repaired` is called only after a document could not be parsed, so that it costs the others nothing. It
replaces bytes that do not decode and characters that XML forbids by U+FFFD, if they are few, and writes
references to undeclared entities out: known names as their characters, others as the text that stands there
(`&foo;`), which a reader of the text understands as well as the source's, and which can still be repaired.

`entity` gives the characters of one reference. Entities that refer to files, and declared ones that stand for
more than a few characters, are refused: nothing is opened, nothing expands.
"""

import html
import re
from typing import NamedTuple

from data.readers.offices import sgml_entities
from data.record import Noted, Rejected, bad_bytes
from data.stream import REPLACEMENT, Unreadable, are_few, decoded

FORBIDDEN = re.compile(rb"[\x00-\x08\x0e-\x1f]|\xef\xbf[\xbe\xbf]")
"""Characters that XML 1.0 forbids, in UTF-8; without the two white spaces among them."""

SKIPPED_OR_REFERENCE = re.compile(
    rb"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|<\?.*?(?:\?>|\Z)"
    rb"|&(?:#(?P<number>\d{1,9}|x[0-9a-fA-F]{1,8});|(?P<name>[^\W\d][\w.:-]{0,63});)?",
    re.DOTALL,
)
"""What may hold an `&` that is no reference, and references; the end of the text closes what is left open,
so that the search stays linear."""

DECLARED = re.compile(rb"<!ENTITY\s+([^\s%]+)\s")
PREDEFINED = frozenset((b"lt", b"gt", b"amp", b"quot", b"apos"))
SHORT = re.compile(rb"(?:[^<&%]|&#\w{1,8};){0,32}")
"""What a declared entity may stand for: characters, no markup and no other entity."""


class Repaired(NamedTuple):
    """A document in UTF-8 that can be parsed, unless something else is wrong with it."""

    data: bytes
    noted: list[Noted]


def repaired(source: str, data: bytes, encoding: str, start: int) -> Repaired | None:
    """The document, whose root begins at `start`, without bad characters and undeclared entities; None if
    there are none, or too many."""
    try:
        text, bad = decoded(data, name=encoding)
    except (Unreadable, LookupError, UnicodeError):
        return None
    prologue = len(data[:start].decode(encoding, "replace").encode())
    whole, forbidden = FORBIDDEN.subn(REPLACEMENT, text.encode().translate(bytes.maketrans(b"\v\f", b"  ")))
    declared = PREDEFINED.union(DECLARED.findall(whole[:prologue]))
    unknown: dict[str, None] = {}

    def written(found: re.Match[bytes]) -> bytes:
        nonlocal forbidden
        if not found[0].startswith(b"&") or found["name"] in declared:
            return found[0]
        if number := found["number"]:
            if _is_allowed(int(number[1:], 16) if number[:1] == b"x" else int(number)):
                return found[0]
            forbidden += 1
            return REPLACEMENT
        known = sgml_entities.character(found[0].decode()) if found["name"] else None
        if known is None:
            unknown[found[0].decode()] = None
            return b"&amp;" + found[0][1:]
        return html.escape(known).encode()

    body = SKIPPED_OR_REFERENCE.sub(written, whole[prologue:])
    if not are_few(bad + forbidden, len(data)):
        return None
    noted = [bad_bytes(source, bad + forbidden)] if bad + forbidden else []
    noted += [Noted(source, "unknown-entity", reference) for reference in unknown]
    made = whole[:prologue] + body
    return Repaired(made, noted) if noted or made != data else None


def entity(source: str, data: bytes, reference: str) -> str | Rejected | Noted:
    """The characters of `&NAME;`; Noted if the name is unknown and stays as it is, Rejected if it must not be
    read."""
    known = sgml_entities.character(reference)
    if known is not None:
        return known
    name = re.escape(reference.strip("&;").encode())
    declared = re.search(rb"<!ENTITY\s+" + name + rb"\s+(?:SYSTEM|PUBLIC|\"([^\"]*)\"|'([^']*)')", data)
    if declared is None:
        return Noted(source, "unknown-entity", reference)
    value = declared[1] if declared[1] is not None else declared[2]
    if value is None:
        detail = f"{reference} refers to a file; external files are not opened"
        return Rejected(source, "external-entity", detail)
    if not SHORT.fullmatch(value):
        detail = f"the document declares {reference} as more than a few characters; it is not expanded"
        return Rejected(source, "expanding-entity", detail)
    return html.unescape(value.decode("utf-8", "replace"))


def _is_allowed(code: int) -> bool:
    """XML 1.0, production 2."""
    return (
        code in (0x9, 0xA, 0xD)
        or 0x20 <= code <= 0xD7FF
        or 0xE000 <= code <= 0xFFFD
        or 0x10000 <= code <= 0x10FFFF
    )
