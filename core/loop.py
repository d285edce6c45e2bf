"""The one training loop: batches in, a trained engine out. Pretraining and fine-tuning run this same code.

A step takes `global_batch_size` samples in an order that is a pure function of (seed, epoch, position). Each
process gets its share in micro-batches. The trained tokens of the *whole* step are counted first; then every
micro-batch's summed token loss, divided by that count, goes backward, so that gradients do not depend on how
the step is split into micro-batches and processes. Then one optimiser step, numbers, validation, a checkpoint
where one is due.
"""

import math
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from core import attention
from core.checkpoint import Progress
from core.distributed import World
from core.errors import UserError
from core.flops import flops_per_token, peak_flops
from core.loading import Ahead
from core.log import Log
from core.loss import IGNORED, summed_loss
from core.schedule import rate
from core.schema import ScheduleConfig, TrainingConfig

Sample = dict[str, np.ndarray]


class Dataset(Protocol):
    """Samples of equal length L: int64 arrays `input_ids`, `position_ids` and `labels`, each of shape (L,).

    `labels[t]` is the token to predict at position t, already shifted, or `IGNORED`.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@dataclass
class Validation:
    """Held-out samples, and the bytes of text they came from (None where that is not known)."""

    samples: Dataset
    utf8_bytes: int | None


def fit(
    engine: Any,
    data: Dataset,
    validation: Validation | None,
    progress: Progress,
    *,
    training: TrainingConfig,
    schedule: ScheduleConfig,
    learning_rate: float,
    world: World,
    log: Log,
    save: Callable[[Progress], None],
) -> bool:
    """Train from `progress` (changed in place) to the end; False where a signal ended it early, after saving.

    `save` writes a checkpoint; all processes call it at the same step.
    """
    total = training.total_samples(len(data))
    steps = progress.step + math.ceil((total - progress.samples) / training.global_batch_size)
    batches = Batches(data, training, total, world)
    ahead = Ahead(lambda place: list(batches.at(place)), training.global_batch_size, total)
    peak = peak_flops(world.device) * world.size
    flops = flops_per_token(engine.module, len(data[0]["labels"]))
    norm = track_gradient_norm(engine, training.max_gradient_norm)
    signals = _Signals()
    in_a_row = 0
    log.start(progress.step, steps)
    if progress.step == 0 and validation and training.validate_every_steps:
        _say_validation(log, 0, validate(engine, validation, training.micro_batch_size, world))
    clock, timed_tokens = time.perf_counter(), 0
    while progress.step < steps:
        torch.manual_seed(_mix(training.seed, progress.step, world.rank))
        _set_rate(engine, learning_rate * rate(schedule, progress.step, steps))
        micro_batches = ahead.at(progress.samples)
        tokens, nll, stopping = _backward(engine, micro_batches, world, signals.received)
        engine.step()
        applied, gradient_norm = norm()
        progress.step += 1
        progress.samples = min(total, progress.samples + training.global_batch_size)
        progress.tokens += tokens if applied else 0
        timed_tokens += tokens
        in_a_row = 0 if applied else in_a_row + 1
        if not applied:
            _note_skipped(progress, in_a_row, training.max_skipped_steps, log)
        last = progress.step == steps
        validating = validation is not None and _due(training.validate_every_steps, progress.step, last)
        if validating or _due(log.every_steps, progress.step, last):
            tokens_per_s = timed_tokens / (time.perf_counter() - clock)
            numbers: dict[str, float] = {
                "step": progress.step,
                "tokens": progress.tokens,
                "loss": float(world.sum(nll)) / max(1, tokens),
                "learning_rate": engine.optimizer.param_groups[0]["lr"],
                "gradient_norm": gradient_norm,
                "tokens_per_s": tokens_per_s,
                "mfu": tokens_per_s * flops / peak,
                "peak_memory_mib": _peak_memory_mib(),
            }
            log.line(_sentence(numbers, steps))
            if validating and validation is not None:
                found = validate(engine, validation, training.micro_batch_size, world)
                _say_validation(log, progress.step, found)
                numbers |= found
            log.metrics(numbers)
            clock, timed_tokens = time.perf_counter(), 0
        log.advance()
        if stopping or _due(training.save_every_steps, progress.step, last):
            paused = time.perf_counter()
            save(progress)
            clock += time.perf_counter() - paused
        if stopping and not last:
            return False
    return True


class Batches:
    """The data order: which samples make a step, and which of them are this process's."""

    def __init__(self, data: Dataset, training: TrainingConfig, total: int, world: World) -> None:
        """`total` samples make the run; `training.accumulation` micro-batches a step come to each process."""
        self.data, self.training, self.total, self.world = data, training, total, world
        self.accumulation = training.accumulation(world.size)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def at(self, position: int) -> Iterator[dict[str, torch.Tensor]]:
        """This process's micro-batches of the step that begins at sample `position`, each of shape (B, L)."""
        size, rank = self.training.micro_batch_size, self.world.rank
        for micro in range(self.accumulation):
            start = position + (micro * self.world.size + rank) * size
            yield _collate([self._sample(start + i) for i in range(size)], self.world.device)

    def _sample(self, position: int) -> Sample:
        if position < self.total:
            return self.data[self.index(position)]
        blank = self.data[0]  # the run ends inside this step: a sample that nothing is learnt from
        return blank | {"labels": np.full_like(blank["labels"], IGNORED)}

    def index(self, position: int) -> int:
        """The sample at `position` of the run: a pure function of (seed, epoch, place in the epoch)."""
        epoch, place = divmod(position, len(self.data))
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.training.seed, epoch]))
            self._epoch, self._order = epoch, generator.permutation(len(self.data))
        return int(self._order[place])


def _backward(
    engine: Any, micro_batches: list[dict[str, torch.Tensor]], world: World, stopping: bool
) -> tuple[int, torch.Tensor, bool]:
    """Accumulate the step's gradients.

    Returns the step's trained tokens over all processes, this process's summed loss (a tensor, so that
    nothing waits for the GPU), and whether any process was told to stop.
    """
    device = world.device
    trained = torch.stack([(batch["labels"] != IGNORED).sum() for batch in micro_batches]).sum()
    shared = torch.stack([trained, torch.tensor(int(stopping), device=device)])
    tokens, stops = world.sum(shared).tolist()
    nll = torch.zeros((), device=device, dtype=torch.float64)
    for batch in micro_batches:
        loss = summed_loss(engine, batch)
        nll += loss.detach()
        # DeepSpeed averages gradients over processes; `tokens` counts those of all of them: undo the average.
        engine.backward(loss * (world.size / max(1, tokens)), scale_wrt_gas=False)
    return tokens, nll, bool(stops)


@torch.no_grad()
def validate(engine: Any, validation: Validation, micro_batch_size: int, world: World) -> dict[str, float]:
    """Mean loss (nats a token), perplexity and bits per byte over all held-out samples; collective.

    Every process runs the same number of passes, as ZeRO 3 needs; what is left over is done with blank
    samples.
    """
    data = validation.samples
    sums = torch.zeros(2, device=world.device, dtype=torch.float64)
    engine.eval()
    for first in range(0, len(data), micro_batch_size * world.size):
        mine = [first + world.rank * micro_batch_size + i for i in range(micro_batch_size)]
        samples = [
            data[i] if i < len(data) else data[0] | {"labels": np.full_like(data[0]["labels"], IGNORED)}
            for i in mine
        ]
        batch = _collate(samples, world.device)
        sums[0] += summed_loss(engine, batch)
        sums[1] += (batch["labels"] != IGNORED).sum()
    engine.train()
    nll, tokens = world.sum(sums).tolist()
    found = {"validation_loss": nll / tokens, "validation_perplexity": math.exp(min(700.0, nll / tokens))}
    if validation.utf8_bytes:
        found["validation_bits_per_byte"] = nll / math.log(2) / validation.utf8_bytes
    return found


def track_gradient_norm(engine: Any, limit: float | None) -> Callable[[], tuple[bool, float]]:
    """A function that says, after `engine.step()`, whether the step was applied and the gradients' 2-norm
    before clipping.

    DeepSpeed's ZeRO optimisers know both. At stage 0 it calls a plain torch optimiser and knows neither, so
    norm, clipping and the check for finite gradients are done here, just before that optimiser runs.
    """
    if engine.zero_optimization():
        return lambda: (engine.was_step_applied(), float(engine.get_global_grad_norm()))
    found = (True, 0.0)

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        nonlocal found
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf))
        found = (math.isfinite(norm), norm)
        if not found[0]:
            for parameter in parameters:
                parameter.grad = None

    engine.optimizer.register_step_pre_hook(before)
    return lambda: found


def _note_skipped(progress: Progress, in_a_row: int, limit: int, log: Log) -> None:
    """Count and report a step that was not applied; UserError beyond the limit."""
    progress.skipped_steps += 1
    log.line(f"step {progress.step}: gradients are not finite; the step was skipped ({in_a_row} in a row).")
    if in_a_row > limit:
        raise UserError(
            f"gradients were not finite in {in_a_row} steps in a row, up to step {progress.step}. Lower"
            " optimizer.learning_rate or look at the data; the last checkpoint is still good."
        )


class _Signals:
    """Remembers that the run was told to end, so that the step at hand can be finished and saved.

    SIGTERM is what schedulers send, SIGUSR1 what they send in advance, SIGHUP what a lost connection sends.
    """

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.received = True


def _collate(samples: list[Sample], device: torch.device) -> dict[str, torch.Tensor]:
    batch = {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}
    batch["cu_seq_lens"], longest = attention.boundaries(batch["position_ids"])
    if device.type == "cuda":  # only pinned memory is copied while the GPU computes
        batch = {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}
    return batch | {"longest": torch.tensor(longest)}


def _set_rate(engine: Any, value: float) -> None:
    for group in engine.optimizer.param_groups:
        group["lr"] = value


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _due(every: int | None, step: int, last: bool) -> bool:
    return last or (every is not None and step % every == 0)


def _peak_memory_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _sentence(numbers: dict[str, float], steps: int) -> str:
    return (
        f"step {numbers['step']}/{steps}  loss {numbers['loss']:.4f}  lr {numbers['learning_rate']:.2e}"
        f"  grad {numbers['gradient_norm']:.3f}  {numbers['tokens_per_s']:,.0f} tokens/s"
    )


def _say_validation(log: Log, step: int, found: dict[str, float]) -> None:
    words = [
        f"{name.removeprefix('validation_').replace('_', ' ')} {value:.4f}" for name, value in found.items()
    ]
    log.line(f"step {step}: validation " + "  ".join(words))
