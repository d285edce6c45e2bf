"""What llama.cpp cannot be given exactly, or does not fit, is refused by name, and nothing is written."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.delta import llama_cpp, models

Changed = dict[str, Any]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> llama_cpp.Tokenizers:
    return llama_cpp.Tokenizers(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture
def small(made: llama_cpp.Tokenizers, tmp_path: Path) -> Path:
    """A LLaMA with a byte-level tokenizer."""
    llama_cpp.model("llama", made.tokenizer("gpt2"), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("change", [
    ({"model_type": "gpt2"}, "model_type='gpt2'"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight is missing"),
    ({"num_hidden_layers": 1}, "model.layers.1."),
    ({"num_key_value_heads": 4}, "but config.json says (64, 64)"),
    ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rope_type='dynamic'"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4, "beta_fast": 16.0,
                          "original_max_position_embeddings": 64}}, "beta_fast=16.0 of yarn"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
     "partial_rotary_factor=0.5"),
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
])  # fmt: skip
def test_a_configuration_that_llama_cpp_does_not_compute_is_refused(
    small: Path, change: tuple[Changed, str]
) -> None:
    path = small / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change[0]))
    refused(small, change[1])


@pytest.mark.parametrize(("family", "changed", "words"), [
    ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding_attention"),
    ("qwen3", {"attention_bias": True}, "attention_bias"),
    ("qwen2", {"rope_parameters": {"rope_theta": 1e4, **LLAMA3}}, "in a qwen2 model"),
    ("gemma2", {}, "model_type='gemma2'"),
])  # fmt: skip
def test_a_family_s_settings_without_counterpart_are_refused(
    made: llama_cpp.Tokenizers, tmp_path: Path, family: str, changed: Changed, words: str
) -> None:
    llama_cpp.model(family, made.tokenizer("qwen2"), tmp_path / "model", **changed)
    refused(tmp_path / "model", words)


def spec_changed(change: Callable[[Changed], None]) -> Callable[[Path], None]:
    """Change tokenizer.json."""

    def apply(folder: Path) -> None:
        path = folder / "tokenizer.json"
        spec = json.loads(path.read_text())
        change(spec)
        path.write_text(json.dumps(spec))

    return apply


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def truncated(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 5000)


def too_many_tokens(spec: Changed) -> None:
    spec["model"]["vocab"]["<far>"] = 9000


def stripping(spec: Changed) -> None:
    spec["added_tokens"][-1]["lstrip"] = True


def other_words(spec: Changed) -> None:
    spec["pre_tokenizer"] = {"type": "Whitespace"}


def other_pattern(spec: Changed) -> None:
    split = {"type": "Split", "pattern": {"Regex": "\\d|\\D+"}, "behavior": "Isolated", "invert": False}
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, last]}


def lower_case(spec: Changed) -> None:
    spec["normalizer"] = {"type": "Lowercase"}


def word_pieces(spec: Changed) -> None:
    vocab = spec["model"]["vocab"]
    spec["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": "<s>"}


@pytest.mark.parametrize(("change", "words"), [
    (without_tokenizer, "no tokenizer"),
    (truncated, "model.safetensors"),
    (spec_changed(too_many_tokens), "'<far>' has id 9,000, but the embedding has"),
    (spec_changed(stripping), "has lstrip"),
    (spec_changed(other_words), "pre_tokenizer Whitespace"),
    (spec_changed(other_pattern), r"pre_tokenizer \d|\D+, ByteLevel"),
    (spec_changed(lower_case), "normalizer Lowercase"),
    (spec_changed(word_pieces), "WordLevel"),
])  # fmt: skip
def test_files_that_do_not_fit_are_refused(small: Path, change: Callable[[Path], None], words: str) -> None:
    change(small)
    refused(small, words)


def swapped(spec: Changed) -> None:
    pairs = spec["model"]["merges"]
    first = next(n for n in range(len(pairs)) if "".join(pairs[n]) == "".join(pairs[n + 1]))
    pairs.append(pairs.pop(first))


def dropped(spec: Changed) -> None:
    pairs = spec["model"]["merges"]
    made = ["".join(pair) for pair in pairs]
    del pairs[next(n for n in range(len(pairs)) if made.count(made[n]) > 1)]


def without_a_byte(spec: Changed) -> None:
    vocab = spec["model"]["vocab"]
    vocab["<odd>"] = vocab.pop("<0x41>")


def normalized(spec: Changed) -> None:
    spec["added_tokens"][1]["normalized"] = True


@pytest.mark.parametrize(("change", "words"), [
    (swapped, "do not follow each other"),
    (dropped, "they are not merged"),
    (without_a_byte, "no token <0x41>"),
    (normalized, "is normalized"),
])  # fmt: skip
def test_pieces_that_are_not_sentencepiece_s_are_refused(
    made: llama_cpp.Tokenizers, tmp_path: Path, change: Callable[[Changed], None], words: str
) -> None:
    llama_cpp.model("llama", made.tokenizer("pieces-prepend"), tmp_path / "model")
    spec_changed(change)(tmp_path / "model")
    refused(tmp_path / "model", words)


def test_an_adapter_is_refused_with_the_command_that_merges_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    refused(tmp_path / "model", "python -m sft merge")


@pytest.mark.parametrize(("kind", "value", "words"), [
    ("f16", 70000.0, "value of 70000"), ("q8_0", float("nan"), "NaN"), ("q8_0", 1e9, "value of 1e+09"),
])  # fmt: skip
def test_values_that_a_type_cannot_hold_are_refused_by_the_tensor(
    made: llama_cpp.Tokenizers, tmp_path: Path, kind: str, value: float, words: str
) -> None:
    model = llama_cpp.model("llama", made.tokenizer("gpt2"), tmp_path / "model")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value
    model.save_pretrained(tmp_path / "model")
    assert "model.layers.1.mlp.up_proj.weight" in refused(tmp_path / "model", words, "--type", kind)


def test_an_existing_file_is_kept_without_force_and_whatever_fails(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "out" / "model.gguf"
    assert models.delta("gguf", "--model", small, "--output", file)[0] == 0
    before = file.read_bytes()
    code, said = models.delta("gguf", "--model", small, "--output", file, "--type", "f32")
    assert (code, "already exists" in said) == (2, True)
    spec_changed(stripping)(small)
    code, said = models.delta("gguf", "--model", small, "--output", file, "--type", "f32", "--force")
    assert code == 2
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} - {".model.gguf.lock"} == {"Modelfile", "model.gguf"}
    for place in (tmp_path / "model.bin", tmp_path / "folder.gguf"):
        (tmp_path / "folder.gguf").mkdir(exist_ok=True)
        assert models.delta("gguf", "--model", small, "--output", place, "--force")[0] == 2


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_to_is_named(small: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    code, said = models.delta("gguf", "--model", small, "--output", tmp_path / "closed" / "model.gguf")
    assert code == 2
    assert str(tmp_path / "closed") in said


def refused(model: Path, words: str, *more: object) -> str:
    """The message with which the command ends; nothing is written."""
    output = model.parent / "refused" / "model.gguf"
    output.parent.mkdir()
    code, said = models.delta("gguf", "--model", model, "--output", output, *more)
    assert code == 2, said
    assert words in said
    assert str(model) in said
    assert {path.name for path in output.parent.iterdir()} <= {".model.gguf.lock"}
    return said
