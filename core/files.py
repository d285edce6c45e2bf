"""The files that a path of the user's leads to."""

import os
from pathlib import Path


def files_below(path: Path) -> list[Path]:
    """The file itself, or a folder's files, sorted; nothing for a path that does not exist.

    Links are followed, but every folder is read once, even if several lead to it. Hidden files and folders
    are left out. OSError for a folder that cannot be opened, which must not be skipped.
    """
    if not path.is_dir():
        return [path] if path.exists() else []
    files: list[Path] = []
    visited: set[str] = set()
    for folder, folders, names in os.walk(path, onerror=_stop, followlinks=True):
        if (place := os.path.realpath(folder)) in visited:
            folders.clear()  # a link back to a folder above it
            continue
        visited.add(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _stop(error: OSError) -> None:
    raise error
