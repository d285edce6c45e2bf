"""The one training loop: batches in, a trained engine out. Pretraining and fine-tuning run this same code.

A step takes `global_batch_size` samples in an order that is a pure function of (seed, epoch, position). Each
process gets its share in micro-batches. The trained tokens of the *whole* step are counted first; then every
micro-batch's summed token loss, divided by that count, goes backward, so that gradients do not depend on how
the step is split into micro-batches and processes. Then one optimiser step, numbers, validation, a checkpoint
where one is due.
"""

import math
import os
import signal
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch

from core.checkpoint.async_writer import Background
from core.checkpoint.progress import Progress
from core.config.schema import ScheduleConfig, TrainingConfig
from core.distributed.deepspeed_backend import Engine
from core.distributed.process_group import World
from core.errors import UserError
from core.model.loss_head import IGNORED, TOKENS, Objective
from core.train.dataloader import Ahead, collate, to_host
from core.train.logger import Log
from core.train.lr_schedule import rate
from core.train.sampler import Order, Part
from core.train.skipped import Skipped
from core.train.spike_guard import Guard
from core.train.throughput import Meter

Sample = dict[str, np.ndarray]


class Dataset(Protocol):
    """Samples of equal length L: int64 arrays `input_ids`, `position_ids` and `labels`, each of shape (L,).

    `labels[t]` is the token to predict at position t, already shifted, or `IGNORED`. Its length is what an
    epoch is. A mixture has `parts` (core/train/sampler.py) as well, whose samples stand one part after the
    other.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


def fit(
    engine: Engine,
    data: Dataset,
    look: Callable[[Progress], dict[str, float]] | None,
    progress: Progress,
    *,
    training: TrainingConfig,
    schedule: ScheduleConfig,
    learning_rate: float,
    world: World,
    log: Log,
    save: Callable[[Progress], None],
    objective: Objective = TOKENS,
    background: Background | None = None,
) -> bool:
    """Train from `progress` (changed in place) to the end; False where a signal ended it early, after saving.

    `look` validates and gives its numbers (core/train/validation.py), `save` writes a checkpoint, by
    `background` where that is given; all processes call them at the same step. UserError where the run is
    past the end that is asked for.
    """
    batches = Batches(data, training, training.total_samples(len(data)), world)
    total = batches.total
    if progress.samples > total and not progress.ended:
        raise UserError(
            f"the run has trained {progress.samples:,} samples in {progress.step} steps, and this command"
            f" ends after {total:,}: give training.steps or training.epochs as large as before, or another"
            " run_dir."
        )
    steps = progress.step + math.ceil((total - progress.samples) / training.global_batch_size)
    for line in batches.order.report():
        log.line(line)
    skipped = Skipped(batches.order, data, batches.index, progress)
    guard = Guard(engine, training, progress, log, skipped)
    ahead = Ahead(lambda place: list(batches.at(place)), training.global_batch_size, total)
    meter = Meter(engine.module, len(data[0]["labels"]), world, objective.unit)
    signals = _Signals()
    log.start(progress.step, steps)
    if progress.step == 0 and look and training.validate_every_steps:
        log.metrics({"step": 0, "tokens": progress.tokens} | look(progress))
    engine.train()  # transformers loads models for use: dropout and noise would be off until a validation
    meter.start()
    stopping = 0
    while progress.step < steps and not progress.ended and not stopping:
        torch.manual_seed(_mix(training.seed, progress.step, world.rank))
        _set_rate(engine, learning_rate * rate(schedule, progress.step, steps))
        first, micro_batches = progress.samples, ahead.at(progress.samples)
        counts = _counts(micro_batches, world, signals.received, objective)
        arriving = to_host(counts)
        nll = _backward(engine, micro_batches, counts[0], world, objective)
        loss = world.sum(nll) / counts[0].clamp(min=1)
        guard.step(loss)
        tokens, stopping = map(int, arriving())  # the device is at this step: the host goes no further ahead
        progress.advance(tokens, min(total, first + training.global_batch_size))
        meter.tokens += tokens
        guard.note(first, tokens)
        last = progress.step == steps
        looking = look is not None and _due(training.validate_every_steps, progress.step, last)
        logging = looking or _due(log.every_steps, progress.step, last)
        saving = stopping or _due(training.save_every_steps, progress.step, last)
        if logging or saving:
            guard.settle()  # waits for this step too
            progress.skipped_shares = skipped.shares(progress.samples) if progress.skipped else {}
        if logging:
            numbers = meter.numbers(progress, loss, engine.optimizer.param_groups[0]["lr"], guard.norm)
            numbers |= batches.order.numbers(progress.samples) | objective.take(engine.module, world)
            log.line(meter.sentence(numbers, steps))
            if looking and look is not None:
                numbers |= look(progress)
            log.metrics(numbers)
            meter.start()
        log.advance()
        if background:
            background.check()
        if saving or progress.ended:
            with meter.pause():
                save(progress)
            world.mark()
    if background:
        background.wait()
        world.barrier()
    return progress.step == steps or progress.ended


class Batches:
    """The data order: which samples make a step, and which of them are this process's."""

    def __init__(self, data: Dataset, training: TrainingConfig, total: int, world: World) -> None:
        """`total` samples make the run; `training.accumulation` micro-batches a step come to each process."""
        self.data, self.training, self.world = data, training, world
        self.accumulation = training.accumulation(world.size)
        parts: list[Part] = getattr(data, "parts", [Part("data", len(data), 1.0)])
        self.order = Order(parts, total, training.seed)
        self.total = self.order.total
        self._first = np.cumsum([0, *(part.samples for part in parts)])

    def at(self, position: int) -> Iterator[dict[str, torch.Tensor]]:
        """This process's micro-batches of the step that begins at sample `position`, each of shape (B, L), or
        its parts of them."""
        size, world = self.training.micro_batch_size, self.world
        for micro in range(self.accumulation):
            world.mark()
            start = position + (micro * world.data_parallel_size + world.data_parallel_rank) * size
            yield collate([self._sample(start + i) for i in range(size)], world.device, *world.part)

    def _sample(self, position: int) -> Sample:
        if position < self.total:
            return self.data[self.index(position)]
        blank = self.data[0]  # the run ends inside this step: a sample that nothing is learnt from
        return blank | {"labels": np.full_like(blank["labels"], IGNORED)}

    def index(self, position: int) -> int:
        """The sample at `position` of the run: a pure function of (seed, position)."""
        source, sample = self.order.at(position)
        return int(self._first[source]) + sample


def _counts(
    micro_batches: list[dict[str, torch.Tensor]], world: World, stopping: bool, objective: Objective = TOKENS
) -> torch.Tensor:
    """The step's trained tokens and how many processes were told to stop, over all processes: shape (2,), on
    the device."""
    trained = torch.stack([objective.divisor(batch) for batch in micro_batches]).sum()
    return world.sum(torch.stack([trained, trained.new_full((), int(stopping))]))


def _backward(
    engine: Engine,
    micro_batches: list[dict[str, torch.Tensor]],
    trained: torch.Tensor,
    world: World,
    objective: Objective = TOKENS,
) -> torch.Tensor:
    """Accumulate the gradients of a step of `trained` tokens; returns this process's summed loss, on the
    device."""
    # DeepSpeed averages gradients over processes; the tokens are those of all of them: undo the average.
    # Processes that share rows add up the gradients of their parts, so this holds for them too.
    scale = (world.size / trained.clamp(min=1).double()).float()
    nll = torch.zeros((), device=world.device, dtype=torch.float64)
    for batch in micro_batches:
        loss = objective.loss(engine, batch)
        nll += loss.detach()
        engine.backward(loss * scale, scale_wrt_gas=False)
    return nll


class _Signals:
    """Remembers that the run was told to end, so that the step at hand can be finished and saved. All
    processes learn of it with the counts of the next step, which the host begins while the device is at this
    one: at most two more steps are done. Told again, while it saves, a run goes on saving.

    SIGTERM is what schedulers send, SIGUSR1 what they send in advance, SIGHUP what a lost connection sends.
    """

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self.received = True
        if number == signal.SIGHUP:  # nobody reads what is printed, and printing it must not end the run
            for output in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), output)


def _set_rate(engine: Engine, value: float) -> None:
    for group in engine.optimizer.param_groups:
        group["lr"] = value


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _due(every: int | None, step: int, last: bool) -> bool:
    return last or (every is not None and step % every == 0)
