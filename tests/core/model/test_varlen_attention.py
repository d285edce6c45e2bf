"""Documents that share a block: none sees another, each is computed as if it stood alone, and no mask of
length x length is ever built."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core.model import varlen_attention
from core.model.loss_head import IGNORED, summed_loss
from core.train.dataloader import collate

LENGTHS = [[37, 1, 90], [128], [2, 100, 26]]
"""Documents of three blocks of 128."""


def make_model(implementation: str = varlen_attention.NAME, **settings: Any) -> Any:
    """A small LLaMA with weights so large that attention matters; the same for every implementation."""
    from transformers import AutoConfig, AutoModelForCausalLM

    varlen_attention.register()
    architecture: dict[str, Any] = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "vocab_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
    }  # fmt: skip
    config = AutoConfig.for_model(**(architecture | settings))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(8 if "proj" in name else 1)
    return model


def make_batch(lengths: list[list[int]]) -> dict[str, torch.Tensor]:
    """Blocks of random documents of these lengths, as `data.packing.packed_dataset` gives them."""
    random = np.random.default_rng(0)
    samples = []
    for documents in lengths:
        ids = random.integers(0, 64, sum(documents) + 1)
        positions = np.concatenate([np.arange(n) for n in documents])
        samples.append({"input_ids": ids[:-1], "position_ids": positions, "labels": ids[1:]})
    return collate(samples, torch.device("cpu"))


def test_boundaries_are_those_of_the_documents_and_of_the_rows() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1], [3, 4, 0, 0, 1]])  # the second row begins inside a document
    assert varlen_attention.boundaries(positions).tolist() == [0, 3, 5, 7, 8, 10]


@pytest.mark.parametrize("implementation", [varlen_attention.NAME, "sdpa"])
def test_the_gradient_from_one_document_to_another_is_exactly_0(implementation: str) -> None:
    model, batch = make_model(implementation), make_batch(LENGTHS)
    found = _gradients(model, batch)
    edges = varlen_attention.boundaries(batch["position_ids"]).tolist()
    for number, gradient in enumerate(found):
        inside = torch.zeros(len(gradient), dtype=torch.bool)
        inside[edges[number] : edges[number + 1]] = True
        assert gradient[~inside].abs().max() == 0
        assert gradient[inside].abs().max() > 0


def _gradients(model: Any, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """For each document: of its loss, with respect to the embedding of each token of the batch."""
    embedded: list[torch.Tensor] = []
    model.model.embed_tokens.register_forward_hook(lambda _m, _i, out: embedded.append(out))
    found = []
    edges = varlen_attention.boundaries(batch["position_ids"]).tolist()
    for first, last in itertools.pairwise(edges):
        labels = torch.full_like(batch["labels"], IGNORED).flatten()
        labels[first:last] = batch["labels"].flatten()[first:last]
        loss = summed_loss(model, batch | {"labels": labels.view_as(batch["labels"])})
        found.append(torch.autograd.grad(loss, embedded[-1])[0].flatten(0, 1))
    return found


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_each_document_is_computed_as_if_it_stood_alone(heads: int) -> None:
    batch, model = make_batch(LENGTHS), make_model(num_key_value_heads=heads)
    alone = make_model("eager", num_key_value_heads=heads)
    summed_loss(model, batch).backward()
    total = torch.zeros(())
    ids, labels = batch["input_ids"].flatten(), batch["labels"].flatten()
    edges = varlen_attention.boundaries(batch["position_ids"]).tolist()
    for first, last in itertools.pairwise(edges):
        logits = alone(input_ids=ids[None, first:last], use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, labels[first:last], reduction="sum")
        loss.backward()
        total += loss.detach()
    assert summed_loss(model, batch).item() == pytest.approx(float(total), rel=1e-6)
    for (name, mine), theirs in zip(model.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-3, msg=name)


def test_a_sliding_window_stays_what_the_model_asks_for() -> None:
    settings = {"model_type": "mistral", "sliding_window": 16}
    batch = make_batch(LENGTHS)
    names = (varlen_attention.NAME, "eager")
    found = [summed_loss(make_model(name, **settings), batch).item() for name in names]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    whole = make_model(model_type="mistral", sliding_window=None)
    assert found[0] != pytest.approx(summed_loss(whole, batch).item(), rel=1e-4)


class Largest(TorchDispatchMode):
    """Notes the most elements that any tensor made under it has."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize(("implementation", "dense"), [(varlen_attention.NAME, False), ("sdpa", True)])
def test_no_tensor_of_length_x_length_is_made(implementation: str, dense: bool) -> None:
    model, batch = make_model(implementation), make_batch([[700, 324]])
    with Largest() as largest:
        summed_loss(model, batch).backward()
    assert (largest.elements >= 1024 * 1024) is dense


def test_text_is_generated_as_by_transformers_own_attention() -> None:
    prompt = torch.arange(5)[None]
    texts = [
        make_model(name).generate(prompt, max_new_tokens=20, do_sample=False)
        for name in (varlen_attention.NAME, "sdpa")
    ]
    assert torch.equal(*texts)
