"""Operations of the training loop for which the host waits for a GPU, at every ZeRO stage, on the processes
of this launch: `python -m core.launch --processes 2 -m tests.pretrain.waits MODEL OUT`."""

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from core.checkpoint.progress import Progress
from core.config.schema import (
    DeepSpeedConfig,
    LoggingConfig,
    OptimizerConfig,
    Precision,
    ScheduleConfig,
    TrainingConfig,
)
from core.distributed import process_group
from core.train.logger import Log
from core.train.loop import fit
from core.train.optim import make_optimizer
from tests.pretrain.splits import BATCH, Uneven, make_engine

STEPS = 8
CASES: list[tuple[Any, Precision, Precision]] = [
    (0, "fp32", "fp32"), (1, "fp32", "fp32"), (1, "bf16", "bf16"), (1, "bf16", "fp32"), (2, "fp32", "fp32"),
    (2, "bf16", "fp32"), (2, "bf16", "bf16"), (3, "fp32", "fp32"), (3, "bf16", "bf16"),
]  # fmt: skip
"""ZeRO stage, precision, dtype of the gradients."""


class Waits(TorchDispatchMode):
    """Collects where a value or a shape is read from tensors, or made on the host for the device, and where
    DeepSpeed asks its accelerator to synchronise: on a GPU each waits."""

    READ = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}
        self._accelerator: Any = get_accelerator()
        self._synchronize = self._accelerator.synchronize

    def __enter__(self) -> Any:
        self._accelerator.synchronize = self._synchronized
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._accelerator.synchronize = self._synchronize
        super().__exit__(*error)

    def _synchronized(self, *_: object) -> None:
        self._note("synchronize")

    def _note(self, name: str) -> None:
        frames = [frame for frame in traceback.extract_stack()[:-2] if "/torch/" not in frame.filename]
        place = " < ".join(f"{Path(frame.filename).name} {frame.line}" for frame in frames[:-4:-1])
        key = f"{name}: {place}"
        self.seen[key] = self.seen.get(key, 0) + 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in self.READ or by_mask:
            self._note(name)
        return func(*args, **(kwargs or {}))


class Listening(Log):
    """A log that has `waits` listen from the second step on, when all is allocated, to the last but one."""

    waits: Waits
    steps = 0

    def advance(self) -> None:
        """A step is done."""
        super().advance()
        self.steps += 1
        if self.steps == 2:
            self.waits.__enter__()
        elif self.steps == STEPS - 1:
            self.waits.__exit__(None, None, None)


def main(path: str, out: str) -> None:
    """Write what was seen in each case to OUT/waits.json, and under `watched` what is seen where every step
    is logged."""
    world = process_group.setup(5)
    found = {}
    for stage, precision, gradients in CASES:
        settings = DeepSpeedConfig(zero_stage=stage, gradient_dtype=gradients)
        seen = waits(path, out, world, settings, precision, every_steps=STEPS)
        found[f"ZeRO {stage}, {precision}, {gradients} gradients"] = seen
    found["watched"] = waits(path, out, world, DeepSpeedConfig(zero_stage=1), "bf16", every_steps=1)
    if world.is_main:
        (Path(out) / "waits.json").write_text(json.dumps(found, indent=1))
    process_group.teardown(world)


def waits(
    path: str, out: str, world: Any, settings: DeepSpeedConfig, precision: Precision, every_steps: int
) -> dict[str, int]:
    """Where a run of the training loop waits, and how often."""
    training = TrainingConfig(global_batch_size=BATCH, micro_batch_size=2, steps=STEPS, precision=precision)
    logging = LoggingConfig(tensorboard=False, every_steps=every_steps)
    log = Listening(Path(out), logging, {}, active=world.is_main)
    log.waits = Waits()
    with make_engine(path, settings, training, lambda m: make_optimizer(m, OptimizerConfig())) as engine:
        fit(
            engine, Uneven(), None, Progress(), training=training, schedule=ScheduleConfig(),
            learning_rate=1e-4, world=world, log=log, save=lambda _: None,
        )  # fmt: skip
    assert log.steps == STEPS
    return log.waits.seen


if __name__ == "__main__":
    main(*sys.argv[1:])
