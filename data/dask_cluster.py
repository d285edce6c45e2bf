"""Workers beyond this machine: a dask cluster that is there, or one that SLURM starts for the run.

    engine.scheduler=tcp://host:8786    its workers do the shards
    engine.scheduler=slurm              jobs that `engine.slurm` describes do them, and end with the run

With SLURM, dask's scheduler runs in this process, which therefore lives as long as the run: on a login node,
or in a small job of its own. Jobs that reach their time limit are replaced.
Workers and this process start from the repository's root and see the same folders.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from core.config.loader import Config
from core.errors import UserError

ROOT = Path(__file__).parent.parent
RETRIES = 3
"""How often a shard is done again whose worker died."""


class SlurmConfig(Config):
    """What `engine.scheduler=slurm` asks SLURM for."""

    jobs: int = Field(4, ge=1)
    """Jobs of the shape below; those that end before the run does are submitted again."""
    cores: int = Field(16, ge=1)
    """Cores of a job, with one worker each."""
    memory: str = Field("64GB", pattern=r"^\d+(\.\d+)? ?[kMGT]i?B$")
    """Memory of a job; 4 GB a core are plenty."""
    walltime: str = Field("12:00:00", pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")
    """Time limit of a job, as `12:00:00` or `2-00:00:00`; a shard that it cuts off is done again."""
    partition: str | None = None
    """Null for the cluster's default one."""
    account: str | None = None
    """What the hours are charged to; null where the cluster asks for none."""
    directives: tuple[str, ...] = ()
    """More for `#SBATCH`, as `[--qos=long, --constraint=cpu]`."""
    interface: str | None = None
    """Network interface between the nodes, as `ib0`; null for what the host's name stands for."""
    logs: str = "runs/slurm"
    """Folder of the jobs' output, which all nodes see."""


@contextmanager
def open_cluster(scheduler: str, slurm: SlurmConfig) -> Iterator[Executor]:
    """The workers behind a scheduler's address, or SLURM's; UserError where they cannot be had."""
    try:
        from distributed import Client
    except ImportError:
        raise UserError("engine.scheduler needs the package distributed (pip install distributed).") from None
    if scheduler == "slurm":
        with slurm_cluster(slurm) as cluster, Client(cluster) as client:
            check_submission(cluster.job_script(), slurm)
            cluster.adapt(minimum_jobs=slurm.jobs, maximum_jobs=slurm.jobs)
            asked = f"asking SLURM for {slurm.jobs} jobs of {slurm.cores} cores; they write to {slurm.logs}"
            print(asked, file=sys.stderr, flush=True)
            yield client.get_executor(retries=RETRIES)
        return
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise UserError(f"engine.scheduler={scheduler}: no scheduler answers there ({error}).") from None
    with client:
        yield client.get_executor(retries=RETRIES)


def slurm_cluster(slurm: SlurmConfig) -> Any:
    """A `dask_jobqueue.SLURMCluster` that has submitted nothing yet; `job_script()` is what it would."""
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError:
        raise UserError(
            "engine.scheduler=slurm needs the package dask-jobqueue (pip install dask-jobqueue)."
        ) from None
    if shutil.which("sbatch") is None:
        raise UserError(
            "engine.scheduler=slurm: there is no `sbatch` here. Run this where jobs are submitted."
        )
    return SLURMCluster(
        queue=slurm.partition,
        account=slurm.account,
        cores=slurm.cores,
        processes=slurm.cores,  # one shard a core: Python threads would wait for one another
        memory=slurm.memory,
        walltime=slurm.walltime,
        interface=slurm.interface,
        job_extra_directives=list(slurm.directives),
        job_script_prologue=[
            f"cd '{ROOT}'",
            "export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false",
        ],
        log_directory=slurm.logs,
        python=sys.executable,
        scheduler_options={"dashboard_address": ":0"},
    )


def check_submission(script: str, slurm: SlurmConfig) -> None:
    """UserError with SLURM's own words where it would not take a job; else the run would wait for ever."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        tried = subprocess.run(
            ["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False
        )
    if tried.returncode:
        raise UserError(
            f"SLURM refuses a job of {slurm.cores} cores, {slurm.memory} and {slurm.walltime} in partition"
            f" {slurm.partition or '(default)'}: {tried.stderr.strip()}. Correct the keys under engine.slurm."
        )
