"""Keeps the model of the lowest validation loss as RUN/model, and ends a run that does not get better."""

from collections.abc import Callable
from dataclasses import dataclass

from core.checkpoint.progress import Progress
from core.train.logger import Log


@dataclass
class Best:
    """`look` for `core.train.loop.fit`: looks at the model and keeps it where it is the best so far;
    collective."""

    look: Callable[[Progress], dict[str, float]]
    keep: Callable[[Progress], None]
    """Writes RUN/model."""
    patience: int | None
    log: Log

    def __call__(self, progress: Progress) -> dict[str, float]:
        """The numbers at this step; sets `progress.ended` where patience is over."""
        numbers = self.look(progress)
        loss = numbers["validation_loss"]
        if progress.step == 0:
            return numbers
        if progress.best_loss is None or loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.looks_without_gain = loss, progress.step, 0
            self.keep(progress)
            self.log.line(f"step {progress.step}: the best so far, kept as the run's model")
            return numbers
        progress.looks_without_gain += 1
        if self.patience is not None and progress.looks_without_gain >= self.patience:
            progress.ended = True
            self.log.line(
                f"step {progress.step}: no lower validation loss {progress.looks_without_gain} times in a"
                f" row: the run ends; its model is that of step {progress.best_step}."
            )
        return numbers
