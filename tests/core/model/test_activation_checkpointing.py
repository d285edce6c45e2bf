"""Activation checkpointing and compilation change memory and speed, and no gradient."""

from functools import partialmethod
from typing import Any

import pytest
import torch

from core.config.schema import ModelConfig
from core.errors import UserError
from core.model import activation_checkpointing
from core.model import varlen_attention as attention
from core.model.memory_estimate import COMPILED_SHARE

SHAPE = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip


def trained(layers: int = 3, **settings: Any) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of a small LLaMA of so many layers, and the bytes that wait for its backward pass."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | {"num_hidden_layers": layers})).train()
    activation_checkpointing.prepare(model, ModelConfig(path="x", **settings))
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 97, (2, 64))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(input_ids=ids, use_cache=False).logits
    logits.logsumexp(-1).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(list(model.parameters()))
    return found, sum(kept.values())


def test_checkpointed_layers_keep_less_and_give_the_same_gradients() -> None:
    expected, everything = trained()
    kept = {}
    for kind in ("selective", "full"):
        found, kept[kind] = trained(activation_checkpointing=kind)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)
    assert kept["full"] < 0.6 * everything


def test_selective_repeats_fewer_matrix_products_than_full_and_no_attention() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        products = attention = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.products += function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
            self.attention += function is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
            return function(*args, **(kwargs or {}))

    counts, attention = {}, {}
    for kind in ("none", "selective", "full"):
        with Count() as counter:
            trained(activation_checkpointing=kind)
        counts[kind], attention[kind] = counter.products, counter.attention
    # Seven products a layer and three layers: full repeats all but the last, selective every second one.
    assert counts["none"] < counts["selective"] < counts["full"], counts
    assert counts["selective"] - counts["none"] <= 3 * 4
    assert attention == {"none": 3, "selective": 3, "full": 6}


def test_selective_keeps_what_the_kernel_of_a_gpu_gives() -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    assert varlen.torch.ops.torch_attn._varlen_attn.default.name() in activation_checkpointing.ATTENTION


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "selective", "full"])
def test_compiled_layers_give_the_same_gradients(kind: str) -> None:
    expected, _ = trained(layers=1)
    found, _ = trained(layers=1, compile=True, activation_checkpointing=kind)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_layers_keep_with_selective_what_the_estimate_counts() -> None:
    plain, compiled = (
        [trained(layers, compile=compile, activation_checkpointing=kind)[1] for layers in (1, 3)]
        for compile, kind in ((False, "none"), (True, "selective"))
    )
    share = (compiled[1] - compiled[0]) / (plain[1] - plain[0])
    assert 0.5 * COMPILED_SHARE < share < COMPILED_SHARE


@pytest.mark.slow
def test_compiled_layers_are_not_compiled_again_for_other_documents() -> None:
    from torch._dynamo.utils import counters
    from transformers import LlamaConfig, LlamaForCausalLM

    attention.register()
    config = LlamaConfig(**SHAPE, attn_implementation=attention.NAME)
    model = LlamaForCausalLM(config).train()
    activation_checkpointing.prepare(model, ModelConfig(path="x", compile=True))
    graphs = []
    for lengths in ([64], [30, 34], [10, 20, 34], [1, 2, 3, 58], [40, 24], [16] * 4, [63, 1], [8] * 8):
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        batch = {"input_ids": positions, "boundaries": attention.boundaries(positions)}
        given = attention.arguments(batch)
        model(input_ids=positions, position_ids=positions, use_cache=False, **given).logits.sum().backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[-1] == graphs[2], "once for one document, once for any number of them"


@pytest.mark.slow
def test_more_shapes_than_torch_allows_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo import config, reset
    from torch._dynamo.utils import counters
    from transformers import LlamaConfig, LlamaForCausalLM

    reset()
    monkeypatch.setattr(config, "recompile_limit", 8)
    monkeypatch.setattr(config, "automatic_dynamic_shapes", False)  # each length is a variant
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    activation_checkpointing.prepare(model, ModelConfig(path="x", compile=True))
    before = counters["stats"]["unique_graphs"]
    for length in range(2, 14):
        model(input_ids=torch.ones(1, length, dtype=torch.long), use_cache=False)
    assert counters["stats"]["unique_graphs"] - before >= 12
    reset()


def test_repeating_parts_of_layers_that_zero_3_has_split_is_refused() -> None:
    config = ModelConfig(path="x", activation_checkpointing="selective")
    with pytest.raises(UserError, match="Set it to full or none, or deepspeed"):
        activation_checkpointing.check(config, 3)
    activation_checkpointing.check(config, 2)


def test_what_cannot_be_compiled_is_refused() -> None:
    config = ModelConfig(path="x", compile=True)
    with pytest.raises(UserError, match=r"model\.compile"):
        activation_checkpointing.check(config, 3)
    activation_checkpointing.check(config, 2)
