"""Files and folders that are complete or absent, no matter which process is killed when.

Output is written next to its final path under a hidden name, synced and renamed. `.NAME.partial-HOST-PID`
belongs to one process; the next one removes what a killed process left, or undoes its unfinished swap.
`.NAME.unfinished` belongs to one task; a later run of the same task resumes it.
"""

import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import DiskError, UserError

if TYPE_CHECKING:
    import numpy.typing as npt

MADE_FROM = ".made-from.json"
"""In an unfinished folder: what it is made from."""
LOCK = ".lock"
"""In a folder that a process writes into: the file that it locks."""
FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""The inode of the host's own PID namespace (PROC_PID_INIT_INO of Linux's include/linux/proc_ns.h)."""


def write_text(path: Path, text: str) -> None:
    """Write a text file that is complete or absent: a temporary file of this process, synced and renamed. Of
    several processes that write it at once, the last one's stays."""
    remove_leftovers(path)
    partial = beside(path, "partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace(partial: Path, target: Path) -> None:
    """Rename a complete folder to `target`; an older one of that name is removed only after the swap."""
    old = beside(target, "old")
    if target.exists():
        target.rename(old)
    partial.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def resumable_folder(
    target: Path,
    made_from: Any,
    *,
    resume: bool = True,
    force: bool = False,
    discard_rejected: bool = False,
) -> Iterator[Path]:
    """Yield a hidden folder next to `target`, renamed to `target` when the block ends without an exception.

    With `resume` the folder holds what an interrupted run with an equal `made_from` (any JSON value: inputs,
    settings, version of the code) left, so the block can skip finished parts; otherwise it is empty. A block
    that fails leaves its folder for the next run; with `discard_rejected` only a kill, a bug or a DiskError
    does, and any other UserError removes it.

    Raises UserError if `target` exists (with `force` it is replaced, once the new folder is complete) or if
    another process is building it.
    """
    remove_leftovers(target)
    refuse_existing(target, force=force)
    partial = target.with_name(f".{target.name}.unfinished")
    with lock(target.with_name(f".{target.name}.lock"), f"{target} is already being built"):
        if partial.is_symlink():
            raise UserError(f"{partial} is a symbolic link, which this program never creates. Remove it.")
        mark = partial / MADE_FROM
        expected = json.dumps(made_from, sort_keys=True)
        if not (resume and mark.is_file() and mark.read_text("utf-8") == expected):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            write_text(mark, expected)
        try:
            yield partial
        except UserError as error:
            if discard_rejected and not isinstance(error, DiskError):
                shutil.rmtree(partial)
            raise
        mark.unlink(missing_ok=True)
        refuse_existing(target, force=force, created_by="another process in the meantime")
        replace(partial, target)


def refuse_existing(target: Path, *, force: bool, created_by: str = "") -> None:
    """Raise UserError if `target` exists, unless `force` allows replacing it; symbolic links and files are
    never replaced."""
    if target.is_symlink() or target.is_file():
        kind = "symbolic link" if target.is_symlink() else "file"
        raise UserError(f"{target} already exists and is a {kind}. Choose another name for the folder.")
    if target.exists() and not force:
        what = f"was created by {created_by}" if created_by else "already exists"
        raise UserError(
            f"{target} {what} and is not overwritten. Choose another folder, or pass --force to replace it"
            " once the new one is complete."
        )


def refuse_overlap(target: Path, inputs: Iterable[Path]) -> None:
    """UserError if `target` is, contains or lies in one of the folders that a command reads, or contains what
    a link in one leads to: replacing `target` would remove what it is made from.

    Folders are compared by what they are on the disk, whatever links and mounts lead there.
    """
    if target.name in ("", ".."):
        raise UserError(f"{target}: give the folder by its name.")
    unfinished = target.with_name(f".{target.name}.unfinished")
    for place in (target, *(() if unfinished.is_symlink() else (unfinished,))):
        here, above = _itself_and_above(place)
        for folder in inputs:
            read, above_read = _itself_and_above(folder)
            linked = [file for file in _links(folder) if here and here in _itself_and_above(file)[1]]
            if read and read == here:
                problem = f"is {folder}"
            elif read and read in above:
                problem = f"lies in {folder}"
            elif here and here in above_read:
                problem = f"contains {folder}"
            elif linked:
                problem = f"contains {os.path.realpath(linked[0])}, which {linked[0]} links to"
            else:
                continue
            raise UserError(f"{place} {problem}, which this command reads. Choose another folder.")
    if _itself_and_above(target)[0] in _itself_and_above(Path.cwd())[1]:
        raise UserError(f"{target} contains the folder that you are in. Choose another folder.")


Identity = tuple[int, int]
"""Device and inode."""


def _itself_and_above(path: Path) -> tuple[Identity | None, set[Identity]]:
    """What a path is, links followed (None if it does not exist), and what the folders above it are."""
    real = Path(os.path.realpath(path))
    found: list[Identity | None] = []
    for up in (real, *real.parents):
        try:
            status = up.stat()
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return found[0], {each for each in found[1:] if each}


def _links(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.is_symlink()] if folder.is_dir() else []


@contextmanager
def lock(file: Path, problem: str) -> Iterator[None]:
    """Keep other processes out while the block runs; UserError starting with `problem` if one is already in.

    On a file system without locks nobody is kept out.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{file.parent} is not a folder. Choose another one, or remove that file.") from None
    with file.open("a+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.seek(0)
            holder = opened.read().strip() or "an unknown process"
            raise UserError(f"{problem} ({holder}). Wait for it to finish, or stop it.") from None
        except OSError:
            yield
            return
        opened.truncate(0)
        opened.write(f"process {os.getpid()} on {os.uname().nodename}")
        opened.flush()
        yield


def complete_lines(journal: Path) -> list[str]:
    """The lines of a journal that a killed process may have left; a truncated last line, or no file, is
    ignored."""
    if not journal.exists():
        return []
    return journal.read_text("utf-8", errors="replace").split("\n")[:-1]


def scratch_array(path: Path, dtype: "npt.DTypeLike", shape: int | tuple[int, ...]) -> "npt.NDArray[Any]":
    """A new array in a memory-mapped file. Disk space is allocated at once: a full disk raises OSError here,
    while writing to a mapped page without space would kill the process."""
    import numpy as np

    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
    return np.memmap(path, dtype, "r+", shape=shape)


def link(source: Path, target: Path) -> None:
    """A hard link to a file that is never modified; a copy if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def this_host() -> str:
    """The name of what process numbers belong to: the host, or a container, which may share the host's name,
    but not its process numbers."""
    name = os.uname().nodename
    try:
        numbers = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # not Linux
        return name
    return name if numbers == FIRST_PID_NAMESPACE else f"{name}@{numbers}"


def beside(target: Path, kind: str) -> Path:
    """A hidden name next to `target` that contains this process's host and id."""
    return target.with_name(f".{target.name}.{kind}-{this_host()}-{os.getpid()}")


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes of this host left next to `target`, and undo a swap that was
    interrupted."""
    host = glob.escape(f".{target.name}.") + "*-" + glob.escape(this_host())
    for path in target.parent.glob(f"{host}-*") if target.parent.exists() else ():
        pid = path.name.rpartition("-")[2]
        if not pid.isdigit() or _alive(int(pid)):
            continue
        if path.name.startswith(f".{target.name}.old-") and not target.exists():
            path.rename(target)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure."""
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
