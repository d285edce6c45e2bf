"""text-dedup's MinHash on shards of Chinese records, in one process.

Run by benchmarks/peer.py in an environment of its own. text-dedup takes what stands between marks of
punctuation for a word, which finds few copies in Chinese; with `--characters` it gets the letters with spaces
between them, and n-grams of eight. Its threshold is ours; all else is its defaults. The texts are put into
the one column that it reads before the time is taken.
"""

import contextlib
import json
import resource
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_from_disk
from text_dedup import minhash


def main() -> None:
    """For each line of standard input, `{"shards", "folder"}`: deduplicate, and answer with the seconds and
    the ids that are kept."""
    is_by_character = "--characters" in sys.argv
    minhash.logger.setLevel("ERROR")
    for line in sys.stdin:
        work = json.loads(line)
        folder = Path(work["folder"])
        for shard in sorted(Path(work["shards"]).glob("shard-*.parquet")):
            table = pq.read_table(shard, columns=["id", "title", "description"])
            texts = [f"{row['title']}\n{row['description']}" for row in table.to_pylist()]
            if is_by_character:
                texts = [" ".join(filter(str.isalnum, text)) for text in texts]
            pq.write_table(pa.table({"id": table["id"], "text": texts}), folder / shard.name)
        start = cpu_seconds()
        with contextlib.redirect_stdout(sys.stderr):
            minhash.main(arguments(folder, is_by_character), standalone_mode=False)
        seconds = cpu_seconds() - start
        kept = load_from_disk(str(folder / "kept"))["id"]
        print(json.dumps({"seconds": seconds, "kept": list(kept)}), flush=True)


def arguments(folder: Path, is_by_character: bool) -> list[str]:
    """The command line."""
    return [
        *("--path", "parquet", "--data_files", str(folder / "shard-*.parquet"), "--split", "train"),
        *("--cache_dir", str(folder / "cache"), "--output", str(folder / "kept"), "--column", "text"),
        *("--threshold", "0.6", "--batch_size", "10000", "--num_proc", "1"),
        *(("--ngram", "8") if is_by_character else ()),
    ]


def cpu_seconds() -> float:
    """CPU time of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
