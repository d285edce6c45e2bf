"""Cleaning a record: each rule takes its part, can be switched off and is counted."""

from typing import Any

import pytest

from data.cleaning import record_cleaner
from data.cleaning.record_cleaner import CleanConfig, clean_record
from tests.data.cleaning.cleaning import (
    BAD,
    CHINESE,
    ENGLISH,
    GERMAN,
    SAID_BY_ALL,
    TRADITIONAL,
    prose,
    record,
)

OFF = {
    **dict.fromkeys(
        ("regular", "hyphens", "full_width", "paragraph_numbers", "claim_numbers", "sequences", "people",
         "language"),
        False,
    ),
    **dict.fromkeys(
        (
            "boilerplate_share", "max_odd_share", "max_broken_share", "min_script_share",
            "max_repeated_lines", "max_repeated_ngrams",
        ),
        None,
    ),
    "tag_traditional": False,
    "min_characters": 0,
}  # fmt: skip
"""Every rule switched off."""


TEXT_RULES = {
    "regular": "regular",
    "hyphens": "hyphens",
    "full_width": "full-width",
    "paragraph_numbers": "paragraph-numbers",
    "claim_numbers": "claim-numbers",
    "sequences": "sequences",
    "people": "people",
    "max_odd_share": "odd-characters",
    "max_broken_share": "broken-words",
    "language": "language",
}
"""Key of the configuration to the rule's name in the counts."""


def test_every_rule_takes_its_part_and_the_good_text_is_left() -> None:
    outcome = clean_record(CleanConfig(), BAD, SAID_BY_ALL)
    assert outcome.record == {
        **BAD,
        "title": "A pump",
        "abstract": None,
        "claims": ["A pump with a ring of rubber.", "The pump of claim 1."],
        "description": f"TECHNICAL FIELD\n{prose(ENGLISH)}\nDETAILED DESCRIPTION\n"
        + prose(f"{ENGLISH} It works."),
    }
    assert outcome.changed.keys() == {"boilerplate", *TEXT_RULES.values()}
    assert outcome.changed["paragraph-numbers"] == len("[0001] ")
    assert outcome.changed["boilerplate"] == len("All of this is said by everybody and always.\n")
    assert outcome.changed["full-width"] == 0
    assert sum(outcome.changed.values()) == record_cleaner.size(BAD) - record_cleaner.size(outcome.record)
    again = clean_record(CleanConfig(), outcome.record, SAID_BY_ALL)
    assert again == record_cleaner.Outcome(outcome.record, "", {}), "cleaning again changes nothing"


@pytest.mark.parametrize("key", TEXT_RULES)
def test_every_rule_can_be_switched(key: str) -> None:
    default = CleanConfig().model_dump()
    off = CleanConfig.model_validate({**default, key: OFF[key]})
    assert TEXT_RULES[key] not in clean_record(off, BAD).changed
    alone = CleanConfig.model_validate({**OFF, key: default[key]})
    assert clean_record(alone, BAD).changed.keys() <= {TEXT_RULES[key]}
    assert clean_record(CleanConfig.model_validate(OFF), BAD).record is BAD


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("too-short", {"title": None, "description": "short"}),
        ("too-short", {"title": None, "description": None}),
        ("too-long", {"description": prose(ENGLISH, 2000)}),
        ("script", {"language": "zh", "description": ENGLISH}),
        ("repeated-lines", {"description": f"{ENGLISH}\n" * 3}),
        ("repeated-ngrams", {"description": f"{ENGLISH} " * 30}),
    ],
)
def test_records_are_dropped_by_their_rule(rule: str, fields: dict[str, Any]) -> None:
    config = CleanConfig(max_characters=100_000, language=False)
    assert clean_record(config, record(**fields)).dropped_by == rule
    assert clean_record(CleanConfig.model_validate(OFF), record(**fields)).record is not None


def test_a_record_keeps_what_is_not_text_and_loses_empty_parts() -> None:
    config = CleanConfig(min_characters=0)
    raw = record(title=" A  pump ", abstract=" \n", claims=["1\u00a0m", " ", "2"], description=None)
    cleaned = clean_record(config, raw).record
    assert cleaned == record(
        title="A pump", abstract=None, claims=["1 m", "2"], claim_numbers=[1, 3], description=None
    )
    empty = clean_record(config, record(claims=["\x00", ""])).record
    assert empty is not None
    assert empty["claims"] is None


def test_a_record_without_a_language_gets_its_own() -> None:
    for language, text in (("en", ENGLISH), ("de", GERMAN), ("zh", CHINESE), ("zh-Hant", TRADITIONAL)):
        found = clean_record(CleanConfig(), record(language=None, title=None, description=prose(text))).record
        assert found is not None
        assert found["language"] == language


def test_chinese_is_tagged_and_converted() -> None:
    raw = record(language="zh", title="離心泵", description=prose(TRADITIONAL))
    tagged = clean_record(CleanConfig(), raw).record
    assert tagged == {**raw, "language": "zh-Hant"}
    converted = clean_record(CleanConfig(convert="simplified"), raw).record
    assert converted == {**raw, "title": "离心泵", "description": prose(CHINESE)}
    back = clean_record(CleanConfig(convert="traditional"), converted).record
    assert back == tagged
