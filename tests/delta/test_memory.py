"""Memory does not grow with the size of the model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from tests.conftest import ROOT
from tests.delta.meta import meta_weights, save_meta
from tests.delta.models import Arrays, save

CODE = """
import sys
from delta import __main__ as command
try:
    command.main()
except SystemExit as end:
    assert not end.code, end.code
print(next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))
"""


def peak_mb(*arguments: str | Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1]) * 1024 / 1e6


def test_make_and_apply_stay_small_for_a_model_three_times_as_large(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    peaks: dict[str, list[float]] = {"make": [], "apply": []}
    for rows in (6_000, 18_000):
        place = tmp_path / str(rows)
        arrays: Arrays = {
            name: ("BF16", rng.integers(0, 1 << 15, (rows, 1024), np.uint16)) for name in ("one", "two")
        }
        save(place / "base", arrays)
        save(place / "target", {name: (dtype, values ^ 3) for name, (dtype, values) in arrays.items()})
        for command, target in (("make", "target"), ("apply", "again")):
            folders = ["--base", place / "base", "--target", place / target, "--delta", place / "delta"]
            peaks[command].append(peak_mb(command, *map(str, folders)))
    assert peaks["make"][1] <= 130
    assert peaks["apply"][1] <= 100
    for small, large in peaks.values():
        assert large - small < 10


def test_convert_stays_small_for_a_model_five_times_as_large(tmp_path: Path) -> None:
    peaks = []
    for vocabulary in (130_000, 650_000):
        place = tmp_path / str(vocabulary)
        save_meta(place, meta_weights(4, torch.float16, vocabulary), 2)
        folders: list[str | Path] = [
            "--input_dir",
            place,
            "--output_dir",
            tmp_path / f"{vocabulary}-converted",
            "--llama_version",
            "1",
        ]
        peaks.append(peak_mb("convert", *folders))
    assert peaks[1] <= 100
    assert peaks[1] - peaks[0] < 10
