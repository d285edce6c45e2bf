"""Writes files while training continues: state is copied to host memory, and one thread writes it in order.

    state on the device ──copy──▶ host memory ──thread──▶ files ──another thread──▶ their hashes
                        ──no memory for a copy──▶ files, while training waits

Training waits for the copy, so the files hold one moment of the run. The memory of a copy is kept for the
next one, which then needs no new pages. An exception in the thread is raised in the training thread, and the
work queued after it is not done.
"""

import copy
import errno
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from core.distributed.deepspeed_backend import SaveFile
from core.distributed.process_group import World
from core.host_memory import available_bytes
from core.provenance import manifest

T = TypeVar("T")

Copy = Callable[[torch.Tensor], torch.Tensor]

MEMORY_SHARE = 0.8
"""Copies take at most this share of the memory that is available on the host, within the job's limit."""


def begun(work: Callable[[], T]) -> Callable[[], T]:
    """Start `work` in a thread; the returned function waits for its result, or raises its exception."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="begun")
    future = thread.submit(work)
    thread.shutdown(wait=False)
    return future.result


class Background:
    """Does its work in order in a thread, while the training thread continues."""

    def __init__(self, world: World, report: Callable[[str], None] | None = None) -> None:
        """`report` gets a line for finished work; without it all work is done at once, by the caller."""
        self.world, self.report = world, report
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hashing")
        self._hashes: dict[Path, Future[str]] = {}
        self._jobs: list[Future[None]] = []
        self._failure: Exception | None = None
        self._finished: list[str] = []
        self._free: dict[Any, list[torch.Tensor]] = defaultdict(list)
        self._used: dict[Any, list[torch.Tensor]] = defaultdict(list)

    def later(self, work: Callable[[], str | None], folder: Path) -> None:
        """Queue `work`, which writes to `folder`; the line that it returns is reported when it is done."""
        if self.report is None:
            self._do(work, folder)
        else:
            self._jobs.append(self._thread.submit(self._do, work, folder))

    def save_state(self, write: SaveFile, state: Any, path: str) -> None:
        """Call `write(state, path)`, later with a copy, or now if the host lacks memory for one; then hash
        the file."""
        size = sum({tensor.data_ptr(): tensor.nbytes for tensor in _tensors(state)}.values())
        if not self.has_memory(size):
            self.wait()
            write(state, path)
            self.hash(Path(path))
            return
        copied = host_copy(state, self.copy)

        def work() -> None:
            write(copied, path)
            self.hash(Path(path))

        self.later(work, Path(path).parent)

    def hash(self, file: Path) -> None:
        """Hash a file that is complete, while the next one is written."""
        self._hashes[file] = self._hasher.submit(manifest.hash_file, file.open("rb"))

    def rename(self, file: Path, name: str) -> None:
        """Rename a file that `hash` was called for."""
        self._hashes[file.rename(file.with_name(name))] = self._hashes.pop(file)

    def hashes(self, folder: Path) -> dict[str, str]:
        """The hashes of the files in `folder` that `hash` was called for, by path in it."""
        files = [file for file in self._hashes if file.is_relative_to(folder)]
        return {file.relative_to(folder).as_posix(): self._hashes.pop(file).result() for file in files}

    def has_memory(self, size: int) -> bool:
        """Whether the host has memory for copies of `size` bytes by each process, beyond what is kept for
        them; False if all work is done at once."""
        kept = sum(tensor.nbytes for tensors in self._free.values() for tensor in tensors)
        needed = max(0, size - kept) * self._processes_here()
        return self.report is not None and needed <= MEMORY_SHARE * available_bytes()

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in host memory; reuses the memory of an earlier copy of this shape that has been written."""
        if self.report is None:
            return plain_copy(tensor)
        key = (tensor.dtype, tensor.shape, tensor.stride())
        free = self._free[key]
        made = free.pop() if free else torch.empty_like(tensor, device="cpu", requires_grad=False)
        self._used[key].append(made)
        return made.copy_(tensor.detach())

    def check(self) -> None:
        """Report finished work; raise the exception of failed work."""
        if self._failure is not None:
            raise self._failure
        while self._finished and self.report:
            self.report(self._finished.pop(0))

    def settle(self) -> None:
        """Wait until all work is done; the memory of its copies can be reused."""
        for job in self._jobs:
            job.result()
        self._jobs.clear()
        for key, tensors in self._used.items():
            self._free[key] += tensors
        self._used.clear()

    def wait(self) -> None:
        """Wait until all work is done, then `check`."""
        self.settle()
        self.check()

    def _do(self, work: Callable[[], str | None], folder: Path) -> None:
        if self._failure is not None:
            return
        try:
            with full_disk_named(folder):
                line = work()
        except Exception as error:
            self._failure = error
        else:
            self._finished += [line] if line else []

    def _processes_here(self) -> int:
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.world.size))


def plain_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in new host memory."""
    return tensor.detach().to("cpu", copy=True)


def host_copy(tree: Any, copied: Copy, seen: dict[Any, torch.Tensor] | None = None) -> Any:
    """A copy of nested dicts, lists and tuples in host memory, which shares nothing with the original;
    `copied` copies a tensor. A tensor that occurs twice is copied once."""
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


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Raise the system's error for a full disk, which torch and safetensors report in their own ways."""
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
