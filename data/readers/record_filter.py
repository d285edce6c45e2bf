"""Which records go into a corpus, after reading and before cleaning: office, kind, language, date, IPC."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from core.config.loader import Config
from data.language import base
from data.record import Record

KINDS = {
    "published": ("A",),
    "granted": ("B", "C", "Y", "E"),
    "invention": ("A", "B", "C", "E"),
    "utility-model": ("U", "Y"),
    "design": ("S",),
}
"""Names for WIPO ST.16 kind codes; `C` and `Y` are Chinese grants before 2010."""


def _kind(value: str) -> str:
    if value not in KINDS and not re.fullmatch(r"[A-Z]\d?", value):
        raise ValueError(f"must be a kind code such as B or B1, or one of {', '.join(KINDS)}")
    return value


def _date(value: str) -> str:
    if not re.fullmatch(r"\d{4}(-\d\d(-\d\d)?)?", value):
        raise ValueError("must be a date such as 2015, 2015-01 or 2015-01-06")
    return value


Date = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(_date)]
"""A date, a month or a year; YAML reads `2015` as a number."""


class SelectConfig(Config):
    """Which records to take; an empty list takes all. A record without the field that a rule needs is dropped
    and counted as `…-unknown`."""

    offices: tuple[str, ...] = ()
    """WIPO ST.3 codes, e.g. `[US, CN]`."""
    kinds: tuple[Annotated[str, AfterValidator(_kind)], ...] = ()
    """Kind codes or their letters (`B`, `A1`), or published, granted, invention, utility-model, design."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes, e.g. `[en, zh]`; `zh` takes all Chinese records, including `zh-Hant`."""
    date_from: Date | None = None
    """First publication date, e.g. `2015`, `2015-01` or `2015-01-06`."""
    date_to: Date | None = None
    """Last publication date; a year or month includes all its days."""
    ipc_prefixes: tuple[str, ...] = Field(())
    """Prefixes of IPC or CPC symbols, e.g. `[G06F, "H04L 9", Y02E]`; one matching symbol is enough."""


def rule_that_drops(select: SelectConfig, record: Record) -> str | None:
    """The first rule that drops a record (`office`, `kind-unknown` …), or None if it is taken."""
    if select.offices and record["office"] not in select.offices:
        return _named("office", record["office"])
    if select.kinds and not _is_of_kind(select.kinds, record):
        return _named("kind", record["kind"])
    language = record["language"] or ""
    if select.languages and not {language, base(language)} & {*select.languages}:
        return _named("language", language)
    if (select.date_from or select.date_to) and not _is_between(
        select.date_from, select.date_to, record["date"]
    ):
        return _named("date", record["date"])
    if select.ipc_prefixes and not _has_prefix(select.ipc_prefixes, record["ipc"] or []):
        return _named("ipc", record["ipc"])
    return None


def _named(rule: str, value: object) -> str:
    return rule if value else f"{rule}-unknown"


def _is_of_kind(kinds: tuple[str, ...], record: Record) -> bool:
    kind = record["kind"] or ""
    if record["office"] == "US" and kind == "A":
        kind = "B"  # a grant before 2001; applications were not published then
    return any(kind.startswith(KINDS.get(wanted, (wanted,))) for wanted in kinds)


def _is_between(first: str | None, last: str | None, date: str | None) -> bool:
    if not date or not re.match(r"\d{4}", date):
        return False
    return (first or "") <= date and (last is None or date[: len(last)] <= last)


def _has_prefix(prefixes: tuple[str, ...], symbols: list[str]) -> bool:
    wanted = tuple(prefix.replace(" ", "") for prefix in prefixes)
    return any(symbol.replace(" ", "").startswith(wanted) for symbol in symbols)
