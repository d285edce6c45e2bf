"""bm25s (Lù 2024) on the same terms: its index, its size on disk, its queries. k1 and b are tantivy's.

Run by benchmarks/peer.py in an environment of its own. Passages come as lines of terms, so that nothing is
spent on finding them.
"""

import json
import sys
import time
from pathlib import Path

import bm25s
import numpy as np


def main() -> None:
    """A line of JSON in, a line of JSON out: `build`, then `search` with queries and a mask."""
    retriever = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    for line in sys.stdin:
        work = json.loads(line)
        if "passages" in work:
            start = time.process_time()
            tokens = [text.split(" ") for text in Path(work["passages"]).read_text("utf-8").splitlines()]
            retriever.index(tokens, show_progress=False)
            retriever.save(work["output"])
            size = sum(file.stat().st_size for file in Path(work["output"]).rglob("*") if file.is_file())
            print(json.dumps({"seconds": time.process_time() - start, "bytes": size}), flush=True)
        else:
            mask = np.load(work["mask"]) if work.get("mask") else None
            start, found = time.perf_counter(), []
            for query in work["queries"]:
                best, scores = retriever.retrieve(
                    [query.split(" ")], k=work["k"], show_progress=False, n_threads=1, weight_mask=mask
                )
                found.append([int(each) for each, score in zip(best[0], scores[0], strict=True) if score > 0])
            print(json.dumps({"seconds": time.perf_counter() - start, "found": found}), flush=True)


main()
