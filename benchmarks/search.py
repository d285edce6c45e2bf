"""Retrieval beside bm25s, and across languages with the embedding that `serve embed` trains.

    python -m benchmarks.search --quick           25,000 passages
    python -m benchmarks.search                   60,000 passages
    python -m benchmarks.search --million         also 1,000,000 passages: memory, growth, latency

Synthetic patents in Chinese and English. Ours is `serve index` as a user runs it, from records to a folder
with its manifest; the peer gets passages that are already split into our terms (`terms_cpu_s`). Questions
for quality are the summary sections of descriptions that are not in the index: the invention is to be found
by its title, abstract and claims. Across languages the English abstract is to find the Chinese publication.
"""

import argparse
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peer import WITHOUT, Peer
from benchmarks.result import print_result
from data.record import SCHEMA, Record, invention
from data.record_store import read_records
from data.sections import sections
from serve.retrieval.embedding import train
from serve.retrieval.index import build, ipc_prefixes
from serve.retrieval.passages import passages
from serve.retrieval.search import Filter, Index
from serve.retrieval.terms import terms

PACKAGES = ("tantivy", "numpy", "torch")
QUESTIONS = 200
HITS = 10
SHARD = 2000
"""Records."""


def main() -> None:
    """Make the corpora, run both sides in turns, print the figures and the JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="25,000 passages, within minutes")
    parser.add_argument("--million", action="store_true", help="also an index of 1,000,000 passages")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(WITHOUT, dest="without", action="store_true", help="ours alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        records = synthetic(Path(scratch), 1000 if arguments.quick else 2400)
        results = compare(Path(scratch), records, arguments.repeats, with_peer=not arguments.without)
        results |= across_languages(Path(scratch), records)
        if arguments.million:
            results |= million(Path(scratch), records)
    print_result("search", PACKAGES, results, {} if arguments.without else {"bm25s": "0.3.16"}, table=True)


def synthetic(scratch: Path, inventions: int) -> list[Record]:
    """Records in two languages."""
    command = ["data", "run", "--until", "ingest", f"output_dir={scratch / 'made'}"]
    command += [f"synthetic.inventions={inventions}", "synthetic.seed=11"]
    subprocess.run(
        [sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return list(read_records(scratch / "made" / "ingest"))


def write(records: Sequence[Record], folder: Path) -> Path:
    """Records as the shards of a step."""
    folder.mkdir()
    for number, start in enumerate(range(0, len(records), SHARD)):
        table = pa.Table.from_pylist(records[start : start + SHARD], SCHEMA)
        pq.write_table(table, folder / f"shard-{number:05d}.parquet")
    return folder


def compare(scratch: Path, records: Sequence[Record], repeats: int, *, with_peer: bool) -> dict[str, float]:
    """Both indexes of the same passages: CPU seconds, bytes, milliseconds, nDCG@10."""
    short: list[Record] = [{**each, "description": None} for each in records]
    folder = write(records, scratch / "records")
    asked = questions(records)
    parts = [(each, passage) for each in records for passage in passages(each)]
    lines: list[str] = []
    splitting = cpu(lambda: lines.extend(" ".join(terms(passage.text)) for _, passage in parts))
    (scratch / "terms.txt").write_text("\n".join(lines) + "\n", "utf-8")
    mask = np.array(["F25B" in _classes(each) for each, _ in parts], np.float32)
    np.save(scratch / "mask.npy", mask)
    peer = Peer("bm25s", "bm25s_index.py") if with_peer else None
    times: dict[str, list[float]] = {}

    def note(key: str, value: float) -> None:
        times.setdefault(key, []).append(value)

    for number in range(repeats + 1):  # the first round warms up
        shutil.rmtree(scratch / "index", ignore_errors=True)
        seconds = cpu(lambda: build([folder], scratch / "index"))
        index = Index(scratch / "index")
        note("index_cpu_s", seconds)
        note("query_ms", latency(index, asked, Filter()))
        note("filtered_query_ms", latency(index, asked, Filter(ipc=("F25B",))))
        if peer:
            shutil.rmtree(scratch / "bm25s", ignore_errors=True)
            told = peer.ask({"passages": str(scratch / "terms.txt"), "output": str(scratch / "bm25s")})
            note("bm25s_index_cpu_s", told["seconds"])
            note("bm25s_mb", told["bytes"] / 1e6)
            work: dict[str, Any] = {"queries": [" ".join(terms(text)) for text, _ in asked], "k": HITS * 8}
            note("bm25s_query_ms", 1000 * peer.ask(work)["seconds"] / len(asked))
            told = peer.ask(work | {"mask": str(scratch / "mask.npy")})
            note("bm25s_filtered_query_ms", 1000 * told["seconds"] / len(asked))
        if number == 0:
            times.clear()
    results = {key: statistics.median(values) for key, values in times.items()}
    results |= {"passages": float(len(parts)), "mb": size(scratch / "index") / 1e6}
    build([write(short, scratch / "short")], scratch / "short-index")
    found = Index(scratch / "short-index")
    results["ndcg_at_10"] = ndcg(
        [(own, [hit.invention for hit in found.search(text, HITS)]) for text, own in asked]
    )
    if peer:
        own_parts = [(each, passage) for each in short for passage in passages(each)]
        lines = [" ".join(terms(passage.text)) for _, passage in own_parts]
        (scratch / "terms.txt").write_text("\n".join(lines) + "\n", "utf-8")
        peer.ask({"passages": str(scratch / "terms.txt"), "output": str(scratch / "bm25s-short")})
        told = peer.ask({"queries": [" ".join(terms(text)) for text, _ in asked], "k": HITS * 8})
        ranked = [list(dict.fromkeys(invention(own_parts[row][0]) for row in rows)) for rows in told["found"]]
        pairs = zip(asked, ranked, strict=True)
        results["bm25s_ndcg_at_10"] = ndcg([(own, best[:HITS]) for (_, own), best in pairs])
        results["terms_cpu_s"] = splitting
        both = results["bm25s_index_cpu_s"] + splitting
        results["bm25s_with_terms_vs_index_cpu_ratio"] = both / results["index_cpu_s"]
        results["size_vs_bm25s_ratio"] = results["bm25s_mb"] / results["mb"]
        peer.close()
    return results


def _classes(record: Record) -> set[str]:
    return {prefix for symbol in record["ipc"] or () for prefix in ipc_prefixes(symbol)}


def questions(records: Sequence[Record]) -> list[tuple[str, str]]:
    """The summary of descriptions, without the first 100 characters, which repeat the title; and the
    invention."""
    found = []
    for each in records:
        text = next((part.text for part in sections(each["description"] or "") if part.name == "summary"), "")
        if len(text) > 300:
            found.append((text[100:400], invention(each)))
    step = max(1, len(found) // QUESTIONS)
    return found[::step][:QUESTIONS]


def across_languages(scratch: Path, records: Sequence[Record]) -> dict[str, float]:
    """English abstracts that are to find Chinese publications: trained on four fifths of the inventions, and
    asked of the others."""
    own = sorted({invention(each) for each in records})
    asked_of = set(own[::5])
    known = write([each for each in records if invention(each) not in asked_of], scratch / "known")
    seconds = cpu(lambda: train([known], scratch / "embedding"))
    chinese = write([each for each in records if each["language"] == "zh"], scratch / "chinese")
    build([chinese], scratch / "zh")
    build([chinese], scratch / "zh-vectors", embedding=scratch / "embedding")
    english = [each for each in records if each["language"] == "en" and invention(each) in asked_of][
        :QUESTIONS
    ]
    results = {"embedding_train_cpu_s": seconds}
    for name, folder in (("bm25", "zh"), ("joined", "zh-vectors")):
        index = Index(scratch / folder)
        ranked = [
            (invention(each), [hit.invention for hit in index.search(each["abstract"] or "", HITS)])
            for each in english
        ]
        results[f"en_zh_{name}_recall_at_10"] = sum(one in best for one, best in ranked) / len(ranked)
        results[f"en_zh_{name}_ndcg_at_10"] = ndcg(ranked)
    return results


def million(scratch: Path, records: Sequence[Record]) -> dict[str, float]:
    """An index of a million passages, and one that extends it by a hundredth; each in its own process."""
    each = sum(1 for record in records for _ in passages(record)) / len(records)
    folder = scratch / "many"
    folder.mkdir()
    copies = math.ceil(1e6 / each / len(records))
    for copy in range(copies):
        again = [_copy(record, copy) for record in records]
        pq.write_table(pa.Table.from_pylist(again, SCHEMA), folder / f"shard-{copy:05d}.parquet")
    write([_copy(record, copies) for record in records[: len(records) * copies // 100]], scratch / "few")
    results: dict[str, float] = {}
    for name, more in (
        ("million", ["--corpus", folder]),
        ("growth", ["--corpus", scratch / "few", "--extends", scratch / "million"]),
    ):
        command = [sys.executable, "-c", MEASURED, "index", *map(str, more), "--output", str(scratch / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak = map(float, done.stdout.split()[-2:])
        results |= {f"{name}_cpu_s": seconds, f"{name}_peak_gb": peak / 1e6}
    index = Index(scratch / "growth")
    asked = questions(records)
    results |= {
        "million_passages": float(index.counts["passages"]),
        "million_mb": size(scratch / "million") / 1e6,
    }
    latency(index, asked[:20], Filter())
    results["million_query_ms"] = latency(index, asked, Filter())
    results["million_short_query_ms"] = latency(index, [(text[:20], own) for text, own in asked], Filter())
    results["million_filtered_query_ms"] = latency(index, asked, Filter(before="2014-01-01", offices=("CN",)))
    return results


MEASURED = """
import resource, sys
from serve.__main__ import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def _copy(record: Record, number: int) -> Record:
    """Another invention with the same words, in another order of sentences, and some of its own."""
    digits = f"{number:03d}"
    own = f" x{digits}{record['id'][-6:-2]} y{digits}"
    changed = {
        "id": f"{record['id']}{digits}",
        "application_id": f"{record['application_id']}{digits}",
        "family_id": None,
    }
    return {**record, **changed, "abstract": (record["abstract"] or "") + own}  # type: ignore[typeddict-item]


def latency(index: Index, asked: Sequence[tuple[str, str]], wanted: Filter) -> float:
    """Milliseconds of a question, all its passages read and marked."""
    start = time.perf_counter()
    for text, _ in asked:
        index.search(text, HITS, wanted)
    return 1000 * (time.perf_counter() - start) / len(asked)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def ndcg(ranked: Sequence[tuple[str, Sequence[str]]]) -> float:
    """nDCG@10 where one invention is relevant: 1 / log2(1 + its rank)."""
    gains = [1 / math.log2(2 + best.index(own)) if own in best else 0.0 for own, best in ranked]
    return sum(gains) / len(gains)


if __name__ == "__main__":
    main()
