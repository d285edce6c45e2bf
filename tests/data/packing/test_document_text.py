"""The text of a document: parts in order under the headings of its language, as the configuration asks."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from data.packing.document_text import HEADINGS, LayoutConfig, documents, layout
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
        {"leave_out": ["drawing"]},
        {"claims": "own"},
        {"claims": "none", "repeated_claims": "once"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LayoutConfig(**settings)


SECTIONS = """
en RELATED APPLICATIONS|Of 2019.|GOVERNMENT SUPPORT|Contract 7.
   +FIELD|Pumps.|-BRIEF DESCRIPTION OF THE DRAWINGS|FIG. 1 is a pump.|+DETAILED DESCRIPTION|It pumps.
zh 相关申请的交叉引用|2019。|+技术领域|水泵。
   -附图说明|图1为水泵。|其中：1-泵体。|+具体实施方式|其流量为7升。
ja +【技術分野】|ポンプ。|-【図面の簡単な説明】|【図1】断面図。
   +【発明を実施するための形態】|流量は7。|-【符号の説明】|1 弁
ko +【기술분야】|펌프.|-【도면의 간단한 설명】|도 1은 단면도.
   +【발명을 실시하기 위한 구체적인 내용】|유량은 7.|-【부호의 설명】|1: 밸브
de +Technisches Gebiet|Pumpen.|-Kurze Beschreibung der Zeichnungen|Fig. 1: Pumpe.
   +Ausführungsform|Sie pumpt.|-Bezugszeichenliste|1 Ventil
fr +Domaine technique|Pompes.|-Brève description des figures|Fig. 1 : pompe.
   +Description détaillée|Elle pompe.|-Liste des signes de référence|1 valve
"""
"""Lines between `|`; those from `+` on stay, those from `-` on are left out."""


@pytest.mark.parametrize("table", re.findall(r"^(\w\w .*\n   .*)$", SECTIONS, re.MULTILINE))
def test_sections_are_left_out_of_the_description(table: str) -> None:
    language, marked = table[:2], table[3:].replace("\n   ", "|").split("|")
    kept, stays = [], False
    for line in marked:
        stays = stays if line[0] not in "+-" else line[0] == "+"
        kept += [line.lstrip("+-")] * stays
    description = "\n".join(line.lstrip("+-") for line in marked)
    config = LayoutConfig(parts=("description",), leave_out=("related", "support", "drawings", "signs"))
    found = record(7, language=language, description=description)
    (text,), left_out, _ = documents(found, config)
    assert text == "\n".join(kept)
    assert left_out["drawings"] > 10
    assert left_out.total() + len(text) - len(description) in (0, -1), "but for a line break at the end"


def test_a_short_section_that_swallowed_the_description_is_kept() -> None:
    """The heading over its second half is missing."""
    text = "Drawings\nFIG. 1 is a pump.\n" + "The pump of FIG. 1 has a valve.\n" * 5
    assert (
        layout(record(7, description=text), LayoutConfig(parts=("description",), leave_out=("drawings",)))
        == text
    )
    background = text.replace("Drawings", "Background")
    config = LayoutConfig(parts=("description",), leave_out=("background",))
    assert documents(record(7, description=background), config) == ((), {"background": len(background)}, 0)


def test_a_description_of_which_nothing_is_left_has_no_heading() -> None:
    config = LayoutConfig(parts=("title", "abstract", "description"), leave_out=("field",))
    assert layout(record(7, description="Field\nPumps."), config) == "Pump 7\n\nA pump 7 moves water."


def test_claims_may_be_a_document_of_their_own_or_none() -> None:
    apart = documents(record(7), LayoutConfig(claims="separate")).texts
    assert apart == (
        "Pump 7\n\nAbstract\nA pump 7 moves water.\n\nDescription\nIt pumps 7 l.\nWell.",
        "Pump 7\n\nClaims\n1. A pump 7.\n2. The pump of claim 1.",
    )
    config = LayoutConfig(claims="none")
    assert documents(record(7), config).texts == apart[:1]
    assert documents(record(7, abstract=None), config).texts == ("Pump 7\n\nIt pumps 7 l.\nWell.",)


@pytest.mark.parametrize("parts", [("title", "claims"), ("claims",), ("title", "description")])
def test_a_record_with_one_part_is_one_document(parts: Any) -> None:
    whole = documents(record(7), LayoutConfig(parts=parts))
    assert documents(record(7), LayoutConfig(parts=parts, claims="separate")) == whole
    assert len(whole.texts) == 1


@pytest.mark.parametrize("claims", ["in-text", "separate"])
def test_claims_in_the_description_may_be_kept_once(claims: Any) -> None:
    repeated = "In some embodiments, the rotor is made of a light alloy of zinc."
    found = record(
        7,
        description=f"It pumps well. {repeated}",
        claims=["A pump, wherein the rotor is made of a light alloy of zinc."],
    )
    laid_out = documents(found, LayoutConfig(claims=claims, repeated_claims="once"))
    assert laid_out.repeated == len(repeated) + 1
    assert repeated not in "".join(laid_out.texts)
    assert "It pumps well." in laid_out.texts[0]
    assert "1. A pump, wherein the rotor is made of a light alloy of zinc." in laid_out.texts[-1]
    description = LayoutConfig(parts=("description",), repeated_claims="once")
    assert layout(found, description) == found["description"], "the claims are not packed"
