"""The next step's micro-batches are read and sent to the device while this step is computed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

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


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in host memory, which is there after the next look at the device."""
    if tensor.device.type != "cuda":
        return tensor
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
