"""The cleaning rules that change a text: each takes a text and returns the result.

Most texts need no change, so each rule first checks, in the whole text where it can, whether there is
anything to do. All except `regular_text` expect regular text.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable

from data.characters import has_any, table_of
from data.sections import PARAGRAPH_NUMBER, heading

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufffe\uffff]")
SPACES = re.compile(r"[ \u00a0\u2000-\u200a\u202f\u205f]+")
TABS = re.compile(r" ?\t ?")
EMPTY_LINES = re.compile(r"\n{3,}")

FULL_WIDTH = re.compile(r"[０-９Ａ-Ｚａ-ｚ]+(?:．[０-９]+)*")
FULL_WIDTH_CHARACTERS = table_of("０９", "ＡＺ", "ａｚ")
HALF_WIDTH = {code: code - 0xFEE0 for code in range(ord("！"), ord("～") + 1)}

INNER_NUMBER = re.compile(r"(?<=[。！？；.;!?])\s*[\[【［][0０][0-9０-９]{3}[\]】］]\s*")

_AMINO_ACID = "(?:A(?:la|rg|sn|sp)|Cys|Gl[nuy]|His|Ile|L(?:eu|ys)|Met|P(?:he|ro)|Ser|T(?:hr|rp|yr)|Val|Xaa)"
SEQUENCE = re.compile(
    r"<[1-4]\d\d>.*"  # the numeric identifiers of WIPO ST.25
    r"|(?:\d+ )?(?:[acgtun]{10} )+[acgtun]{1,10}(?: \d+)?|[acgtun]{60,}(?: \d+)?"
    rf"|(?:\d+ )?(?:{_AMINO_ACID} ){{4,}}{_AMINO_ACID}(?: \d+)?|[ACDEFGHIKLMNPQRSTVWY]{{60,}}(?: \d+)?",
    re.IGNORECASE,
)
POSITIONS = re.compile(r"\d+(?:[ \t]+\d+)*")
"""The line of positions under a row of amino acids."""

PEOPLE = re.compile(
    r"(?:(?:发明人|发明\(设计\)人|申请\(专利权\)人|申请人|专利权人|专利代理机构|专利代理师|代理人|联系人"
    r"|發明人|申請人|專利權人|代理機構|発明者|出願人|特許出願人|特許権者|발명자|출원인|특허권자|대리인)\s*[:：]"
    r"|【(?:発明者|出願人|特許出願人|特許権者|代理人|氏名|氏名又は名称|住所又は居所|識別番号|電話番号"
    r"|발명자|출원인|대리인|성명|주소)】"
    r"|(?:Inventors?|Applicants?|Assignees?|Attorneys?(?:, Agents?,? or Firm)?|(?:Primary|Assistant) Examiner"
    r"|Correspondence Address|Erfinder|Anmelder|Patentinhaber|Inventeurs?|Demandeurs?|Mandataires?)\s*:)",
    re.IGNORECASE,
)
"""Beginnings of lines that name people."""
CONTACT = re.compile(
    r"(?:(?:联系|通讯|通信)?(?:地址|电话|电子邮件|邮箱)|住址|传真|手机|邮编|邮政编码|地址|電話|傳真|電子郵件|주소|전화"
    r"|(?:Postal |Mailing |E-?mail )?Address|Tel(?:ephone|efon)?\.?|Phone|Fax|E-?mail|Anschrift|Adresse)"
    r"\s*[:：]\s*(?P<value>.+)",
    re.IGNORECASE,
)
"""Lines that may have an address; it may also be a memory address or the post code in an example."""
CONTACT_VALUE = re.compile(
    r"[+(]?\d[\d ()/.+-]{5,}|\S+@\S+\.\w+"
    r"|.*[省市县區区縣路街號号]\S*\d.*|.*\d\S*[号號室楼樓]\S*|.*(?:丁目|番地|[시군구로]\s?\d).*"
    r"|.*\d.*\b(?:street|st\.|road|rd\.|ave(?:nue|\.)|blvd|boulevard|drive|lane|suite|rue|platz)\b.*"
    r"|.*(?:straße|str\.) ?\d.*",
    re.IGNORECASE,
)
PLACEHOLDERS = re.compile(r"^(\[(?:image|formula|chemistry)\])(?:\n\1)+$", re.MULTILINE)
LONGEST_CONTACT = 200
"""Characters; a longer line is prose."""


def regular_text(text: str) -> str:
    """Without control and invisible characters, in Unicode NFC, with single spaces and at most two line
    breaks; lines that are only the same placeholder (`[image]`) are one.

    Never NFKC, which would turn `10³` into `103`. Tabs, which separate the cells of a table row, stay.
    """
    if _is_regular_as_a_whole(text):
        joined = _tidy(text)
    else:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        joined = _join(line if _is_regular(line) else _regular_line(line) for line in lines)
    return PLACEHOLDERS.sub(r"\1", joined) if "]\n[" in joined else joined


def fold_full_width(text: str) -> str:
    """Full-width letters, digits and decimal points as ASCII: `３．５ｍｍ` to `3.5mm`; punctuation stays."""
    if not text.isascii() and has_any(text, FULL_WIDTH_CHARACTERS):
        text = FULL_WIDTH.sub(lambda found: found[0].translate(HALF_WIDTH), text)
    return _tidy(text)


def drop_paragraph_numbers(text: str) -> str:
    """`[0012] The pump…` to `The pump…`; one in the middle of a line becomes a line break."""
    if not any(bracket in text for bracket in "[【［〔"):
        return text
    if any(start in text for start in ("[0", "【0", "［0", "【０", "［０")):
        text = INNER_NUMBER.sub("\n", text)
    return _join(_unnumbered(line) for line in text.split("\n"))


def drop_sequences(text: str) -> str:
    """Without the heading and lines of a sequence listing: WIPO ST.25, or rows of bases or amino acids."""
    kept: list[str] = []
    inside = False
    for line in text.split("\n"):
        inside = bool(
            (line[:1].isascii() and SEQUENCE.fullmatch(line))
            or (inside and (not line or POSITIONS.fullmatch(line)))
        )
        if not inside:
            kept.append(line)
        elif kept and len(kept[-1]) < LONGEST_CONTACT and heading(kept[-1]) == "sequences":
            kept.pop()
    return _join(kept)


def drop_people(text: str) -> str:
    """Without lines marked as names, addresses, telephone numbers or e-mail addresses of people."""
    if not any(mark in text for mark in ":：】"):
        return _tidy(text)
    return _join(line for line in text.split("\n") if not _names_people(line))


def drop_lines(text: str, lines: Collection[str]) -> str:
    """Without the given lines (in the form of `boilerplate_key`)."""
    kept = [line for line in text.split("\n") if boilerplate_key(line) not in lines]
    return _join(kept) if len(kept) < text.count("\n") + 1 else text


def boilerplate_key(line: str) -> str:
    """A line without its paragraph number and the spaces around it."""
    return _unnumbered(line).strip()


def _is_regular_as_a_whole(text: str) -> bool:
    if "  " in text or " \n" in text or "\n " in text or text[:1] == " " or text[-1:] == " ":
        return False
    if not text.replace("\n", "").isprintable():
        return False
    return text.isascii() or all(map(_is_nfc, text.split("\n")))


def _is_regular(line: str) -> bool:
    if not line.isprintable() or "  " in line or line[:1] == " " or line[-1:] == " ":
        return False
    return _is_nfc(line)


def _is_nfc(line: str) -> bool:
    return line.isascii() or unicodedata.is_normalized("NFC", line)


def _regular_line(line: str) -> str:
    line = unicodedata.normalize("NFC", CONTROLS.sub("", line))
    line = TABS.sub("\t", SPACES.sub(" ", line)).rstrip(" \t").lstrip(" ")
    row = line.lstrip("\t")
    return line if "\t" in row else row  # a table row may begin with an empty cell


def _unnumbered(line: str) -> str:
    may_be = line[:1] in "[【［〔" or line[:1].isspace()
    number = PARAGRAPH_NUMBER.match(line) if may_be else None
    return line[number.end() :] if number else line


def _names_people(line: str) -> bool:
    if len(line) > LONGEST_CONTACT or not (":" in line or "：" in line or "】" in line):
        return False
    if PEOPLE.match(line):
        return True
    contact = CONTACT.match(line)
    return bool(contact and CONTACT_VALUE.fullmatch(contact["value"]))


def _join(lines: Iterable[str]) -> str:
    return _tidy("\n".join(lines))


def _tidy(text: str) -> str:
    text = text.strip()
    return EMPTY_LINES.sub("\n\n", text) if "\n\n\n" in text else text
