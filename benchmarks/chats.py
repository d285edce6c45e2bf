"""Preparing twice as much instruction data: constant memory, twice the time.

    python -m benchmarks.chats [--quick] [--samples 200000 400000]

Synthetic questions and answers in Chinese and English, some with several turns and some too long, as JSON
lines in four layouts, are prepared by `python -m data chats` with two workers: first the smaller set, then
the larger one, which starts with the same samples. Memory is the peak of the summed resident sets of all
processes (shared pages count once per process), sampled five times a second; time is CPU seconds of all
processes. The last line is one JSON object.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.result import print_result
from benchmarks.scale import resident_mib, tree

PACKAGES = ("transformers", "tokenizers", "numpy")
FILE_SAMPLES = 50_000


class Run(NamedTuple):
    """Measurements of one run."""

    samples: int
    seconds: float
    cpu_seconds: float
    peak_mib: float


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chats", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 and 40,000: under 3 minutes on 2 cores")
    parser.add_argument("--samples", type=int, nargs=2, default=(200_000, 400_000))
    arguments = parser.parse_args()
    fewer, more = (20_000, 40_000) if arguments.quick else arguments.samples
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "files").mkdir()
        tokenizer = train_tokenizer(scratch)
        runs = []
        for samples in (fewer, more):
            write_files(scratch / "files", samples)
            runs.append(run(scratch, samples, tokenizer))
    print(f"{'samples':>9}{'seconds':>9}{'CPU s':>8}{'ms/sample':>13}{'peak MiB':>10}")
    for each in runs:
        milliseconds = each.cpu_seconds / each.samples * 1000
        print(f"{each.samples:9,}{each.seconds:9.0f}{each.cpu_seconds:8.0f}{milliseconds:13.2f}"
              f"{each.peak_mib:10.0f}")  # fmt: skip
    small, large = runs
    results = {
        "samples_ratio": large.samples / small.samples,
        "cpu_ratio": large.cpu_seconds / small.cpu_seconds,
        "peak_memory_ratio": large.peak_mib / small.peak_mib,
        "peak_mib": large.peak_mib,
        "milliseconds_per_sample": large.cpu_seconds / large.samples * 1000,
    }
    print_result("chats", PACKAGES, results)


def samples_of(number: int) -> Iterator[dict[str, Any]]:
    """The samples of file `number`; always the same for the same number."""
    draw = random.Random(number)
    words = [f"word{i}" for i in range(2000)] + [chr(0x4E00 + i) * 2 for i in range(2000)]

    def text(mean: int) -> str:
        return " ".join(draw.choices(words, k=1 + int(draw.expovariate(1 / mean))))

    for i in range(FILE_SAMPLES):
        match i % 4:
            case 0:
                yield {"instruction": text(20), "input": text(20), "output": text(60)}
            case 1:
                yield {"kind": "QA", "input": text(30), "target": text(30)}
            case 2:
                turns = [{"human": text(15), "assistant": text(30)} for _ in range(1 + i % 3)]
                yield {"conversation": turns}
            case _:
                yield {"input": text(40), "target": text(5), "answer_choices": [], "type": "nli"}


def write_files(folder: Path, samples: int) -> None:
    """Write files with `samples` samples in all; existing files keep their content."""
    for number in range(-(-samples // FILE_SAMPLES)):
        path = folder / f"{number:04d}.jsonl"
        wanted = min(FILE_SAMPLES, samples - number * FILE_SAMPLES)
        with path.open("w", encoding="utf-8") as file:
            for _, sample in zip(range(wanted), samples_of(number), strict=False):
                file.write(json.dumps(sample, ensure_ascii=False) + "\n")


def train_tokenizer(scratch: Path) -> Path:
    """One tokenizer for both runs, so that they do the same work."""
    made = scratch / "tokenizer"
    source = "--inventions", "300", "--output", str(scratch / "patents")
    command = [sys.executable, "-m", "data"]
    subprocess.run([*command, "synthesize", *source], check=True, stdout=subprocess.DEVNULL)
    given = [str(scratch / "patents"), "--vocabulary-size", "4000", "--output", str(made)]
    subprocess.run([*command, "tokenizer", *given], check=True, stdout=subprocess.DEVNULL)
    return made


def run(scratch: Path, samples: int, tokenizer: Path) -> Run:
    """Run the command as a user would."""
    root = scratch / "out"
    given = ["chats", "--tokenizer", str(tokenizer), f"sources=[{{path: {scratch / 'files'}}}]",
             f"output_dir={root}", "template=linly", "max_tokens=512", "engine.workers=2"]  # fmt: skip
    before, start, peak = os.times(), time.monotonic(), 0.0
    process = subprocess.Popen([sys.executable, "-m", "data", *given], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(resident_mib, tree(process.pid))))
        time.sleep(0.2)
    assert process.returncode == 0
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    shutil.rmtree(root)
    return Run(samples, time.monotonic() - start, cpu, peak)


if __name__ == "__main__":
    main()
