"""Killed, out of disk space, run twice, target in the way: what is left is never taken for a complete folder,
and is resumed."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, run
from tests.delta.models import Arrays, contents, random_model, save, tuned


def folders(place: Path, delta: str = "delta", target: str = "target") -> list[str | Path]:
    return ["--base", place / "base", "--target", place / target, "--delta", place / delta]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several chunks in each of several tensors, so that a process can be killed in the middle."""
    place = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    arrays: Arrays = {
        f"layer.{n}": ("BF16", rng.integers(0, 1 << 15, (1200, 1000)).astype(np.uint16)) for n in range(5)
    }
    save(place / "base", arrays)
    save(place / "target", {name: (dtype, values ^ 3) for name, (dtype, values) in arrays.items()}, 2)
    done = run("delta", "make", *folders(place))
    assert done.returncode == 0, done.stderr
    return place


def kill_in_the_middle(arguments: list[str | Path], partial: Path, least_bytes: int) -> None:
    """Start a command and kill -9 it once `least_bytes` of its result are written."""
    process = subprocess.Popen([sys.executable, "-m", "delta", *map(str, arguments)], cwd=ROOT)
    while process.poll() is None:
        files = list(partial.glob("*safetensors")) + list(partial.glob(".payload*"))
        if sum(file.stat().st_size for file in files if file.exists()) >= least_bytes:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.001)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("command", ["make", "apply"])
def test_a_killed_run_is_resumed_and_gives_the_same_bytes(pair: Path, command: str) -> None:
    names = (
        {"delta": "again", "target": "target"} if command == "make" else {"delta": "delta", "target": "new"}
    )
    arguments = [command, *folders(pair, **names)]
    result, partial = pair / ("again" if command == "make" else "new"), None
    partial = result.with_name(f".{result.name}.unfinished")
    kill_in_the_middle(arguments, partial, 1_500_000 if command == "make" else 4_000_000)
    assert partial.is_dir()
    assert not result.exists()
    started = {path.name: path.stat().st_ino for path in partial.iterdir() if path.stat().st_size > 1_000_000}
    done = run("delta", *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert started
    assert set(started.values()) <= {path.stat().st_ino for path in result.iterdir()}
    if command == "make":
        for path in (pair / "delta").rglob("*"):
            if path.is_file() and path.name != "manifest.json":
                assert (result / path.relative_to(pair / "delta")).read_bytes() == path.read_bytes(), path
    else:
        assert contents(result) == contents(pair / "target")
    assert not partial.exists()


def test_what_was_left_is_checked_before_it_is_reused(pair: Path) -> None:
    partial = pair / ".checked.unfinished"
    arguments = ["apply", *folders(pair, target="checked")]
    kill_in_the_middle(arguments, partial, 4_000_000)
    file = next(partial.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[900] ^= 1
    file.write_bytes(data)
    done = run("delta", *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert contents(pair / "checked") == contents(pair / "target")


@pytest.mark.parametrize("command", ["make", "apply"])
def test_a_full_disk_is_reported_with_the_file_and_can_be_resumed(pair: Path, command: str) -> None:
    names = {"delta": "full-d", "target": "target"} if command == "make" else {"target": "full-t"}
    arguments = [command, *folders(pair, **names)]
    result = pair / ("full-d" if command == "make" else "full-t")
    limit = 1_000_000 if command == "make" else 3_000_000

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-m", "delta", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, preexec_fn=small_disk, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f".{result.name}.unfinished/" in done.stderr
    assert "--resume" in done.stderr
    assert not result.exists()
    done = run("delta", *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    if command == "apply":
        assert contents(result) == contents(pair / "target")


def test_an_existing_target_is_refused_and_force_swaps_after_success(tmp_path: Path) -> None:
    arrays = random_model()
    save(tmp_path / "base", arrays)
    save(tmp_path / "target", tuned(arrays))
    assert run("delta", "make", *folders(tmp_path)).returncode == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("dear")
    done = run("delta", "apply", *folders(tmp_path, target="mine"))
    assert done.returncode == 2
    assert "mine already exists" in done.stderr
    assert contents(tmp_path / "mine") == {"notes": b"dear"}
    done = run("delta", "apply", *folders(tmp_path, target="mine"), "--force")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "mine") == contents(tmp_path / "target")
    (tmp_path / "link").symlink_to("mine")
    done = run("delta", "apply", *folders(tmp_path, target="link"), "--force")
    assert done.returncode == 2
    assert (tmp_path / "link").is_symlink()
    (tmp_path / ".new.unfinished").symlink_to(tmp_path / "base")
    done = run("delta", "apply", *folders(tmp_path, target="new"), "--resume")
    assert done.returncode == 2
    assert ".new.unfinished is a symbolic link" in done.stderr
    assert (tmp_path / "base/model.safetensors").exists()
    assert not (tmp_path / "new").exists()
