"""LoRA on mixtures of experts: refused with dropout, before anything is loaded; without it, trained, written,
loaded and merged like any other adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core.config.schema import AdapterConfig, ModelConfig
from core.errors import UserError
from core.model import lora, proof
from core.model.loading import load_config, load_model
from core.model.loss_head import summed_loss
from sft.merge_adapter import open_model
from tests.core.model.test_proof import LATENT, write_base
from tests.core.model.test_varlen_attention import make_batch

EXPERTS = {"num_key_value_heads": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
BASES: list[tuple[str, dict[str, Any]]] = [
    ("mixtral", {**EXPERTS, "num_local_experts": 4}),
    ("qwen3_moe", {**EXPERTS, "num_experts": 4, "head_dim": 8}),
    ("deepseek_v3", LATENT),
]


@pytest.mark.parametrize(("family", "keys"), BASES)
def test_experts_are_adapted_and_merged_or_refused_before_training(
    family: str, keys: dict[str, Any], tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", family, keys)
    with pytest.raises(
        UserError, match=r"dropout=0\.05: the experts .*Set model\.adapter\.dropout=0, or name"
    ):
        proof.try_adapter(load_config(base), AdapterConfig(), base)
    settings = AdapterConfig(r=2, dropout=0)
    proof.try_adapter(load_config(base), settings, base)
    model = load_model(base, ModelConfig(path=base, adapter=settings), torch.float32)
    batch = make_batch([[20, 44]])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        summed_loss(model, batch).backward()
        optimizer.step()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    lora.write(model, trained, adapter)
    places = {"input_ids": batch["input_ids"][:, :20], "use_cache": False}
    with torch.no_grad():
        expected = model.eval()(**places).logits
        opened = open_model(base, torch.float32, adapter)
        torch.testing.assert_close(opened.eval()(**places).logits, expected)
        merged = opened.merge_and_unload()
        torch.testing.assert_close(merged(**places).logits, expected, rtol=1e-4, atol=1e-4)
    more = AdapterConfig(path=str(adapter))
    continued = load_model(base, ModelConfig(path=base, adapter=more), torch.float32)
    assert summed_loss(continued, batch).item() == pytest.approx(summed_loss(model, batch).item(), rel=1e-5)


def test_target_modules_that_do_not_exist_are_refused_before_training(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "llama", {})
    wrong = AdapterConfig(target_modules=("query_proj",))
    with pytest.raises(UserError, match=r"target_modules=\['query_proj'\]: not found in .*q_proj"):
        proof.try_adapter(load_config(base), wrong, base)
