"""The text of a record's documents: its parts in order, under headings of its language.

    title, abstract, claims, description ──▶  一种水泵 ⏎⏎ 摘要 ⏎ 一种… ⏎⏎ 权利要求书 ⏎ 1. 一种… ⏎⏎ 说明书 ⏎ …

The headings are those that the offices print. They separate parts, so a text with only one part besides its
title, such as a judgment, has none, nor has a language without headings here. A record is one document, or
two with `claims: separate`; `leave_out` takes sections out of the description, `repeated_claims: once` the
sentences that are in the claims.
"""

from collections import Counter
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from core.config.loader import Config
from data import claim_numbers
from data.language import base
from data.packing.repeated_claims import without_repeated
from data.record import Record
from data.sections import SectionName, sections

RecordPart = Literal["title", "abstract", "claims", "description"]
RecordParts = Annotated[tuple[RecordPart, ...], Field(min_length=1)]

_HEADED: tuple[RecordPart, ...] = ("abstract", "claims", "description")
HEADINGS: dict[str, dict[RecordPart, str]] = {
    language: dict(zip(_HEADED, texts.split(" | "), strict=True))
    for language, texts in {
        "zh": "摘要 | 权利要求书 | 说明书",
        "zh-Hant": "摘要 | 申請專利範圍 | 說明書",
        "ja": "【要約】 | 【特許請求の範囲】 | 【発明の詳細な説明】",
        "ko": "【요약】 | 【청구범위】 | 【발명의 설명】",
        "en": "Abstract | Claims | Description",
        "de": "Zusammenfassung | Patentansprüche | Beschreibung",
        "fr": "Abrégé | Revendications | Description",
        "es": "Resumen | Reivindicaciones | Descripción",
        "it": "Riassunto | Rivendicazioni | Descrizione",
        "pt": "Resumo | Reivindicações | Descrição",
        "nl": "Uittreksel | Conclusies | Beschrijving",
        "ru": "Реферат | Формула изобретения | Описание",
    }.items()
}
"""Headings by language, or language and script; a title is its own heading."""


class LayoutConfig(Config):
    """How a record is formatted as text."""

    parts: RecordParts = ("title", "abstract", "claims", "description")
    """The parts of a document, in order; missing ones are left out."""
    language_parts: dict[str, RecordParts] = Field(default_factory=dict)
    """Other parts or another order for a language, e.g. `{"en": ["title", "claims"]}`."""
    headings: bool = True
    """Put the language's heading on a line before each part but the title."""
    heading_texts: dict[str, dict[RecordPart, str]] = Field(default_factory=dict)
    """Other headings, by language and part, e.g. `{"en": {"claims": "What is claimed is:"}}`; an empty text
    for no heading. The others are those of data/packing/document_text.py."""
    separator: str = "\n\n"
    """Text between two parts."""
    claims: Literal["in-text", "separate", "none"] = "in-text"
    """Where the claims of a record are: `in-text` with its other parts; `separate` in a document of their own
    under the title, on the same side of the split; `none` leaves them out."""
    leave_out: tuple[SectionName, ...] = ()
    """Sections of the description to leave out, e.g. `[related, support, drawings, signs, sequences]`."""

    repeated_claims: Literal["keep", "once"] = "keep"
    """`once` leaves the sentences of the description out that stand word for word in a claim, but for an
    introduction such as `In some embodiments`; the claims keep theirs."""

    @model_validator(mode="after")
    def _with_claims(self) -> Self:
        if self.repeated_claims == "once" and self.claims == "none":
            raise ValueError("`repeated_claims: once` needs the claims: set `claims` to in-text or separate")
        return self

    @model_validator(mode="after")
    def _once(self) -> Self:
        if any(len(set(parts)) < len(parts) for parts in (self.parts, *self.language_parts.values())):
            raise ValueError("a part is listed twice in `parts`")
        return self


SHORT: frozenset[SectionName] = frozenset(("related", "support", "notices", "drawings", "signs"))
"""Sections of a few lines. One that is longer than half of its description includes text whose own heading
is missing, so it is not left out."""


class LaidOut(NamedTuple):
    """The texts that a record gives, and what was left out of them."""

    texts: tuple[str, ...]
    left_out: Counter[SectionName]
    """Characters by section."""
    repeated: int
    """Characters of the sentences that are in the claims."""


def documents(record: Record, config: LayoutConfig) -> LaidOut:
    """The texts of a record, none if it has none of the parts; claims have their own numbers."""
    language = record["language"] or ""
    parts = config.language_parts.get(language) or config.language_parts.get(base(language), config.parts)
    left_out: Counter[SectionName] = Counter()
    texts = {part: text for part in parts if (text := part_text(record, part))}
    if config.leave_out and "description" in texts:
        texts["description"], left_out = without_sections(texts["description"], config.leave_out)
    repeated = 0
    if config.repeated_claims == "once" and {"claims", "description"} <= texts.keys():
        whole = texts["description"]
        texts["description"] = without_repeated(whole, record["claims"] or (), language)
        repeated = len(whole) - len(texts["description"])
    if config.claims == "none":
        texts.pop("claims", None)
    texts = {part: text for part, text in texts.items() if text}
    several = len(texts.keys() - {"title"}) > 1
    headings = headings_of(language, config) if several and config.headings else {}
    headed = {
        part: f"{headings[part]}\n{text}" if headings.get(part) else text for part, text in texts.items()
    }
    found: list[dict[RecordPart, str]] = [headed]
    if several and config.claims == "separate" and "claims" in headed:
        found = [
            {
                part: text
                for part, text in headed.items()
                if part == "title" or (part == "claims") == is_claims
            }
            for is_claims in (False, True)
        ]
    return LaidOut(tuple(config.separator.join(each.values()) for each in found if each), left_out, repeated)


def layout(record: Record, config: LayoutConfig) -> str:
    """The text of a record, that of its documents one after the other."""
    return config.separator.join(documents(record, config).texts)


def without_sections(description: str, names: tuple[SectionName, ...]) -> tuple[str, Counter[SectionName]]:
    """A description without these sections and their headings, and the characters left out by section."""
    left_out: Counter[SectionName] = Counter()
    kept: list[str] = []
    for section in sections(description):
        overlong = section.name in SHORT and len(section.text) * 2 > len(description)
        if section.name in names and not overlong:
            left_out[section.name] += len(section.text)
        else:
            kept.append(section.text)
    return "".join(kept).strip("\n") if left_out else description, left_out


def part_text(record: Record, part: RecordPart) -> str:
    """One part of a record, the claims numbered, one per line; empty if the record lacks it."""
    if part == "claims":
        return claim_numbers.printed(claim_numbers.of_record(record))
    return record[part] or ""


def headings_of(language: str, config: LayoutConfig) -> dict[RecordPart, str]:
    """The headings by part of a language (`zh-Hant`, else `zh`): those of the configuration, else those of
    HEADINGS."""
    found: dict[RecordPart, str] = {}
    for name in (base(language), language):
        found |= HEADINGS.get(name, {}) | config.heading_texts.get(name, {})
    return found
