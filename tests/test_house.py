"""The house keeps its shape: who imports whom, how long a file is, that help is quick and names the right
commands."""

import ast
import re
import subprocess

import pytest

from tests.conftest import ROOT, run

ROOMS = {
    "core": set(),
    "data": {"core"},
    "delta": {"core"},
    "pretrain": {"core", "data"},
    "sft": {"core", "data"},
    "eval": {"core", "data"},
}
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            imported = {name.split(".")[0] for name in names} & ROOMS.keys()
            assert imported <= ROOMS[room] | {room}, path


def test_no_file_grows_beyond_what_one_reads_in_a_sitting() -> None:
    files = [*FILES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]
    long = {path.name: n for path in files if (n := path.read_text("utf-8").count("\n")) > 300}
    assert not long


def test_the_way_from_make_pretrain_to_the_weights_stays_short() -> None:
    names = ("schema", "run", "distributed", "model", "deepspeed", "loop", "schedule", "checkpoint")
    core = [ROOT / f"core/{name}.py" for name in names]
    way = [ROOT / "pretrain/__main__.py", *core, ROOT / "data/packing/packed_dataset.py"]
    assert len(way) <= 10
    schema = ROOT / "pretrain/config.py"
    assert sum(path.read_text("utf-8").count("\n") for path in [*way, schema]) < 1500


def test_deepspeeds_own_keys_are_written_in_one_file() -> None:
    for path in FILES:
        if path != ROOT / "core/distributed/deepspeed_backend.py":
            assert "zero_optimization" not in re.sub(
                r"\.zero_optimization\w*\(", "", path.read_text("utf-8")
            ), path


@pytest.mark.parametrize("room", [room for room in ROOMS if (ROOT / room / "__main__.py").exists()])
def test_help_gives_examples_and_loads_nothing_slow(room: str) -> None:
    done = run(room, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m {room}" in done.stdout
    slow = {"torch", "transformers", "numba", "pyarrow.compute"}
    loaded = f"import sys, {room}.__main__; print({slow} & sys.modules.keys())"
    assert subprocess.run(
        [ROOT / ".venv/bin/python" if (ROOT / ".venv/bin/python").exists() else "python3", "-c", loaded],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip() == "set()"  # fmt: skip


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony.group(1).split():
        assert re.search(rf"make {target}\s", listed), target
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
