"""The cleaning rules for one record, in order, each with its switch.

    record ──boilerplate──▶ ──regular──▶ ──full-width──▶ … ──too-short──▶ record, or dropped by a rule

`steps` yields the record after each rule; `clean_record` applies them all and counts. The rules depend only
on the record and the tables of boilerplate lines and divided words. docs/data.md shows each with an example.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Literal, NamedTuple

from pydantic import Field

from core.config.loader import Config
from data import claim_numbers
from data import language as lang
from data.cleaning import hyphens, text_rules
from data.cleaning.quality import broken_share, may_be_odd, odd_share
from data.record import Record
from data.sections import sections

Change = Callable[[str], str]

LEAST_PIECE = 200
"""Bytes of UTF-8; shorter sections are not checked."""

_sections = lru_cache(maxsize=1)(sections)  # consecutive rules use the same sections


class CleanConfig(Config):
    """The cleaning rules. A switch of false, or a limit of null, turns a rule off."""

    boilerplate_share: float | None = Field(0.01, gt=0, le=1)
    """Remove lines of 20 characters or more that are in this share of all descriptions, and in at least 50
    (rule `boilerplate`); not from a description of which less than half would be left: it is a copy, which
    deduplication finds."""
    regular: bool = True
    """Remove control and invisible characters, normalise to Unicode NFC, collapse runs of spaces and empty
    lines."""
    hyphens: bool = True
    """Rejoin words that the end of a printed line divided, if the whole word stands elsewhere in the document
    or the corpus: `drill- ing` to `drilling`."""
    full_width: bool = True
    """Convert full-width letters and digits to ASCII: `３．５ｍｍ` to `3.5mm`."""
    paragraph_numbers: bool = True
    """Remove `[0001]` and `【０００１】` before paragraphs."""
    claim_numbers: bool = True
    """Remove the number before each claim, if each text begins with the claim's own."""
    sequences: bool = True
    """Remove lines of nucleotide and amino acid sequence listings."""
    people: bool = True
    """Remove lines marked as people's names, addresses, telephone numbers or e-mail addresses."""
    max_odd_share: float | None = Field(0.05, gt=0, le=1)
    """Remove sections with a greater share of unreadable characters (rule `odd-characters`)."""
    max_broken_share: float | None = Field(0.4, gt=0, le=1)
    """Remove sections with a greater share of one-letter words (rule `broken-words`)."""
    language: bool = True
    """Remove sections that are certainly not in the record's language; detect the language of a record
    without one."""
    tag_traditional: bool = True
    """Set the language of Traditional Chinese to `zh-Hant` instead of `zh` (rule `traditional`)."""
    convert: Literal["simplified", "traditional"] | None = None
    """Convert Chinese texts with OpenCC; the language is set after the conversion."""
    min_script_share: float | None = Field(0.3, ge=0, le=1)
    """Drop records with a smaller share of letters in their language's scripts (rule `script`)."""
    max_repeated_lines: float | None = Field(0.3, gt=0, le=1)
    """Drop records whose description has a greater share of characters in repeated lines."""
    max_repeated_ngrams: float | None = Field(0.8, gt=0, le=1)
    """Drop records whose description has a greater share of repeated n-grams: 10 words or, in Chinese and
    Japanese, 20 characters."""
    min_characters: int = Field(100, ge=0)
    """Drop records with fewer characters in all parts together (rule `too-short`)."""
    max_characters: int | None = Field(None, ge=1)
    """Drop records with more characters (rule `too-long`)."""


class Outcome(NamedTuple):
    """The result of the rules for a record."""

    record: Record | None
    """None if a rule dropped it."""
    dropped_by: str
    """The rule that dropped it, else ""."""
    changed: dict[str, int]
    """The characters removed by each rule that changed something."""


def clean_record(
    config: CleanConfig,
    record: Record,
    boilerplate: frozenset[str] = frozenset(),
    words: hyphens.Words = MappingProxyType({}),
) -> Outcome:
    """The record after all rules."""
    changed: dict[str, int] = {}
    for rule, after in steps(config, record, boilerplate, words):
        if after is None:
            return Outcome(None, rule, changed)
        if after is not record:
            changed[rule] = max(0, size(record) - size(after))
            record = after
    return Outcome(record, "", changed)


def steps(
    config: CleanConfig, record: Record, boilerplate: frozenset[str], words: hyphens.Words
) -> Iterator[tuple[str, Record | None]]:
    """The name of each enabled rule and the record after it; `words` are those of the corpus that divided
    words may be.

    The same object if nothing changed; None, as the last step, if the rule dropped the record.
    """
    if boilerplate:
        record = _with_description(record, partial(_without_boilerplate, lines=boilerplate))
        yield "boilerplate", record
    if config.regular:
        record = _with_texts(record, text_rules.regular_text)
        yield "regular", record
    if config.hyphens:
        record = _with_whole_words(record, words)
        yield "hyphens", record
    for name, switch, change in (
        ("full-width", config.full_width, text_rules.fold_full_width),
        ("paragraph-numbers", config.paragraph_numbers, text_rules.drop_paragraph_numbers),
    ):
        if switch:
            record = _with_texts(record, change)
            yield name, record
    if config.claim_numbers and record["claims"]:
        claims = claim_numbers.of_record(record)
        bare = claim_numbers.unnumbered(claims)
        record = record if bare is claims else claim_numbers.with_claims(record, bare)
        yield "claim-numbers", record
    for name, switch, change in (
        ("sequences", config.sequences, text_rules.drop_sequences),
        ("people", config.people, text_rules.drop_people),
    ):
        if switch:
            record = _with_description(record, change)
            yield name, record
    for step in (_judge_sections, _settle_language, _judge_record):
        for name, after in step(config, record):
            yield name, after
            if after is None:
                return
            record = after


def _with_whole_words(record: Record, words: hyphens.Words) -> Record:
    if not any(forms for text in texts(record) for forms in hyphens.divided(text)):
        return record
    own = hyphens.words_of(texts(record))
    return _with_texts(record, partial(hyphens.rejoin, document=own, corpus=words))


def _without_boilerplate(text: str, lines: frozenset[str]) -> str:
    left = text_rules.drop_lines(text, lines)
    return left if 2 * len(left) >= len(text) else text


def _judge_sections(config: CleanConfig, record: Record) -> Iterator[tuple[str, Record]]:
    """Remove sections damaged by scanning or decoding, and those in another language."""
    if (odd := config.max_odd_share) is not None:
        if any(map(may_be_odd, texts(record))):
            record = _without_sections(record, lambda text: odd_share(text) > odd)
        yield "odd-characters", record
    if (broken := config.max_broken_share) is not None:
        record = _without_sections(record, lambda text: broken_share(text) > broken)
        yield "broken-words", record
    if config.language:
        declared = record["language"] or lang.main_language("\n".join(texts(record)))
        if declared != record["language"]:
            record = {**record, "language": declared}
        if declared:
            known = declared
            record = _without_sections(record, lambda text: lang.other_language(text, known) is not None)
        yield "language", record


def _settle_language(config: CleanConfig, record: Record) -> Iterator[tuple[str, Record]]:
    """Distinguish Traditional and Simplified Chinese, and convert if configured."""
    if lang.base(record["language"] or "") != "zh":
        return
    if config.convert is not None:
        record = _with_texts(record, partial(lang.convert_chinese, to=config.convert))
        yield "convert", record
    if config.tag_traditional:
        traditional = lang.is_traditional("\n".join(texts(record)))
        tag = "zh-Hant" if traditional else "zh"
        yield "traditional", record if record["language"] == tag else {**record, "language": tag}


def _judge_record(config: CleanConfig, record: Record) -> Iterator[tuple[str, Record | None]]:
    """Drop a record with too little or too much text, in the wrong script, or repetitive."""
    length, description, language = size(record), record["description"] or "", record["language"]
    yield "too-short", None if length < config.min_characters else record
    if config.max_characters is not None:
        yield "too-long", None if length > config.max_characters else record
    if config.min_script_share is not None and language:
        share = lang.script_share("\n".join(texts(record)), language)
        yield "script", None if share is not None and share < config.min_script_share else record
    if config.max_repeated_lines is not None or config.max_repeated_ngrams is not None:
        from data.cleaning.repetition import repeated_lines, repeated_ngrams

        if (most := config.max_repeated_lines) is not None:
            yield "repeated-lines", None if repeated_lines(description) > most else record
        if (most := config.max_repeated_ngrams) is not None:
            yield "repeated-ngrams", None if repeated_ngrams(description, language) > most else record


def texts(record: Record) -> list[str]:
    """All texts of a record: title, abstract, description, claims."""
    found = [text for text in (record["title"], record["abstract"], record["description"]) if text]
    return found + (record["claims"] or [])


def size(record: Record) -> int:
    """Characters of all texts, with one separator between them."""
    found = texts(record)
    return sum(map(len, found)) + max(0, len(found) - 1)


def _with_texts(record: Record, change: Change) -> Record:
    """The record with every text changed; the same object if none was. An empty text becomes None."""
    title, abstract, description = (
        change(text) or None if text else None
        for text in (record["title"], record["abstract"], record["description"])
    )
    claims = {number: change(claim) for number, claim in claim_numbers.of_record(record).items()}
    changed = claim_numbers.with_claims(
        {**record, "title": title, "abstract": abstract, "description": description}, claims
    )
    return record if changed == record else changed


def _with_description(record: Record, change: Change) -> Record:
    """The same for the description only: names and listings are nowhere else."""
    before = record["description"]
    after = change(before) if before else before
    return record if after == before else {**record, "description": after or None}


def _without_sections(record: Record, is_bad: Callable[[str], bool]) -> Record:
    """The record without its abstract, claims or sections of the description if they are bad."""

    def judge(text: str | None) -> bool:
        if not text or 4 * len(text) < LEAST_PIECE:
            return False
        return (len(text) >= LEAST_PIECE or len(text.encode()) >= LEAST_PIECE) and is_bad(text)

    abstract = None if judge(record["abstract"]) else record["abstract"]
    numbered = claim_numbers.of_record(record)
    claims = {} if judge("\n".join(numbered.values())) else numbered
    description = record["description"]
    if description:
        pieces = _sections(description)
        kept = [piece.text for piece in pieces if not judge(piece.text)]
        if len(kept) < len(pieces):
            description = "".join(kept).strip() or None
    changed = claim_numbers.with_claims({**record, "abstract": abstract, "description": description}, claims)
    return record if changed == record else changed
