"""Skips steps with gradients that are not finite, or with a spike in the loss or the gradient norm.

A skipped step is logged, its samples are recorded in the run's state, and too many in a row, or of one source
of the data, end the run. A spike is measured as a robust z-score: the distance to the median of the last
steps in units of their median absolute deviation. Earlier spikes do not move these as they would move mean
and standard deviation.

What recurs is no spike: a rare kind of document has a high loss whenever it comes up, and a gradient norm may
rise for good. So steps far above the others are remembered, and once there are several, steps like them are
applied. A high loss right after another one does not count again: a broken model has it in every step.

The device decides, so that it never waits for the host: it computes norm, scores and verdict, and the
optimizer's kernel updates nothing if the verdict is to skip. The host reads the verdict one step later.
"""

import math
from typing import Any, NamedTuple

import torch

from core.checkpoint.progress import Progress
from core.config.schema import TrainingConfig
from core.distributed import deepspeed_backend
from core.distributed.deepspeed_backend import Engine
from core.errors import UserError
from core.train.dataloader import Arriving, to_host
from core.train.logger import Log
from core.train.skipped import Skipped

WINDOW = 128
"""Number of applied steps that a step is compared with."""
MIN_STEPS = 32
"""Number of applied steps before spike detection starts: a new run's loss falls too fast to compare."""
RECURRING, MEMORY, KEPT = 4, 512, 64
"""How many steps far above the others, within how many steps, make one like them no spike; how many of them
are kept."""


class _Taken(NamedTuple):
    """A step whose verdict the host has not read yet: number, samples, trained tokens."""

    step: int
    first: int
    samples: int
    tokens: int
    verdict: Arriving


class Guard:
    """Takes the engine's steps and skips the harmful ones."""

    def __init__(
        self,
        engine: Engine,
        training: TrainingConfig,
        progress: Progress,
        log: Log,
        skipped: Skipped | None = None,
    ) -> None:
        """`progress` holds the windows and the skipped samples, so that a resumed run decides the same;
        `skipped` counts them by source."""
        self.engine, self.training, self.progress, self.log = engine, training, progress, log
        self.skipped = skipped
        self.norm = math.inf
        """2-norm of the gradients before clipping, of the last step that `settle` has read."""
        self._in_a_row = 0
        self._loss = self._verdict = torch.zeros(())
        self._taken: _Taken | None = None
        self._window: Window | None = None
        self._outliers: Outliers | None = None
        inner = deepspeed_backend.torch_optimizer(engine)
        self._on_device = getattr(inner, "_step_supports_amp_scaling", False)  # torch's fused kernels
        inner.register_step_pre_hook(self._before_update)

    def step(self, loss: torch.Tensor) -> None:
        """One optimizer step with gradients of the mean `loss` of all processes, shape (). The host does not
        wait. Call `note` next."""
        self._loss = loss
        self._verdict = torch.zeros(0)
        self.engine.step()
        if not len(self._verdict):  # DeepSpeed skipped the step itself, as it does in fp16
            self._verdict = _verdict(loss, torch.full_like(loss, math.inf))

    def note(self, first: int, tokens: int) -> None:
        """Record that the last step began at sample `first` and trained on `tokens`; `progress` has advanced.
        Settles the step before it: UserError if too many in a row were skipped."""
        self.settle()
        progress = self.progress
        self._taken = _Taken(progress.step, first, progress.samples, tokens, to_host(self._verdict))

    def settle(self) -> None:
        """Wait for the last step's verdict and update `progress` with it."""
        if self._taken is None:
            return
        taken, self._taken = self._taken, None
        applied, loss, norm, *scores = taken.verdict()
        self.norm, limit, progress = norm, self.training.spike_z, self.progress
        if limit is not None and math.isfinite(loss) and math.isfinite(norm) and max(scores[:2]) > limit:
            high = scores[0] > limit
            if not high or taken.step - progress.last_high_loss > 1:
                progress.outliers = [*progress.outliers, [taken.step, loss, norm]][-KEPT:]
            progress.last_high_loss = taken.step if high else progress.last_high_loss
        if not applied:
            self._skip(taken, _reason(loss, norm, scores))
            return
        self._in_a_row = 0
        if limit is not None:
            progress.recent = [*progress.recent, [loss, norm]][-WINDOW:]

    def _before_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Clip gradients, or make the update do nothing. Called just before torch's optimizer runs, which
        ZeRO does for one part of the weights at a time.

        The norm is the same on all processes, so all decide alike. DeepSpeed computes it at stages 1 to 3. An
        optimizer without a fused kernel cannot skip on the device: the host waits for the verdict and removes
        the gradients.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not len(self._verdict):
            norm = deepspeed_backend.gradient_norm(self.engine)
            if norm is None:
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                norm = torch.nn.utils.get_total_norm(gradients)
            self._verdict = self._judge(norm)
        applied, norm = self._verdict[0], self._verdict[2]
        limit = self.training.max_gradient_norm or math.inf
        excess = ((norm + 1e-6) / limit).clamp(min=1.0).float()
        if self._on_device:
            device = parameters[0].device  # not the norm's if optimizer states are on the host
            optimizer.grad_scale = excess.to(device)  # type: ignore[attr-defined]
            optimizer.found_inf = (1 - applied).float().to(device)  # type: ignore[attr-defined]
            return
        skip = not applied
        for parameter in parameters:
            if skip:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.div_(excess)

    def _judge(self, norm: torch.Tensor) -> torch.Tensor:
        """The verdict of the step at hand, whose gradient has this `norm`; remembers the step."""
        limit, device = self.training.spike_z, self._loss.device
        if limit is None:
            return _verdict(self._loss, norm)
        if self._window is None or self._outliers is None:
            self._window = Window(self.progress.recent, device)
            self._outliers = Outliers(self.progress.outliers, self.progress.last_high_loss, device)
        return judge(self._loss, norm, self.progress.step + 1, limit, self._window, self._outliers)

    def _skip(self, taken: _Taken, reason: str) -> None:
        """Count, record and log a step that was not applied; UserError beyond the limit."""
        progress = self.progress
        progress.tokens -= taken.tokens
        progress.skipped_steps += 1
        self._in_a_row += 1
        if progress.skipped and progress.skipped[-1][1] == taken.first:
            progress.skipped[-1][1] = taken.samples
        else:
            progress.skipped.append([taken.first, taken.samples])
        self.log.line(f"step {taken.step}: {reason}; step skipped ({self._in_a_row} in a row).")
        if self._in_a_row > self.training.max_skipped_steps:
            begin, end = progress.skipped[-1]
            raise UserError(
                f"{self._in_a_row} steps in a row were skipped, up to step {taken.step} (samples {begin:,}"
                f" to {end:,} of the run): {reason}. Lower optimizer.learning_rate, check these samples, or"
                " raise training.spike_z, the threshold for a spike. The last checkpoint is unaffected."
            )
        if self.skipped is not None:
            progress.skipped_shares = self.skipped.add(taken.first, taken.samples)
            if lost := self.skipped.lost(progress.skipped_shares):
                raise UserError(
                    f"{lost}: they would not be learnt. The last was step {taken.step}: {reason}. Raise"
                    " training.spike_z, or set it to null, so that they are; if their gradients are not"
                    " finite, take them out of the data. The last checkpoint is unaffected."
                )


class Window:
    """Loss and gradient norm of the last applied steps, on the device. No method waits for it."""

    def __init__(self, recent: list[list[float]], device: torch.device) -> None:
        """`recent` are the last pairs, oldest first, at most `WINDOW`."""
        self._count = torch.tensor(len(recent), device=device)
        self._pairs = torch.full((WINDOW, 2), math.inf, dtype=torch.float64, device=device)
        if recent:
            self._pairs[: len(recent)] = torch.tensor(recent, dtype=torch.float64, device=device)
        self._positions = torch.arange(WINDOW, device=device)

    def add(self, pair: torch.Tensor, applied: torch.Tensor) -> None:
        """Replace the oldest pair by `pair`, (2,) float64, if `applied` (bool, shape ()) is true."""
        here = applied & (self._positions == self._count % WINDOW)
        self._pairs = torch.where(here[:, None], pair, self._pairs)
        self._count = self._count + applied

    def scores(self, pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How far `pair` is above the window's medians, and these medians; each (2,). The unit is the
        standard deviation, estimated by 1.4826 times the median absolute deviation (exact for a normal
        distribution; Iglewicz and Hoaglin, 1993). Minus infinity for fewer than `MIN_STEPS` pairs.

        The unit is at least 1% of the median, so that small noise on a plateau does not count as spikes.
        """
        median, deviation = _spread(self._pairs, self._count)
        scale = torch.maximum(deviation, 0.01 * median.abs()).clamp(min=1e-12)
        return torch.where(self._count < MIN_STEPS, -math.inf, (pair - median) / scale), median


class Outliers:
    """Step number, loss and gradient norm of the last steps far above the window, on the device."""

    def __init__(self, held: list[list[float]], last_high_loss: int, device: torch.device) -> None:
        """`held` are the last rows, oldest first, at most `KEPT`."""
        self._count = torch.tensor(len(held), device=device)
        self._last_high_loss = torch.tensor(last_high_loss, device=device)
        self._rows = torch.full((KEPT, 3), -math.inf, dtype=torch.float64, device=device)
        if held:
            self._rows[: len(held)] = torch.tensor(held, dtype=torch.float64, device=device)
        self._positions = torch.arange(KEPT, device=device)

    def know(self, pair: torch.Tensor, step: int, limit: float) -> torch.Tensor:
        """Whether there were several of the size of `pair` (loss, norm) before `step`: bool, shape (). They
        may be few, so twice their median is of their size too."""
        recent = self._rows[:, :1] > step - MEMORY
        held = recent.sum()
        median, deviation = _spread(torch.where(recent, self._rows[:, 1:], math.inf), held)
        return (held >= RECURRING) & (pair <= median + torch.maximum(limit * deviation, median.abs())).all()

    def add(self, pair: torch.Tensor, step: int, there: torch.Tensor, high_loss: torch.Tensor) -> None:
        """Remember `pair` if `there` (bool, shape ()); of steps with a `high_loss` in a row the first."""
        first = ~high_loss | (step - self._last_high_loss > 1)
        here = there & first & (self._positions == self._count % KEPT)
        row = torch.cat([pair.new_full((1,), step), pair])
        self._rows = torch.where(here[:, None], row, self._rows)
        self._count = self._count + (there & first)
        self._last_high_loss = torch.where(there & high_loss, step, self._last_high_loss)


def judge(
    loss: torch.Tensor, norm: torch.Tensor, step: int, limit: float, window: Window, outliers: Outliers
) -> torch.Tensor:
    """The verdict of a step by its `loss` and gradient `norm`; both memories take it in."""
    pair = _pair(loss, norm)
    finite = pair.isfinite().all()
    scores, medians = window.scores(pair)
    far = finite & (scores > limit).any()
    applied = finite & (~far | outliers.know(pair, step, limit))
    window.add(pair, applied)
    outliers.add(pair, step, far, scores[0] > limit)
    return torch.cat([applied.double()[None], pair, scores, medians])


def _verdict(loss: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """The verdict of a step, (7,) float64: 1 if applied, loss, norm, scores of both, medians of both. Here it
    is applied if it is finite."""
    pair = _pair(loss, norm)
    return torch.cat([pair.isfinite().all().double()[None], pair, pair.new_zeros(4)])


def _pair(loss: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    return torch.stack([loss.double(), norm.to(loss.device).double()])


def _spread(values: torch.Tensor, held: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The median of each column's `held` rows, and their median absolute deviation as a standard deviation;
    the other rows are infinite and sort last."""
    held = held.clamp(min=1, max=len(values))
    middle = torch.stack([(held - 1) // 2, held // 2])

    def median(of: torch.Tensor) -> torch.Tensor:
        return of.sort(dim=0).values.index_select(0, middle).mean(dim=0)

    found = median(values)
    return found, 1.4826 * median((values - found).abs())


def _reason(loss: float, norm: float, scores: list[float]) -> str:
    """Why a step with these numbers was skipped."""
    if not math.isfinite(norm):
        return "gradients are not finite"
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    name, value, i = ("loss", loss, 0) if scores[0] >= scores[1] else ("gradient norm", norm, 1)
    return f"{name} {value:.3f} is {scores[i]:.1f} deviations above {scores[2 + i]:.3f}, the recent median"
