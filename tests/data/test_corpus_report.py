"""The page about a corpus: it is written whatever cleaning found out about the records."""

import json
from pathlib import Path

from data.pipeline import DataConfig, run

TRADITIONAL = "本發明涉及一種離心泵，其殼體與軸之間通過橡膠圈密封，轉子設置在殼體內，並與電機連接。" * 3
ENGLISH = (
    "The invention relates to a pump whose housing is sealed against the shaft by a ring of rubber. " * 3
)


def test_a_record_whose_language_cleaning_told_is_shown_as_it_was_and_is(tmp_path: Path) -> None:
    rows = [
        {"id": "TW-1-A", "language": "zh", "description": f"[0001] {TRADITIONAL}"},
        {"id": "TW-2-A", "language": "zh-TW", "description": f"[0001] {TRADITIONAL}第二"},
        {"id": "US-3-A", "language": None, "description": f"[0001] {ENGLISH}"},
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig.model_validate({
        "output_dir": str(tmp_path / "corpus"), "sources": [str(source)],
        "tokenizer": {"vocabulary_size": 500}, "pack": {"validation_share": 0},
        "dedup": {"near": False}, "engine": {"workers": 1},
    })  # fmt: skip
    run(config, say=lambda _: None)
    page = (tmp_path / "corpus" / "report.html").read_text("utf-8")
    for shown in ("TW-1-A · zh-Hant", "TW-2-A · zh-Hant", "US-3-A · en", "[0001] </del>本發明"):
        assert shown in page


def test_what_packing_left_out_is_on_the_page_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    repeated = "In some embodiments, the housing is sealed against the shaft by a ring of rubber."
    row = {
        "id": "US-3-A", "language": "en", "title": "Pump",
        "claims": ["A pump, wherein the housing is sealed against the shaft by a ring of rubber."],
        "description": f"FIELD\n{ENGLISH}\n{repeated}\nDRAWINGS\nFIG. 1 is a pump.",
    }  # fmt: skip
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(row) + "\n")
    config = DataConfig.model_validate({
        "output_dir": str(tmp_path / "corpus"), "sources": [str(source)],
        "tokenizer": {"vocabulary_size": 320}, "engine": {"workers": 1},
        "pack": {"validation_share": 0, "leave_out": ["drawings"], "repeated_claims": "once",
                 "claims": "separate"},
    })  # fmt: skip
    said: list[str] = []
    run(config, say=said.append)
    assert any("train: 2 documents" in line for line in said)
    assert any("left out: 26 characters of the section drawings" in line for line in said)
    page = (tmp_path / "corpus" / "report.html").read_text("utf-8")
    for shown in ("section drawings", "in the claims (en)"):
        assert shown in page
    packed = {path.name: path.read_bytes() for path in (tmp_path / "corpus" / "pack").iterdir()}
    run(config, say=said.append)
    assert said[-1].startswith("\nreport")
    assert any("pack           up to date" in line for line in said)
    assert {path.name: path.read_bytes() for path in (tmp_path / "corpus" / "pack").iterdir()} == packed
