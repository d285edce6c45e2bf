"""No command puts its result in the place of what it reads, above it or into it, with --force or without, as
a trial or for real."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.delta.meta import meta_weights, save_meta
from tests.delta.models import delta, random_model, save, tuned


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("places")
    (place / "in/meta").mkdir(parents=True)
    arrays = random_model("F16")
    save(place / "in/base", arrays)
    save(place / "in/target", tuned(arrays))
    save_meta(place / "in/meta/7B", meta_weights(4, torch.float16), 1)
    (place / "in/meta/7B/tokenizer.model").rename(place / "in/meta/tokenizer.model")
    folders = ["--base", place / "in/base", "--target", place / "in/target"]
    assert delta("make", *folders, "--delta", place / "in/delta")[0] == 0
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(made, tmp_path / "place")
    (tmp_path / "place/link").symlink_to("in")
    before = contents(tmp_path / "place")
    yield tmp_path / "place"
    assert contents(tmp_path / "place") == before


def contents(place: Path) -> dict[str, bytes]:
    return {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}


COMMANDS = {
    "make": ("--base in/base --target in/target", "--delta", ["base", "target"]),
    "make --rule fastchat": ("--base in/base --target in/target", "--delta", ["base", "target"]),
    "apply": ("--base in/base --delta in/delta", "--target", ["base", "delta"]),
    "apply --rule fastchat": ("--base in/base --delta in/target", "--target", ["base", "target"]),
    "convert": ("--input_dir in/meta --model_size 7B", "--output_dir", ["meta", "meta/7B"]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("switches", [(), ("--force",), ("--force", "--dry-run")], ids=" ".join)
def test_the_inputs_are_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: str, switches: tuple[str, ...]
) -> None:
    monkeypatch.chdir(place)
    given, option, inputs = COMMANDS[command]
    arguments = f"{command} {given}".split()
    if command == "convert" and "--dry-run" in switches:
        pytest.skip("has no trial")
    places = [f"{start}/{name}{more}" for name in inputs for start in ("in", "link") for more in ("", "/x")]
    for where in ["in", *places]:
        code, said = delta(*arguments, *switches, option, where)
        assert code == 2, where
        assert "which this command reads. Choose another folder." in said
