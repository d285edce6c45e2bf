"""What a run saves is saved before it trains: settings are repaired, and what cannot be saved is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from core.checkpoint.rehearsal import rehearse
from core.config.schema import ModelConfig
from core.errors import UserError
from core.model import lora
from core.model.loading import load_model, repair_generation
from tests.sft.awkward import VICUNA, awkward
from tests.sft.chats import Bases, bases

__all__ = ["bases"]

SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (VICUNA, VICUNA | {"do_sample": True}),
    ({"do_sample": False, "temperature": 0.9}, {"do_sample": False}),
    ({"temperature": 0.0, "top_p": 0.6}, {}),
    ({"early_stopping": True, "length_penalty": 0.5}, {}),
    ({"output_scores": True, "top_k": 10}, {"do_sample": True, "top_k": 10}),
    ({"pad_token_id": -1, "min_p": 0.1}, {"do_sample": True, "min_p": 0.1}),
]
"""Generation settings that transformers loads and refuses to save, and what is saved of them."""


@pytest.mark.parametrize(("given", "saved"), SETTINGS)
def test_generation_settings_that_contradict_themselves_are_repaired(
    given: dict[str, Any], saved: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(given))
    settings = GenerationConfig.from_pretrained(tmp_path)
    settings.eos_token_id = 2
    with pytest.raises(ValueError, match="invalid"):
        settings.save_pretrained(tmp_path)
    model = type("Model", (), {"generation_config": settings})
    assert repair_generation(model).startswith("the base's generation settings contradict themselves")
    settings.save_pretrained(tmp_path)
    found = json.loads((tmp_path / "generation_config.json").read_text())
    assert {key: value for key, value in found.items() if key in given | saved} == saved
    assert repair_generation(model) == ""


ADAPTERS = [None, {"r": 2}, {"r": 2, "embeddings": True}]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "qwen2"])
def test_what_trains_is_rehearsed(
    bases: Bases, tmp_path: Path, kind: str, adapter: dict[str, Any] | None, tied: bool
) -> None:
    base = awkward(bases, tmp_path / "base", kind, generation=VICUNA, tie_word_embeddings=tied)
    config = ModelConfig.model_validate({"path": base, "adapter": adapter})
    if kind == "gpt_neox" and tied and adapter and "embeddings" in adapter:
        with pytest.raises(UserError, match=r"model\.adapter\.embeddings=false"):
            rehearse(base, config)  # peft does not know this family's names
    else:
        rehearse(base, config)


def test_what_could_not_be_saved_is_refused_before_training(bases: Bases, tmp_path: Path) -> None:
    base = awkward(bases, tmp_path / "base", generation={"num_return_sequences": 3})
    with pytest.raises(UserError, match=r"could not be saved .*num_return_sequences.* Nothing was trained"):
        rehearse(base, ModelConfig(path=base))
    with pytest.raises(UserError, match="target_modules"):
        rehearse(bases.path(), ModelConfig.model_validate(
            {"path": bases.path(), "adapter": {"target_modules": ["query_key_value"]}}
        ))  # fmt: skip


def test_a_base_that_is_not_here_is_left_to_what_loads_it(tmp_path: Path) -> None:
    rehearse("nobody/nothing", ModelConfig(path="nobody/nothing"))
    (tmp_path / "config.json").write_text('{"model_type": "of the future"}')
    rehearse(str(tmp_path), ModelConfig(path=str(tmp_path)))


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_tied_embeddings_trained_in_full_are_stored_opened_and_merged(
    bases: Bases, tmp_path: Path, kind: str
) -> None:
    from peft import PeftModel

    base = awkward(bases, tmp_path / "base", kind, tie_word_embeddings=True)
    config = ModelConfig.model_validate({"path": base, "adapter": {"r": 2, "embeddings": True}})
    model = load_model(base, config, torch.float32)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    with torch.no_grad():
        for weight in trained.values():
            weight.add_(0.1 * torch.randn_like(weight))
    (tmp_path / "adapter").mkdir()
    lora.write(model, trained, tmp_path / "adapter")
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter"))
    on = ModelConfig.model_validate({"path": base, "adapter": {"path": str(tmp_path / "adapter")}})
    ids = torch.arange(12)[None]
    with torch.no_grad():
        wanted = opened.eval()(input_ids=ids).logits
        continued = load_model(base, on, torch.float32).eval()
        merged = opened.merge_and_unload()
        assert torch.equal(continued.get_input_embeddings().weight, merged.get_input_embeddings().weight)
        assert torch.allclose(merged(input_ids=ids).logits, wanted, atol=1e-5)
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    told = {name: p for name, p in model.named_parameters() if "modules_to_save" in name}
    assert all(torch.equal(p, merged.lm_head.weight) for p in told.values())
