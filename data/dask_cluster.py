"""Workers on other machines: an existing dask cluster, or one that SLURM starts for the run.

    engine.scheduler=tcp://host:8786    the workers of this scheduler
    engine.scheduler=slurm              jobs that `engine.slurm` describes; they end with the run

With SLURM, dask's scheduler runs in this process, which must therefore run as long as the steps do: on a
login node, or in a small job of its own. Jobs that reach their time limit are replaced. Workers and this
process must start in the repository's root and share the folders.
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
"""How often a shard is retried if its worker dies."""


class SlurmConfig(Config):
    """The jobs that `engine.scheduler=slurm` submits."""

    jobs: int = Field(4, ge=1)
    """Number of jobs; those that end before the run does are resubmitted."""
    cores: int = Field(16, ge=1)
    """Cores per job, with one worker each."""
    memory: str = Field("64GB", pattern=r"^\d+(\.\d+)? ?[kMGT]i?B$")
    """Memory per job; 4 GB per core is plenty."""
    walltime: str = Field("12:00:00", pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")
    """Time limit of a job, e.g. `12:00:00` or `2-00:00:00`; a shard that it interrupts is repeated."""
    partition: str | None = None
    """Partition; null for the cluster's default."""
    account: str | None = None
    """Account to charge; null if the cluster needs none."""
    directives: tuple[str, ...] = ()
    """Further `#SBATCH` options, e.g. `[--qos=long, --constraint=cpu]`."""
    interface: str | None = None
    """Network interface between the nodes, e.g. `ib0`; null for the one that the hostname resolves to."""
    logs: str = "runs/slurm"
    """Folder for the jobs' output; all nodes must see it."""


@contextmanager
def open_cluster(scheduler: str, slurm: SlurmConfig) -> Iterator[Executor]:
    """The workers of a scheduler, or SLURM's; UserError if they cannot be reached."""
    try:
        from distributed import Client
    except ImportError:
        raise UserError("engine.scheduler needs the package distributed (pip install distributed).") from None
    if scheduler == "slurm":
        with slurm_cluster(slurm) as cluster, Client(cluster) as client:
            check_submission(cluster.job_script(), slurm)
            cluster.adapt(minimum_jobs=slurm.jobs, maximum_jobs=slurm.jobs)
            note = f"requesting {slurm.jobs} jobs of {slurm.cores} cores from SLURM; logs in {slurm.logs}"
            print(note, file=sys.stderr, flush=True)
            yield client.get_executor(retries=RETRIES)
        return
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise UserError(f"engine.scheduler={scheduler}: cannot connect to a scheduler ({error}).") from None
    with client:
        yield client.get_executor(retries=RETRIES)


def slurm_cluster(slurm: SlurmConfig) -> Any:
    """A `dask_jobqueue.SLURMCluster` that has submitted nothing yet; `job_script()` is what it would
    submit."""
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError:
        raise UserError(
            "engine.scheduler=slurm needs the package dask-jobqueue (pip install dask-jobqueue)."
        ) from None
    if shutil.which("sbatch") is None:
        raise UserError(
            "engine.scheduler=slurm: `sbatch` not found. Run this on a node that can submit jobs."
        )
    return SLURMCluster(
        queue=slurm.partition,
        account=slurm.account,
        cores=slurm.cores,
        processes=slurm.cores,  # one shard per core: Python threads would block one another
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
    """UserError with SLURM's message if it would not accept a job; otherwise the run would wait forever."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        tried = subprocess.run(
            ["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False
        )
    if tried.returncode:
        raise UserError(
            f"SLURM rejects a job of {slurm.cores} cores, {slurm.memory} and {slurm.walltime} in partition"
            f" {slurm.partition or '(default)'}: {tried.stderr.strip()}. Correct the keys under engine.slurm."
        )
