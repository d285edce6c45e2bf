"""The gradient of a step does not depend on how the step is split."""

import json
from pathlib import Path

import pytest

from core.html_report import text_table
from tests.conftest import TinyRuns, warm

TOLERANCE = 1e-5
"""In units of the largest gradient."""


@pytest.mark.slow
def test_the_gradient_is_the_same_for_every_micro_batch_accumulation_number_of_ranks_and_zero_stage(
    tiny: TinyRuns, tmp_path: Path
) -> None:
    rows: list[list[float]] = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        done = warm("tests.pretrain.splits", tiny.folder / "prepared" / "base", out, processes=processes)
        assert done.returncode == 0, done.stdout + done.stderr
        rows += json.loads(out.read_text())
    header = ["ranks", "ZeRO", "micro-batch", "accumulation", "largest difference"]
    print(text_table(header, [[*row[:4], f"{row[4]:.1e}"] for row in rows]))
    assert len(rows) == 4 * (4 + 3)
    assert all(row[4] <= TOLERANCE for row in rows)
