"""Memory within the limits of control groups, in folders like those of Linux; freed memory is used again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core import host_memory
from tests.conftest import ROOT

GIB = 2**30


def host(root: Path, files: dict[str, str]) -> Path:
    """A host with 64 GiB, of which 48 are available, and these files."""
    meminfo = f"MemTotal:       {64 * 2**20} kB\nMemFree:  1 kB\nMemAvailable:   {48 * 2**20} kB\n"
    for name, text in {"proc/meminfo": meminfo, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(place: str, version: int, limit: str, used: int, cached: int) -> dict[str, str]:
    """The files of a control group with so many GiB of memory in use, cached files among them."""
    mount, names = {
        1: ("sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")),
        2: ("sys/fs/cgroup", ("memory.max", "memory.current", "")),
    }[version]
    own = "inactive_file 5\n" if version == 1 else ""  # without the groups below
    stat = f"{own}{names[2]}inactive_file {(cached - 1) * GIB}\n{names[2]}active_file {GIB}\nanon 1\n"
    folder = f"{mount}/{place}".rstrip("/")
    return {f"{folder}/{names[0]}": f"{limit}\n", f"{folder}/{names[1]}": f"{used * GIB}\n",
            f"{folder}/memory.stat": stat}  # fmt: skip


SLURM = "system.slice/slurmstepd.scope/job_7"
CASES = {
    "no groups": ({}, 64, 48),
    "no limit": (
        {"proc/self/cgroup": "0::/user.slice\n", **group("user.slice", 2, "max", 60, 1)}, 64, 48
    ),
    "SLURM, version 2: the job's limit holds for the step": (
        {
            "proc/self/cgroup": f"0::/{SLURM}/step_0/user/task_0\n",
            **group(SLURM, 2, str(16 * GIB), 14, 6),
            **group(f"{SLURM}/step_0/user/task_0", 2, "max", 1, 1),
        },
        16, 8,
    ),
    "SLURM, version 1": (
        {
            "proc/self/cgroup": "5:cpu:/\n4:memory:/slurm/uid_1/job_7/step_0\n0::/\n",
            **group("slurm/uid_1/job_7", 1, str(32 * GIB), 30, 10),
            **group("slurm/uid_1/job_7/step_0", 1, str(2**63 - 4096), 30, 10),
        },
        32, 12,
    ),
    "Docker, whose group is mounted, under another path": (
        {"proc/self/cgroup": "4:memory:/docker/abc\n", **group("", 1, str(8 * GIB), 3, 2)}, 8, 7
    ),
    "a limit above what the host has": (
        {"proc/self/cgroup": "0::/\n", **group("", 2, str(512 * GIB), 3, 2)}, 64, 48
    ),
    "more in use than allowed": (
        {"proc/self/cgroup": "0::/a\n", **group("a", 2, str(4 * GIB), 7, 2)}, 4, 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_lowest_limit_decides(tmp_path: Path, case: str) -> None:
    files, total, available = CASES[case]
    root = host(tmp_path, files)
    assert host_memory.total_bytes(root) == total * GIB
    assert host_memory.available_bytes(root) == available * GIB


def test_this_machine_has_memory() -> None:
    assert 0 < host_memory.available_bytes() < host_memory.total_bytes()


TAKES = """
import resource, sys
import numpy as np
from core.host_memory import keep_freed

if sys.argv[1] == "keep":
    keep_freed()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**23)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**26)
"""


@pytest.mark.parametrize(
    ("kept", "variables", "taken"),
    [("keep", {}, 0), ("not", {}, 5), ("keep", {"MALLOC_ARENA_MAX": "16"}, 5)],
)
def test_freed_memory_is_used_again_unless_the_user_set_malloc(
    kept: str, variables: dict[str, str], taken: int
) -> None:
    """How often the system hands out the pages of 64 MiB while they are taken and freed five times; without
    numpy's huge pages, which cause too few faults to count."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", TAKES, kept], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**clean, "NUMPY_MADVISE_HUGEPAGE": "0", **variables},
    )  # fmt: skip
    assert float(done.stdout) == pytest.approx(taken, abs=0.1)
