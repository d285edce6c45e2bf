"""The processes of a run: who am I, on which device, and how do we talk.

Launched by torchrun, SLURM's `srun torchrun` or the DeepSpeed launcher, the usual variables (RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) say so. Unlaunched, the run is one process, and the same
code works.
"""

import atexit
import faulthandler
import os
from collections.abc import Callable
from dataclasses import dataclass
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
    """This process among all processes of the run."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    watch: Watch | None = None
    """Ends the run when another process dies or hangs; None where there is no other."""

    def mark(self) -> None:
        """This process goes on to its next piece of work: it does not hang."""
        if self.watch:
            self.watch.mark()

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes logs and manifests."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        dist.barrier()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum of `values` over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, value: object) -> object:
        """The main process's `value`, everywhere; any picklable object."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]


def setup(timeout_minutes: float) -> World:
    """Join the run: set the variables where nobody launched us, take a device, start NCCL (GPU) or gloo
    (CPU).

    A rank that dies, or does not go on within `timeout_minutes`, ends the run
    (core/distributed/watchdog.py). Collective
    operations wait twice as long, so that they do not end first, without its name.
    """
    import deepspeed
    from deepspeed.ops import __compatible_ops__ as available_kernels

    faulthandler.enable()  # a process that crashes in a kernel says where it was
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
        available_kernels["deepspeed_shm_comm"] = False  # else a compiler runs at every user's first start
    if not dist.is_initialized():
        deepspeed.init_distributed(
            dist_backend="nccl" if device.type == "cuda" else "gloo",
            timeout=timedelta(minutes=2 * timeout_minutes),
            auto_mpi_discovery=False,
            verbose=False,
        )
    rank, size = dist.get_rank(), dist.get_world_size()
    watch = Watch(rank, size, 60 * timeout_minutes) if size > 1 else None
    if watch:
        watch.start()
        atexit.register(watch.leave)
    return World(rank, size, local_rank, device, watch)


def teardown() -> None:
    """Leave the run."""
    if dist.is_initialized():
        dist.destroy_process_group()


def on_main(world: World, call: Callable[[], T]) -> T:
    """What `call` returns on the main process, everywhere; its UserError is raised everywhere too;
    collective."""
    outcome: object = None
    if world.is_main:
        try:
            outcome = call()
        except UserError as error:
            outcome = error
    outcome = world.broadcast(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    return cast(T, outcome)
