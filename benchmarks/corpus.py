"""Deduplication of Chinese patents, beside datatrove: speed per core, recall and precision.

    python -m benchmarks.corpus [--quick]

Both tools read the same Parquet shards, drop duplicates and write what is left, on one core, in turns after
a warm-up on a small corpus. datatrove is set right for Chinese (language `cmn`, which cuts words with jieba;
the language `zh` would silently cut at white space). Ratios are of CPU seconds, medians over the rounds. The
last line is one JSON object.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from benchmarks.planted import Planted, Score, character_grams, plant, score, synthetic_records, whole_text

PACKAGES = ("numba", "numpy", "pyarrow", "xxhash", "opencc", "datatrove", "spacy", "jieba")
ROUNDS = 3


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller corpus: under 4 minutes on 2 cores")
    arguments = parser.parse_args()
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        results |= compare_dedup(Path(scratch), 2000 if arguments.quick else 10_000)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    report = {"benchmark": "corpus", "machine": machine, "versions": versions(), "results": results}
    print(json.dumps(report))


def compare_dedup(scratch: Path, inventions: int) -> dict[str, float]:
    """Deduplication of a planted Chinese corpus by ours and by datatrove."""
    corpora = {}
    for name, size in (("warm-up", 60), ("corpus", inventions)):
        (scratch / name).mkdir()
        records = synthetic_records(scratch / name / "source", size, "zh")
        corpora[name] = plant(records, scratch / name, character_grams)
    planted = corpora["corpus"]
    tools: dict[str, Callable[[Planted, Path], None]] = {"ours": run_ours}
    if missing := missing_packages("datatrove", "spacy", "jieba"):
        print(f"datatrove (cmn) cannot run: not installed: {', '.join(missing)}")
    else:
        tools["datatrove"] = run_datatrove
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    scores: dict[str, Score] = {}
    for tool in tools.values():
        tool(corpora["warm-up"], fresh(scratch / "out"))
    for _ in range(ROUNDS):
        for name, tool in tools.items():
            # Ours is over so soon that one run of it is mostly noise.
            for _ in range(5 if name == "ours" else 1):
                start = time.process_time()
                tool(planted, fresh(scratch / "out"))
                seconds[name].append(time.process_time() - start)
            scores[name] = score(planted, *outcome(scratch / "out"))
    megabytes = planted.text_bytes / 1e6
    print(
        f"{megabytes:.0f} MB of Chinese text, {len(planted.family):,} records, {len(planted.pairs):,} copies"
    )
    print(
        f"{'':12}{'MB/s per core':>15}{'recall J>=0.6':>15}{'0.5<=J<0.6':>12}{'precision':>11}{'dropped':>9}"
    )
    speeds = {name: megabytes / statistics.median(times) for name, times in seconds.items()}
    for name, found in scores.items():
        high, low = (hits / max(1, pairs) for hits, pairs in found.recall.values())
        print(
            f"{name:12}{speeds[name]:15.2f}{high:15.4f}{low:12.4f}{found.precision:11.4f}{found.dropped:9,}"
        )
    hits, pairs = scores["ours"].recall["0.6-1.0"]
    results = {
        "dedup_zh_mb_per_core_s": round(speeds["ours"], 1),
        "dedup_recall_j60": round(hits / max(1, pairs), 4),
        "dedup_precision": round(scores["ours"].precision, 4),
    }
    if "datatrove" in speeds:
        ratio = speeds["ours"] / speeds["datatrove"]
        print(f"ours / datatrove, CPU seconds on the same corpus: {ratio:.0f}x")
        results["dedup_vs_datatrove_cmn_cpu_ratio"] = round(ratio, 1)
    return results


def run_ours(planted: Planted, folder: Path) -> None:
    """`data.dedup` with its default settings."""
    from data.dedup import DedupConfig, dedup

    dedup(DedupConfig(), planted.shards, folder)


def run_datatrove(planted: Planted, folder: Path) -> None:
    """The four steps of datatrove's MinHash example, in this process, with its default settings."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from loguru import logger

    def document(_: Any, row: dict[str, Any], __: str, ___: int | str) -> dict[str, Any]:
        return {"id": row["id"], "text": whole_text(row), "metadata": {}}  # type: ignore[arg-type]

    def reader() -> Any:
        return ParquetReader(str(planted.shards[0].parent), glob_pattern="shard-*.parquet", adapter=document)

    logger.disable("datatrove")
    config = MinhashConfig()
    signing = MinhashDedupSignature(str(folder / "signatures"), config, language="cmn")
    # datatrove 0.10.1 hands texts to xxhash, which from version 4 on takes bytes only.
    signing._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())
    signatures, buckets, removed = (str(folder / name) for name in ("signatures", "buckets", "removed"))
    steps = [
        [reader(), signing],
        [MinhashDedupBuckets(signatures, buckets, config=config)],
        [MinhashDedupCluster(buckets, removed, config=config)],
        [reader(), MinhashDedupFilter(removed), ParquetWriter(str(folder))],
    ]
    for number, step in enumerate(steps):
        tasks = config.num_buckets if number == 1 else 1
        log = str(folder / f"log{number}")
        LocalPipelineExecutor(step, tasks=tasks, workers=1, logging_dir=log).run()


def outcome(folder: Path) -> tuple[set[str], dict[str, str]]:
    """The ids that are kept, and for each dropped one, where a tool tells, what it was dropped for."""
    tables = [pq.read_table(file, columns=["id"]) for file in folder.glob("*.parquet")]
    told = folder / "duplicates.jsonl"
    lines = [json.loads(line) for line in told.read_text("utf-8").splitlines()] if told.exists() else []
    return set(pa.concat_tables(tables)["id"].to_pylist()), {line["id"]: line["kept"] for line in lines}


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def missing_packages(*names: str) -> list[str]:
    """Which of these are not installed."""
    return [name for name in names if name not in versions()]


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the figures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
