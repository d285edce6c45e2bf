"""What the readers of XML share: splitting, parsing, text, and the notations that all offices use.

`split` cuts a weekly bulk file, many documents one after the other, without holding it in memory. `parse`
turns one document into a tree and writes the layout into it as plain text: line breaks, indices,
placeholders, table rows. Only the few elements that need it are touched, so that `text` can take a whole
section in one step of C code.

Nothing is ever fetched: no DTD, no external entity, no network, and libxml2's limits on depth, size and
amplification stay on (https://gitlab.gnome.org/GNOME/libxml2/-/wikis/Security).
"""

import html
import io
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lxml import etree

from data.formats import Rejected
from data.formats.content import CHUNK_BYTES

DOCUMENT_BYTES = 256 << 20
"""The longest document that is read: libxml2 takes about ten times its size in memory."""

START = re.compile(rb"<\?xml\s")  # <?xml-stylesheet …?> belongs to its document

MISLABELLED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']utf-?16", re.IGNORECASE)
"""A declaration of UTF-16 that can be read as ASCII is wrong, or was right before `content.as_utf8`."""

BREAK = "\u2028"  # Unicode's LINE SEPARATOR: a line break that is not the source's own wrapping
CELL = "\ufdd0"  # a noncharacter, which Unicode leaves to private use: the border of two table cells

AROUND = {
    **dict.fromkeys(
        ("p", "heading", "title", "claim-text", "table", "ul", "ol", "sl", "dl", "li"), (BREAK, BREAK)
    ),
    **dict.fromkeys(("df", "che", "chr"), (BREAK, BREAK)),  # formulas in plain characters
    "br": (BREAK, ""),
    "break": (BREAK, ""),
    "dt": (BREAK, ""),
    "dd": (" ", BREAK),
    "frac": ("(", ")"),
    "over": (" / ", ""),
    "fence": ("(", ")"),
    "sqrt": ("√(", ")"),
}
"""What is written before and after an element's text."""

PLACEHOLDERS = {"maths": "[formula]", "math": "[formula]", "chemistry": "[chemistry]", "img": "[image]"}

# Digits and signs only: Unicode's letters are too few, and x_i beside x_q reads better than xᵢ beside x_q.
SUBSCRIPTS = dict(zip("0123456789+-−–=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₋₌₍₎", strict=True))
SUPERSCRIPTS = dict(zip("0123456789+-−–=()®™°", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁼⁽⁾®™°", strict=True))

TOUCHED = tuple(f"{{*}}{name}" for name in (*AROUND, *PLACEHOLDERS, "sub", "sup", "row"))

# Declaration, comments, DOCTYPE with its internal subset, then the root's name; possessive: linear in time.
PROLOGUE = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>)*+<([\w:.-]+)", re.DOTALL
)


class Document(NamedTuple):
    """One XML document of a file."""

    source: str
    """The file, and `#OFFSET` where it holds several documents."""
    offset: int
    """Where it starts in the file, in bytes."""
    data: bytes


def split(name: str, file: io.BufferedReader) -> Iterator[Document | Rejected]:
    """Yield a file's documents, each from one XML declaration to the next; memory holds one at a time.

    A document longer than DOCUMENT_BYTES is passed over and rejected.
    """
    buffer = bytearray()
    offset = 0  # of the buffer's first byte in the file
    searched = 1  # the buffer's own declaration is not the next one
    passed = 0  # bytes of a document that is too long
    several = False
    while chunk := file.read1(CHUNK_BYTES):
        buffer += chunk
        while found := START.search(buffer, searched):
            end = found.start()
            if passed or offset or buffer[:end].strip(b"\xef\xbb\xbf \t\r\n"):
                yield _document(f"{name}#{offset - passed}", offset - passed, bytes(buffer[:end]), passed)
                several = True
            del buffer[:end]
            offset, searched, passed = offset + end, 1, 0
        searched = max(1, len(buffer) - 5)
        if len(buffer) > DOCUMENT_BYTES:
            offset, passed = offset + searched, passed + searched
            del buffer[:searched]
            searched = 0
    if buffer:
        start = offset - passed
        yield _document(f"{name}#{start}" if several else name, start, bytes(buffer), passed)


def _document(source: str, offset: int, data: bytes, passed: int) -> Document | Rejected:
    if passed:
        return Rejected(source, "too-long", f"a document of {passed + len(data):,} bytes")
    if MISLABELLED.match(data):
        data = b'<?xml version="1.0"' + data[data.index(b"?>") :]
    return Document(source, offset, data)


def root_name(data: bytes) -> str | None:
    """The root element's name without its prefix, found without parsing; None where there is none."""
    found = PROLOGUE.match(data)
    return found[1].rpartition(b":")[2].decode("utf-8", "replace") if found else None


def parse(document: Document) -> etree._Element | Rejected:
    """The document's tree with its layout written out as text, or why it cannot be had."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(document.data, parser)
    except etree.XMLSyntaxError as error:
        return _syntax_error(document, error)
    for entity in root.iter(etree.Entity):
        character = html.unescape(entity.text or "")
        if character == entity.text:
            return _unknown_entity(document, character)
        _replace(entity, character)
    write_layout(root)
    return root


def text(element: etree._Element | None) -> str | None:
    """An element's text, `\\n` between paragraphs, white space collapsed; None where there is none."""
    if element is None:
        return None
    flat = etree.tostring(element, method="text", encoding="unicode", with_tail=False)
    lines = (" ".join(line.split()) for line in flat.split(BREAK))
    return "\n".join(line for line in lines if line).replace(CELL, "\t") or None


def claims(elements: Iterable[etree._Element]) -> list[str] | None:
    """The claims' texts without the number that many offices print before them, or None."""
    numbered = (text(element) or "" for element in elements)
    found = [re.sub(r"^\d+(?:\s*[-–]\s*\d+)?\s*[.)]\s*(?!\d)", "", claim) for claim in numbered]
    return [claim for claim in found if claim] or None


def iso_date(digits: str | None) -> str | None:
    """`20150106` as `2015-01-06`; a month or day of 00 is unknown and left out. None where it is no date."""
    found = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", (digits or "").strip())
    return "-".join(found.groups()).removesuffix("-00").removesuffix("-00") if found else None


def ipc_symbols(entries: Iterable[str]) -> list[str] | None:
    """IPC symbols in one notation, without repeats, as `G06F 15/16`; None where there is none.

    Takes `G06F015/16`, `G06F 15/16` and WIPO ST.8 (`G06F  15/16        20060101AFI…`), whose `F` marks the
    first one.
    """
    symbols: dict[str, bool] = {}
    for entry in entries:
        found = re.match(r"\s*([A-H]\d\d[A-Z])\s*0*(\d+)/\s*(\d+)\s*(?:\d{8}[ACS]?(F?))?", entry)
        if found:
            symbols.setdefault(f"{found[1]} {found[2]}/{found[3]}", bool(found[4]))
    return sorted(symbols, key=lambda symbol: not symbols[symbol]) or None


def _syntax_error(document: Document, error: etree.XMLSyntaxError) -> Rejected:
    declared = re.match(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"']([\w.:-]+)", document.data)
    encoding = declared[1].decode() if declared else "utf-8"
    try:
        document.data.decode(encoding)
    except UnicodeDecodeError as wrong:
        place = f"byte {document.offset + wrong.start} of the file is not {encoding}"
        return Rejected(document.source, "bad-encoding", f"{place} ({error.msg})")
    except LookupError:
        return Rejected(document.source, "bad-encoding", f"the declared encoding {encoding} is unknown")
    return Rejected(document.source, "malformed-xml", f"line {error.lineno} of the document: {error.msg}")


def _unknown_entity(document: Document, reference: str) -> Rejected:
    name = re.escape(reference.strip("&;").encode())
    if re.search(rb"<!ENTITY\s+" + name + rb"\s+(?:SYSTEM|PUBLIC)\s", document.data):
        return Rejected(document.source, "external-entity", f"{reference} names a file, which is not opened")
    return Rejected(document.source, "unknown-entity", f"{reference} is not a known character")


def _replace(node: etree._Element, characters: str) -> None:
    """Put characters in a node's place; what follows it stays."""
    characters += node.tail or ""
    before, parent = node.getprevious(), node.getparent()
    assert parent is not None
    if before is None:
        parent.text = (parent.text or "") + characters
    else:
        before.tail = (before.tail or "") + characters
    node.tail = None
    parent.remove(node)


def write_layout(root: etree._Element) -> None:
    """Write line breaks, indices, placeholders and table rows into a tree's text."""
    # Children before their parents, so that an index in a table cell is written before the cell is.
    for element in reversed(list(root.iter(*TOUCHED))):
        name = str(element.tag).rpartition("}")[2]
        if name in AROUND:
            before, after = AROUND[name]
            element.text = before + (element.text or "")
            if after:
                element.tail = after + (element.tail or "")
        elif name in PLACEHOLDERS:
            _set(element, PLACEHOLDERS[name])
        elif name == "row":
            cells = [" ".join(_flat(cell).split()) for cell in element.iterchildren("*")]
            _set(element, BREAK + CELL.join(cells).rstrip(CELL) + BREAK)
        else:
            _write_index(element, *(("_", SUBSCRIPTS) if name == "sub" else ("^", SUPERSCRIPTS)))


def _write_index(element: etree._Element, sign: str, characters: dict[str, str]) -> None:
    content = _flat(element)
    index = content.strip()
    if index:
        if all(character in characters for character in index):
            written = "".join(characters[character] for character in index)
        else:
            written = sign + (index if len(index) == 1 else f"{{{index}}}")
        _set(element, written + content[len(content.rstrip()) :])


def _flat(element: etree._Element) -> str:
    if not len(element):
        return element.text or ""
    return etree.tostring(element, method="text", encoding="unicode", with_tail=False)


def _set(element: etree._Element, content: str) -> None:
    del element[:]
    element.text = content
