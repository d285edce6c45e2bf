"""What packing can leave out of real descriptions: sections, and sentences that are in the claims."""

import re
from collections import Counter
from pathlib import Path

import pytest

from data.cleaning.record_cleaner import CleanConfig, clean_record
from data.packing.document_text import without_sections
from data.packing.repeated_claims import without_repeated
from data.readers.formats import read
from data.record import Record, Rejected
from data.sections import SectionName

CLEAN = CleanConfig(min_characters=0)


@pytest.fixture(scope="session")
def described(real: Path) -> list[Record]:
    """The clean records that have a description, without tables of titles."""
    files = [path for path in sorted((real / "patents").rglob("*")) if path.is_file()]
    outcomes = [outcome for path in files if path.suffix != ".csv" for outcome in read(path)]
    raw = [record for outcome in outcomes if not isinstance(outcome, Rejected) for record in outcome]
    found = [clean_record(CLEAN, record).record for record in raw]
    return [record for record in found if record and record["description"]]


def test_sections_that_are_left_out_are_a_small_part_of_every_description(described: list[Record]) -> None:
    names: tuple[SectionName, ...] = ("related", "support", "notices", "drawings", "signs", "sequences")
    with_section: Counter[str] = Counter()
    for record in described:
        text = record["description"] or ""
        left, left_out = without_sections(text, names)
        assert len(left) > 0.7 * len(text), record["id"]
        with_section.update(left_out.keys())
    assert len(described) > 100
    assert with_section["drawings"] > 45
    assert with_section["related"] >= 12
    assert with_section["signs"] >= 9


LOST = {
    "zh": "此",
    "ja": "技術分野 課題を解決するための手段 本発明の一態様によれば が提供される また、好ましくは に関する",
    "en": "in some another example preferred embodiments embodiment aspect present invention disclosure"
    " provides involves preferably conveniently",
    "de": "vorteilhafte ausgestaltung erfindung daß",
    "fr": "mode réalisation présente invention",
}
"""Words, or signs, of introductions and headings, which may vanish from a description."""


def test_every_word_that_is_left_out_is_in_the_claims(described: list[Record]) -> None:
    whole: Counter[str] = Counter()
    repeated: Counter[str] = Counter()
    for record in described:
        text, language = record["description"] or "", record["language"] or ""
        left = without_repeated(text, record["claims"] or (), language)
        lost = words(text, language) - words(left, language)
        claimed = words("\n".join(record["claims"] or ()), language)
        assert lost.keys() - claimed.keys() <= words(LOST.get(language, ""), language).keys(), record["id"]
        assert not words(left, language) - words(text, language), record["id"]
        whole[language] += len(text)
        repeated[language] += len(text) - len(left)
    shares = {language: repeated[language] / whole[language] for language in LOST}
    assert shares["zh"] > 0.02
    assert shares["ja"] > 0.06
    assert 0 < max(shares[language] for language in ("en", "de", "fr")) < 0.01


def words(text: str, language: str) -> Counter[str]:
    """The words of a text, or its signs if it has no spaces, by their number."""
    return Counter(re.findall(r"\w" if language in ("zh", "ja") else r"\w+", text.lower()))
