"""The engine of the corpus on two nodes, one of which is lost, makes the corpus of one machine."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tests.data.test_pipeline import SETTINGS, files
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

JOBS = {"jobs": 2, "cores": 1, "memory": "2GB", "walltime": "01:00:00", "directives": ["--exclusive"]}


def running(slurm: Cluster) -> list[str]:
    """The nodes on which a job runs, one entry per job."""
    return slurm("squeue", "--noheader", "--states=RUNNING", "--format=%N").split()


@pytest.mark.timeout(600)
def test_a_lost_node_does_not_change_the_corpus(slurm: Cluster, tmp_path: Path) -> None:
    settings = [*SETTINGS, "synthetic.inventions=600", "shard_bytes=50_000"]
    alone = run("data", "run", f"output_dir={tmp_path / 'alone'}", *settings, "engine.workers=2")
    assert alone.returncode == 0, alone.stderr

    jobs = json.dumps({**JOBS, "logs": str(tmp_path / "logs")})
    engine = ["engine.scheduler=slurm", f"engine.slurm={jobs}"]
    corpus = tmp_path / "corpus"
    command = [sys.executable, "-m", "data", "run", f"output_dir={corpus}", *settings, *engine]
    with (tmp_path / "printed").open("w+") as printed:
        made = subprocess.Popen(
            command, cwd=ROOT, env=slurm.variables, stdout=printed, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 120
        while sorted(running(slurm)) != ["n1", "n2"] or not list(corpus.glob(".clean.unfinished/shard-*")):
            assert made.poll() is None, (tmp_path / "printed").read_text()
            assert time.monotonic() < deadline, (tmp_path / "printed").read_text()
            time.sleep(0.1)
        slurm.lose("n2")
        assert made.poll() is None, "the corpus was complete before a node was lost: it needs more inventions"
        assert made.wait(300) == 0, (tmp_path / "printed").read_text()
    assert files(corpus) == files(tmp_path / "alone")
    assert not [job for job in running(slurm) if job == "n1"], "jobs end with the run"
