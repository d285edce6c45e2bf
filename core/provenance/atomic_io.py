"""Files and folders that are whole or absent, whoever is killed when.

What is written goes beside its place under a hidden name that says which process it belongs to, is synced,
and is renamed; what a killed process left is removed, or taken back, by the next one that comes.
"""

import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError

if TYPE_CHECKING:
    import numpy.typing as npt


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is whole or absent: beside, synced, renamed."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def replace(partial: Path, target: Path) -> None:
    """Give a complete folder its name; an older one of that name is removed only after the swap."""
    old = beside(target, "old")
    if target.exists():
        target.rename(old)
    partial.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def lock(file: Path, problem: str) -> Iterator[None]:
    """Keep other processes out while the block runs; UserError, with `problem`, where one is in already.

    A file system without locks lets everybody in.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.seek(0)
            raise UserError(f"{problem}, by {opened.read().strip()}. Wait for it, or end it.") from None
        except OSError:
            yield
            return
        opened.truncate(0)
        opened.write(f"process {os.getpid()} on {os.uname().nodename}")
        opened.flush()
        yield


def scratch_array(path: Path, dtype: "npt.DTypeLike", shape: int | tuple[int, ...]) -> "npt.NDArray[Any]":
    """A new array in a file that is mapped into memory. Its room is taken at once: a full disk is an OSError
    here, where writing into mapped memory without room would kill the process."""
    import numpy as np

    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
    return np.memmap(path, dtype, "r+", shape=shape)


def link(source: Path, target: Path) -> None:
    """A second name of a file that is never written again; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def beside(target: Path, kind: str) -> Path:
    """A hidden name beside `target` that says which process it belongs to."""
    return target.with_name(f".{target.name}.{kind}-{os.uname().nodename}-{os.getpid()}")


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes of this host left beside `target`, and take a swap that was cut short
    back."""
    host = glob.escape(f".{target.name}.") + "*-" + glob.escape(os.uname().nodename)
    for path in target.parent.glob(f"{host}-*") if target.parent.exists() else ():
        pid = path.name.rpartition("-")[2]
        if not pid.isdigit() or _alive(int(pid)):
            continue
        if path.name.startswith(f".{target.name}.old-") and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
