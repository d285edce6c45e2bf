"""Steps that must not be applied: gradients that are not finite, a loss or a gradient norm that leaps.

Each is told in the log, its samples are remembered in the run's state, and too many in a row end the run. The
leap is measured as a robust z-score: the distance to the median of the last steps, in units of their median
absolute deviation, which a spike among them does not move as it would move mean and standard deviation.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from core.checkpoint import Progress
from core.errors import UserError
from core.log import Log
from core.schema import TrainingConfig

WINDOW = 128
"""Applied steps that a step is compared with."""
FEWEST = 32
"""Before so many, no step is called a spike: a new run's loss falls too fast to be compared."""


class Guard:
    """Takes the engine's steps, and refuses those that would do harm."""

    def __init__(self, engine: Any, training: TrainingConfig, progress: Progress, log: Log) -> None:
        """`progress` holds the window and what was skipped: a resumed run decides as this one would."""
        self.engine, self.training, self.progress, self.log = engine, training, progress, log
        self.in_a_row = 0
        self._loss: torch.Tensor | float = 0.0
        self._norm: float | None = None
        self._reason = ""
        self._split = engine.zero_optimization()
        inner = engine.optimizer.optimizer if self._split else engine.optimizer
        inner.register_step_pre_hook(self._before_update)

    def step(self, loss: torch.Tensor) -> tuple[bool, float]:
        """One optimiser step for gradients of the mean `loss` (of all processes): whether it was applied, and
        the gradients' 2-norm before clipping."""
        self._loss, self._norm, self._reason = loss, None, ""
        self.engine.step()
        applied = not self._reason and (not self._split or self.engine.was_step_applied())
        norm = math.inf if self._norm is None else self._norm  # None: DeepSpeed found them not to be finite
        if applied and self.training.spike_z is not None:
            self.progress.recent = [*self.progress.recent, [float(self._loss), norm]][-WINDOW:]
        self.in_a_row = 0 if applied else self.in_a_row + 1
        return applied, norm

    def _before_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Just before torch's optimiser runs, which ZeRO has do a part of the weights at a time: without
        gradients it does nothing.

        The norm is the same on all processes, so all decide alike. DeepSpeed knows it at ZeRO's stages; at
        stage 0 it knows none, so norm and clipping are done here.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self._norm is None:
            if self._split:
                self._norm = float(self.engine.optimizer._global_grad_norm)
            else:
                limit = self.training.max_gradient_norm or math.inf
                self._norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
            self._loss = float(self._loss)  # after the update it would wait for that
            self._reason = self._judge(self._norm, self._loss)
        if self._reason:
            for parameter in parameters:
                parameter.grad = None

    def _judge(self, norm: float, loss: float) -> str:
        """Why a step with this gradient norm and loss is not to be applied; empty where it is."""
        if not math.isfinite(norm):
            return "gradients are not finite"
        limit, recent = self.training.spike_z, self.progress.recent
        if limit is None or len(recent) < FEWEST:
            return ""
        found = [
            (loss, [past[0] for past in recent], "loss"),
            (norm, [past[1] for past in recent], "gradient norm"),
        ]
        for value, past, name in found:
            score = robust_z(value, past)
            if not score <= limit:
                median = statistics.median(past)
                return f"{name} {value:.3f} is {score:.1f} deviations above {median:.3f}, the recent median"
        return ""

    def note_skipped(self, first: int) -> None:
        """Count, remember and report that the step that began at sample `first` was not applied; UserError
        beyond the limit."""
        progress, reason = self.progress, self._reason or "gradients are not finite"
        progress.skipped_steps += 1
        if progress.skipped and progress.skipped[-1][1] == first:
            progress.skipped[-1][1] = progress.samples
        else:
            progress.skipped.append([first, progress.samples])
        self.log.line(f"step {progress.step}: {reason}; the step was skipped ({self.in_a_row} in a row).")
        if self.in_a_row > self.training.max_skipped_steps:
            begin, end = progress.skipped[-1]
            raise UserError(
                f"{self.in_a_row} steps in a row were skipped, up to step {progress.step} (samples {begin:,}"
                f" to {end:,} of the run): {reason}. Lower optimizer.learning_rate or look at the data; the"
                " last checkpoint is still good. training.spike_z sets what a spike is."
            )


def robust_z(value: float, past: Sequence[float]) -> float:
    """How far `value` stands above the median of `past`, in standard deviations as the median absolute
    deviation estimates them (times 1.4826, exact for a normal distribution; Iglewicz and Hoaglin, 1993).

    A deviation below 1% of the median is taken as that: a plateau's noise is no scale for spikes.
    """
    median = statistics.median(past)
    deviation = 1.4826 * statistics.median(abs(each - median) for each in past)
    return (value - median) / max(deviation, 0.01 * abs(median), 1e-12)
