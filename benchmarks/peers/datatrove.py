"""datatrove's MinHash example on shards of Chinese records: the four steps with their defaults.

Run by benchmarks/peer.py in an environment of its own. Of `zh`, datatrove would take white space for the
bounds of words; `cmn` splits with jieba.
"""

import json
import resource
import sys
from pathlib import Path

import jieba
import pyarrow.parquet as pq
import spacy
import xxhash
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


def main() -> None:
    """For each line of standard input, `{"shards", "folder"}`: deduplicate, and answer with the seconds and
    the ids that are kept."""
    logger.disable("datatrove")
    assert jieba
    assert spacy
    for line in sys.stdin:
        work = json.loads(line)
        start = cpu_seconds()
        deduplicate(Path(work["shards"]), Path(work["folder"]))
        seconds = cpu_seconds() - start
        kept = [
            name
            for file in Path(work["folder"]).glob("*.parquet")
            for name in pq.read_table(file, columns=["id"])["id"].to_pylist()
        ]
        print(json.dumps({"seconds": seconds, "kept": kept}), flush=True)


def deduplicate(shards: Path, folder: Path) -> None:
    """Signatures, buckets, clusters, and the records that are kept."""
    config = MinhashConfig()
    signing = MinhashDedupSignature(str(folder / "signatures"), config, language="cmn")
    # datatrove 0.10.1 passes str to xxhash, which only takes bytes from version 4 on.
    signing._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())
    signatures, buckets, removed = (str(folder / name) for name in ("signatures", "buckets", "removed"))
    steps = [
        [reader(shards), signing],
        [MinhashDedupBuckets(signatures, buckets, config=config)],
        [MinhashDedupCluster(buckets, removed, config=config)],
        [reader(shards), MinhashDedupFilter(removed), ParquetWriter(str(folder))],
    ]
    for number, step in enumerate(steps):
        tasks = config.num_buckets if number == 1 else 1
        LocalPipelineExecutor(step, tasks=tasks, workers=1, logging_dir=str(folder / f"log{number}")).run()


def reader(shards: Path) -> ParquetReader:
    """The records' texts: their title and description."""
    return ParquetReader(str(shards), glob_pattern="shard-*.parquet", adapter=document)


def document(_self, row, _path, _line):  # type: ignore[no-untyped-def]
    """A record as datatrove's document."""
    return {"id": row["id"], "text": f"{row['title']}\n{row['description']}", "metadata": {}}


def cpu_seconds() -> float:
    """CPU time of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
