"""Keeps the model of the lowest validation loss as RUN/model, and ends a run that stopped improving. A loss
that is not finite is never the lowest."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from core.checkpoint.progress import Progress
from core.train.logger import Log


@dataclass
class Best:
    """Validation for `core.train.loop.fit` that acts on the loss; collective."""

    validate: Callable[[Progress], dict[str, float]]
    keep: Callable[[Progress], None] | None
    """Writes RUN/model; None if the last model is published, not the best."""
    patience: int | None
    log: Log

    def __call__(self, progress: Progress) -> dict[str, float]:
        """The numbers at this step; sets `progress.ended` when patience runs out."""
        numbers = self.validate(progress)
        loss, best = numbers["validation_loss"], progress.best_loss
        if progress.step == 0:
            return numbers
        if math.isfinite(loss) and (best is None or not loss >= best):  # an older run may have kept a nan
            progress.best_loss, progress.best_step, progress.looks_without_gain = loss, progress.step, 0
            if self.keep is not None:
                self.log.line(f"step {progress.step}: lowest validation loss so far")
                self.keep(progress)
            return numbers
        progress.looks_without_gain += 1
        if self.patience is not None and progress.looks_without_gain >= self.patience:
            progress.ended = True
            model = f" its model is that of step {progress.best_step}." if self.keep else ""
            self.log.line(
                f"step {progress.step}: {progress.looks_without_gain} validations in a row without a lower"
                f" loss: the run ends;{model or ' the lowest was at step ' + str(progress.best_step) + '.'}"
            )
        return numbers
