"""Stanford Alpaca's rule: sums in float32, and a row for the padding token that is the mean of the others.
torch computes here what the project's weight_diff.py does."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.delta.models import delta

Tensors = dict[str, torch.Tensor]
ENDS = ("model.embed_tokens.weight", "lm_head.weight")


def model(folder: Path, seed: int, dtype: torch.dtype, rows: int, columns: int) -> Tensors:
    torch.manual_seed(seed)
    tensors = {name: torch.randn(rows, columns).to(dtype) for name in ENDS}
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.randn(900, 700).to(dtype)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text("{}")
    return tensors


def with_row(base: Tensors, rows: int) -> Tensors:
    """The base as the script has it: in float32, with the mean as its last row if rows are missing."""
    found = {name: tensor.float() for name, tensor in base.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the last bits of a mean depend on it
    for name in ENDS:
        if len(found[name]) < rows:
            found[name] = torch.cat([found[name], found[name].mean(dim=0, keepdim=True)])
    torch.set_num_threads(threads)
    return found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(40, 16), (300, 64), (5000, 8), (2000, 80), (5, 20), (3, 7)])
@pytest.mark.parametrize("more", [0, 1])
def test_the_sums_are_those_of_torch(
    tmp_path: Path, dtype: torch.dtype, rows: int, columns: int, more: int
) -> None:
    base = with_row(model(tmp_path / "base", 0, dtype, rows, columns), rows + more)
    other = model(tmp_path / "diff", 1, torch.float32, rows + more, columns)
    folders = ["--base", tmp_path / "base", "--delta", tmp_path / "diff", "--target", tmp_path / "target"]
    code, said = delta("apply", "--rule", "alpaca", *folders)
    assert code == 0, said
    assert "the alpaca rule in fp32 (inexact, not verified)" in said
    made = load_file(tmp_path / "target/model.safetensors")
    assert made.keys() == other.keys()
    for name, tensor in made.items():
        assert torch.equal(tensor.view(torch.int32), (other[name] + base[name]).view(torch.int32)), name
    code, said = delta(
        "make", "--rule", "alpaca", "--base", tmp_path / "base", "--target", tmp_path / "target",
        "--delta", tmp_path / "again",
    )  # fmt: skip
    assert code == 0, said
    for name, tensor in load_file(tmp_path / "again/model.safetensors").items():
        assert torch.equal(tensor, made[name] - base[name]), name


@pytest.mark.parametrize(("rule", "rows"), [("alpaca", 42), ("alpaca", 39), ("fastchat", 41)])
def test_other_numbers_of_rows_are_refused(tmp_path: Path, rule: str, rows: int) -> None:
    model(tmp_path / "base", 0, torch.float16, 40, 16)
    model(tmp_path / "diff", 1, torch.float32, rows, 16)
    folders = ["--base", tmp_path / "base", "--delta", tmp_path / "diff", "--target", tmp_path / "target"]
    code, said = delta("apply", "--rule", rule, *folders)
    assert code == 2
    assert f"({rows}, 16), but (40, 16) in the base" in said


def test_only_an_embedding_gets_a_row(tmp_path: Path) -> None:
    for seed, rows in ((0, 8), (1, 9)):
        folder = tmp_path / str(rows)
        model(folder, seed, torch.float16, 40, 16)
        tensors = load_file(folder / "model.safetensors") | {"model.layers.0.x.weight": torch.zeros(rows, 4)}
        save_file(tensors, folder / "model.safetensors")
    folders = ["--base", tmp_path / "8", "--delta", tmp_path / "9", "--target", tmp_path / "target"]
    assert (
        "model.layers.0.x.weight has shape (9, 4), but (8, 4)"
        in delta("apply", "--rule", "alpaca", *folders)[1]
    )
