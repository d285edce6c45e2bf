"""The learning rate as a pure function of the step."""

import math

from core.config.schema import ScheduleConfig


def rate(config: ScheduleConfig, step: int, steps: int) -> float:
    """The share of the peak learning rate at `step` (from 0) of `steps`; the first step is never wasted on a
    zero."""
    warmup = config.warmup_steps if config.warmup_steps is not None else round(config.warmup_share * steps)
    if step < warmup:
        return config.warmup_from_share + (1 - config.warmup_from_share) * (step + 1) / (warmup + 1)
    start = warmup
    if config.kind == "warmup-stable-decay":
        decay = config.decay_steps if config.decay_steps is not None else round(config.decay_share * steps)
        start = max(warmup, steps - 1 - decay)
    progress = min(1.0, max(0, step - start) / max(1, steps - 1 - start))
    match config.kind:
        case "constant":
            return 1.0
        case "cosine":
            falling = (1 + math.cos(math.pi * progress)) / 2
        case "linear" | "warmup-stable-decay":
            falling = 1 - progress
    return config.final_share + (1 - config.final_share) * falling
