"""The text of a document: parts in order under the headings of its language, as the configuration asks."""

from typing import Any

import pytest
from pydantic import ValidationError

from data.packing.document_text import HEADINGS, LayoutConfig, layout
from tests.data.records import record

WHOLE_EN = (
    "Pump 7\n\nAbstract\nA pump 7 moves water.\n\nClaims\n1. A pump 7.\n2. The pump of claim 1.\n\n"
    "Description\nIt pumps 7 l.\nWell."
)
WHOLE_ZH = (
    "水泵7\n\n摘要\n一种水泵7，用于输送水。\n\n权利要求书\n1. 一种水泵7。\n2. 根据权利要求1所述的水泵。\n\n"
    "说明书\n其流量为7升。\n良好。"
)


@pytest.mark.parametrize(
    ("language", "fields", "settings", "text"),
    [
        ("en", {}, {}, WHOLE_EN),
        ("zh", {}, {}, WHOLE_ZH),
        ("zh", {"language": "zh-CN"}, {}, WHOLE_ZH),
        (
            "zh",
            {"language": "zh-Hant", "title": None, "abstract": "一種", "claims": ["一種。"]},
            {"parts": ["abstract", "claims"]},
            "摘要\n一種\n\n申請專利範圍\n1. 一種。",
        ),
        ("en", {"language": "tlh"}, {"parts": ["abstract", "title"]}, "A pump 7 moves water.\n\nPump 7"),
        (
            "en",
            {"language": None},
            {"parts": ["abstract", "description"]},
            "A pump 7 moves water.\n\nIt pumps 7 l.\nWell.",
        ),
        # what a record lacks leaves no heading, and one part beside the title needs none
        (
            "en",
            {"claims": None},
            {},
            "Pump 7\n\nAbstract\nA pump 7 moves water.\n\nDescription\nIt pumps 7 l.\nWell.",
        ),
        ("en", {"claims": [], "abstract": None}, {}, "Pump 7\n\nIt pumps 7 l.\nWell."),
        ("en", {}, {"parts": ["claims"]}, "1. A pump 7.\n2. The pump of claim 1."),
        ("en", {"title": None}, {"parts": ["title"]}, ""),
        # the configuration's order, headings and separator
        (
            "en",
            {},
            {"parts": ["description", "abstract"], "headings": False},
            "It pumps 7 l.\nWell.\n\nA pump 7 moves water.",
        ),
        (
            "en",
            {},
            {
                "parts": ["abstract", "claims"],
                "heading_texts": {"en": {"claims": "We claim:", "abstract": ""}},
                "separator": "\n",
            },
            "A pump 7 moves water.\nWe claim:\n1. A pump 7.\n2. The pump of claim 1.",
        ),
        (
            "zh",
            {"language": "zh-Hant", "claims": ["一種。"], "abstract": "一種"},
            {
                "parts": ["abstract", "claims"],
                "heading_texts": {"zh": {"abstract": "甲"}, "zh-Hant": {"claims": "乙"}},
            },
            "摘要\n一種\n\n乙\n1. 一種。",
        ),
        ("en", {}, {"language_parts": {"en": ["abstract"], "zh": ["title"]}}, "A pump 7 moves water."),
        ("zh", {"language": "zh-Hant"}, {"language_parts": {"zh": ["title"]}}, "水泵7"),
        (
            "zh",
            {"language": "zh-Hant"},
            {"language_parts": {"zh": ["title"], "zh-Hant": ["description"]}},
            "其流量为7升。\n良好。",
        ),
        ("zh", {}, {"language_parts": {"en": ["title"]}}, WHOLE_ZH),
    ],
)
def test_a_document_is_laid_out_part_by_part(
    language: str, fields: dict[str, Any], settings: dict[str, Any], text: str
) -> None:
    assert layout(record(7, language, **fields), LayoutConfig(**settings)) == text


@pytest.mark.parametrize("language", HEADINGS)
def test_every_language_has_its_own_headings(language: str) -> None:
    lines = layout({**record(7), "language": language}, LayoutConfig()).split("\n")
    assert [lines.index(heading) for heading in HEADINGS[language].values()] == [2, 5, 9]


@pytest.mark.parametrize(
    "settings",
    [
        {"parts": ["ipc"]},
        {"parts": []},
        {"parts": ["title", "title"]},
        {"language_parts": {"en": ["claims", "claims"]}},
        {"language_parts": {"en": []}},
        {"heading_texts": {"en": {"ipc": "IPC"}}},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LayoutConfig(**settings)
