"""Samples become micro-batches; those of the next step are read and sent to the device during this step."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
import torch

from core.model.loss_head import IGNORED
from core.model.varlen_attention import boundaries

T = TypeVar("T")


class Ahead(Generic[T]):
    """`at(position)` is `read(position)`, begun in the background where the position could be foreseen.

    One thread reads, so that `read` needs no lock; an error in it is raised by the `at` that asks for it.
    """

    def __init__(self, read: Callable[[int], T], stride: int, end: int) -> None:
        """After position p comes p + `stride`; at `end` and beyond nothing is read in advance."""
        self.read, self.stride, self.end = read, stride, end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loading")
        self._waiting: tuple[int, Future[T]] | None = None

    def at(self, position: int) -> T:
        """What stands at `position`; the following position is begun."""
        if self._waiting is not None and self._waiting[0] == position:
            future = self._waiting[1]
        else:
            future = self._thread.submit(self.read, position)
        following = position + self.stride
        self._waiting = (
            (following, self._thread.submit(self.read, following)) if following < self.end else None
        )
        return future.result()


Arriving = Callable[[], list[float]]
"""Waits for numbers that were sent off, and gives them."""


def to_host(tensor: torch.Tensor) -> Arriving:
    """Send a vector to the host. What is returned waits for what the device had to do before, and for nothing
    that it was given since."""
    if tensor.device.type != "cuda":
        return tensor.tolist
    sent = torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
    arrival = torch.cuda.Event(blocking=True)
    arrival.record()

    def arrived() -> list[float]:
        arrival.synchronize()
        numbers: list[float] = sent.tolist()
        return numbers

    return arrived


def collate(
    samples: list[dict[str, np.ndarray]], device: torch.device, part: int = 0, parts: int = 1
) -> dict[str, torch.Tensor]:
    """Samples as one batch (B, L) on the device, with the boundaries of their documents; places behind the
    last label, which nothing is learnt from, are left out, by multiples of 64. Where a tenth or more of the
    rest is not learnt from either, `learnt` (N,) says which places are, read row after row.

    With several `parts` it is part number `part` of every row, (B, L / parts), and the boundaries are those
    of the whole rows.
    """
    learnt = np.flatnonzero(np.any([sample["labels"] != IGNORED for sample in samples], axis=0))
    step = 64 * parts
    used = -(-(int(learnt[-1]) + 1 if len(learnt) else 1) // step) * step
    stacked = {
        name: torch.from_numpy(np.stack([sample[name][:used] for sample in samples])) for name in samples[0]
    }
    starts = boundaries(stacked["position_ids"])
    if parts > 1:
        stacked = {name: row.unflatten(1, (parts, -1))[:, part].contiguous() for name, row in stacked.items()}
    stacked["boundaries"] = starts
    labels = stacked["labels"].flatten()
    learnt_places = (labels != IGNORED).nonzero().flatten()
    if len(learnt_places) < 0.9 * len(labels):
        stacked["learnt"] = learnt_places
    if device.type == "cuda":  # only pinned memory is copied while the GPU computes
        return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in stacked.items()}
    return stacked
