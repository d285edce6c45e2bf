"""What is alive of a stage when the next one loads: `python -m sft …`, which also writes OUT.RANK.json.

    python -m core.launch --processes 2 -m tests.sft.released OUT --config FILE [key.path=value ...]

Per start of a stage: `alive`, the parts of the stage before that still exist, and `mib` of living tensors.
"""

import gc
import json
import os
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from core.errors import run_command
from core.train import trainer

PARTS: dict[str, weakref.ref[Any]] = {}
FOUND: list[dict[str, Any]] = []


class Watched(trainer.Run):
    """A run that notes what it finds and what it builds."""

    def __init__(self, *given: Any) -> None:
        note()
        super().__init__(*given)
        engine: Any = self.engine
        optimizer, model = engine.optimizer, engine.module
        parts = {"run": self, "engine": engine, "model": model, "optimizer": optimizer}
        parts |= {
            "inner optimizer": getattr(optimizer, "optimizer", optimizer),
            "background": self.background,
        }
        parts |= dict(model.named_parameters())
        for name, part in parts.items():
            PARTS[name] = weakref.ref(part)


def note() -> None:
    """Record what is alive, without collecting garbage: that is for the end of a stage."""
    sizes = {}
    for each in gc.get_objects():
        with suppress(Exception):
            if isinstance(each, torch.Tensor) and each.device.type != "meta":
                storage = each.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
    alive = [name for name, part in PARTS.items() if part() is not None]
    FOUND.append({"alive": alive, "mib": sum(sizes.values()) / 2**20})
    out = Path(f"{OUT}.{os.environ.get('RANK', '0')}.json")
    before = json.loads(out.read_text()) if out.exists() else []
    out.write_text(json.dumps([*before, FOUND[-1]]))


if __name__ == "__main__":
    OUT = sys.argv.pop(1)
    trainer.Run = Watched  # type: ignore[misc, assignment]
    sys.argv[0] = "sft"
    from sft.__main__ import main

    run_command(main)
