"""The processes of a run: rank, device and collective operations.

torchrun, SLURM's `srun torchrun` and the DeepSpeed launcher set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
MASTER_PORT. Without a launcher the run is one process, and the same code works.
"""

import atexit
import faulthandler
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from core.distributed.watchdog import Watch
from core.errors import UserError
from core.launch import free_port

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place among all processes of the run."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    watch: Watch | None = None
    """Ends the run when another process dies or hangs; None if there is no other."""
    sequence_parallel_size: int = 1
    """Processes that share each row (core/model/sequence_parallel.py); those of a group have successive
    ranks."""
    sequence_group: dist.ProcessGroup | None = None
    """The processes that share rows with this one; None if there is no other."""

    @property
    def data_parallel_size(self) -> int:
        """Groups of processes that have different rows."""
        return self.size // self.sequence_parallel_size

    @property
    def data_parallel_rank(self) -> int:
        """Which of these groups this process is in."""
        return self.rank // self.sequence_parallel_size

    @property
    def part(self) -> tuple[int, int]:
        """Which part of each row is this process's, and of how many."""
        return self.rank % self.sequence_parallel_size, self.sequence_parallel_size

    def mark(self) -> None:
        """Record that this process has reached its next piece of work and does not hang."""
        if self.watch:
            self.watch.mark()

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes logs and manifests."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes, however long one of them is at work."""
        if self.watch:
            self.watch.meet()
        if self.size > 1:
            dist.barrier()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum of `values` over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """The `value` of every process, by rank, on all processes; any picklable objects. It waits for all,
        however long one of them is at work."""
        found = [value] * self.size
        self.barrier()
        if self.size > 1:
            dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: object) -> object:
        """The main process's `value` on all processes; any picklable object."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]


def setup(timeout_minutes: float) -> World:
    """Join the run: set the variables if there is no launcher, choose a device, start NCCL (GPU) or gloo.

    A rank that dies or makes no progress for `timeout_minutes` ends the run (core/distributed/watchdog.py).
    Collective operations time out after twice as long, so that the watchdog can name the rank first: what one
    rank does alone for longer must end in `World.barrier`, which has no limit.
    """
    from core.distributed import deepspeed_backend

    faulthandler.enable()  # print a traceback if a kernel crashes the process
    if "RANK" not in os.environ:
        os.environ.update(
            RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port()
        )
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if not dist.is_initialized():
        deepspeed_backend.join(device, timedelta(minutes=2 * timeout_minutes))
    rank, size = dist.get_rank(), dist.get_world_size()
    watch = Watch(rank, size, 60 * timeout_minutes) if size > 1 else None
    if watch:
        watch.start()
        atexit.register(watch.leave)
    return World(rank, size, local_rank, device, watch)


def sharing_rows(world: World, size: int, timeout_minutes: float) -> World:
    """The same processes in groups of `size` that share each row; collective. `timeout_minutes` as in
    `setup`."""
    if size == 1:
        return world
    group, _ = dist.new_subgroups(size, timeout=timedelta(minutes=2 * timeout_minutes))
    return replace(world, sequence_parallel_size=size, sequence_group=group)


def teardown(world: World) -> None:
    """Leave the run; collective. Rank 0 may hold the store that the watchdogs use, so no process exits before
    the watchdogs of all have ended."""
    world.barrier()
    if world.watch:
        world.watch.leave()
        dist.barrier()
    dist.destroy_process_group()


def on_main(world: World, call: Callable[[], T]) -> T:
    """Run `call` on the main process; all processes return its result or raise its UserError. Collective."""
    outcome: object = None
    if world.is_main:
        try:
            outcome = call()
        except UserError as error:
            outcome = error
    world.barrier()  # it may take longer than a broadcast may
    outcome = world.broadcast(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    return cast(T, outcome)
