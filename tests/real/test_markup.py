"""No text of a real file has anything that looks like markup, as packing counts it."""

from pathlib import Path

from data.cleaning.record_cleaner import CleanConfig, clean_record
from data.packing.document_text import LayoutConfig, layout
from data.packing.markup_scan import scan
from data.readers.formats import read
from data.record import Rejected

CLEAN = CleanConfig(min_characters=0)


def test_the_scan_finds_nothing_in_any_real_file(real: Path) -> None:
    texts = 0
    for path in sorted(path for path in (real / "patents").rglob("*") if path.is_file()):
        for outcome in read(path):
            for record in () if isinstance(outcome, Rejected) else outcome:
                cleaned = clean_record(CLEAN, record).record
                if cleaned is not None:
                    assert not scan(layout(cleaned, LayoutConfig())), (path, record["id"])
                    texts += 1
    assert texts > 1000
