"""The weights of a folder are the files that transformers would load from it, whatever else lies there."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.model import weight_files
from core.model.loading import weight_files as hashed

SHARDS = {
    "model.safetensors.index.json": ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
    "pytorch_model.bin.index.json": ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
}


def write(folder: Path, names: list[str] | tuple[str, ...], *, shards: bool = True) -> Path:
    folder.mkdir()
    for name in names:
        if name in SHARDS:
            weight_map = {f"tensor.{at}": file for at, file in enumerate(SHARDS[name])}
            (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        for file in [name] if name not in SHARDS else SHARDS[name] if shards else []:
            (folder / file).write_bytes(b"w")
    return folder


@pytest.mark.parametrize(
    "names", [c for n in range(1, 5) for c in itertools.combinations(weight_files.STANDARD, n)], ids="+".join
)
def test_the_choice_is_that_of_transformers(tmp_path: Path, names: tuple[str, ...]) -> None:
    from transformers.modeling_utils import _get_resolved_checkpoint_files

    folder = write(tmp_path / "model", names)
    expected, _ = _get_resolved_checkpoint_files(str(folder), None, None, None, None, False)
    found = weight_files.find(folder)
    assert [str(file) for file in found.files] == expected
    assert hashed(str(folder)).keys() == set(expected)
    rest = {file.name for file in folder.iterdir()} - {file.name for file in found.files}
    rest -= {name for name in names if found.files[0].name in SHARDS.get(name, [])}
    assert set(found.unread) == rest
    assert bool(found.note) == bool(rest)


@pytest.mark.parametrize("name", ["other.safetensors", "other.safetensors.index.json", "model.safetensors"])
def test_so_is_a_file_that_the_configuration_names(tmp_path: Path, name: str) -> None:
    from transformers.modeling_utils import _get_resolved_checkpoint_files

    folder = write(tmp_path / "model", ("model.safetensors", "model.safetensors.index.json"))
    (folder / "other.safetensors").write_bytes(b"w")
    (folder / "other.safetensors.index.json").write_bytes(
        (folder / "model.safetensors.index.json").read_bytes()
    )
    (folder / "config.json").write_text(json.dumps({"transformers_weights": name}))
    expected, _ = _get_resolved_checkpoint_files(
        str(folder), None, None, None, None, False, transformers_explicit_filename=name
    )
    assert [str(file) for file in weight_files.find(folder).files] == expected


INDEX, BIN = "model.safetensors.index.json", "pytorch_model.bin.index.json"
REFUSED: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "nothing": ([], {}, "no weights found"),
    "an adapter": (["adapter_model.safetensors"], {}, "This is an adapter"),
    "a name of one's own": (["weights.safetensors"], {}, "weights.safetensors; if it is the whole model"),
    "Meta's file alone": (["consolidated.safetensors"], {}, "consolidated.safetensors; if it is"),
    "a shard without an index": (["model-00001-of-00002.safetensors"], {}, "model-00002-of-00002"),
    "two sets without an index": (
        ["model-00001-of-00001.safetensors", "model-00001-of-00002.safetensors"], {}, "two sets of weights",
    ),
    "an index without its files": ([], {INDEX: {"a": "x.safetensors", "b": "y"}}, "x.safetensors is missing"),
    "a .bin index without its files": ([], {BIN: {"a": "x.bin"}}, "x.bin is missing"),
    "an index beside .bin": (["pytorch_model.bin"], {INDEX: {"a": "x.safetensors"}}, "x.safetensors is"),
    "an index that leaves the folder": ([], {INDEX: {"a": "../x.safetensors"}}, "not a valid file name"),
    "an index with a control character": ([], {INDEX: {"a": "\x1b[2Jx"}}, "not a valid file name"),
    "an empty index": ([], {INDEX: {}}, "names no tensors"),
    "an index of something else": ([], {INDEX: ["a"]}, "damaged"),
    "a configuration that leaves the folder": (
        ["model.safetensors"], {"config.json": "../x.safetensors"}, "transformers_weights='../x.safetensors'",
    ),
    "a configuration that names no file": (
        ["model.safetensors"], {"config.json": "gone.safetensors"}, "gone.safetensors is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_incomplete_or_no_model_is_refused_by_name(tmp_path: Path, case: str) -> None:
    names, texts, named = REFUSED[case]
    folder = write(tmp_path / "model", names)
    for name, value in texts.items():
        key = "transformers_weights" if name == "config.json" else "weight_map"
        (folder / name).write_text(json.dumps({"metadata": {}, key: value}))
    with pytest.raises(UserError) as refused:
        weight_files.find(folder)
    assert named in str(refused.value)


@pytest.mark.parametrize("index", SHARDS)
def test_a_numbered_set_without_an_index_is_taken_if_it_is_complete(tmp_path: Path, index: str) -> None:
    folder = write(tmp_path / "model", (index,))
    (folder / index).unlink()
    assert [file.name for file in weight_files.find(folder).files] == SHARDS[index]


def test_every_tensor_of_the_index_is_accounted_for(tmp_path: Path) -> None:
    found = weight_files.find(write(tmp_path / "model", (INDEX,)))
    found.check(["tensor.0", "tensor.1", "more"])
    with pytest.raises(UserError, match=r"tensor\.1 is in the index but in none"):
        found.check(["tensor.0"])
