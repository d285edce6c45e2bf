"""Steps that the guard refuses, at every ZeRO stage, on the processes of this launch:
`python -m core.launch --processes 2 -m tests.pretrain.refusals MODEL OUT`."""

import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch

from core.checkpoint.progress import Progress
from core.checkpoint.save import weights
from core.config.schema import DeepSpeedConfig, LoggingConfig, OptimizerConfig, Precision, TrainingConfig
from core.distributed import process_group
from core.distributed.deepspeed_backend import Engine, torch_optimizer
from core.train.logger import Log
from core.train.loop import Batches, _backward, _counts
from core.train.optim import make_optimizer
from core.train.spike_guard import Guard
from tests.pretrain.splits import BATCH, Uneven, make_engine, plain_descent

STAGES: tuple[Any, ...] = (0, 1, 2, 3)
HALVED: list[tuple[Any, Precision]] = [(1, "fp32"), (1, "bf16"), (2, "fp32"), (3, "bf16")]
"""ZeRO stages in bf16, each with the dtype of its gradients: DeepSpeed has three optimisers for them."""


def fused(model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW, whose kernel is told on the device."""
    return make_optimizer(model, OptimizerConfig())


def main(path: str, out: str) -> None:
    """Write a log of one line a refused step to OUT/log.txt."""
    world = process_group.setup(5)
    log = Log(Path(out), LoggingConfig(tensorboard=False), {}, active=world.is_main)
    own = Path(out) / f"own-{world.rank}.json"
    own.write_text(json.dumps({"bf16": {"check_grad_overflow": True}}))
    plain = [
        (DeepSpeedConfig(zero_stage=stage), "fp32", each)
        for stage, each in product(STAGES, (fused, plain_descent))
    ]
    halved = [
        (DeepSpeedConfig(zero_stage=stage, gradient_dtype=dtype), "bf16", fused) for stage, dtype in HALVED
    ]
    judging = DeepSpeedConfig(zero_stage=2, json_file=str(own))
    for settings, precision, optimizer in [*plain, *halved, (judging, "bf16", fused)]:
        training = TrainingConfig(global_batch_size=BATCH, micro_batch_size=1, steps=1, precision=precision)
        with make_engine(path, settings, training, optimizer) as engine:
            check(engine, training, world, log)
    process_group.teardown(world)


def check(engine: Engine, training: TrainingConfig, world: Any, log: Log) -> None:
    """An ordinary step, then a leaping loss, a leaping gradient, a gradient that is not finite, and an
    ordinary step again."""
    progress = Progress(recent=[[7.27, 0.62]] * 31)
    guard = Guard(engine, training, progress, log)

    def step(loss_factor: float, gradient_factor: float) -> tuple[bool, float]:
        before = state(engine)
        batches = list(Batches(Uneven(), training, BATCH, world).at(0))
        counts = _counts(batches, world, False)
        scaled: Any = Scaled(engine, gradient_factor)
        nll = _backward(scaled, batches, counts[0], world)
        guard.step(world.sum(nll) / counts[0] * loss_factor)
        first = progress.samples
        progress.advance(int(counts[0]), first + BATCH)
        guard.note(first, int(counts[0]))
        guard.settle()
        return same(before, state(engine)), guard.norm

    for group in engine.optimizer.param_groups:
        group["lr"] = 1e-5
    unchanged, norm = step(1, 1)
    assert not unchanged
    assert norm > 0
    assert len(progress.recent) == 32, "as many as it takes to compare"
    assert progress.skipped_steps == 0
    trained = progress.tokens
    assert step(100, 1)[0]
    assert step(1, 1e3)[0]
    assert step(1, float("inf"))[0]
    assert step(float("nan"), 1)[0]
    assert progress.skipped == [[BATCH, 5 * BATCH]]
    assert progress.tokens == trained
    assert len(progress.recent) == 32
    unchanged, again = step(1, 1)
    assert not unchanged
    assert abs(again - norm) < 0.05 * norm, "nothing of the refused gradients is left"
    assert progress.skipped_steps == 4


def state(engine: Engine) -> list[torch.Tensor]:
    """A copy of all weights and their fp32 masters, and of the optimiser's moments and counts of steps."""
    inner = torch_optimizer(engine)
    moments = [value for held in inner.state.values() for value in held.values()]
    masters = [weight for group in inner.param_groups for weight in group["params"]]
    values = [weight for _, weight in weights(engine.module)]
    return [value.clone() for value in [*values, *masters, *moments] if isinstance(value, torch.Tensor)]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    """Whether every bit is as it was."""
    return len(before) == len(after) and all(map(torch.equal, before, after))


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
