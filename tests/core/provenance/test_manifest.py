"""A folder is complete or absent, and records where it came from."""

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.provenance import atomic_io, manifest
from core.provenance.atomic_io import this_host
from tests.conftest import ROOT
from tests.core.provenance.folders import CONFIG, INPUTS, make, names, sha256


def test_a_finished_folder_records_where_it_came_from(tmp_path: Path) -> None:
    make(tmp_path / "new" / "out")
    assert names(tmp_path / "new") == ["out"]
    found = manifest.read(tmp_path / "new" / "out")
    assert found["step"] == "clean"
    assert found["config"] == {"rate": 0.5, "parts": ["title", "claims"], "inner": {"seed": 1}}
    assert found["inputs"] == INPUTS
    assert found["outputs"] == {"b.txt": sha256("b"), "part/a.txt": sha256("first")}
    assert found["counts"] == {"records": 2}
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "torch" in found["versions"]
    assert shlex.split(found["command"])[1:] == sys.orig_argv[1:], "what a user would type again"
    created = datetime.fromisoformat(found["created"])
    assert created.utcoffset() is not None


def test_neither_a_lock_nor_a_half_written_file_is_an_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("predictions.jsonl", atomic_io.LOCK, ".scores.json.partial"):
        (tmp_path / "out" / name).write_text("a")
    manifest.write(tmp_path / "out", step="eval", config={}, inputs={}, counts={})
    assert manifest.read(tmp_path / "out")["outputs"] == {"predictions.jsonl": sha256("a")}


def test_a_finished_folder_is_the_input_of_the_next_step(tmp_path: Path) -> None:
    make(tmp_path / "out")
    files = [tmp_path / "out" / "b.txt", tmp_path / "out" / "part" / "a.txt"]
    assert manifest.outputs_of(tmp_path / "out") == manifest.hash_files(files)
    assert manifest.hash_files(files) == {
        files[0].as_posix(): sha256("b"),
        files[1].as_posix(): sha256("first"),
    }


@pytest.mark.parametrize("accident", [ValueError, KeyboardInterrupt, SystemExit, UserError])
def test_a_step_that_fails_leaves_nothing(tmp_path: Path, accident: type[BaseException]) -> None:
    with (
        pytest.raises(accident),
        manifest.build(tmp_path / "out", step="clean", config=CONFIG, inputs=INPUTS) as folder,
    ):
        (folder.path / "a.txt").write_text("half")
        raise accident
    assert names(tmp_path) == []


def test_a_manifest_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), manifest.build(tmp_path / "out", step="x", config={"a": {1}}, inputs={}):
        pass
    assert names(tmp_path) == []


def test_a_folder_is_never_overwritten_without_force(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(UserError, match=r"out already exists and is not overwritten\..*--force"):
        make(tmp_path / "out", "second")
    assert (tmp_path / "out" / "part" / "a.txt").read_text() == "first"


def test_force_replaces_the_old_folder_when_the_new_one_is_complete(tmp_path: Path) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "stray.txt").write_text("of the old one")
    with manifest.build(tmp_path / "out", step="clean", config=CONFIG, inputs=INPUTS, force=True) as folder:
        (folder.path / "c.txt").write_text("c")
        assert (tmp_path / "out" / "part" / "a.txt").read_text() == "first", "the old one is kept until then"
    assert names(tmp_path / "out") == ["c.txt", "manifest.json"]
    assert names(tmp_path) == ["out"]


def test_force_that_fails_keeps_the_old_folder(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with (
        pytest.raises(ValueError, match="half way"),
        manifest.build(tmp_path / "out", step="clean", config=CONFIG, inputs=INPUTS, force=True) as folder,
    ):
        (folder.path / "b.txt").write_text("half")
        raise ValueError("half way")
    manifest.verify(tmp_path / "out")
    assert names(tmp_path) == ["out"]


BUILDER = """
import sys
from pathlib import Path
from typing import Any
from core.provenance import manifest
with manifest.build(Path(sys.argv[1]), step="x", config={}, inputs={}) as folder:
    (folder.path / "half.txt").write_text("half")
    print(folder.path.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path, str]]:
    """A process in the middle of building a folder: the process, the folder, the hidden folder's name."""
    target = tmp_path / "out[1].5"  # a name with the special characters of a pattern
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, target],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    yield process, target, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_what_a_killed_process_left_is_removed_by_the_next(
    builder: tuple[subprocess.Popen[str], Path, str],
) -> None:
    process, target, working = builder
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names(target.parent) == [working], "nothing has the name itself"
    make(target)
    assert names(target.parent) == [target.name]


def test_what_a_living_process_builds_stays(builder: tuple[subprocess.Popen[str], Path, str]) -> None:
    _, target, working = builder
    make(target)
    assert names(target.parent) == [working, target.name]
    assert (target.parent / working / "half.txt").read_text() == "half"


def test_a_text_file_is_replaced_atomically(tmp_path: Path) -> None:
    atomic_io.write_text(tmp_path / "latest", "step-1\n")
    atomic_io.write_text(tmp_path / "latest", "第二\n")
    assert (tmp_path / "latest").read_text("utf-8") == "第二\n"
    assert names(tmp_path) == ["latest"]


def test_a_swap_that_a_kill_interrupted_is_undone(tmp_path: Path) -> None:
    """Between the two renames of a replacement nothing has the name; the old folder must not be lost."""
    make(tmp_path / "out")
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "out").rename(tmp_path / f".out.old-{this_host()}-{gone.pid}")
    assert manifest.up_to_date(tmp_path / "out", config=CONFIG, inputs=INPUTS, advice="")
    assert names(tmp_path) == ["out"]


def test_a_folder_that_another_process_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="created by another process in the meantime"),
        manifest.build(tmp_path / "out", step="clean", config=CONFIG, inputs=INPUTS),
    ):
        (tmp_path / "out").mkdir()
    assert names(tmp_path) == ["out"]


def test_what_a_failed_step_of_parts_left_is_reused_by_the_same_step_only(tmp_path: Path) -> None:
    def parts(code: str, config: dict[str, int]) -> list[str]:
        with manifest.build_in_parts(
            tmp_path / "out", step="clean", config=config, inputs=INPUTS, code=code
        ) as folder:
            found = sorted(path.name for path in folder.path.iterdir() if not path.name.startswith("."))
            (folder.path / f"part-{len(found)}").write_text("x")
            if len(found) < 2:
                raise ValueError("cut short")
        return found

    for _ in range(2):
        with pytest.raises(ValueError, match="cut short"):
            parts("code", {"a": 1})
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="cut short"):
        parts("other code", {"a": 1})
    with pytest.raises(ValueError, match="cut short"):
        parts("other code", {"a": 1})
    assert parts("other code", {"a": 1}) == ["part-0", "part-1"], "nothing of the first code was taken over"
    assert sorted(manifest.read(tmp_path / "out")["outputs"]) == ["part-0", "part-1", "part-2"]
    manifest.verify(tmp_path / "out")


def test_two_processes_do_not_build_the_same_step_of_parts(tmp_path: Path) -> None:
    def build() -> AbstractContextManager[manifest.Folder]:
        return manifest.build_in_parts(tmp_path / "out", step="x", config=CONFIG, inputs=INPUTS, code="")

    with build(), pytest.raises(UserError, match=r"out is already being built \(process \d+"), build():
        pass


@pytest.mark.parametrize("builder", [manifest.build, partial(manifest.build_in_parts, code="")])
def test_force_never_removes_an_input(tmp_path: Path, builder: Any) -> None:
    made, elsewhere = tmp_path / "made", tmp_path / "elsewhere"
    for folder in (made, elsewhere):
        folder.mkdir()
        (folder / "rows.jsonl").write_text("{}")
    (tmp_path / "link").symlink_to(made)
    for name in ("made", "link"):
        inputs = manifest.hash_files([tmp_path / name / "rows.jsonl"])
        with (
            pytest.raises(UserError, match=r"contains .*rows\.jsonl, which this command reads"),
            builder(made, step="chats", config={}, inputs=inputs, force=True),
        ):
            pass
    assert (made / "rows.jsonl").read_text() == "{}"
    inputs = manifest.hash_files([elsewhere / "rows.jsonl"])
    with builder(made, step="chats", config={}, inputs=inputs, force=True):
        pass
    assert not (made / "rows.jsonl").exists()


APART = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
"""Runs a command with process numbers of its own, as a container that shares its host's name does."""


@pytest.mark.skipif(
    subprocess.run([*APART, "true"], check=False, capture_output=True).returncode != 0,
    reason="this system makes no PID namespaces for users",
)
def test_a_container_does_not_remove_what_one_of_the_same_host_name_is_writing(tmp_path: Path) -> None:
    """The other one's process numbers mean nothing here."""
    ask = "from core.provenance.atomic_io import *; print(this_host()); remove_leftovers(Path(sys.argv[1]))"
    living = tmp_path / f".out.partial-{this_host()}-999999999"
    living.mkdir()
    done = subprocess.run(
        [*APART, sys.executable, "-c", f"import sys; {ask}", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() != this_host()
    assert living.exists()
    atomic_io.remove_leftovers(tmp_path / "out")
    assert not living.exists()
