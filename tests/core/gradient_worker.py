"""The gradients of one global batch, for every ZeRO stage and micro-batch size that this many ranks allow.

    python -m core.launch --processes 2 -m tests.core.gradient_worker FOLDER

SGD with a rate of 1 makes the step itself the gradient: what the optimiser really applied, at every stage.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core import deepspeed, distributed
from core.loop import IGNORED, Batches, _backward
from core.model import load_model
from core.schema import DeepSpeedConfig, ModelConfig, TrainingConfig

ROWS = 8
LENGTH = 32


class Uneven:
    """Eight rows: one trains on a single token, one on all 32, two hold several documents."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(index)
        ids, positions = generator.integers(0, 97, LENGTH), np.arange(LENGTH)
        if index in (2, 5):
            positions = np.concatenate([np.arange(index), np.arange(LENGTH - index)])
        labels = np.full(LENGTH, IGNORED)
        trained = [1, 32, 3, 30, 7, 11, 2, 19][index]
        labels[:trained] = generator.integers(0, 97, trained)
        return {"input_ids": ids, "position_ids": positions, "labels": labels}


def gradients(folder: Path, stage: int, micro_batch_size: int, world: distributed.World) -> torch.Tensor:
    """All gradients of the batch, flat, in the order of the parameters' names."""
    training = TrainingConfig(
        global_batch_size=ROWS, micro_batch_size=micro_batch_size, max_gradient_norm=None, precision="fp32"
    )
    chosen, dtype = deepspeed.settings(DeepSpeedConfig.model_validate({"zero_stage": stage}), training)
    chosen["zero_allow_untested_optimizer"] = True
    partitioned = deepspeed.keep_partitioned(chosen)
    model = load_model(str(folder), ModelConfig(path=str(folder)), dtype)
    engine = deepspeed.initialize(model, torch.optim.SGD(model.parameters(), lr=1.0), chosen)
    del partitioned
    before = _weights(engine)
    batches = Batches(Uneven(), training, ROWS, world)
    _backward(engine, list(batches.at(0)), world, False)
    engine.step()
    return before - _weights(engine)


def _weights(engine: Any) -> torch.Tensor:
    from core.checkpoint import _weights as whole

    named = dict(whole(engine.module))
    return torch.cat([named[name].double().flatten() for name in sorted(named)])


def main() -> None:
    """Save a dict of (stage, micro-batch size) to flat gradients as FOLDER/gradients-RANKS.pt."""
    folder = Path(sys.argv[1])
    world = distributed.setup(5)
    found = {
        (stage, size): gradients(folder, stage, size, world)
        for stage in (0, 1, 2, 3)
        for size in (1, 2, 4, 8)
        if size * world.size <= ROWS
    }
    if world.is_main:
        torch.save(found, folder / f"gradients-{world.size}.pt")
    distributed.teardown()


if __name__ == "__main__":
    main()
