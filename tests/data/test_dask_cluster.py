"""Shards on jobs of SLURM; commands in its place start the jobs as processes of this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.errors import UserError
from data.dask_cluster import SlurmConfig, slurm_cluster
from data.executor import EngineConfig, map_shards, open_executor
from tests.conftest import ROOT
from tests.data.shard_work import count_letters, die_once

SHARDS = list("hgfedcba")
SBATCH = """#!/bin/bash
if [ "$1" = --test-only ]; then
  if grep -q -- '-p nowhere' "$2"; then echo "invalid partition specified: nowhere" >&2; exit 1; fi
  exit 0
fi
cp "$1" "{jobs}.script"
cd /
setsid bash "{jobs}.script" > "{jobs}.log" 2>&1 &
echo $! >> {jobs}
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
for job in "$@"; do kill -KILL -- "-$job"; done
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the numbers of the jobs that were submitted; none runs on after the test."""
    listed, folder = tmp_path / "jobs", tmp_path / "bin"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH.format(jobs=listed)), ("scancel", SCANCEL)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return listed


def asked(tmp_path: Path, **more: object) -> SlurmConfig:
    small = {"jobs": 2, "cores": 1, "memory": "2GB", "walltime": "00:10:00", "logs": str(tmp_path / "logs")}
    return SlurmConfig.model_validate({**small, **more})


def test_a_job_asks_for_what_the_configuration_says(tmp_path: Path, jobs: Path) -> None:
    config = asked(
        tmp_path, cores=16, memory="64GB", partition="cpu", account="patents", directives=["--qos=long"]
    )
    with slurm_cluster(config) as cluster:
        script = cluster.job_script()
    for line in ("-p cpu", "-A patents", "--cpus-per-task=16", "--mem=60G", "-t 00:10:00", "--qos=long"):
        assert f"#SBATCH {line}\n" in script
    assert f"cd '{ROOT}'\n" in script
    assert f"{sys.executable} -m distributed.cli.dask_worker" in script
    assert "--nthreads 1 --memory-limit 3.73GiB --nworkers 16 " in script
    assert not jobs.exists(), "nothing was submitted"


@pytest.mark.slow
def test_jobs_do_the_shards_and_one_that_dies_is_replaced(tmp_path: Path, jobs: Path) -> None:
    (tmp_path / "whole").mkdir()
    map_shards(count_letters, SHARDS, tmp_path / "whole", None, title="letters")
    folder = tmp_path / "out"
    folder.mkdir()
    with open_executor(EngineConfig(scheduler="slurm", slurm=asked(tmp_path, jobs=1))) as executor:
        map_shards(die_once, SHARDS, folder, executor, title="letters")
        for number in jobs.read_text().split():
            os.killpg(int(number), signal.SIGKILL)
        again = tmp_path / "again"
        again.mkdir()
        map_shards(count_letters, SHARDS, again, executor, title="letters")
    assert (tmp_path / "died").exists()
    submitted = jobs.read_text().split()
    assert len(submitted) >= 2
    for made in (folder, again):
        assert {path.name: path.read_bytes() for path in made.glob("shard*")} == {
            path.name: path.read_bytes() for path in (tmp_path / "whole").glob("shard*")
        }
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(alive, submitted)):
        time.sleep(0.1)
    assert not any(map(alive, submitted)), "jobs end with the run"


def alive(job: str) -> bool:
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-g", job], capture_output=True, text=True, check=False
    ).stdout
    return any(not state.startswith("Z") for state in listed.split())


def test_a_partition_that_slurm_does_not_know_is_named(tmp_path: Path, jobs: Path) -> None:
    config = EngineConfig(scheduler="slurm", slurm=asked(tmp_path, partition="nowhere"))
    with pytest.raises(UserError, match="in partition nowhere: invalid partition"), open_executor(config):
        pass
    assert not jobs.exists()


def test_where_there_is_no_slurm_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="`sbatch` not found"), open_executor(EngineConfig(scheduler="slurm")):
        pass
    monkeypatch.setitem(sys.modules, "dask_jobqueue.slurm", None)
    with (
        pytest.raises(UserError, match="pip install dask-jobqueue"),
        open_executor(EngineConfig(scheduler="slurm")),
    ):
        pass


@pytest.mark.parametrize("wrong", [{"memory": "64"}, {"walltime": "a day"}, {"jobs": 0}])
def test_a_job_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SlurmConfig.model_validate(wrong)
