"""Cleaning on real patents: nothing good is taken or dropped; sections and claims are understood."""

import re
from collections import Counter
from pathlib import Path

import pytest

from data import claim_numbers
from data.claims import references
from data.cleaning.clean import clean
from data.cleaning.record_cleaner import CleanConfig, clean_record, size
from data.language import other_language
from data.readers.ingest import ingest
from data.readers.source import Source
from data.record_store import read_records
from data.sections import heading, sections


@pytest.fixture(scope="session")
def ingested(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full patents of five offices, and Chinese titles with abstracts, as records."""
    folder = tmp_path_factory.mktemp("ingest")
    places = ("uspto", "epo", "jp", "cn/xml", "cn/zh_patent_cpc")
    ingest([Source(path=str(real / "patents" / place)) for place in places], folder, None)
    return folder


def chinese_descriptions(real: Path) -> dict[str, str]:
    """The descriptions of the Chinese XML files as plain lines, read without the readers."""
    found = {}
    for path in sorted((real / "patents/cn/xml").glob("*.xml")):
        text = re.sub(r"<!--.*?-->", "", path.read_text("utf-8-sig"), flags=re.DOTALL)
        body = re.search(r"<(?:business:D|d)escription.*?</(?:business:D|d)escription>", text, re.DOTALL)
        assert body is not None, path
        plain = re.sub(r"<[^>]*>", "", re.sub(r"\s*<br />\s*", "", body[0]))
        found[path.name] = re.sub(r"\s*\n\s*", "\n", plain).strip()
    return found


def test_the_defaults_drop_no_good_patent_and_take_next_to_nothing(ingested: Path, tmp_path: Path) -> None:
    counts = clean(CleanConfig(), ingested, tmp_path)
    assert counts["dropped"].keys() <= {"duplicate", "too-short"}, counts["dropped"]
    assert counts["records_out"] >= 0.98 * counts["records_in"]
    assert counts["characters"] >= 0.98 * counts["characters_in"]
    for record in read_records(ingested):
        after = clean_record(CleanConfig(), record).record
        long = size(record) > 5000  # of a filed amendment of a few lines, the paragraph numbers are a part
        assert not long or (after is not None and size(after) >= 0.9 * size(record)), record["id"]


def test_sections_of_real_descriptions_are_put_together_again(real: Path, ingested: Path) -> None:
    named: Counter[str] = Counter()
    for record in read_records(ingested):
        pieces = sections(record["description"] or "")
        assert "".join(piece.text for piece in pieces) == (record["description"] or "")
        headed = "greenbook" not in record["source"] and len(record["description"] or "") > 5000
        if record["office"] == "US" and record["kind"] != "A1" and headed:
            assert {"background", "summary", "description"} & {piece.name for piece in pieces}, record["id"]
        named.update({piece.name for piece in pieces})
    assert named["background"] > 20
    assert named["drawings"] > 10
    for name, text in chinese_descriptions(real).items():
        names = [piece.name for piece in sections(text)]
        order = ("field", "background", "summary", "description")
        assert [found for found in names if found in order] == list(order), name


def test_chinese_descriptions_pass_unharmed(real: Path) -> None:
    for name, text in chinese_descriptions(real).items():
        record = {
            **dict.fromkeys(("office", "kind", "date", "application_id", "family_id", "title", "abstract")),
            **dict.fromkeys(("filed", "priority", "cites", "claim_numbers")),
            **{
                "id": name,
                "language": "zh",
                "claims": None,
                "ipc": None,
                "source": name,
                "description": text,
            },
        }
        outcome = clean_record(CleanConfig(), record)  # type: ignore[arg-type]
        assert outcome.record is not None, (name, outcome.dropped_by)
        assert outcome.record["language"] == "zh"
        assert size(outcome.record) >= 0.99 * len(text), (name, outcome.changed)


def test_no_section_of_a_real_patent_is_taken_for_another_language(ingested: Path) -> None:
    for record in read_records(ingested):
        for piece in sections(record["description"] or ""):
            if record["language"] and len(piece.text.encode()) >= 200:
                assert other_language(piece.text, record["language"]) is None, (record["id"], piece.text[:80])


def test_claims_that_name_a_claim_depend_on_it(ingested: Path) -> None:
    dependent = total = 0
    for record in read_records(ingested):
        for number, claim in claim_numbers.of_record(record).items():
            numbers = references(claim, record["language"] or "", number)
            assert numbers == sorted(set(numbers))
            assert all(1 <= found < number for found in numbers)
            total += 1
            dependent += bool(numbers)
            if number == 1:
                assert not numbers, record["id"]
    assert dependent > 0.8 * total


def test_traditional_statutes_are_told_from_simplified_patents(real: Path) -> None:
    import json

    from data.language import detect, is_traditional

    lines = (real / "translation/tw_ip_law_zh_en.jsonl").read_text("utf-8").splitlines()
    texts = [value for line in lines for value in json.loads(line).values() if isinstance(value, str)]
    chinese = [text for text in texts if len(text) > 60 and detect(text[:250]) == "zh"]
    assert len(chinese) > 100
    assert sum(map(is_traditional, chinese)) >= 0.99 * len(chinese)
    for text in chinese_descriptions(real).values():
        assert not is_traditional(text)
        assert heading(text.split("\n")[1]) is not None
