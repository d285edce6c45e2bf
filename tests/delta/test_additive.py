"""Published additive deltas give the results of the projects' scripts, adapters those of peft; pickles are
read without being executed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import UserError
from delta.meta_llama.torch_pickle import read_pickled
from tests.conftest import run

Tensors = dict[str, torch.Tensor]


def model(folder: Path, dtype: torch.dtype, seed: int, kind: str) -> Tensors:
    torch.manual_seed(seed)
    tensors = {
        "model.embed_tokens.weight": torch.randn(30, 8),
        "model.layers.0.mlp.up_proj.weight": torch.randn(700, 800),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.rand(4),
        "lm_head.weight": torch.randn(30, 8),
    }
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    names = list(tensors)
    halves = [names[:2], names[2:]]
    for number, part in enumerate(halves, 1):
        some = {name: tensors[name] for name in part}
        if kind == "safetensors":
            save_file(some, folder / f"model-0000{number}-of-00002.safetensors", {"format": "pt"})
        else:
            torch.save(some, folder / f"pytorch_model-0000{number}-of-00002.bin")
    return tensors


@pytest.mark.parametrize("rule", ["fastchat", "patent-llama"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("base_dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_those_of_torch(tmp_path: Path, rule: str, kind: str, base_dtype: torch.dtype) -> None:
    base = model(tmp_path / "base", base_dtype, 0, kind)
    other = model(tmp_path / "delta", torch.float16, 1, kind)
    done = run(
        "delta", "apply", "--rule", rule, "--base", tmp_path / "base", "--target", tmp_path / "target",
        "--delta", tmp_path / "delta",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "inexact" in done.stdout
    made: Tensors = {}
    for file in sorted((tmp_path / "target").glob("*.safetensors")):
        made |= load_file(file)
    whole = ("embed_tokens", "lm_head.weight", "rotary_emb.inv_freq") if rule == "patent-llama" else ()
    for name, tensor in other.items():
        expected = tensor.clone()
        if not any(part in name for part in whole):
            expected += base[name].half()
        assert torch.equal(made[name].view(torch.int16), expected.view(torch.int16)), name


def test_a_grown_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    model(tmp_path / "base", torch.float16, 0, "safetensors")
    model(tmp_path / "delta", torch.float16, 1, "safetensors")
    file = tmp_path / "delta/model-00001-of-00002.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"] = torch.zeros(33, 8, dtype=torch.float16)
    save_file(tensors, file)
    done = run(
        "delta", "apply", "--rule", "fastchat", "--base", tmp_path / "base",
        "--target", tmp_path / "target", "--delta", tmp_path / "delta",
    )  # fmt: skip
    assert done.returncode == 2
    assert "model.embed_tokens.weight" in done.stderr
    assert not (tmp_path / "target").exists()


class Code:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"weight": torch.zeros(3), "more": Code(mark)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: its pickle calls"):
        read_pickled(tmp_path / "pytorch_model.bin")
    assert not mark.exists()


def test_views_in_a_pickle_are_read_in_place_or_refused(tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.int64).reshape(4, 6)
    file = tmp_path / "x.bin"
    torch.save({"rows": whole[1:3], "p": torch.nn.Parameter(torch.ones(2))}, file)
    rows, parameter = read_pickled(file)
    raw = file.read_bytes()
    assert raw[rows.start : rows.start + rows.size] == whole[1:3].numpy().tobytes()
    assert (parameter.name, parameter.dtype, parameter.shape) == ("p", "F32", (2,))
    torch.save({"turned": whole.T}, file)
    with pytest.raises(UserError, match="strides"):
        read_pickled(file)


def test_an_adapter_is_merged_as_peft_merges_it(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tuned = get_peft_model(base, LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "down_proj"]))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    done = run(
        "delta",
        "make",
        "--base",
        tmp_path / "base",
        "--adapter",
        tmp_path / "adapter",
        "--delta",
        tmp_path / "d",
    )
    assert done.returncode == 0, done.stderr
    done = run(
        "delta", "apply", "--base", tmp_path / "base", "--target", tmp_path / "t", "--delta", tmp_path / "d"
    )
    assert done.returncode == 0, done.stderr
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    merged = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "t")
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(made.state_dict()[name], tensor, rtol=0, atol=1e-6)
    assert not torch.equal(made.model.layers[0].mlp.down_proj.weight, base.model.embed_tokens.weight)
