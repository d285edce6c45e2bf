"""Shards: the same bytes with any number of workers, on a cluster, and however often the run was killed."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import UserError
from data.executor import EngineConfig, forget_shards, map_shards, open_executor
from tests.conftest import ROOT
from tests.data.shard_work import count_letters, die_once, fail_at_c

SHARDS = list("hgfedcba")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    for workers in (1, 2, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        with open_executor(EngineConfig(workers=workers)) as executor:
            counts = map_shards(count_letters, SHARDS, folder, executor, title="letters")
        assert counts == [{"letters": 1}] * len(SHARDS)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "4")
    assert len(contents(tmp_path / "1")) == 2 * len(SHARDS)


def test_a_rerun_does_only_the_shards_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no c"):
        map_shards(fail_at_c, SHARDS, tmp_path, None, title="letters")
    finished = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.txt")}
    assert 0 < len(finished) < len(SHARDS)
    map_shards(count_letters, SHARDS, tmp_path, None, title="letters")
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in finished} == finished
    forget_shards(tmp_path)
    assert sorted(contents(tmp_path)) == [f"shard-{i:05d}.txt" for i in range(len(SHARDS))]


def test_a_worker_that_dies_ends_the_run_with_a_message_and_the_rerun_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with (
        open_executor(EngineConfig(workers=2)) as executor,
        pytest.raises(UserError, match="worker process died"),
    ):
        map_shards(die_once, SHARDS, folder, executor, title="letters")
    with open_executor(EngineConfig(workers=2)) as executor:
        map_shards(die_once, SHARDS, folder, executor, title="letters")
    (tmp_path / "whole").mkdir()
    map_shards(count_letters, SHARDS, tmp_path / "whole", None, title="letters")
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("kills", [3])
def test_killed_again_and_again_the_shards_are_those_of_one_run(tmp_path: Path, kills: int) -> None:
    shards = [chr(ord("A") + i % 26) * (i + 1) for i in range(60)]
    (tmp_path / "whole").mkdir()
    map_shards(count_letters, shards, tmp_path / "whole", None, title="letters")
    folder = tmp_path / "killed"
    folder.mkdir()
    program = (
        "import sys; from pathlib import Path; from data.executor import map_shards;"
        "from tests.data.shard_work import count_letters;"
        f"map_shards(count_letters, {shards!r}, Path(sys.argv[1]), None, title='letters')"
    )
    for _ in range(kills):
        already = len(list(folder.glob("*.json")))
        process = subprocess.Popen(
            [sys.executable, "-c", program, folder], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        while len(list(folder.glob("*.json"))) < already + 10 and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
    assert len(list(folder.glob("*.json"))) < len(shards), "the run was to be killed before its end"
    subprocess.run([sys.executable, "-c", program, folder], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_killed_run_leaves_no_worker_behind() -> None:
    program = (
        "import os, time\nfrom data.executor import EngineConfig, open_executor\n"
        "if __name__ == '__main__':\n"
        "    with open_executor(EngineConfig(workers=2)) as pool:\n"
        "        found = [pool.submit(os.getpid) for _ in range(2)]\n"
        "        print(*{each.result() for each in found}, flush=True)\n"
        "        pool.submit(time.sleep, 600).result()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [Path("/proc", number) for number in process.stdout.readline().split()]
    assert workers
    assert all(worker.exists() for worker in workers)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(worker.exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [worker for worker in workers if worker.exists()]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A real scheduler and two workers on loopback: its address, and the workers."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    file = tmp_path / "scheduler.json"
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([*command, "--no-dashboard", "--scheduler-file", file], **quiet)]  # type: ignore[call-overload]
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard", "--no-nanny"]
    worker += ["--nthreads", "1", "--local-directory", str(tmp_path)]
    processes += [subprocess.Popen(worker, **quiet) for _ in range(2)]  # type: ignore[call-overload]
    yield address, processes[1:]
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_cluster_of_which_one_worker_dies_writes_the_same_bytes(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = cluster
    (tmp_path / "whole").mkdir()
    map_shards(count_letters, SHARDS, tmp_path / "whole", None, title="letters")
    folder = tmp_path / "cluster"
    folder.mkdir()
    with open_executor(EngineConfig(scheduler=address)) as executor:
        map_shards(die_once, SHARDS, folder, executor, title="letters")
    assert (tmp_path / "died").exists()
    time.sleep(0.5)
    assert [worker.poll() is None for worker in workers].count(True) == 1, "one of the two is dead"
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_scheduler_that_is_not_there_is_named() -> None:
    config = EngineConfig(scheduler="tcp://127.0.0.1:9")
    with (
        pytest.raises(UserError, match=r"tcp://127\.0\.0\.1:9: cannot connect to a scheduler"),
        open_executor(config),
    ):
        pass
