"""Places that fail: a disk that is full or read-only, a file that must not be read, a pipe; and a line of a
gigabyte, through the command that users run."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.provenance.atomic_io import scratch_array
from data.record_store import read_records
from tests.conftest import ROOT, run
from tests.data.test_hostile import LINE, ROW, SETTINGS

DISK = """
mount -t tmpfs -o size={first} none {disk} || exit 77
for size in {sizes}; do
    mount -o remount,$size {disk}
    {command} && echo "done at $size" || echo "exit code $?"
done
cp -r {disk}/corpus {copy}
"""
"""A small disk of its own that only these processes see, and that grows from run to run."""


def on_small_disks(tmp_path: Path, *sizes: str) -> subprocess.CompletedProcess[str]:
    """Runs of the same command, each with the disk mounted so; the corpus is copied from it at the end."""
    if shutil.which("unshare") is None:
        pytest.skip("util-linux is not installed")
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    command = f"'{sys.executable}' -m data run output_dir={disk}/corpus shard_bytes=100000"
    script = DISK.format(
        first=sizes[0].removeprefix("size="), sizes=" ".join(sizes), disk=disk, copy=copy,
        command=" ".join([command, "synthetic.inventions=60", *SETTINGS]),
    )  # fmt: skip
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    return done


def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    done = on_small_disks(tmp_path, "size=9m,ro")
    assert "exit code 2" in done.stdout
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_step_loses_nothing(tmp_path: Path) -> None:
    sizes = [f"size={size}k" for size in (300, 900, 1300, 1480, 1560, 1640, 2000)]
    done = on_small_disks(tmp_path, *sizes, "size=90m")
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("exit code", "done at"))]
    assert len(lines) == 8
    assert lines[-1] == "done at size=90m"
    full = done.stderr.count("the disk is full")
    assert full == lines.count("exit code 2") >= 6
    assert {*lines[:full]} == {"exit code 2"}
    whole = run(
        "data",
        "run",
        f"output_dir={tmp_path}/whole",
        "shard_bytes=100000",
        "synthetic.inventions=60",
        *SETTINGS,
    )
    assert whole.returncode == 0, whole.stderr
    for step in ("clean", "dedup", "pack"):
        for file in (tmp_path / "whole" / step).iterdir():
            if file.name != "manifest.json":
                assert file.read_bytes() == (tmp_path / "copy" / step / file.name).read_bytes()


def test_the_room_of_mapped_arrays_is_taken_when_they_are_made(tmp_path: Path) -> None:
    array = scratch_array(tmp_path / "a", np.uint64, (1000, 100))
    assert (tmp_path / "a").stat().st_blocks * 512 >= array.nbytes == 800_000
    array[:] = 7
    assert array.sum() == 700_000
    assert scratch_array(tmp_path / "b", np.uint32, (0, 128)).shape == (0, 128)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_pipe_among_the_files_is_named_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "good.jsonl").write_bytes(LINE)
    if kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(raw / "odd"))
    else:
        os.mkfifo(raw / "odd")
    done = run("data", "run", f"output_dir={tmp_path / 'c'}", f"sources=[{raw}]", *SETTINGS, timeout=100)
    assert done.returncode == 2
    assert f"{raw / 'odd'} is a pipe" in done.stderr


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_may_not_be_read_ends_the_run_with_its_name(tmp_path: Path, kind: str) -> None:
    raw = tmp_path / "raw"
    (raw / "locked").mkdir(parents=True)
    (raw / "locked" / "a.jsonl").write_bytes(LINE)
    locked = raw / "locked" if kind == "folder" else raw / "locked" / "a.jsonl"
    locked.chmod(0)
    command = [
        sys.executable,
        "-m",
        "data",
        "run",
        f"output_dir={tmp_path / 'c'}",
        f"sources=[{raw}]",
        *SETTINGS,
    ]
    if os.geteuid() == 0:  # root may read everything, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("util-linux is not installed")
        command = ["setpriv", "--bounding-set", "-all", *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    locked.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert f"{locked}: Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_corpus_cannot_be_made_where_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "corpus").write_text("mine")
    done = run("data", "run", f"output_dir={tmp_path / 'corpus'}", "synthetic.inventions=5", *SETTINGS)
    assert done.returncode == 2, done.stderr
    assert str(tmp_path / "corpus") in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "corpus").read_text() == "mine"


@pytest.mark.slow
def test_a_gigabyte_without_a_line_end_costs_the_command_no_memory(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "small.jsonl").write_bytes(ROW.encode())
    with (raw / "long.jsonl").open("wb") as file:
        file.write(LINE + b'\n{"title": "')
        for _ in range(1 << 10):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + LINE)
    peaks = []
    for name, records in (("small.jsonl", 1), ("long.jsonl", 2)):
        corpus = tmp_path / name.removesuffix(".jsonl")
        command = ["data", "run", f"output_dir={corpus}", f"sources=[{raw / name}]", *SETTINGS]
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--until", "ingest"], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert len(list(read_records(corpus / "ingest"))) == records
        peaks.append(usage.ru_maxrss >> 10)
    assert peaks[1] - peaks[0] < 200, f"MiB: {peaks}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_package_that_is_missing_is_no_fault_of_the_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    (tmp_path / "opencc.py").write_text("raise ModuleNotFoundError('No module', name='opencc')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    where = (f"output_dir={tmp_path / 'c'}", f"engine.workers={workers}")
    done = run("data", "run", *where, "synthetic.inventions=20", *SETTINGS)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the Python package opencc is not installed. `make setup`")
    assert not (tmp_path / "c" / "clean").exists(), "nothing was dropped for it"
