"""The chunked loss is the plain loss: value and gradients, in fp32 and bf16, with every label ignored, tied
or not."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from core.distributed.process_group import World
from core.errors import UserError
from core.model import loss_head as losses
from core.model.loss_head import IGNORED, LossHead, chunked_loss, full_loss, install, summed_loss
from core.train.dataloader import collate

ALONE = World(0, 1, 0, torch.device("cpu"))


def inputs(dtype: torch.dtype = torch.float32, *, bias: bool = False) -> list[Any]:
    """Hidden states (2, 40, 16), weight (53, 16), bias and labels (2, 40), some ignored."""
    torch.manual_seed(0)
    hidden = torch.randn(2, 40, 16).to(dtype).requires_grad_()
    weight = torch.randn(53, 16).to(dtype).requires_grad_()
    labels = torch.randint(0, 53, (2, 40))
    labels[0, :7] = labels[1, 30:] = IGNORED
    return [hidden, weight, torch.randn(53).to(dtype).requires_grad_() if bias else None, labels]


@pytest.mark.parametrize("rows", [16, 17, 1000])
@pytest.mark.parametrize("bias", [False, True])
def test_value_and_gradients_are_those_of_the_full_logits(
    rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses.CHUNK, "cpu", rows)
    hidden, weight, offset, labels = inputs(bias=bias)
    leaves = [tensor for tensor in (hidden, weight, offset) if tensor is not None]
    expected = full_loss(torch.nn.functional.linear(hidden, weight, offset), labels)
    found = chunked_loss(hidden, weight, offset, labels)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected * 0.3, leaves)
    torch.testing.assert_close(torch.autograd.grad(found * 0.3, leaves), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [16, 17, 1000])
@pytest.mark.parametrize("bias", [False, True])
def test_losses_of_tokens_and_their_gradients_are_those_of_the_full_logits(
    rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses.CHUNK, "cpu", rows)
    hidden, weight, offset, labels = inputs(bias=bias)
    leaves = [tensor for tensor in (hidden, weight, offset) if tensor is not None]
    logits = torch.nn.functional.linear(hidden, weight, offset).flatten(0, 1)
    expected = cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="none")
    found = losses._TokenLosses.apply(hidden.flatten(0, 1), weight, offset, labels.flatten())
    torch.testing.assert_close(found, expected)
    shares = torch.randn(len(found))
    wanted = torch.autograd.grad(expected, leaves, shares)
    torch.testing.assert_close(torch.autograd.grad(found, leaves, shares), wanted, rtol=1e-5, atol=1e-6)


def test_in_bf16_the_gradients_are_as_near_to_fp32_as_those_of_the_full_logits() -> None:
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs(torch.bfloat16)[:2]]
    hidden, weight, _, labels = inputs(torch.bfloat16)
    truth = torch.autograd.grad(full_loss(exact[0] @ exact[1].T, labels), exact)
    plain = torch.autograd.grad(full_loss(hidden @ weight.T, labels), [hidden, weight])
    ours = torch.autograd.grad(chunked_loss(hidden, weight, None, labels), [hidden, weight])
    for true, theirs, found in zip(truth, plain, ours, strict=True):
        assert found.dtype == torch.bfloat16
        assert (found.float() - true).norm() <= 1.05 * (theirs.float() - true).norm()


def test_a_frozen_output_layer_and_a_row_without_labels() -> None:
    hidden, weight, _, labels = inputs()
    found = chunked_loss(hidden, weight.detach(), None, labels)
    expected = full_loss(hidden @ weight.detach().T, labels)
    torch.testing.assert_close(torch.autograd.grad(found, hidden), torch.autograd.grad(expected, hidden))
    nothing = chunked_loss(hidden, weight, None, torch.full_like(labels, IGNORED))
    nothing.backward()
    assert nothing == 0
    assert not hidden.grad.any()


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_trains_the_same_and_its_logits_are_never_whole(
    tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=2**18, tie_word_embeddings=tied, **shape))
    ids = torch.randint(0, 997, (1, 129))
    batch = {
        "input_ids": ids[:, :-1],
        "position_ids": torch.arange(128)[None],
        "labels": ids[:, 1:].contiguous(),
    }
    expected = summed_loss(model, batch)
    expected.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            found = function(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                largest = max(largest, found.numel())
            return found

    install(model, "chunked")
    monkeypatch.setitem(losses.CHUNK, "cpu", 32)
    with Watch():
        found = summed_loss(model, batch)
        found.backward()
    torch.testing.assert_close(found, expected)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-5)
    with Watch():
        losses.token_losses(model, batch).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * wanted[name], rtol=1e-4, atol=1e-5)
    assert largest <= 32 * 2**18
    assert model(input_ids=ids).logits.shape == (1, 129, 2**18), "without labels there are logits, as ever"


def test_liger_is_chosen_where_it_can_be_and_asked_for_in_vain_it_says_why() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    assert losses.choose("auto", None) == losses.choose("liger", None) == "liger"
    assert losses.choose("auto", "there is no GPU") == "chunked"
    if not torch.cuda.is_available():
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_attention_heads=2, **shape))
        with pytest.raises(
            UserError, match=r"cross_entropy=liger: it needs a GPU.*set model\.cross_entropy=auto"
        ):
            install(model, "liger")
        install(model, "auto")
        assert isinstance(model.lm_head, LossHead)
        assert model.lm_head.loss is chunked_loss


@pytest.mark.parametrize("trained", [0.0, 0.3])
def test_places_that_are_not_learnt_make_no_logits_and_change_nothing(trained: float) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=97, **shape))
    install(model, "chunked")
    losses.measure(model)
    ids = torch.randint(0, 97, (2, 65)).numpy()
    labels = ids[:, 1:].copy()
    labels[:, int(64 * trained) : 63] = IGNORED
    labels[:, 63:] = labels[:, 63:] if trained else IGNORED
    samples = [
        {"input_ids": row[:-1], "position_ids": torch.arange(64).numpy(), "labels": label}
        for row, label in zip(ids, labels, strict=True)
    ]
    batch = collate(samples, torch.device("cpu"))
    rows: list[int] = []
    head = model.get_output_embeddings()

    def watched(hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(hidden.shape[-2])
        return chunked_loss(hidden, *rest)

    head.loss = watched
    found = []
    for each in (batch, {name: batch[name] for name in batch if name != "learnt"}):
        loss = summed_loss(model, each)
        loss.backward()
        measures = losses.take_measures(model, ALONE)
        found.append(
            [loss.detach(), *(p.grad for p in model.parameters()), torch.tensor([*measures.values()])]
        )
        model.zero_grad()
    assert rows == [int((batch["labels"] != IGNORED).sum()), batch["labels"].numel()]
    for ours, whole in zip(*found, strict=True):
        torch.testing.assert_close(ours, whole)


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("kind", ["llama", "tied llama", "gpt_neox"])
def test_the_new_layer_has_the_same_parameters_under_the_same_names(kind: str, adapted: bool) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from core.config.schema import AdapterConfig
    from core.model.lora import attach

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        kind.removeprefix("tied "), **shape, vocab_size=97, tie_word_embeddings="tied" in kind
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    if adapted:
        model = attach(model, AdapterConfig(r=2, embeddings=True), "base", 0)
    ids = torch.arange(20)[None]
    before, stored, logits = dict(model.named_parameters()), list(model.state_dict()), model(ids).logits
    install(model, "chunked")
    assert isinstance(losses.output_layer(model), LossHead)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before), "the optimizer and ZeRO 3 know them"
    assert list(model.state_dict()) == stored
    assert torch.equal(model(ids).logits, logits)
    inputs, outputs = model.get_input_embeddings(), losses.output_layer(model)
    trained = inputs.modules_to_save["default"] if adapted else inputs
    assert (outputs.weight is trained.weight) == ("tied" in kind)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("vocabulary", [1_000, 32_000, 49_953, 128_256, 262_144, 2**24])
def test_a_larger_vocabulary_takes_no_more_memory_for_its_logits(vocabulary: int, device: str) -> None:
    places = losses.chunk_places(vocabulary, device)
    assert 16 <= places <= losses.CHUNK[device]
    assert places * vocabulary <= losses.CHUNK_ELEMENTS[device] or places == 16
