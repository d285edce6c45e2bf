"""The text of a document, part by part and language by language."""

from typing import Any

import pytest
from pydantic import ValidationError

from data.layout import HEADINGS, LayoutConfig, layout
from data.record import Record
from tests.data.test_pack import record

HEADED = "Pump 7\n\nAbstract\nA pump 7 moves water.\n\nDescription\nIt pumps 7 l.\nWell."
CLAIMS = "1. A pump 7.\n2. The pump of claim 1."
TRADITIONAL: Record = {**record(7, "zh"), "language": "zh-Hant"}
PLAIN = {"headings": False}


@pytest.mark.parametrize(
    ("fields", "settings", "text"),
    [
        ({}, {"parts": ["title", "abstract"]}, "Pump 7\n\nA pump 7 moves water."),
        ({}, {"parts": ["claims"]}, CLAIMS),
        ({}, {"parts": ["title", "abstract", "description"]}, HEADED),
        ({"claims": None}, {}, HEADED),
        ({}, {"parts": ["description", "title"], **PLAIN}, "It pumps 7 l.\nWell.\n\nPump 7"),
        ({}, {"parts": ["title", "abstract"], "separator": " | "}, "Pump 7 | A pump 7 moves water."),
        ({"abstract": None, "claims": None}, {}, "Pump 7\n\nIt pumps 7 l.\nWell."),
        ({"claims": ["One."]}, {"parts": ["claims"]}, "1. One."),
        ({"title": None}, {"parts": ["title"]}, ""),
        ({"language": "xx"}, {"parts": ["abstract", "claims"]}, f"A pump 7 moves water.\n\n{CLAIMS}"),
        ({}, {"language_parts": {"en": ["title"]}}, "Pump 7"),
        ({}, {"language_parts": {"zh": ["title"]}, "parts": ["claims"]}, CLAIMS),
        (
            {},
            {"parts": ["abstract", "claims"], "heading_texts": {"en": {"claims": "What is claimed is:"}}},
            f"Abstract\nA pump 7 moves water.\n\nWhat is claimed is:\n{CLAIMS}",
        ),
        (
            {},
            {"parts": ["abstract", "claims"], "heading_texts": {"en": {"claims": ""}}},
            f"Abstract\nA pump 7 moves water.\n\n{CLAIMS}",
        ),
    ],
)  # fmt: skip
def test_a_document_is_laid_out_as_the_template_says(
    fields: dict[str, Any], settings: Any, text: str
) -> None:
    assert layout(record(7, **fields), LayoutConfig(**settings)) == text


def test_headings_are_those_of_the_language() -> None:
    text = layout(record(7, "zh"), LayoutConfig())
    assert text == (
        "水泵7\n\n摘要\n一种水泵7，用于输送水。\n\n权利要求书\n1. 一种水泵7。\n2. 根据权利要求1所述的水泵。"
        "\n\n说明书\n其流量为7升。\n良好。"
    )
    traditional = layout(TRADITIONAL, LayoutConfig())
    assert "\n\n申請專利範圍\n1. " in traditional
    assert "\n\n權利要求書\n" not in traditional
    script = LayoutConfig(language_parts={"zh": ("title",)})
    assert layout(TRADITIONAL, script) == "水泵7", "a script follows its language"


def test_every_language_has_all_headings() -> None:
    assert {tuple(headings) for headings in HEADINGS.values()} == {("abstract", "claims", "description")}
    assert all(text.strip() for headings in HEADINGS.values() for text in headings.values())


@pytest.mark.parametrize(
    "settings",
    [{"parts": []}, {"parts": ["ipc"]}, {"parts": ["title", "title"]}, {"language_parts": {"en": ["x"]}}],
)
def test_a_template_that_makes_no_sense_is_refused(settings: Any) -> None:
    with pytest.raises(ValidationError):
        LayoutConfig(**settings)
