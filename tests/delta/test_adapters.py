"""Whatever peft's merge_and_unload makes of an adapter is right: `make --adapter` gives the same weights, or
refuses the setting by name. peft itself is asked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import UserError
from delta.lora_merge import Merged, as_float32
from delta.safetensors_io import ModelFolder
from tests.delta.models import delta

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("adapters") / "base"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        attention_bias=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def adapter(base: Path, folder: Path, embeddings: bool = False, **settings: Any) -> Path:
    """An adapter that peft made and saved, with all of its weights changed as if trained."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    shared = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "up_proj"]}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**shared | settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder, save_embedding_layers=embeddings)
    return folder


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    found: dict[str, torch.Tensor] = model.merge_and_unload().state_dict()
    return found


def merged_here(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    source = Merged(ModelFolder(base), adapter)
    return {
        name: torch.from_numpy(as_float32(b"".join(source.read(name, 200)), "F32")).reshape(tensor.shape)
        for name, tensor in source.tensors.items()
    }


NAMES = r".*\.(0\.self_attn\.k|1\.mlp\.up)_proj"
MERGED: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "no start at zero": {"init_lora_weights": False},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "eva": {"init_lora_weights": "eva"},
    "ranks by layer": {"rank_pattern": {"layers.0.self_attn.q_proj": 2, r"^model\.layers\.1\.mlp.*": 8}},
    "alphas by layer": {"alpha_pattern": {"q_proj": 3, r"layers\.1\.mlp\.up_proj": 1.5}},
    "both, rank-stabilised": {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"q": 2}},
    "a regular expression": {"target_modules": NAMES},
    "all linear layers": {"target_modules": "all-linear"},
    "the output layer": {"target_modules": ["lm_head"]},
    "some layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "without some": {"target_modules": "all-linear", "exclude_modules": ["v_proj", "layers.0.mlp.up_proj"]},
}
REFUSED: dict[str, dict[str, Any]] = {
    'init_lora_weights="pissa"': {"init_lora_weights": "pissa"},
    'init_lora_weights="pissa_niter_4"': {"init_lora_weights": "pissa_niter_4"},
    'init_lora_weights="olora"': {"init_lora_weights": "olora"},
    'init_lora_weights="mica"': {"init_lora_weights": "mica"},
    "use_dora=true": {"use_dora": True},
    "lora_bias=true": {"lora_bias": True, "target_modules": ["q_proj"]},
    'bias="all"': {"bias": "all"},
    'bias="lora_only"': {"bias": "lora_only"},
    'modules_to_save=["lm_head"]': {"modules_to_save": ["lm_head"]},
    'trainable_token_indices=[3, 5]': {"trainable_token_indices": [3, 5]},
    "layer_replication=[[0, 2], [1, 2]]": {"layer_replication": [[0, 2], [1, 2]]},
    "alora_invocation_tokens=[1, 2]": {"alora_invocation_tokens": [1, 2]},
    'target_parameters=["q_proj.weight"]': {"target_parameters": ["q_proj.weight"], "target_modules": []},
    "lm_head.base_layer.weight does not": {"target_modules": ["lm_head"], "embeddings": True},
    "lora_embedding_A": {"target_modules": ["embed_tokens"]},
}  # fmt: skip


@pytest.mark.parametrize("kind", MERGED)
def test_the_merged_weights_are_those_of_peft(tmp_path: Path, base: Path, kind: str) -> None:
    folder = adapter(base, tmp_path / "adapter", **MERGED[kind])
    want, made, before = (
        merged_by_peft(base, folder),
        merged_here(base, folder),
        load_file(base / "model.safetensors"),
    )
    assert made.keys() == before.keys()
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, want[name], rtol=0, atol=1e-6)
    changed = {name.rpartition(".lora_")[0] for name in load_file(folder / "adapter_model.safetensors")}
    assert sum(not torch.equal(made[name], before[name]) for name in made) == len(changed) > 0


def test_an_adapter_that_peft_converted_to_the_unchanged_base_is_merged(tmp_path: Path, base: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], init_lora_weights="pissa")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * parameter.requires_grad)
    model.save_pretrained(
        tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    want, made = merged_by_peft(base, tmp_path / "adapter"), merged_here(base, tmp_path / "adapter")
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, want[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("named", REFUSED)
def test_what_is_more_than_a_plain_adapter_is_refused_by_name(tmp_path: Path, base: Path, named: str) -> None:
    folder = adapter(base, tmp_path / "adapter", **REFUSED[named])
    code, said = delta("make", "--base", base, "--adapter", folder, "--delta", tmp_path / "d")
    assert code == 2
    assert named in said
    assert not (tmp_path / "d").exists()


def set_key(**keys: Any) -> Change:
    return lambda config: config.update(keys)


EDITED: dict[str, tuple[Change, str]] = {
    "corda": (set_key(init_lora_weights="corda"), 'init_lora_weights="corda"'),
    "loftq": (set_key(init_lora_weights="loftq"), 'init_lora_weights="loftq"'),
    "lora-ga": (set_key(init_lora_weights="lora_ga"), 'init_lora_weights="lora_ga"'),
    "fan in, fan out": (set_key(fan_in_fan_out=True), "fan_in_fan_out=true"),
    "kasa": (set_key(kasa_config={"beta": 1}), 'kasa_config={"beta": 1}'),
    "of another year": (set_key(use_new_idea=True), "use_new_idea=true"),
    "another method": (set_key(peft_type="LOHA"), "peft_type='LOHA'"),
    "another rank": (set_key(r=8), "has rank 4, but"),
    "another rank by layer": (set_key(rank_pattern={"q_proj": 2}), "has rank 4, but"),
    "another layer": (set_key(target_modules=["k_proj"]), "leaves this layer out"),
    "a layer left out": (set_key(exclude_modules="model.*q_proj"), "leaves this layer out"),
    "no rank": (lambda config: config.pop("r"), "damaged"),
    "a rank of zero": (set_key(r=0), "damaged"),
    "no number": (set_key(lora_alpha="16"), "damaged"),
    "infinity": (set_key(lora_alpha=float("inf")), "damaged"),
    "a pattern that is none": (set_key(rank_pattern={"(": 4}), "damaged"),
    "targets that are none": (set_key(target_modules="("), "damaged"),
    "numbers as targets": (set_key(target_modules=[1]), "damaged"),
}


@pytest.fixture(scope="module")
def plain(base: Path) -> Path:
    return adapter(base, base.parent / "plain")


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "adapter"))


@pytest.mark.parametrize("case", EDITED)
def test_so_is_a_configuration_that_says_something_else(base: Path, copied: Path, case: str) -> None:
    change, named = EDITED[case]
    config = json.loads((copied / "adapter_config.json").read_text())
    change(config)
    (copied / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as refused:
        Merged(ModelFolder(base), copied)
    assert named in str(refused.value)


WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor], str], object]] = {
    "half a pair": lambda tensors, name: tensors.pop(name),
    "the other half": lambda tensors, name: tensors.pop(name.replace("lora_A", "lora_B")),
    "without the prefix": lambda tensors, name: tensors.update({name[17:]: tensors.pop(name)}),
    "of no layer": lambda tensors, name: tensors.update({name.replace("q_proj", "x"): torch.zeros(4, 16)}),
    "nothing": lambda tensors, _: tensors.clear(),
    "another shape": lambda tensors, name: tensors.update({name: torch.zeros(4, 3)}),
    "a vector": lambda tensors, name: tensors.update({name: torch.zeros(16)}),
    "whole numbers": lambda tensors, name: tensors.update({name: torch.zeros(4, 16, dtype=torch.int8)}),
}  # fmt: skip


@pytest.mark.parametrize("case", WEIGHTS)
def test_so_are_weights_that_do_not_fit(base: Path, copied: Path, case: str) -> None:
    file = copied / "adapter_model.safetensors"
    tensors = load_file(file)
    WEIGHTS[case](tensors, next(name for name in tensors if "q_proj.lora_A" in name))
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: "):
        Merged(ModelFolder(base), copied)


def test_an_output_layer_that_is_the_embedding_is_not_parted_from_it(tmp_path: Path, base: Path) -> None:
    folder = adapter(base, tmp_path / "adapter", target_modules=["lm_head"])
    tensors = load_file(base / "model.safetensors")
    tied = tmp_path / "tied"
    tied.mkdir()
    save_file(
        tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, tied / "model.safetensors"
    )
    with pytest.raises(UserError, match=r"lm_head\.weight is one weight with model\.embed_tokens\.weight"):
        Merged(ModelFolder(tied), folder)


@pytest.mark.parametrize(
    ("dtype", "advice"), [("bfloat16", "sft merge"), ("float16", "from_pretrained in float16")]
)
def test_the_advice_gives_a_model_of_the_bases_type(
    tmp_path: Path, base: Path, dtype: str, advice: str
) -> None:
    folder = adapter(base, tmp_path / "adapter", use_dora=True)
    (tmp_path / "b").mkdir()
    of_type = {
        name: tensor.to(getattr(torch, dtype))
        for name, tensor in load_file(base / "model.safetensors").items()
    }
    save_file(of_type, tmp_path / "b/model.safetensors")
    with pytest.raises(UserError, match=advice):
        Merged(ModelFolder(tmp_path / "b"), folder)


def test_a_base_of_transposed_matrices_is_refused(base: Path, copied: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "base/config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="a base of type gpt2"):
        Merged(ModelFolder(tmp_path / "base"), copied)
