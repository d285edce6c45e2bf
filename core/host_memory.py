"""Memory that this process may use on its host: what is free, within the limits of its control groups; and
whether what it frees goes back.

SLURM, Docker and Kubernetes limit memory by control groups; /proc/meminfo is the whole host's. A limit holds
for a group and all below it, so those above count too. Version 1 of control groups has a hierarchy for memory
alone, version 2 one for everything.
"""

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of `mallopt`, from glibc's malloc.h."""


def total_bytes(root: Path = ROOT) -> int:
    """Memory of the host, or the lowest limit of a control group."""
    return min([_meminfo(root, "MemTotal"), *(limit for limit, _ in _groups(root))])


def available_bytes(root: Path = ROOT) -> int:
    """Memory that can be allocated without swapping and without being killed."""
    return max(0, min([_meminfo(root, "MemAvailable"), *(limit - used for limit, used in _groups(root))]))


def keep_freed() -> None:
    """Have the C library keep what is freed from now on, and give it out again.

    It returns large blocks to the system, which clears every page that it hands out: a tenth of the CPU time
    of a training step with large tensors. Nothing happens if the user has set one of glibc's `MALLOC_`
    variables, or with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt(TRIM_THRESHOLD, -1)
        mallopt(MMAP_MAX, 0)


def _meminfo(root: Path, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else 0


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each control group of this process that has a limit. Cached files do not count as
    used: the kernel drops them before it kills."""
    hierarchies = {
        "": ("sys/fs/cgroup", "memory.max", "memory.current", ""),
        "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    }
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers not in hierarchies:
            continue
        mount, limit, usage, prefix = hierarchies[controllers]
        inside = Path(place.lstrip("/"))
        # In a container, the host's path may not be there; the mount then is the container's own group.
        for group in {root / mount / each for each in (inside, *inside.parents)}:
            try:
                allowed, used = (group / limit).read_text().strip(), int((group / usage).read_text())
                stat = (group / "memory.stat").read_text()
            except (OSError, ValueError):
                continue
            cached = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", stat, re.MULTILINE)
            if allowed != "max":
                yield int(allowed), used - sum(map(int, cached))
