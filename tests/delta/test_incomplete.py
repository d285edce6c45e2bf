"""Of a model in several files, each tensor is accounted for: a lost file is named and nothing is written;
files of another save that lie beside the model's own are not read, and the user is told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.delta.models import delta, random_model, save, tuned

Tensors = dict[str, torch.Tensor]
INV_FREQ = "model.layers.0.self_attn.rotary_emb.inv_freq"


def tensors(seed: int, *more: str) -> Tensors:
    torch.manual_seed(seed)
    names = [
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    ]
    return {name: torch.randn(8, 8).half() for name in [*names, *more]}


def write(folder: Path, found: Tensors, kind: str, index: bool = True) -> Path:
    """Two files of the kind, and their index."""
    folder.mkdir()
    stem, ending = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    weight_map: dict[str, str] = {}
    for number in (1, 2):
        file = f"{stem}-0000{number}-of-00002.{ending}"
        part = {name: found[name] for name in list(found)[number - 1 :: 2]}
        weight_map |= dict.fromkeys(part, file)
        if kind == "safetensors":
            save_file(part, folder / file, {"format": "pt"})
        else:
            torch.save(part, folder / file)
    if index:
        text = json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / f"{stem}.{ending}.index.json").write_text(text)
    (folder / "config.json").write_text("{}")
    return folder


def apply_rule(place: Path, rule: str = "fastchat") -> tuple[int, str]:
    folders = [
        "--base",
        place / "base",
        "--delta",
        place / "delta",
        "--target",
        place / "target",
    ]
    return delta("apply", "--rule", rule, *folders)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("lost", ["base", "delta"])
def test_a_lost_file_of_an_additive_delta_is_named(tmp_path: Path, kind: str, index: bool, lost: str) -> None:
    for seed, name in enumerate(("base", "delta")):
        write(tmp_path / name, tensors(seed), kind, index)
    file = max(file for file in (tmp_path / lost).iterdir() if "-of-" in file.name)
    file.unlink()
    code, said = apply_rule(tmp_path)
    assert code == 2
    assert f"{lost}/{file.name} is missing" in said
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("rule", ["fastchat", "patent-llama"])
@pytest.mark.parametrize("lost", ["base", "delta"])
@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"])
def test_so_is_a_tensor_that_only_one_of_them_has(tmp_path: Path, rule: str, lost: str, name: str) -> None:
    for seed, each in enumerate(("base", "delta")):
        found = tensors(seed)
        if each == lost:
            del found[name]
        write(tmp_path / each, found, "safetensors")
    code, said = apply_rule(tmp_path, rule)
    assert code == 2
    assert f"{lost}: tensor {name} is missing" in said
    assert not (tmp_path / "target").exists()


def test_a_file_that_lost_a_tensor_of_its_index_is_named(tmp_path: Path) -> None:
    for name in ("base", "delta"):
        write(tmp_path / name, tensors(0), "bin")
    torch.save({}, tmp_path / "delta/pytorch_model-00002-of-00002.bin")
    code, said = apply_rule(tmp_path)
    assert code == 2
    assert "delta: tensor lm_head.weight is in the index but in none of the files, and so are 1 more" in said


@pytest.mark.parametrize("rule", ["fastchat", "patent-llama"])
@pytest.mark.parametrize("has", ["base", "delta"])
@pytest.mark.parametrize(
    "buffer", [INV_FREQ, "gpt_neox.layers.0.attention.masked_bias", "transformer.h.0.attn.bias"]
)
def test_a_buffer_that_only_one_of_them_has_is_no_other_base(
    tmp_path: Path, rule: str, has: str, buffer: str
) -> None:
    base, other = tensors(0), tensors(1)
    (base if has == "base" else other)[buffer] = torch.zeros(1, 1, 4, 4).half()
    write(tmp_path / "base", base, "safetensors")
    write(tmp_path / "delta", other, "bin")
    code, said = apply_rule(tmp_path, rule)
    assert code == 0, said
    made: Tensors = {}
    for file in (tmp_path / "target").glob("*.safetensors"):
        made |= load_file(file)
    kept = rule == "patent-llama" and has == "delta" and buffer == INV_FREQ  # the rule stores it whole
    assert made.keys() == tensors(0).keys() | ({buffer} if kept else set())
    assert kept or f"left out: {buffer}" in said
    name = "model.norm.weight"
    assert torch.equal(made[name], base[name] + other[name])


def test_a_layer_bias_is_no_buffer(tmp_path: Path) -> None:
    write(tmp_path / "base", tensors(0), "safetensors")
    write(tmp_path / "delta", tensors(1, "model.layers.0.attn.bias"), "safetensors")
    assert "base: tensor model.layers.0.attn.bias is missing" in apply_rule(tmp_path)[1]


def test_an_exact_delta_needs_no_buffer_of_the_base(tmp_path: Path) -> None:
    arrays = random_model()
    with_buffer = arrays | {INV_FREQ: arrays["model.norm.weight"]}
    save(tmp_path / "old", with_buffer)
    save(tmp_path / "base", arrays)
    tuned_model = tuned(arrays) | {INV_FREQ: arrays["model.norm.weight"]}
    save(tmp_path / "target", tuned_model)
    made = ["--target", tmp_path / "target", "--delta", tmp_path / "delta"]
    assert delta("make", "--base", tmp_path / "old", *made)[0] == 0
    for base in ("old", "base"):
        assert delta("verify", "--base", tmp_path / base, "--delta", tmp_path / "delta")[0] == 0


def whole_over_shards(folder: Path) -> None:
    """As if saved in shards, then whole: the index is left."""
    shutil.copy(folder.parent / "whole/model.safetensors", folder)


def shards_over_whole(folder: Path) -> None:
    """As if saved whole, then in shards: transformers still reads the first."""
    for file in (folder.parent / "shards").glob("model*"):
        shutil.copy(file, folder)


@pytest.mark.parametrize(("start", "act"), [("shards", whole_over_shards), ("whole", shards_over_whole)])
def test_of_two_sets_the_one_that_transformers_loads_is_read_and_the_user_told(
    tmp_path: Path, start: str, act: Callable[[Path], None]
) -> None:
    arrays = random_model()
    save(tmp_path / "base", arrays, 2)
    save(tmp_path / "whole", tuned(arrays))
    save(tmp_path / "shards", random_model(seed=7), 3)
    target = Path(shutil.copytree(tmp_path / start, tmp_path / "target"))
    act(target)
    folders = ["--base", tmp_path / "base", "--delta", tmp_path / "delta"]
    code, said = delta("make", *folders, "--target", target)
    assert code == 0, said
    assert (
        "target: model.safetensors is read, as by transformers; model-00001-of-00003.safetensors and 3"
        in said
    )
    assert delta("apply", *folders, "--target", tmp_path / "again")[0] == 0
    assert [file.name for file in (tmp_path / "again").glob("*.safetensors")] == ["model.safetensors"]
    expected = (tmp_path / "whole/model.safetensors").read_bytes()
    assert (tmp_path / "again/model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("role", ["--base", "--target"])
def test_a_lost_shard_of_a_model_is_named(tmp_path: Path, role: str) -> None:
    arrays = random_model()
    folders = {"--base": save(tmp_path / "b", arrays, 2), "--target": save(tmp_path / "t", tuned(arrays), 2)}
    (folders[role] / "model-00002-of-00002.safetensors").unlink()
    given = [word for pair in folders.items() for word in pair]
    code, said = delta("make", *given, "--delta", tmp_path / "d")
    assert code == 2
    assert "model-00002-of-00002.safetensors is missing" in said
    assert not (tmp_path / "d").exists()


def test_pickled_weights_of_a_base_are_refused_with_what_to_do(tmp_path: Path) -> None:
    base = write(tmp_path / "base", tensors(0), "bin")
    target = write(tmp_path / "target", tensors(1), "safetensors")
    code, said = delta("make", "--base", base, "--target", target, "--delta", tmp_path / "d")
    assert code == 2
    assert "dtype='auto'" in said


def test_a_restored_folder_in_which_transformers_loads_another_file_is_not_verified(tmp_path: Path) -> None:
    arrays = random_model()
    base, target = save(tmp_path / "base", arrays), save(tmp_path / "target", tuned(arrays), 2)
    assert delta("make", "--base", base, "--target", target, "--delta", tmp_path / "delta")[0] == 0
    assert delta("verify", "--target", target, "--delta", tmp_path / "delta")[0] == 0
    shutil.copy(base / "model.safetensors", target)
    code, said = delta("verify", "--target", target, "--delta", tmp_path / "delta")
    assert code == 2
    assert "transformers loads model.safetensors, which is not of this delta" in said
