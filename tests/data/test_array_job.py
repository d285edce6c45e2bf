"""The SLURM script of a corpus: its tasks, as processes of this machine, make what one process makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run

SMALL = ["synthetic.inventions=20", "tokenizer.vocabulary_size=1400", "shard_bytes=60000"]


def task(number: int, corpus: Path, job: str, log: Path) -> subprocess.Popen[bytes]:
    """What SLURM starts for one task of the array."""
    variables = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(number), "SLURM_CPUS_PER_TASK": "1"}
    variables["VENV"] = str(Path(sys.executable).parent.parent)
    settings = ["--config", "configs/data/tiny.yaml", f"output_dir={corpus}", *SMALL]
    return subprocess.Popen(
        ["bash", "configs/slurm/data.sbatch", *settings], cwd=ROOT, env=os.environ | variables,
        stdout=log.open("wb"), stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
def test_two_tasks_of_the_array_make_the_corpus_of_one_process(tmp_path: Path) -> None:
    done = run("data", "run", "--config", "configs/data/tiny.yaml", f"output_dir={tmp_path / 'one'}", *SMALL)
    assert done.returncode == 0, done.stderr
    job = f"test-{os.getpid()}"
    logs = [tmp_path / f"{number}.log" for number in (1, 0)]
    tasks = [task(number, tmp_path / "array", job, log) for number, log in zip((1, 0), logs, strict=True)]
    try:
        codes = [each.wait(timeout=400) for each in tasks]
    finally:
        for each in tasks:
            each.kill()
        for left in (ROOT / "runs").glob(f"slurm-{job}.*"):
            left.unlink()
    assert codes == [0, 0], "\n".join(log.read_text("utf-8", "replace")[-2000:] for log in logs)
    assert "Starting Worker plugin" in logs[0].read_text("utf-8", "replace"), "the other task lent its core"
    for name in ("train.bin", "train.idx", "validation.bin"):
        made, expected = (tmp_path / folder / "pack" / name for folder in ("array", "one"))
        assert made.read_bytes() == expected.read_bytes(), name


@pytest.mark.slow
def test_a_mistake_ends_all_tasks_and_fails_the_job(tmp_path: Path) -> None:
    job = f"wrong-{os.getpid()}"
    logs = [tmp_path / f"{number}.log" for number in (1, 0)]
    tasks = [task(number, Path("/proc/none"), job, log) for number, log in zip((1, 0), logs, strict=True)]
    codes = [each.wait(timeout=200) for each in tasks]
    for left in (ROOT / "runs").glob(f"slurm-{job}.*"):
        left.unlink()
    assert codes == [0, 2], "\n".join(log.read_text("utf-8", "replace")[-2000:] for log in logs)
