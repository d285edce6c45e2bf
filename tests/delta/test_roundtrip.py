"""A rebuilt target equals the original byte for byte, file by file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.provenance import manifest
from tests.conftest import ROOT, run
from tests.delta.models import Arrays, contents, random_model, save, tuned


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("vocabulary", [40, 53])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_file_comes_out_identical(
    tmp_path: Path, dtype: str, vocabulary: int, tied: bool, shards: int
) -> None:
    from delta.apply import apply, verify_base, verify_target
    from delta.make import make, stored_files
    from delta.safetensors_io import ModelFolder

    arrays = random_model(dtype, tied=tied)
    base = save(tmp_path / "base", arrays, 2)
    target = save(tmp_path / "target", tuned(arrays, vocabulary), shards)
    delta = make(
        ModelFolder(base),
        ModelFolder(target),
        base,
        target,
        tmp_path / "delta",
        stored_files(target),
        shard_bytes=100_000,
    )
    assert delta.tensors["model.norm.weight"].mode == "same"
    apply(base, tmp_path / "delta", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(target)
    verify_base(base, tmp_path / "delta")
    verify_target(target, tmp_path / "delta")
    manifest.verify(tmp_path / "delta")
    assert len(list((tmp_path / "delta").glob("delta-0000?-of-0000?.safetensors"))) > 1


def test_the_commands_as_published(tmp_path: Path) -> None:
    arrays = random_model()
    base, target = save(tmp_path / "base", arrays), save(tmp_path / "target", tuned(arrays))
    delta, again = tmp_path / "delta", tmp_path / "again"
    commands: list[list[str | Path]] = [
        ["make", "--base", base, "--target", target, "--delta", delta],
        ["info", delta],
        ["verify", "--base", base, "--target", target, "--delta", delta],
        ["apply", "--base-model-path", base, "--target-model-path", again, "--delta-path", delta],
    ]
    for command in commands:
        done = run("delta", *command)
        assert done.returncode == 0, done.stderr
        if command[0] == "info":
            assert "6 tensors (BF16): 1 unchanged, 5 stored as differences, 0 stored in full" in done.stdout
            assert f"python -m delta apply --base base --target target --delta {delta}" in done.stdout
    assert contents(again) == contents(target)
    assert {path.name for path in delta.iterdir()} == {
        "README.md", "delta-00001-of-00001.safetensors", "delta.json", "files", "manifest.json",
    }  # fmt: skip
    done = run("tools.lineage", delta, "--verify")
    assert done.returncode == 0, done.stdout
    assert f"{base}  tensors:" in done.stdout


def test_a_delta_does_not_load_as_a_model(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    arrays = random_model()
    base, target = save(tmp_path / "base", arrays), save(tmp_path / "target", tuned(arrays))
    assert run("delta", "make", "--base", base, "--target", target, "--delta", tmp_path / "d").returncode == 0
    for loader in (AutoConfig, AutoModelForCausalLM):
        with pytest.raises((OSError, ValueError)):
            loader.from_pretrained(tmp_path / "d")


def test_other_types_other_shapes_and_new_tensors_are_stored_whole(tmp_path: Path) -> None:
    base: Arrays = {
        "changed_type": ("F32", np.arange(6, dtype=np.uint32)),
        "changed_shape": ("BF16", np.arange(6, dtype=np.uint16).reshape(2, 3)),
        "fewer_rows": ("BF16", np.arange(6, dtype=np.uint16).reshape(3, 2)),
        "gone": ("U8", np.zeros(3, np.uint8)),
    }
    target: Arrays = {
        "changed_type": ("BF16", np.arange(6, dtype=np.uint16)),
        "changed_shape": ("BF16", np.arange(6, dtype=np.uint16).reshape(3, 2)),
        "fewer_rows": ("BF16", np.arange(4, dtype=np.uint16).reshape(2, 2)),
        "new": ("I64", np.array(-5)),
        "empty": ("F16", np.zeros((0, 4), np.uint16)),
    }
    folders = save(tmp_path / "base", base), save(tmp_path / "target", target)
    delta = tmp_path / "delta"
    made: list[str | Path] = [
        "make",
        "--base",
        folders[0],
        "--target",
        folders[1],
        "--delta",
        delta,
        "--allow-whole",
    ]
    assert run("delta", *made).returncode == 0
    plan = json.loads((delta / "delta.json").read_text())["tensors"]
    assert {name: entry["mode"] for name, entry in plan.items()} == {
        "changed_type": "full", "changed_shape": "full", "fewer_rows": "delta", "new": "full",
        "empty": "full",
    }  # fmt: skip
    done = run("delta", "apply", "--base", folders[0], "--target", tmp_path / "again", "--delta", delta)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "again") == contents(folders[1])


def test_the_exact_codec_needs_no_torch() -> None:
    code = "import sys, delta.make, delta.apply; print(sorted({'torch', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
