"""The corpus pipeline on twice as much data: constant memory, twice the time.

    python -m benchmarks.scale [--quick] [--megabytes 1000 2000]

`python -m data run` packs synthetic Chinese and US patents, in XML files of about 50 MB, with two workers:
first the smaller corpus, then the larger one, which starts with the same files. Memory is the peak of the
summed resident sets of all processes (shared pages count once per process), sampled five times a second; time
is CPU seconds of all processes. The last line is one JSON object.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.corpus import PACKAGES, long_records
from benchmarks.offices import american, chinese, write_weekly
from benchmarks.result import print_result

FILE_INVENTIONS = 3000


class Run(NamedTuple):
    """Measurements of one run."""

    megabytes: float
    seconds: float
    cpu_seconds: float
    peak_mib: float
    disk_megabytes: float


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 and 120 MB: under 4 minutes on 2 cores")
    parser.add_argument("--megabytes", type=int, nargs=2, default=(1000, 2000), help="size of the raw files")
    arguments = parser.parse_args()
    smaller, larger = (60, 120) if arguments.quick else arguments.megabytes
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        files = list(make_files(scratch / "raw", larger))
        tokenizer = train_tokenizer(scratch)
        runs = [run(scratch, files, megabytes, tokenizer) for megabytes in (smaller, larger)]
    print(
        f"{'MB of XML':>10}{'seconds':>10}{'CPU s':>8}{'MB per CPU s':>14}{'peak MiB':>10}{'MB on disk':>12}"
    )
    for each in runs:
        speed = each.megabytes / each.cpu_seconds
        print(
            f"{each.megabytes:10.0f}{each.seconds:10.0f}{each.cpu_seconds:8.0f}{speed:14.1f}"
            f"{each.peak_mib:10.0f}{each.disk_megabytes:12.0f}"
        )
    small, large = runs
    results = {
        "size_ratio": round(large.megabytes / small.megabytes, 3),
        "cpu_ratio": round(large.cpu_seconds / small.cpu_seconds, 3),
        "peak_memory_ratio": round(large.peak_mib / small.peak_mib, 3),
        "peak_mib": round(large.peak_mib),
        "disk_per_raw_ratio": round(large.disk_megabytes / large.megabytes, 2),
    }
    print_result("scale", PACKAGES, results)


def make_files(folder: Path, megabytes: int) -> Iterator[Path]:
    """XML files of both offices alternately, up to `megabytes` in all."""
    (folder / "made").mkdir(parents=True)
    size = 0.0
    for number in itertools.count():
        path = folder / f"{number:04d}.xml"
        language = "zh" if number % 2 == 0 else "en"
        records = long_records(folder / "made", FILE_INVENTIONS * 5, language, seed=number)
        shutil.rmtree(folder / "made")
        size += write_weekly(map(chinese if language == "zh" else american, records), path) / 1e6
        yield path
        if size >= megabytes:
            return


def train_tokenizer(scratch: Path) -> Path:
    """One tokenizer for both runs, so that they do the same work."""
    settings = ["synthetic.inventions=1000", "tokenizer.vocabulary_size=4000", "dedup.near=false"]
    subprocess.run(command(scratch / "first", [], *settings), check=True, stdout=subprocess.DEVNULL)
    return scratch / "first" / "tokenizer"


def run(scratch: Path, files: list[Path], megabytes: int, tokenizer: Path) -> Run:
    """Run the pipeline over the first `megabytes` of the files."""
    sizes = list(itertools.accumulate(file.stat().st_size / 1e6 for file in files))
    chosen = files[: next(number for number, size in enumerate(sizes, 1) if size >= megabytes)]
    root = scratch / f"corpus-{megabytes}"
    given = ["tokenizer.vocabulary_size=null", f"tokenizer.path={tokenizer}"]
    before, start, peak = os.times(), time.monotonic(), 0.0
    process = subprocess.Popen(command(root, chosen, *given, "engine.workers=2"), stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(resident_mib, tree(process.pid))))
        time.sleep(0.2)
    assert process.returncode == 0
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    disk = sum(
        file.stat().st_size for file in root.rglob("*") if file.is_file() and file.stat().st_nlink == 1
    )
    shutil.rmtree(root)
    return Run(sizes[len(chosen) - 1], time.monotonic() - start, cpu, peak, disk / 1e6)


def command(root: Path, files: list[Path], *settings: str) -> list[str]:
    """The command as a user would run it."""
    sources = f"sources=[{', '.join(map(str, files))}]"
    return [sys.executable, "-m", "data", "run", f"output_dir={root}", sources, *settings]


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # the process has ended
        return
    for child in map(int, children):
        yield from tree(child)


def resident_mib(pid: int) -> float:
    """Resident memory of a process; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
