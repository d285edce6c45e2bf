"""The processes that share a run's samples, started by torchrun. They exchange which answers are done, no
tensors."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple


class Ranks(NamedTuple):
    """This process among those of the run; the default is a run of one process."""

    rank: int = 0
    size: int = 1
    gather: Callable[[Any], list[Any]] = lambda value: [value]
    """The values of all processes, in rank order; blocks until every process has called it."""


def connect() -> Ranks:
    """Join the processes of this run over gloo, as torchrun's WORLD_SIZE says."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    from datetime import timedelta

    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(days=2))

    def gather(value: object) -> list[object]:
        values: list[object] = [None] * size
        dist.all_gather_object(values, value)
        return values

    return Ranks(dist.get_rank(), size, gather)
