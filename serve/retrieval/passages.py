"""What is found: passages of a record, short enough to be read and to stand in a prompt.

A patent gives its title with its abstract, each claim, and the sections of its description; a statute one
passage an article; any other document pieces of its text. Paragraphs stay whole where they fit.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from data.claim_numbers import of_record
from data.law_citations import article_number
from data.record import Record
from data.sections import sections

LONGEST_BYTES = 1500
"""Of a passage in UTF-8: about 500 Chinese characters or 250 English words."""

ARTICLE = re.compile(
    r"[#\s]*(第\s*[0-9０-９零〇一二三四五六七八九十百千]+\s*[条條](?:\s*之\s*[0-9一二三四五六七八九十]+)?"
    r"|제\s*[0-9]+\s*조(?:\s*의\s*[0-9]+)?"
    r"|(?:Article|Art\.|Section|Sec\.|§)\s*[0-9]+[a-z]?(?:\([0-9a-z]+\))?)(?=[\s　:：.(（【\[]|$)",
    re.IGNORECASE,
)
"""The beginning of a line with a statute's article."""

_SENTENCE_END = re.compile(r"(?<=[。！？；])|(?<=[.!?;])\s+")


class Passage(NamedTuple):
    """One passage. `part` is abstract, claim, article or description, `label` a claim's number, an article or
    the name of a section."""

    part: str
    label: str | None
    text: str


def passages(record: Record) -> Iterator[Passage]:
    """The passages of a record, in order."""
    alone = not (record["claims"] or record["description"])
    if record["abstract"] or alone:  # a title by itself answers nothing, and would be found first
        head = "\n".join(filter(None, (record["title"], record["abstract"])))
        yield from _pieces("abstract", None, head)
    for claim_number, claim in of_record(record).items():
        yield from _pieces("claim", str(claim_number), claim)
    description = record["description"] or ""
    articles = [] if record["claims"] else _articles(description)
    if articles:
        for number, text in articles:
            yield from _pieces("article" if number else "description", number, text)
    else:
        for section in sections(description):
            yield from _pieces("description", section.name, section.text)


def article_key(number: str) -> str:
    """An article's number in one notation: `第二十二条`, `第22條` and `Article 22` are `22`; `第2条之1` is
    `2-1`."""
    digits = re.findall(r"[0-9]+|[〇零一二三四五六七八九十百千]+", unicodedata.normalize("NFKC", number))
    letters = re.search(r"[0-9]([a-z])\b", number)
    return "-".join(map(article_number, digits)) + (letters[1] if letters else "")


def _articles(text: str) -> list[tuple[str | None, str]]:
    """The articles of a statute's text with their numbers, preceded by what stands before the first; empty
    for a text of fewer than two."""
    found: list[tuple[str | None, str]] = []
    for line in text.splitlines(keepends=True):
        begins = ARTICLE.match(line)
        if begins or not found:
            found.append((begins[1] if begins else None, ""))
        found[-1] = (found[-1][0], found[-1][1] + line)
    return found if sum(number is not None for number, _ in found) > 1 else []


def _pieces(part: str, label: str | None, text: str) -> Iterator[Passage]:
    """Passages of a text: as many of its paragraphs as fit; what is longer is cut between sentences."""
    piece, size = "", 0
    for unit in _units(text.strip()):
        length = len(unit.encode())
        if piece and size + length > LONGEST_BYTES:
            yield Passage(part, label, piece.strip())
            piece, size = "", 0
        piece, size = piece + unit, size + length
    if piece.strip():
        yield Passage(part, label, piece.strip())


def _units(text: str) -> Iterator[str]:
    """Paragraphs; sentences of a long paragraph; pieces of a long sentence."""
    for line in text.splitlines(keepends=True):
        if len(line.encode()) <= LONGEST_BYTES:
            yield line
            continue
        for sentence in _SENTENCE_END.split(line):
            longest = LONGEST_BYTES // (1 if sentence.isascii() else 4)
            for start in range(0, len(sentence), longest):
                yield sentence[start : start + longest] + (" " if sentence.isascii() else "")
