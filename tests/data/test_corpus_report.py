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
