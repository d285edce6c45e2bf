"""Tokens per second and MFU, and the numbers of a logged step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from core.checkpoint.progress import Progress
from core.distributed.process_group import World
from core.model.flops import flops_per_token, peak_flops
from core.train.logger import peak_memory_mib


class Meter:
    """Counts tokens and seconds since the last logged step, without the seconds of checkpoints."""

    def __init__(self, model: Any, length: int, world: World, unit: str = "tokens") -> None:
        """`length`: tokens per sample. `unit`: what is counted, if it is not tokens; there is no MFU then."""
        self.unit = unit
        self.peak = peak_flops(world.device) * world.size
        self.flops = flops_per_token(model, length)
        self.start()

    def start(self) -> None:
        """Start counting from zero."""
        self.tokens, self._since = 0, time.perf_counter()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Do not count the time spent inside this context."""
        paused = time.perf_counter()
        yield
        self._since += time.perf_counter() - paused

    def numbers(
        self, progress: Progress, loss: torch.Tensor, learning_rate: float, gradient_norm: float
    ) -> dict[str, float]:
        """The keys of a line in `metrics.jsonl` that every run has."""
        tokens_per_s = self.tokens / (time.perf_counter() - self._since)
        mfu = {"mfu": tokens_per_s * self.flops / self.peak} if self.unit == "tokens" else {}
        return {
            "step": progress.step,
            "tokens": progress.tokens,
            "loss": float(loss),
            "learning_rate": learning_rate,
            "gradient_norm": gradient_norm,
            "skipped_steps": progress.skipped_steps,
            "tokens_per_s": tokens_per_s,
            "peak_memory_mib": peak_memory_mib(),
            **mfu,
        }

    def sentence(self, numbers: dict[str, float], steps: int) -> str:
        """The same as one line of text."""
        digits = 0 if self.unit == "tokens" else 2
        return (
            f"step {numbers['step']}/{steps}  loss {numbers['loss']:.4f}  lr {numbers['learning_rate']:.2e}"
            f"  grad {numbers['gradient_norm']:.3f}  {numbers['tokens_per_s']:,.{digits}f} {self.unit}/s"
        )
