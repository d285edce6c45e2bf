"""Steps that the guard refuses, at every ZeRO stage, on the processes of this launch:
`python -m core.launch --processes 2 -m tests.pretrain.refusals MODEL OUT`."""

import sys
from pathlib import Path
from typing import Any

import torch

from core import distributed
from core.checkpoint import Progress, _weights
from core.guard import Guard
from core.log import Log
from core.loop import Batches, _backward
from core.schema import LoggingConfig, ModelConfig, TrainingConfig
from tests.pretrain.splits import BATCH, Uneven, make_engine


def main(path: str, out: str) -> None:
    """Write a log of one line a refused step to OUT/log.txt."""
    world = distributed.setup(5)
    log = Log(Path(out), LoggingConfig(tensorboard=False), {}, active=world.is_main)
    training = TrainingConfig(global_batch_size=BATCH, micro_batch_size=1, steps=1, precision="fp32")
    for stage in (0, 1, 2, 3):
        with make_engine(path, ModelConfig(path=path), stage, training) as engine:
            check(engine, training, world, log)
    distributed.teardown()


def check(engine: Any, training: TrainingConfig, world: Any, log: Log) -> None:
    """One ordinary step, then a leaping loss, a leaping gradient, a gradient that is not finite, and an
    ordinary step again."""
    progress = Progress()
    guard = Guard(engine, training, progress, log)

    def step(loss_factor: float, gradient_factor: float) -> tuple[bool, bool, float]:
        before = flat(engine)
        batches = list(Batches(Uneven(), training, BATCH, world).at(0))
        counts, nll = _backward(Scaled(engine, gradient_factor), batches, world, False)
        first = progress.samples
        progress.step, progress.samples = progress.step + 1, first + BATCH
        applied, norm = guard.step(world.sum(nll) / counts[0] * loss_factor)
        if not applied:
            guard.note_skipped(first)
        return applied, torch.equal(before, flat(engine)), norm

    for group in engine.optimizer.param_groups:
        group["lr"] = 1e-5
    applied, unchanged, norm = step(1, 1)
    assert (applied, unchanged) == (True, False)
    assert norm > 0
    progress.recent = progress.recent * 32
    assert step(100, 1)[:2] == (False, True)
    assert step(1, 1e3)[:2] == (False, True)
    assert step(1, float("inf"))[:2] == (False, True)
    assert progress.skipped == [[BATCH, 4 * BATCH]]
    assert len(progress.recent) == 32
    applied, unchanged, again = step(1, 1)
    assert (applied, unchanged) == (True, False)
    assert abs(again - norm) < 0.01 * norm, "nothing of the refused gradients is left"
    assert progress.skipped_steps == 3


def flat(engine: Any) -> torch.Tensor:
    """All weights in a row."""
    return torch.cat([weight.flatten() for _, weight in _weights(engine.module)])


class Scaled:
    """An engine whose losses are multiplied before they go backward."""

    def __init__(self, engine: Any, factor: float) -> None:
        self.engine, self.factor, self.module = engine, factor, engine.module

    def __call__(self, **batch: Any) -> Any:
        return self.engine(**batch)

    def backward(self, loss: torch.Tensor, **settings: Any) -> None:
        """Backward, multiplied."""
        self.engine.backward(loss * self.factor, **settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
