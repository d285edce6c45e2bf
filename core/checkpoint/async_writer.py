"""Writes that training does not wait for: copies in host memory, and one thread that writes them in order.

    state on the device ──copy──▶ host memory ──thread──▶ files
                        ──no room for a copy──▶ files, while training waits

The copy is made while nothing trains, so that the files hold one moment of the run, whatever is trained
while they are written. Its memory is kept for the next one, which is spared fresh pages. A write
that fails is raised in the training thread, and nothing that was to follow it is done.
"""

import copy
import errno
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from core.distributed.process_group import World

T = TypeVar("T")

Copy = Callable[[torch.Tensor], torch.Tensor]

ROOM = 0.8
"""At most this share of the memory that the host has left is taken for copies."""


def begun(work: Callable[[], T]) -> Callable[[], T]:
    """Begin `work` in a thread; what is returned waits for its result, and raises what it raised."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="begun")
    future = thread.submit(work)
    thread.shutdown(wait=False)
    return future.result


class Background:
    """Does what it is handed, in order; the training thread goes on."""

    def __init__(self, world: World, say: Callable[[str], None] | None = None) -> None:
        """`say` is told of what was finished; without it everything is done at once."""
        self.world, self.say = world, say
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self._jobs: list[Future[None]] = []
        self._failure: Exception | None = None
        self._told: list[str] = []
        self._free: dict[Any, list[torch.Tensor]] = defaultdict(list)
        self._used: dict[Any, list[torch.Tensor]] = defaultdict(list)

    def later(self, work: Callable[[], str | None], folder: Path) -> None:
        """Have `work` done, which writes to `folder`; what it returns is said when it is through."""
        if self.say is None:
            self._do(work, folder)
        else:
            self._jobs.append(self._thread.submit(self._do, work, folder))

    def room(self, size: int) -> bool:
        """Whether the host has memory for copies of `size` bytes by each process, beside what is kept for
        them; False where nothing is put off."""
        kept = sum(tensor.nbytes for tensors in self._free.values() for tensor in tensors)
        needed = max(0, size - kept) * self._processes_here()
        return self.say is not None and needed <= ROOM * available_bytes()

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in host memory, in that of an earlier copy of the same shape which is written by now."""
        if self.say is None:
            return plain_copy(tensor)
        key = (tensor.dtype, tensor.shape, tensor.stride())
        free = self._free[key]
        made = free.pop() if free else torch.empty_like(tensor, device="cpu", requires_grad=False)
        self._used[key].append(made)
        return made.copy_(tensor.detach())

    def check(self) -> None:
        """Say what was finished; raise what failed."""
        if self._failure is not None:
            raise self._failure
        while self._told and self.say:
            self.say(self._told.pop(0))

    def settle(self) -> None:
        """Wait until all is done; the memory of its copies is free for others."""
        for job in self._jobs:
            job.result()
        self._jobs.clear()
        for key, tensors in self._used.items():
            self._free[key] += tensors
        self._used.clear()

    def wait(self) -> None:
        """As `check`, when all is done."""
        self.settle()
        self.check()

    def _do(self, work: Callable[[], str | None], folder: Path) -> None:
        if self._failure is not None:
            return
        try:
            with full_disk_named(folder):
                words = work()
        except Exception as error:
            self._failure = error
        else:
            self._told += [words] if words else []

    def _processes_here(self) -> int:
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.world.size))


def plain_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in host memory of its own."""
    return tensor.detach().to("cpu", copy=True)


@contextmanager
def copied(engine: Any, background: Background) -> Iterator[None]:
    """Within, what DeepSpeed saves is copied and written by `background`; where memory does not allow it, it
    is written at once."""
    writer = engine.checkpoint_engine
    write = writer.save

    def save(state_dict: Any, path: str) -> None:
        size = sum({tensor.data_ptr(): tensor.nbytes for tensor in _tensors(state_dict)}.values())
        if not background.room(size):
            background.wait()
            write(state_dict, path)
            return
        state = host_copy(state_dict, background.copy)
        background.later(lambda: write(state, path), Path(path).parent)

    writer.save = save
    try:
        yield
    finally:
        del writer.save


def host_copy(tree: Any, copied: Copy, seen: dict[Any, torch.Tensor] | None = None) -> Any:
    """The same in host memory, by `copied`, sharing nothing with the original; a tensor that stands there
    twice is copied once."""
    seen = {} if seen is None else seen
    if isinstance(tree, torch.Tensor):
        key = (tree.data_ptr(), tree.dtype, tree.shape, tree.stride(), type(tree))
        if key not in seen:
            found = copied(tree)
            is_parameter = isinstance(tree, torch.nn.Parameter)
            seen[key] = torch.nn.Parameter(found, tree.requires_grad) if is_parameter else found
        return seen[key]
    if isinstance(tree, dict):
        made = copy.copy(tree)  # an OrderedDict stays one
        made.update({key: host_copy(value, copied, seen) for key, value in tree.items()})
        return made
    if isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
        return type(tree)(host_copy(value, copied, seen) for value in tree)
    return copy.deepcopy(tree)


def available_bytes() -> int:
    """Memory that the host can give without swapping."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else 0


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """torch and safetensors report a full disk in words of their own; say it as the system does."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        text = str(error)
        if "No space left" in text or "PytorchStreamWriter" in text or shutil.disk_usage(folder).free < 2**20:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder)) from error
        raise


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)
