"""One global batch, split in every way into (micro-batch, accumulation) on the processes of this launch, at
every ZeRO stage: `python -m core.launch --processes 2 -m tests.pretrain.splits MODEL OUT.json`.

Each gradient is what one step of plain gradient descent takes off the weights, divided by the rate; it is
compared with that of a single backward pass of torch over the whole batch.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.checkpoint.save import weights
from core.config.schema import DeepSpeedConfig, ModelConfig, TrainingConfig
from core.distributed import deepspeed_backend, process_group
from core.model.loading import load_model
from core.model.loss_head import IGNORED, summed_loss
from core.train.dataloader import collate
from core.train.loop import Batches, Sample, _backward, _counts

BATCH, LENGTH, RATE = 8, 64, 1024.0
TRAINED = (1, 64, 3, 40, 0, 64, 2, 17)
"""Trained tokens of each sample."""


class Uneven:
    """Samples that are trained on very different numbers of tokens, in two documents each."""

    def __len__(self) -> int:
        return BATCH

    def __getitem__(self, index: int) -> Sample:
        ids = np.random.default_rng(index).integers(3, 1000, LENGTH + 1)
        labels = ids[1:].copy()
        labels[TRAINED[index] :] = IGNORED
        positions = np.concatenate([np.arange(index + 1), np.arange(LENGTH - index - 1)])
        return {"input_ids": ids[:-1], "position_ids": positions, "labels": labels}


def main(path: str, out: str) -> None:
    """Write the largest difference of every split, in units of the largest gradient."""
    world = process_group.setup(5)
    config = ModelConfig(path=path)
    expected = by_torch(path, config)
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    found = []
    for stage, micro in product((0, 1, 2, 3), (1, 2, 4, 8)):
        if micro * world.size <= BATCH:
            gradients = by_engine(path, stage, micro, world)
            assert gradients.keys() == expected.keys()
            worst = max(float((gradients[name] - expected[name]).abs().max()) for name in expected)
            found.append((world.size, stage, micro, BATCH // micro // world.size, worst / scale))
    if world.is_main:
        Path(out).write_text(json.dumps(found))
    process_group.teardown(world)


def by_torch(path: str, config: ModelConfig) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss of all trained tokens."""
    model = load_model(path, config, torch.float32)
    loss = summed_loss(model, collate([Uneven()[i] for i in range(BATCH)], torch.device("cpu")))
    (loss / sum(TRAINED)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def by_engine(path: str, stage: Any, micro: int, world: Any) -> dict[str, torch.Tensor]:
    """The same by the training loop's own way, split into micro-batches of `micro`."""
    training = TrainingConfig(
        global_batch_size=BATCH, micro_batch_size=micro, steps=1, precision="fp32", max_gradient_norm=None
    )
    with make_engine(path, DeepSpeedConfig(zero_stage=stage), training) as engine:
        before = dict(weights(engine.module))
        batches = list(Batches(Uneven(), training, BATCH, world).at(0))
        counts = _counts(batches, world, False)
        _backward(engine, batches, counts[0], world)
        assert int(counts[0]) == sum(TRAINED)
        engine.step()
        after = dict(weights(engine.module))
    return {name: (before[name] - after[name]) / RATE for name in before}


def plain_descent(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Gradient descent at `RATE`."""
    return torch.optim.SGD(model.parameters(), lr=RATE)


@contextmanager
def make_engine(
    path: str,
    stage: DeepSpeedConfig,
    training: TrainingConfig,
    optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer] = plain_descent,
) -> Iterator[Any]:
    """An engine around the model in `path`, with the optimiser that is asked for."""
    chosen, dtype = deepspeed_backend.settings(stage, training)
    partitioned = deepspeed_backend.keep_partitioned(chosen)
    model = load_model(path, ModelConfig(path=path), dtype)
    engine: Any = deepspeed_backend.initialize(model, optimizer(model), chosen)
    yield engine
    engine.destroy()
    del partitioned


if __name__ == "__main__":
    main(*sys.argv[1:])
