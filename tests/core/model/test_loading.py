"""Where a model is placed while it is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from core.config.schema import ModelConfig
from core.model.loading import load_model

META = torch.device("meta")
"""In the place of a GPU: another device than the host."""


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A small LLaMA in fp16."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)).half().save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.mark.parametrize("adapter", [None, {"r": 2}])
def test_weights_go_to_the_device_one_by_one_and_are_cast(base: str, adapter: Any) -> None:
    config = ModelConfig.model_validate({"path": base, "adapter": adapter})
    model = load_model(base, config, torch.bfloat16, META)
    assert {p.device for p in model.parameters()} == {META}, "none is left on the host"
    assert {p.dtype for p in model.parameters() if not p.requires_grad or not adapter} == {torch.bfloat16}
    assert {p.device.type for p in load_model(base, config, torch.bfloat16).parameters()} == {"cpu"}


def test_zero_3_places_the_model_itself(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.integrations.is_deepspeed_zero3_enabled", lambda: True)
    model = load_model(base, ModelConfig(path=base), torch.bfloat16, META)
    assert {p.device.type for p in model.parameters()} == {"cpu"}
