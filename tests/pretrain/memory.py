"""How much memory loading and exporting take at ZeRO 3: `python -m core.launch --processes 2 -m
tests.pretrain.memory MODEL OUT SMALL`, SMALL being another model, loaded first.

Counted are the pages that belong to the process alone; those of a mapped file are the system's to drop.
"""

import gc
import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from core.checkpoint import save
from core.checkpoint.async_writer import Background
from core.config.schema import DeepSpeedConfig, ModelConfig, TrainingConfig
from core.distributed import deepspeed_backend, process_group
from core.model.loading import load_model

SHARD_BYTES = 8 * 2**20


def main(path: str, out: str, small: str) -> None:
    """Write OUT/RANK.json: megabytes at most beyond those before, while loading and while exporting."""
    world = process_group.setup(5)
    training = TrainingConfig(steps=1, precision="fp32")
    chosen, dtype = deepspeed_backend.settings(DeepSpeedConfig(zero_stage=3), training)
    partitioned = deepspeed_backend.keep_partitioned(chosen)
    load_model(small, ModelConfig(path=small), dtype)  # what libraries take is not the model's
    model, loading = measure(lambda: load_model(path, ModelConfig(path=path), dtype))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    engine = deepspeed_backend.initialize(model, optimizer, chosen | {"zero_allow_untested_optimizer": True})
    del partitioned

    class Tokenizer:
        def save_pretrained(self, folder: Path) -> None:
            """No tokenizer belongs to this."""

    save.SHARD_BYTES = SHARD_BYTES
    _, exporting = measure(
        lambda: save.export(engine, Tokenizer(), Path(out) / "model", world, Background(world))
    )
    (Path(out) / f"{world.rank}.json").write_text(json.dumps([loading, exporting]))
    process_group.teardown(world)


def measure(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and by how many MiB it raised the process's own memory at most."""
    gc.collect()
    over, peak, before = threading.Event(), 0.0, own_mib()

    def look() -> None:
        nonlocal peak
        while not over.wait(0.001):
            peak = max(peak, own_mib())

    watcher = threading.Thread(target=look)
    watcher.start()
    result = work()
    over.set()
    watcher.join()
    return result, peak - before


def own_mib() -> float:
    """Anonymous resident memory of this process."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
