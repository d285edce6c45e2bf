"""The corpus pipeline: reading XML, raw files to packed ids, and deduplication compared with datatrove.

    python -m benchmarks.corpus [--quick] [--real DIR]

    reading        XML of the Chinese office and the USPTO to Parquet shards of records: synthetic patents
                   or, with --real, copies of the offices' files in a folder (`cn/xml`, `uspto`)
    raw to packed  the whole pipeline over synthetic Chinese XML in ZIP archives with a given tokenizer, and
                   the share of each step
    deduplication  both tools read the same Parquet shards, drop duplicates and write the rest, alternately
                   after a warm-up on a small corpus. datatrove is configured for Chinese (language `cmn`,
                   which splits words with jieba; language `zh` would silently split at white space)

All on one core. Rates are per CPU second, medians over the rounds; for XML with markup, for texts without.
The last line is one JSON object.
"""

import argparse
import gc
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from benchmarks.offices import american, chinese, write_files, write_weekly, write_zips
from benchmarks.planted import Planted, Score, character_grams, plant, score, synthetic_records, whole_text
from benchmarks.result import print_result, versions
from data.record import Record

PACKAGES = ("numba", "numpy", "pyarrow", "xxhash", "opencc", "datatrove", "spacy", "jieba")
ROUNDS = 3


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller corpus: under 4 minutes on 2 cores")
    parser.add_argument("--real", type=Path, metavar="DIR", help="a folder with real files of the offices")
    arguments = parser.parse_args()
    results: dict[str, float] = {}
    size = 2 if arguments.quick else 5
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "made").mkdir()
        zh, en = (long_records(Path(scratch) / "made", 2000 * size, language) for language in ("zh", "en"))
        results |= measure_reading(fresh(Path(scratch) / "reading"), zh, en, arguments.real)
        results |= measure_pipeline(fresh(Path(scratch) / "pipeline"), zh)
        results |= compare_dedup(fresh(Path(scratch) / "dedup"), 2000 * size)
    print_result("corpus", PACKAGES, results)


def long_records(
    folder: Path, inventions: int, language: str, together: int = 5, seed: int = 0
) -> list[Record]:
    """Synthetic patents as long as real ones: each joins the descriptions of several."""
    made = synthetic_records(folder, inventions, language, seed)
    groups = (made[start : start + together] for start in range(0, len(made), together))
    return [
        {**group[0], "description": "\n".join(each["description"] or "" for each in group)}
        for group in groups
    ]


def measure_reading(
    scratch: Path, zh: Sequence[Record], en: Sequence[Record], real: Path | None
) -> dict[str, float]:
    """XML to records, and to shards of records on disk, in MB of XML per CPU second."""
    from data.readers import formats
    from data.readers.ingest import ingest
    from data.readers.source import Source

    (scratch / "zh").mkdir()
    (scratch / "us").mkdir()
    sizes = {
        "zh": write_files([chinese(record) for record in zh], scratch / "zh"),
        "us": write_weekly(map(american, en), scratch / "us" / "weekly.xml"),
    }
    if real:
        names = {"zh": sorted(real.glob("cn/xml/*.xml")), "us": sorted(real.glob("uspto/xml*/*.xml"))}
        for office, files in names.items():
            documents = [file.read_bytes() for file in files]
            copies = max(1, sizes[office] // sum(map(len, documents)))
            sizes[office] = write_files(documents * copies, fresh(scratch / office))
    results: dict[str, float] = {}
    print(
        f"{'real' if real else 'synthetic'} XML, MB/s per core{'MB':>10}{'to records':>12}{'to shards':>12}"
    )
    gc.freeze()  # keep the synthetic records out of the garbage collections that the readers cause
    for office, size in sizes.items():

        def read(folder: Path = scratch / office) -> None:
            for path in sorted(folder.iterdir()):
                assert all(isinstance(outcome, list) for outcome in formats.read(path))

        def to_shards(folder: Path = scratch / office) -> None:
            ingest([Source(path=str(folder))], fresh(scratch / "out"), None)

        times: dict[str, list[float]] = {"xml": [], "ingest": []}
        for what, work in (("xml", read), ("ingest", to_shards)):
            for _ in range(ROUNDS + 1):
                start = time.process_time()
                work()
                times[what].append(time.process_time() - start)
        speeds = {what: size / 1e6 / statistics.median(some[1:]) for what, some in times.items()}
        print(f"{office:30}{size / 1e6:10.0f}{speeds['xml']:12.1f}{speeds['ingest']:12.1f}")
        results |= {f"{what}_{office}_mb_per_core_s": round(speed, 1) for what, speed in speeds.items()}
    return results


def measure_pipeline(scratch: Path, records: Sequence[Record]) -> dict[str, float]:
    """The whole pipeline on Chinese XML, in MB of XML per CPU second, and each step's share of the time."""
    from data.pipeline import DataConfig, run

    sizes = {}
    for name, some in (("warm-up", records[: len(records) // 10]), ("corpus", records)):
        (scratch / name).mkdir()
        sizes[name] = write_zips([chinese(record) for record in some], scratch / name)
    steps: dict[str, list[float]] = {}
    config = DataConfig.model_validate(
        {
            "output_dir": str(scratch / "first"),
            "sources": [str(scratch / "warm-up")],
            "tokenizer": {"vocabulary_size": 4000},
            "engine": {"workers": 1},
        }
    )
    run(config, say=lambda _: None)
    given = {"tokenizer": {"path": str(scratch / "first" / "tokenizer")}}
    for _ in range(ROUNDS):
        made = {"output_dir": str(fresh(scratch / "out")), "sources": [str(scratch / "corpus")]}
        start = time.process_time()

        def note(line: str) -> None:
            nonlocal start
            now = time.process_time()
            steps.setdefault(line.split(maxsplit=1)[0] if line.strip() else "report", []).append(now - start)
            start = now

        run(DataConfig.model_validate(config.model_dump() | given | made), say=note)
    medians = {name: statistics.median(times) for name, times in steps.items()}
    total = sum(medians.values())
    speed = sizes["corpus"] / 1e6 / total
    print(
        f"raw to packed: {sizes['corpus'] / 1e6:.0f} MB of Chinese XML, {speed:.1f} MB/s per core; by step:"
    )
    print("".join(f"  {name} {seconds / total:.0%}" for name, seconds in medians.items()))
    shares = {f"share_{name}_ratio": round(seconds / total, 3) for name, seconds in medians.items()}
    return {"raw_to_packed_zh_mb_per_core_s": round(speed, 1), **shares}


def compare_dedup(scratch: Path, inventions: int) -> dict[str, float]:
    """Deduplication of a planted Chinese corpus by our code and by datatrove."""
    corpora = {}
    for name, size in (("warm-up", 60), ("corpus", inventions)):
        (scratch / name).mkdir()
        records = synthetic_records(scratch / name / "source", size, "zh")
        corpora[name] = plant(records, scratch / name, character_grams)
    planted = corpora["corpus"]
    tools: dict[str, Callable[[Planted, Path], None]] = {"ours": run_ours}
    if missing := missing_packages("datatrove", "spacy", "jieba"):
        print(f"datatrove (cmn) is skipped; not installed: {', '.join(missing)}")
    else:
        tools["datatrove"] = run_datatrove
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    scores: dict[str, Score] = {}
    for tool in tools.values():
        tool(corpora["warm-up"], fresh(scratch / "out"))
    for _ in range(ROUNDS):
        for name, tool in tools.items():
            # Ours is so fast that a single run is mostly noise.
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
    from data.dedup.dedup import DedupConfig, dedup

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
    # datatrove 0.10.1 passes str to xxhash, which only takes bytes from version 4 on.
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
    """The kept ids and, if the tool reports it, for each dropped id the one it duplicates."""
    tables = [pq.read_table(file, columns=["id"]) for file in folder.glob("*.parquet")]
    dropped = folder / "duplicates.jsonl"
    lines = [json.loads(line) for line in dropped.read_text("utf-8").splitlines()] if dropped.exists() else []
    return set(pa.concat_tables(tables)["id"].to_pylist()), {line["id"]: line["kept"] for line in lines}


def fresh(folder: Path) -> Path:
    """Empty the folder, or create it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def missing_packages(*names: str) -> list[str]:
    """The packages of `names` that are not installed."""
    return [name for name in names if name not in versions(names)]


if __name__ == "__main__":
    main()
