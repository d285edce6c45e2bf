"""Steps that must not be applied: gradients that are not finite, a loss or a gradient norm that leaps.

Each is told in the log, its samples are remembered in the run's state, and too many in a row end the run. The
leap is measured as a robust z-score: the distance to the median of the last steps, in units of their median
absolute deviation, which a spike among them does not move as it would move mean and standard deviation.

The device decides, so that it never waits for the host: it computes norm, scores and verdict, and the
optimiser's kernel updates nothing where the verdict says so. The host reads the verdict one step later.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from core.checkpoint.progress import Progress
from core.config.schema import TrainingConfig
from core.errors import UserError
from core.train.dataloader import Arriving, to_host
from core.train.logger import Log

WINDOW = 128
"""Applied steps that a step is compared with."""
FEWEST = 32
"""Before so many, no step is called a spike: a new run's loss falls too fast to be compared."""


class _Taken(NamedTuple):
    """A step whose verdict the host has not read yet: its number, its samples, its trained tokens."""

    step: int
    first: int
    samples: int
    tokens: int
    verdict: Arriving


class Guard:
    """Takes the engine's steps, and refuses those that would do harm."""

    def __init__(self, engine: Any, training: TrainingConfig, progress: Progress, log: Log) -> None:
        """`progress` holds the window and what was skipped: a resumed run decides as this one would."""
        self.engine, self.training, self.progress, self.log = engine, training, progress, log
        self.norm = math.inf
        """Of the last step that `settle` has read: the 2-norm before clipping."""
        self._in_a_row = 0
        self._loss = self._verdict = torch.zeros(())
        self._taken: _Taken | None = None
        self._window: Window | None = None
        self._split = engine.zero_optimization()
        inner = engine.optimizer.optimizer if self._split else engine.optimizer
        self._on_device = getattr(inner, "_step_supports_amp_scaling", False)  # torch's fused kernels
        inner.register_step_pre_hook(self._before_update)

    def step(self, loss: torch.Tensor) -> None:
        """One optimiser step for gradients of the mean `loss` of all processes, shape (); nothing is waited
        for. `note` is to follow."""
        self._loss = loss
        self._verdict = torch.zeros(0)
        with _unjudged(self.engine):
            self.engine.step()
        if not len(self._verdict):  # DeepSpeed refused by itself, as its fp16 does
            self._verdict = _judge(loss, torch.full_like(loss, math.inf), None, None)

    def note(self, first: int, tokens: int) -> None:
        """The step just taken began at sample `first` and trained on `tokens`; `progress` has advanced. What
        became of the step before it is told; UserError where too many were refused."""
        self.settle()
        progress = self.progress
        self._taken = _Taken(progress.step, first, progress.samples, tokens, to_host(self._verdict))

    def settle(self) -> None:
        """Wait for the last step's verdict, and bring `progress` up to it."""
        if self._taken is None:
            return
        taken, self._taken = self._taken, None
        applied, loss, norm, *scores = taken.verdict()
        self.norm = norm
        if not applied:
            self._skipped(taken, _reason(loss, norm, scores))
            return
        self._in_a_row = 0
        if self.training.spike_z is not None:
            self.progress.recent = [*self.progress.recent, [loss, norm]][-WINDOW:]

    def _before_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Just before torch's optimiser runs, which ZeRO has do a part of the weights at a time: clip, and
        have a refused step do nothing.

        The norm is the same on all processes, so all decide alike. DeepSpeed knows it at ZeRO's stages; at
        stage 0 it knows none. An optimiser without a fused kernel cannot be told on the device: the host
        waits for the verdict, and takes the gradients away.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not len(self._verdict):
            if self._split:
                norm = torch.as_tensor(self.engine.optimizer._global_grad_norm)
            else:
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                norm = torch.nn.utils.get_total_norm(gradients)
            if self._window is None and self.training.spike_z is not None:
                self._window = Window(self.progress.recent, self._loss.device)
            self._verdict = _judge(self._loss, norm, self._window, self.training.spike_z)
        applied, norm = self._verdict[0], self._verdict[2]
        limit = self.training.max_gradient_norm or math.inf
        excess = ((norm + 1e-6) / limit).clamp(min=1.0).float()
        if self._on_device:
            device = parameters[0].device  # not the norm's where optimiser states live on the host
            optimizer.grad_scale = excess.to(device)  # type: ignore[attr-defined]
            optimizer.found_inf = (1 - applied).float().to(device)  # type: ignore[attr-defined]
            return
        refused = not applied
        for parameter in parameters:
            if refused:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.div_(excess)

    def _skipped(self, taken: _Taken, reason: str) -> None:
        """Count, remember and report a step that was not applied; UserError beyond the limit."""
        progress = self.progress
        progress.tokens -= taken.tokens
        progress.skipped_steps += 1
        self._in_a_row += 1
        if progress.skipped and progress.skipped[-1][1] == taken.first:
            progress.skipped[-1][1] = taken.samples
        else:
            progress.skipped.append([taken.first, taken.samples])
        self.log.line(f"step {taken.step}: {reason}; the step was skipped ({self._in_a_row} in a row).")
        if self._in_a_row > self.training.max_skipped_steps:
            begin, end = progress.skipped[-1]
            raise UserError(
                f"{self._in_a_row} steps in a row were skipped, up to step {taken.step} (samples {begin:,}"
                f" to {end:,} of the run): {reason}. Lower optimizer.learning_rate or look at the data; the"
                " last checkpoint is still good. training.spike_z sets what a spike is."
            )


class Window:
    """Loss and gradient norm of the last applied steps, on the device; no call waits for it."""

    def __init__(self, recent: list[list[float]], device: torch.device) -> None:
        """`recent` are the last pairs, the oldest first; at most `WINDOW`."""
        self._count = torch.tensor(len(recent), device=device)
        self._pairs = torch.full((WINDOW, 2), math.inf, dtype=torch.float64, device=device)
        if recent:
            self._pairs[: len(recent)] = torch.tensor(recent, dtype=torch.float64, device=device)
        self._places = torch.arange(WINDOW, device=device)

    def add(self, pair: torch.Tensor, applied: torch.Tensor) -> None:
        """Remember `pair`, (2,) float64, in place of the oldest, where `applied` (bool, shape ()) is true."""
        here = applied & (self._places == self._count % WINDOW)
        self._pairs = torch.where(here[:, None], pair, self._pairs)
        self._count = self._count + applied

    def scores(self, pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How far `pair` stands above the window's medians, in standard deviations as the median absolute
        deviation estimates them (times 1.4826, exact for a normal distribution; Iglewicz and Hoaglin, 1993),
        and these medians; each (2,). Minus infinity while the window holds too few.

        A deviation below 1% of the median is taken as that: a plateau's noise is no scale for spikes.
        """
        median = self._median(self._pairs)
        deviation = 1.4826 * self._median((self._pairs - median).abs())
        scale = torch.maximum(deviation, 0.01 * median.abs()).clamp(min=1e-12)
        return torch.where(self._count < FEWEST, -math.inf, (pair - median) / scale), median

    def _median(self, values: torch.Tensor) -> torch.Tensor:
        """Of each column's first `count` smallest: what was never filled is infinite, and sorted behind."""
        held = self._count.clamp(min=1, max=WINDOW)
        middle = torch.stack([(held - 1) // 2, held // 2])
        return values.sort(dim=0).values.index_select(0, middle).mean(dim=0)


@contextmanager
def _unjudged(engine: Any) -> Iterator[None]:
    """Within, DeepSpeed's optimisers do not look whether the gradients are finite, for which the host would
    wait for the device several times a step; its fp16 goes on to, for its loss scale."""
    from deepspeed.runtime import utils

    never: dict[str, Callable[..., Any]] = {
        "is_invalid_grad_norm": lambda *_: False,
        "mask_nan_or_inf_with_val_inplace": lambda *_, **__: None,
    }
    places = [] if engine.fp16_enabled() else [utils, sys.modules[type(engine.optimizer).__module__]]
    kept = [(place, name, getattr(place, name)) for place in places for name in never if hasattr(place, name)]
    for place, name, _ in kept:
        setattr(place, name, never[name])
    try:
        yield
    finally:
        for place, name, own in kept:
            setattr(place, name, own)


def _judge(
    loss: torch.Tensor, norm: torch.Tensor, window: Window | None, limit: float | None
) -> torch.Tensor:
    """The verdict of a step, (7,) float64: 1 where it is applied, loss, norm, scores and medians of both."""
    pair = torch.stack([loss.double(), norm.to(loss.device).double()])
    applied = pair.isfinite().all()
    scores = medians = torch.zeros_like(pair)
    if window is not None and limit is not None:
        scores, medians = window.scores(pair)
        applied = applied & (scores <= limit).all()
        window.add(pair, applied)
    return torch.cat([applied.double()[None], pair, scores, medians])


def _reason(loss: float, norm: float, scores: list[float]) -> str:
    """Why a step with these numbers was refused."""
    if not math.isfinite(norm):
        return "gradients are not finite"
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    name, value, i = ("loss", loss, 0) if scores[0] >= scores[1] else ("gradient norm", norm, 1)
    return f"{name} {value:.3f} is {scores[i]:.1f} deviations above {scores[2 + i]:.3f}, the recent median"
