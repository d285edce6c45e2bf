"""Documents that share a row do not see each other: not a bit of gradient goes from one to another."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core import attention
from core.model import load_model
from core.schema import ModelConfig

LENGTHS = [[5, 1, 17, 9], [32]]
"""Documents of the two rows of a batch."""
SHAPE = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LLaMA with grouped heads, and weights so large that a leak would not hide in the rounding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim == 2 else 1)
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


def opened(folder: Path, **settings: Any) -> Any:
    """The model as training loads it."""
    return load_model(str(folder), ModelConfig(path=str(folder), **settings), torch.float32).train()


def packed() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and position ids, (2, 32)."""
    torch.manual_seed(1)
    positions = [torch.cat([torch.arange(length) for length in row]) for row in LENGTHS]
    return torch.randint(0, 97, (2, 32)), torch.stack(positions)


def forward(model: Any, ids: torch.Tensor, positions: torch.Tensor, *, given: bool) -> torch.Tensor:
    """Logits; with the boundaries given, or found from the position ids."""
    edges = attention.arguments(*attention.boundaries(positions)) if given else {}
    logits: torch.Tensor = model(inputs_embeds=ids, position_ids=positions, use_cache=False, **edges).logits
    return logits


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("given", [True, False])
def test_the_gradient_from_one_document_to_another_is_exactly_zero(
    folder: Path, given: bool, checkpointed: bool
) -> None:
    model = opened(folder, activation_checkpointing="full" if checkpointed else "none")
    ids, positions = packed()
    for row, lengths in enumerate(LENGTHS):
        start = 0
        for length in lengths:
            inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
            forward(model, inputs, positions, given=given)[row, start : start + length].sum().backward()
            gradient = inputs.grad.clone()
            assert gradient[row, start : start + length].abs().max() > 1e-3
            gradient[row, start : start + length] = 0
            assert gradient.abs().max() == 0.0
            start += length


def test_packed_documents_get_the_logits_and_gradients_that_they_get_alone(folder: Path) -> None:
    model, alone = opened(folder), opened(folder, attention="eager")
    ids, positions = packed()
    logits = forward(model, model.get_input_embeddings()(ids), positions, given=True)
    logits.logsumexp(-1).sum().backward()
    for row, lengths in enumerate(LENGTHS):
        pieces = [alone(input_ids=part[None]).logits[0] for part in ids[row].split(lengths)]
        torch.testing.assert_close(logits[row], torch.cat(pieces), rtol=1e-4, atol=1e-4)
        torch.cat(pieces).logsumexp(-1).sum().backward()
    for mine, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(
            mine.grad, theirs.grad, rtol=1e-3, atol=1e-3 * float(theirs.grad.abs().max())
        )


def test_no_mask_is_ever_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor | None] = []

    def spy(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
        seen.append(mask)
        return attention.inside_documents(module, query, key, value, mask, **rest)

    from transformers import AttentionInterface

    model = opened(folder)
    monkeypatch.setitem(AttentionInterface._global_mapping, attention.NAME, spy)
    ids, positions = packed()
    forward(model, model.get_input_embeddings()(ids), positions, given=True)
    assert seen == [None, None]


def test_generation_with_a_cache_writes_what_transformers_writes(folder: Path, tmp_path: Path) -> None:
    model, theirs = opened(folder).eval(), opened(folder, attention="sdpa").eval()
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    settings = {
        "max_new_tokens": 12,
        "do_sample": False,
        "use_cache": True,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    assert torch.equal(model.generate(prompt, **settings), theirs.generate(prompt, **settings))
    model.save_pretrained(tmp_path)
    assert attention.NAME not in (tmp_path / "config.json").read_text()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the variable-length kernel needs a GPU")
def test_the_kernel_of_a_gpu_agrees_with_one_document_at_a_time() -> None:
    torch.manual_seed(0)
    shapes = [(2, 4, 32, 64), (2, 2, 32, 64), (2, 2, 32, 64)]
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16).requires_grad_() for shape in shapes)
    edges, longest = attention.boundaries(packed()[1])
    given = {"cu_seq_lens_q": edges.cuda(), "max_length_q": longest, "scaling": 0.1}
    assert attention.variable_length_kernel() is not None
    found, _ = attention.inside_documents(torch.nn.Module(), q, k, v, None, **given)
    exact = attention._one_by_one(q.float(), k.float(), v.float(), edges, 0.1, 0.0)
    torch.testing.assert_close(found.float(), exact, rtol=2e-2, atol=2e-2)
    found[0, 6:23].float().sum().backward()  # the third document
    assert q.grad is not None
    assert k.grad is not None
    for gradient in (q.grad, k.grad):
        assert gradient[0, :, 6:23].abs().max() > 0
        assert (
            gradient[0, :, :6].abs().max() == gradient[0, :, 23:].abs().max() == gradient[1].abs().max() == 0
        )
