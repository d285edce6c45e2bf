"""Steps that must not be applied: gradients that are not finite. They are counted, reported, and end the run
beyond a limit, never silently."""

import math
from collections.abc import Callable
from typing import Any

import torch

from core.checkpoint import Progress
from core.errors import UserError
from core.log import Log


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


def note_skipped(progress: Progress, in_a_row: int, limit: int, log: Log) -> None:
    """Count and report a step that was not applied; UserError beyond the limit."""
    progress.skipped_steps += 1
    log.line(f"step {progress.step}: gradients are not finite; the step was skipped ({in_a_row} in a row).")
    if in_a_row > limit:
        raise UserError(
            f"gradients were not finite in {in_a_row} steps in a row, up to step {progress.step}. Lower"
            " optimizer.learning_rate or look at the data; the last checkpoint is still good."
        )
