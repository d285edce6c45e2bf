"""A run goes on from what it began with: a base, an adapter or data that changed is named and refused."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from core.errors import UserError
from core.provenance import manifest
from core.train.inputs import NAME, Inputs

FILES = (
    "base/config.json", "base/model.safetensors", "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors", "corpus/train.bin", "corpus/tokenizer.json",
)  # fmt: skip


class Begun:
    """A run with a checkpoint, and what it was made from."""

    def __init__(self, folder: Path, *, noted: bool = True) -> None:
        self.folder = folder
        for name in ("base", "adapter", "corpus", "run"):
            (folder / name).mkdir()
        for name in FILES:
            (folder / name).write_text(name)
        self.seal()
        found = self.inputs().hashes(note=noted)
        self.checkpoint = folder / "run/checkpoints/step-00000002"
        self.checkpoint.mkdir(parents=True)
        manifest.write(self.checkpoint, step="checkpoint", config={}, inputs=found, counts={})

    def seal(self) -> None:
        """The corpus's manifest tells what is in it."""
        manifest.write(self.folder / "corpus", step="pack", config={}, inputs={}, counts={})

    def inputs(self, run: str = "run", branch: Path | None = None, corpus: str = "corpus") -> Inputs:
        base, adapter = (str(self.folder / name) for name in ("base", "adapter"))
        return Inputs(self.folder / run, branch, base, adapter, [self.folder / corpus])

    def change(self, name: str, text: str = "other") -> None:
        file = self.folder / name
        file.write_text(text)
        os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("base/model.safetensors", "of another length"),
        ("base/model.safetensors", "BASE/model.safetensors"),
        ("base/model.safetensors", None),
        ("base/config.json", "other"),
        ("adapter/adapter_model.safetensors", "other"),
        ("corpus/train.bin", "other"),
        ("corpus/tokenizer.json", "other"),
    ],
)
def test_what_changed_is_named(tmp_path: Path, name: str, text: str | None, noted: bool) -> None:
    run = Begun(tmp_path, noted=noted)
    run.inputs().check_same()
    if text is None:
        (tmp_path / name).unlink()
    else:
        run.change(name, text)
    if name == "corpus/tokenizer.json" or not noted:  # else changed by hand: its manifest stays
        run.seal()
    with pytest.raises(UserError, match="not the same now") as refused:
        run.inputs().check_same()
    assert f"{tmp_path / name}: {'changed' if text else 'gone'}" in str(refused.value)
    assert "another run_dir, or remove" in str(refused.value)
    with pytest.raises(UserError, match=r"another run_dir\.$"):
        run.inputs("branch", run.checkpoint).check_same()


def test_two_files_that_changed_places_are_named(tmp_path: Path) -> None:
    run = Begun(tmp_path)
    run.change("base/config.json", "base/model.safetensors")
    run.change("base/model.safetensors", "base/config.json")
    with pytest.raises(UserError, match=r"config\.json: changed"):
        run.inputs().check_same()


def test_the_same_files_elsewhere_or_written_again_are_no_change(tmp_path: Path) -> None:
    run = Begun(tmp_path)
    (tmp_path / "corpus").rename(tmp_path / "moved")
    run.inputs(corpus="moved").check_same()
    for name in ("base/config.json", "base/model.safetensors"):
        run.change(name, name)
    run.inputs(corpus="moved").check_same()


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Begun(tmp_path)
    read: list[Path] = []

    def noting(files: Iterable[Path]) -> dict[str, str]:
        read.extend(files)
        return {}

    monkeypatch.setattr(manifest, "hash_files", noting)
    run.inputs().check_same()
    run.inputs().hashes(note=True)
    assert not read


def test_a_new_run_and_one_whose_newest_checkpoint_is_damaged(tmp_path: Path) -> None:
    run = Begun(tmp_path)
    run.inputs("new").check_same()
    newer = run.checkpoint.with_name("step-00000004")
    newer.mkdir()
    (newer / "manifest.json").write_text("{")
    run.inputs().check_same()
    (tmp_path / "run" / NAME).write_text("[")
    run.inputs().check_same()
    tree = json.loads((run.checkpoint / "manifest.json").read_text())
    del tree["inputs"][f"{tmp_path}/base/config.json"]  # as older versions recorded
    (run.checkpoint / "manifest.json").write_text(json.dumps(tree))
    run.change("base/config.json")
    (tmp_path / "pairs.jsonl").write_text("pairs")
    tree["inputs"] |= manifest.hash_files([tmp_path / "pairs.jsonl"])
    (run.checkpoint / "manifest.json").write_text(json.dumps(tree))
    run.inputs().check_same()
    run.change("pairs.jsonl")
    with pytest.raises(UserError, match=r"pairs\.jsonl: changed"):
        run.inputs().check_same()
