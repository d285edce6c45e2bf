"""What the readers of XML share: parsing, text, and the notations that all offices use.

`parse` turns one document into a tree and writes the layout into it as plain text: line breaks, indices,
placeholders, table rows. Only the few elements that need it are touched, so that `text` can take a whole
section in one step of C code.

The reader of an office that calls a paragraph `PARA` or `Paragraphs` has a table of such names; the layout is
written by the names of WIPO ST.36.

Nothing is fetched: no DTD, no external entity, no network, and libxml2's limits on depth, size and
amplification stay on (https://gitlab.gnome.org/GNOME/libxml2/-/wikis/Security).
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lxml import etree

from data import claim_numbers
from data.readers.offices import mathml, xml_repair
from data.record import Noted, Rejected

BREAK = "\u2028"  # Unicode's LINE SEPARATOR: a line break that is not the source's own wrapping
CELL = "\ufdd0"  # a noncharacter, for private use: the border between two table cells
WRAP = "\ufdd1"  # another one: the end of a printed line, which is not a line break of the text

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
"""The text written before and after an element."""

PLACEHOLDERS = {"maths": "[formula]", "math": "[formula]", "chemistry": "[chemistry]", "img": "[image]"}

# Digits and symbols only: Unicode has too few letters, and x_i next to x_q reads better than xᵢ next to x_q.
SUBSCRIPTS = dict(zip("0123456789+-−–=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₋₌₍₎", strict=True))
SUPERSCRIPTS = dict(zip("0123456789+-−–=()®™°", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁼⁽⁾®™°", strict=True))

WRAPPED_WORDS = re.compile(f"{WRAP}(?<=[A-Za-z,;:.]{WRAP})(?=[A-Za-z])")

_SIGN = "\u3001-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f"
WRAPPED_SIGNS = re.compile(f"[ \t\r\n](?<=[{_SIGN}][ \t\r\n])[ \t\r\n]*+(?=[{_SIGN}])")
"""White space between two Chinese or Japanese signs: nothing if the source wraps its lines there (CSS Text 3,
segment breaks)."""

TOUCHED = (*AROUND, *PLACEHOLDERS, "sub", "sup", "row")

Names = Mapping[str, str | None]
"""An office's own element names to those of ST.36, or to `inline` for elements that must not break the line;
elements mapped to None are left out of the text."""

LARGER = {
    encoding: re.compile(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"'](?i:" + names + rb")[\"']")
    for encoding, names in {
        "gb18030": rb"gb_?2312|gbk|euc-cn|cp936|gb_2312-80",
        "CP949": rb"euc-?kr|ks_c_5601(?:-1987)?|ksc5601|ms949",
        "CP932": rb"shift_jis|shift-jis|sjis|x-sjis|ms_kanji",
        "BIG5-HKSCS": rb"big-?5",
    }.items()
}
"""Declarations of encodings whose files are read in the larger one that has them, as browsers do."""

DELETIONS = (b"<?delete-start", b"<DEL-S")

ENTITY = re.compile(r"&(?:lt|gt|amp|quot|apos|nbsp|#\d{2,6});")

PARAGRAPH_NUMBER = re.compile(r"^\[\d{4,}\]\s*", re.MULTILINE)

# Declaration, comments, DOCTYPE with its internal subset, then the root's name; possessive: linear in time.
PROLOGUE = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>)*+<([\w:.-]+)", re.DOTALL
)


class Document(NamedTuple):
    """One XML document of a file."""

    source: str
    """The file, and `#OFFSET` if it has several documents."""
    offset: int
    """Where it starts in the file, in bytes."""
    data: bytes


def root_name(data: bytes) -> str | None:
    """The root element's name without its prefix, found without parsing; None if there is none."""
    found = PROLOGUE.match(data)
    return found[1].rpartition(b":")[2].decode("utf-8", "replace") if found else None


def parse(document: Document, names: Names, noted: list[Noted]) -> etree._Element | Rejected:
    """The document's tree with its layout written as text, or why it cannot be parsed; what was replaced by
    something else is added to `noted`."""
    root = _tree(document, noted)
    if isinstance(root, Rejected):
        return root
    characters: dict[str, str] = {}
    for node in root.iter(etree.Entity) if b"&" in document.data else ():
        reference = node.text or ""
        if reference not in characters:
            found = xml_repair.entity(document.source, document.data, reference)
            if isinstance(found, Noted):
                noted.append(found)
            elif isinstance(found, Rejected):
                return found
            characters[reference] = found if isinstance(found, str) else reference
        replace(node, characters[reference])
    if any(mark in document.data for mark in DELETIONS):
        _remove_deletions(root)
    write_layout(root, names)
    return root


def _tree(document: Document, noted: list[Noted]) -> etree._Element | Rejected:
    encoding = next((name for name, declared in LARGER.items() if declared.match(document.data)), None)
    try:
        return _parsed(document.data, encoding)
    except etree.XMLSyntaxError as error:
        start = PROLOGUE.match(document.data)
        name = encoding or _declared_encoding(document.data)
        repaired = start and xml_repair.repaired(document.source, document.data, name, start.start(1) - 1)
        if not repaired:
            return _syntax_error(document, error)
    try:
        root = _parsed(repaired.data, "utf-8")
    except etree.XMLSyntaxError as error:
        return _malformed(document, error)
    noted += repaired.noted
    return root


def _parsed(data: bytes, encoding: str | None) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, encoding=encoding
    )
    return etree.fromstring(_with_doctype(data), parser)


def _remove_deletions(root: etree._Element) -> None:
    """Remove what a reissue of the USPTO takes out: the text between two processing instructions or, in
    ST.32, two empty elements."""
    deleting = False
    for event, node in etree.iterwalk(root, events=("start", "end", "pi")):
        name = str(node.target if event == "pi" else node.tag)
        deleting = (deleting or name in ("delete-start", "DEL-S")) and name not in ("delete-end", "DEL-E")
        if not deleting:
            continue
        if event == "start":
            node.text = None
        else:
            node.tail = None


def _with_doctype(data: bytes) -> bytes:
    """Give a document without DOCTYPE an empty one: without it, an entity is a syntax error for libxml2."""
    found = PROLOGUE.match(data)
    if found is None or b"<!DOCTYPE" in found[0] or not re.search(rb"&(?!amp;|lt;|gt;|quot;|apos;|#)", data):
        return data
    start = found.start(1) - 1
    return data[:start] + b'<!DOCTYPE x SYSTEM "x">' + data[start:]


def text(element: etree._Element | None) -> str | None:
    """An element's text, `\\n` between paragraphs, white space collapsed; None if there is none."""
    if element is None:
        return None
    flat = etree.tostring(element, method="text", encoding="unicode", with_tail=False)
    if "&" in flat:  # an entity that was escaped twice
        flat = ENTITY.sub(lambda found: html.unescape(found[0]), flat)
    if "\n" in flat:
        flat = WRAPPED_SIGNS.sub(lambda found: "" if "\n" in found[0] else found[0], flat)
    lines = [" ".join(line.split()) for line in flat.split(BREAK)]
    if WRAP in flat:
        lines = [_unwrap(line) if WRAP in line else line for line in lines]
    return "\n".join(filter(None, lines)).replace(CELL, "\t") or None


def _unwrap(line: str) -> str:
    """Join the printed lines: with a space between two Latin words, without one in Chinese."""
    return WRAPPED_WORDS.sub(" ", line.replace(f" {WRAP}", WRAP)).replace(WRAP, "").strip()


def child(element: etree._Element | None, path: str) -> str | None:
    """The text at a path below an element, stripped; None if there is none."""
    found = None if element is None else element.findtext(path)
    return (found or "").strip() or None


def without_paragraph_numbers(content: str | None) -> str | None:
    """The text without the paragraph numbers that some offices print, e.g. `[0012]`."""
    return PARAGRAPH_NUMBER.sub("", content) or None if content else None


def claims(elements: Iterable[etree._Element]) -> dict[int, str]:
    """The claims by the number that is printed before each or declared by its element."""
    found = list(elements)
    return claim_numbers.numbered((text(element) or "" for element in found), map(claim_number, found))


def claim_number(element: etree._Element) -> str | None:
    """The number that a claim's element declares: `num="00019"`, `id="CLM-00019"`."""
    own = element.get("num")
    return own if own is not None or not (element.get("id") or "").startswith("CLM") else element.get("id")


def iso_date(digits: str | None) -> str | None:
    """`20150106` as `2015-01-06`; a month or day of 00 is unknown and left out. None if it is not a date."""
    found = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", (digits or "").strip())
    return "-".join(found.groups()).removesuffix("-00").removesuffix("-00") if found else None


def dates(elements: Iterable[etree._Element]) -> list[str | None]:
    """The dates that elements hold."""
    return [iso_date(element.text) for element in elements]


def cited(element: etree._Element | None) -> list[str]:
    """The publications that the `patcit`s of a document cite, as they are written: by their identifier, their
    parts, or their text (`特許第６１５１５５７号公報`)."""
    return [] if element is None else [_citation(entry) for entry in element.iter("{*}patcit")]


def _citation(entry: etree._Element) -> str:
    if identifier := entry.get("ucid"):
        return identifier
    for document in entry.iterfind("{*}document-id"):
        if number := child(document, "{*}doc-number"):
            parts = child(document, "{*}country"), number, child(document, "{*}kind")
            return "-".join(filter(None, parts))
    return unicodedata.normalize("NFKC", " ".join("".join(map(str, entry.itertext())).split()))


def ipc_symbols(entries: Iterable[str]) -> list[str] | None:
    """IPC or CPC symbols in one notation, without repeats, e.g. `G06F 15/16`; None if there is none.

    Takes `G06F015/16`, `G06F 15/16` and WIPO ST.8 (`G06F  15/16        20060101AFI…`), whose `F` marks the
    first one.
    """
    symbols: dict[str, bool] = {}
    for entry in entries:
        found = re.match(r"\s*([A-HY]\d\d[A-Z])\s*0*(\d+)/\s*(\d+)\s*(?:\d{8}[ACS]?(F?))?", entry)
        if found:
            symbols.setdefault(f"{found[1]} {found[2]}/{found[3]}", bool(found[4]))
    return sorted(symbols, key=lambda symbol: not symbols[symbol]) or None


def ipc_then_cpc(ipc: Iterable[str], cpc: Iterable[str]) -> list[str] | None:
    """Symbols of both schemes as `ipc_symbols` returns them, the IPC's first, without repeats."""
    both = (*(ipc_symbols(ipc) or ()), *(ipc_symbols(cpc) or ()))
    return list(dict.fromkeys(both)) or None


def ipcr(entry: etree._Element) -> str:
    """A `classification-ipcr` (`-cpc`, `patent-classification`), text or elements, in the notation of
    ST.8."""
    if entry.find("{*}main-group") is None:
        return "".join(map(str, entry.itertext()))
    section, main_class, subclass, group, subgroup, position = (
        child(entry, f"{{*}}{name}") or ""
        for name in ("section", "class", "subclass", "main-group", "subgroup", "symbol-position")
    )
    return f"{section}{main_class}{subclass} {group}/{subgroup} 00000000{position}"


def _syntax_error(document: Document, error: etree.XMLSyntaxError) -> Rejected:
    encoding = _declared_encoding(document.data)
    try:
        document.data.decode(encoding)
    except UnicodeDecodeError as wrong:
        place = f"byte {document.offset + wrong.start} of the file is not {encoding}"
        return Rejected(document.source, "bad-encoding", f"{place} ({error.msg})")
    except LookupError:
        return Rejected(document.source, "bad-encoding", f"the declared encoding {encoding} is unknown")
    return _malformed(document, error)


def _malformed(document: Document, error: etree.XMLSyntaxError) -> Rejected:
    return Rejected(document.source, "malformed-xml", f"line {error.lineno} of the document: {error.msg}")


def _declared_encoding(data: bytes) -> str:
    declared = re.match(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"']([\w.:-]+)", data)
    return declared[1].decode() if declared else "utf-8"


def replace(node: etree._Element, characters: str) -> None:
    """Replace a node by characters; the text after it stays."""
    _write_before(node, characters + (node.tail or ""))
    node.tail = None
    parent = node.getparent()
    assert parent is not None
    parent.remove(node)


def _write_before(node: etree._Element, characters: str) -> None:
    """Put characters before a node, which is faster than before its text, which is longer."""
    before = node.getprevious()
    if before is not None:
        before.tail = (before.tail or "") + characters
    elif (parent := node.getparent()) is not None:
        parent.text = (parent.text or "") + characters
    else:
        node.text = characters + (node.text or "")


def write_layout(root: etree._Element, names: Names) -> None:
    """Write line breaks, indices, placeholders and table rows into the tree's text."""
    touched = [f"{{*}}{name}" for name in (*TOUCHED, *names)]
    # Children before their parents, so that an index in a table cell is written before the cell is.
    for element in reversed(list(root.iter(*touched))):
        local = str(element.tag).rpartition("}")[2]
        name = names.get(local, local)
        if name is None:
            replace(element, " ")
        elif name in AROUND:
            before, after = AROUND[name]
            _write_before(element, before)
            if after:
                element.tail = after + (element.tail or "")
        elif name in PLACEHOLDERS:
            _set(element, _formula(element) if name in ("maths", "math") else PLACEHOLDERS[name])
        elif name == "inline":
            _set(element, _flat(element).replace(BREAK, ""))
        elif name == "row":
            cells = [" ".join(_flat(cell).split()) for cell in element.iterchildren("*")]
            _set(element, BREAK + CELL.join(cells).rstrip(CELL) + BREAK)
        else:
            _set(element, index(_flat(element), up=name == "sup"))


def _formula(element: etree._Element) -> str:
    """A formula as a line of text if its MathML is simple, else the placeholder."""
    if etree.QName(element).localname == "math":
        line = mathml.linear(element, lambda content, up: index(content, up=up))
        return line.replace("\n", BREAK) if line else PLACEHOLDERS["math"]
    written = (_flat(each) for each in element.iter("{*}math"))
    return " ".join(dict.fromkeys(written)) or PLACEHOLDERS["maths"]


def index(content: str, *, up: bool) -> str:
    """A sub- or superscript in plain text: `₂`, else `_i` or `_{max}`; white space after it is kept."""
    mark, characters = ("^", SUPERSCRIPTS) if up else ("_", SUBSCRIPTS)
    bare = content.strip()
    if not bare:
        return content
    bare = "".join(unicodedata.normalize("NFKC", c) if "\uff00" < c < "\uffef" else c for c in bare)
    if all(character in characters for character in bare):
        written = "".join(characters[character] for character in bare)
    else:
        written = mark + (bare if len(bare) == 1 else f"{{{bare}}}")
    return written + content[len(content.rstrip()) :]


def _flat(element: etree._Element) -> str:
    if not len(element):
        return element.text or ""
    return etree.tostring(element, method="text", encoding="unicode", with_tail=False)


def _set(element: etree._Element, content: str) -> None:
    del element[:]
    element.text = content
