"""The house keeps its shape: who imports whom, how long a file is, that help is quick and names the right
commands."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, run

ROOMS = {
    "core": set(),
    "data": {"core"},
    "delta": {"core"},
    "pretrain": {"core", "data"},
    "sft": {"core", "data"},
    "eval": {"core", "data"},
    "serve": {"core", "data"},
    "tools": {"core", "data", "delta", "pretrain", "sft", "eval", "serve"},
}
"""Each room and the rooms that it may import; tests and benchmarks may import all of them."""
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        imported = {name.split(".")[0] for name in imports(path)} & {*ROOMS, "tests", "benchmarks"}
        assert imported <= ROOMS[room] | {room}, path


@pytest.mark.parametrize("room", ROOMS)
def test_the_folders_of_a_room_import_each_other_in_one_direction(room: str) -> None:
    uses: dict[str, set[str]] = {}
    for path in (ROOT / room).rglob("*.py"):
        own = folder_of(path)
        uses.setdefault(own, set()).update({folder_of(file) for file in imported_files(path)} - {own})
    inside = {
        folder: {used for used in found if used.startswith(f"{room}/")} for folder, found in uses.items()
    }
    while leaves := {folder for folder, used in inside.items() if not used & inside.keys()}:
        inside = {folder: used for folder, used in inside.items() if folder not in leaves}
    assert not inside, f"these folders import each other in a circle: {inside}"


def test_a_folder_says_what_is_in_it() -> None:
    for path in FILES:
        if path.name == "__init__.py":
            tree = ast.parse(path.read_text("utf-8"))
            assert ast.get_docstring(tree), path
            assert len(tree.body) == 1, f"{path}: a docstring and nothing else"
        assert (path.parent / "__init__.py").exists(), path.parent


def test_no_file_grows_beyond_what_one_reads_in_a_sitting() -> None:
    files = [*FILES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]
    long = {path.name: n for path in files if (n := path.read_text("utf-8").count("\n")) > 500}
    assert not long


def test_only_one_file_imports_deepspeed() -> None:
    backend = ROOT / "core/distributed/deepspeed_backend.py"
    importers = {path for path in FILES if any(n.split(".")[0] == "deepspeed" for n in imports(path))}
    assert importers == {backend}
    for path in FILES:
        assert path == backend or "zero_optimization" not in path.read_text("utf-8"), path


@pytest.mark.parametrize("room", [room for room in ROOMS if (ROOT / room / "__main__.py").exists()])
def test_help_gives_examples_and_loads_nothing_slow(room: str) -> None:
    done = run(room, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m {room}" in done.stdout
    slow = {"torch", "transformers", "numba", "pyarrow.compute"}
    loaded = f"import sys, {room}.__main__; print({slow} & sys.modules.keys())"
    shown = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "set()"


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony.group(1).split():
        assert re.search(rf"make {target}\s", listed), target
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports when it runs, with the names taken from it: `a.b` and `a.b.name`."""
    tree = ast.parse(path.read_text("utf-8"))
    for_types = {
        id(node)
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_files(path: Path) -> Iterator[Path]:
    """The project's own files that a file imports, at its top or inside a function."""
    for name in imports(path):
        for module in (name, name.rpartition(".")[0]):
            file = ROOT / (module.replace(".", "/") + ".py")
            if module and file.exists():
                yield file
                break


def folder_of(path: Path) -> str:
    """`core/train` of a file in it; a file directly in a room counts as its own folder."""
    inside = path.relative_to(ROOT)
    return inside.parent.as_posix() if len(inside.parts) > 2 else inside.as_posix()
