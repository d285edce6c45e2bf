"""Is this machine ready: packages, GPUs, disk, shared memory, communication between processes?

    make doctor
    python -m tools.doctor --processes 8 --folder /scratch/runs

Every check prints `ok`, `note` or `FAIL`, the last two with advice; the exit code is 1 if one fails. The last
check starts processes as a run does, one per GPU (two on a CPU), and sums 64 MiB over them.
"""

import argparse
import importlib.metadata
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from core import host_memory
from core.errors import run_command

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "datasets",
    "sentencepiece",
    "sacrebleu",
    "jieba",
)
CHECKPOINT_BYTES = 16
"""Per parameter: bf16 weights for transformers and for DeepSpeed, fp32 master weights and two moments."""
SUM_ELEMENTS = 2**24


class Finding(NamedTuple):
    """One line of the output."""

    verdict: Literal["ok", "note", "FAIL"]
    subject: str
    found: str
    advice: str = ""


def main() -> int:
    """Run all checks and print a line for each; 1 if one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="processes to start; default: one per GPU, 2 on a CPU"
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="where runs and corpora will be written")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank:
        return sum_over_processes()
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        packages, gpus, memory, lambda: disk(given.folder), limits, compiler, lambda: launch(given.processes),
    )  # fmt: skip
    failed = False
    for check in checks:
        for finding in check():
            print(f"{finding.verdict:>4}  {finding.subject:<14}{finding.found}", flush=True)
            if finding.verdict != "ok":
                print(f"{'':20}→ {finding.advice}")
            failed |= finding.verdict == "FAIL"
    return int(failed)


def packages(
    constraints: Path = ROOT / "constraints.txt", project: Path = ROOT / "pyproject.toml"
) -> Iterator[Finding]:
    """The versions of the main packages, compared with those needed and those tested together."""
    needed = {each.name: each.specifier for each in map(Requirement, _dependencies(project))}
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", constraints.read_text("utf-8"), re.MULTILINE))
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("FAIL", name, "not installed", "make setup")
            continue
        if not needed[name].contains(version, prereleases=True):
            yield Finding(
                "FAIL", name, f"{version}; {name}{needed[name]} is needed", "make setup in a new .venv"
            )
            continue
        wanted = tested.get(name) or tested.get(name.replace("-", "_"))
        if wanted in (None, version.partition("+")[0]):
            yield Finding("ok", name, version)
        else:
            advice = "run `make test` before a long run, or `make setup` in a new .venv"
            yield Finding("note", name, f"{version}; tested with {wanted}", advice)


def _dependencies(project: Path) -> list[str]:
    found: list[str] = tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]
    return found


def gpus() -> Iterator[Finding]:
    """Cards, their free memory, and whether they can access each other's memory."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        if shutil.which("nvidia-smi") and torch.version.cuda is None:
            advice = "install torch for CUDA, then: make setup PYTHON=/path/to/that/python"
            yield Finding("FAIL", "GPU", "the machine has a driver, but torch was built without CUDA", advice)
        elif shutil.which("nvidia-smi"):
            yield Finding(
                "FAIL", "GPU", "torch sees none", "check nvidia-smi: is the driver older than torch's CUDA?"
            )
        else:
            yield Finding(
                "note", "GPU", "none: training runs on the CPU", "fine for the tiny configurations only"
            )
        return
    for number in range(count):
        card = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found = f"{card.name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        if card.major < 8:
            yield Finding("FAIL", f"GPU {number}", found, "bf16 needs compute capability 8.0 (A100) or newer")
        elif free < 0.9 * total:
            yield Finding("note", f"GPU {number}", found, "nvidia-smi lists the processes that use the rest")
        else:
            yield Finding("ok", f"GPU {number}", found)
    version = ".".join(map(str, torch.cuda.nccl.version()))
    apart = [
        f"{a}-{b}" for a in range(count) for b in range(a) if not torch.cuda.can_device_access_peer(a, b)
    ]
    if apart:
        advice = "ZeRO 2 and 3 will be slow, because data goes through the host; see nvidia-smi topo -m"
        yield Finding(
            "note", "NCCL", f"{version}; no direct access between GPUs {', '.join(apart[:4])}", advice
        )
    else:
        yield Finding("ok", "NCCL", version)


def memory() -> Iterator[Finding]:
    """Main memory, cores, and the shared memory that NCCL and worker processes use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    allowed, cores = host_memory.total_bytes() / 2**30, len(os.sched_getaffinity(0))
    found = f"{total:.0f} GiB, {cores} cores"
    if allowed < 0.9 * total:
        advice = "sbatch --mem=0 or docker run --memory gives more, if the host is yours"
        yield Finding("note", "memory", f"{found}; limited to {allowed:.0f} GiB", advice)
    else:
        yield Finding("ok", "memory", found)
    shared = shutil.disk_usage("/dev/shm").total / 2**30
    if shared < 1:
        advice = "docker run --shm-size=16g (or --ipc=host)"
        yield Finding("FAIL", "shared memory", f"/dev/shm has {shared:.2f} GiB", advice)
    else:
        yield Finding("ok", "shared memory", f"/dev/shm has {shared:.0f} GiB")


def disk(folder: Path) -> Iterator[Finding]:
    """Disk space for checkpoints: keep_checkpoints + 1, as the oldest is deleted last."""
    at = next(up for up in (folder.resolve(), *folder.resolve().parents) if up.exists())
    if not os.access(at, os.W_OK):
        yield Finding("FAIL", "disk", f"{at} is not writable", "choose another run_dir")
        return
    free = shutil.disk_usage(at).free / 1e9
    billions = free / CHECKPOINT_BYTES / 3
    found = (
        f"{free:,.0f} GB free in {at}: checkpoints of a model up to {billions:.1f}B (2 kept, 1 being written)"
    )
    if billions < 7:
        yield Finding("note", "disk", found, "a 7B model needs 340 GB")
    else:
        yield Finding("ok", "disk", found)


def limits() -> Iterator[Finding]:
    """Open files: many for a corpus of thousands of shards or a run of many ranks."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        yield Finding("note", "open files", f"at most {soft}", "ulimit -n 65536")
    else:
        yield Finding("ok", "open files", f"at most {soft:,}")


def compiler() -> Iterator[Finding]:
    """The compiler for the small kernels, which all have a slower replacement."""
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found:
        yield Finding("ok", "C compiler", found)
    else:
        yield Finding("note", "C compiler", "none", "apt install gcc: torch.compile needs one")


def launch(processes: int | None) -> Iterator[Finding]:
    """Processes started as a run starts them, and a sum over all."""
    import torch

    wanted = processes or torch.cuda.device_count() or 2
    command = [
        sys.executable,
        "-m",
        "core.launch",
        "--processes",
        str(wanted),
        "-m",
        "tools.doctor",
        "--rank",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    summed = [line for line in done.stdout.splitlines() if line.startswith("summed ")]
    if done.returncode == 0 and summed:
        yield Finding("ok", "launch", summed[0])
        return
    last = [line for line in done.stderr.splitlines() if line.strip()]
    advice = "NCCL_DEBUG=INFO make doctor prints more; usual causes are a firewall and a small /dev/shm"
    yield Finding("FAIL", "launch", f"{wanted} processes: {last[-1] if last else 'no answer'}", advice)


def sum_over_processes() -> int:
    """What each process started by `launch` does."""
    import torch

    from core.distributed import process_group

    world = process_group.setup(2)
    values = torch.full((SUM_ELEMENTS,), float(world.rank + 1), device=world.device)
    world.sum(values.clone())
    start = time.perf_counter()
    right = bool((world.sum(values) == world.size * (world.size + 1) / 2).all())
    seconds = time.perf_counter() - start
    if world.is_main and right:
        speed = 4 * SUM_ELEMENTS / 1e9 / seconds
        backend = torch.distributed.get_backend()
        print(f"summed over {world.size} processes by {backend}, {speed:.1f} GB/s")
    process_group.teardown(world)
    return int(not right)


if __name__ == "__main__":
    run_command(main)
