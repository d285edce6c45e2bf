"""One global batch, split in every way: the same gradient, whatever the ranks, accumulation and stage."""

import itertools
from pathlib import Path

import torch

from tests.conftest import run
from tests.core.gradient_worker import LENGTH, Uneven


def test_gradients_are_equal_for_every_split_and_stage(tmp_path: Path) -> None:
    """Sequences train on 1 to 32 tokens, so that a mean of means would be far off."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=97, max_position_embeddings=64, **shape))
    model.save_pretrained(tmp_path)
    found: dict[tuple[int, int, int], torch.Tensor] = {}
    for ranks in (1, 2):
        done = run("core.launch", "--processes", str(ranks), "-m", "tests.core.gradient_worker", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        saved = torch.load(tmp_path / f"gradients-{ranks}.pt")
        found |= {(ranks, *split): gradient for split, gradient in saved.items()}
    assert len(found) == 4 * (4 + 3)

    expected = _plain(model)
    assert expected.norm() > 0.1
    print("ranks  stage  micro-batch  accumulation  largest difference")
    for (ranks, stage, size), gradient in sorted(found.items()):
        difference = float((gradient - expected).abs().max())
        print(f"{ranks:5}{stage:7}{size:13}{8 // size // ranks:14}{difference:20.1e}")
        assert difference < 1e-5 * float(expected.abs().max()), (ranks, stage, size)


def _plain(model: torch.nn.Module) -> torch.Tensor:
    """The same by hand: document by document, summed losses over all trained tokens, no DeepSpeed."""
    nll, tokens = torch.zeros(()), 0
    for index in range(8):
        row = {name: torch.from_numpy(value) for name, value in Uneven()[index].items()}
        starts = [*torch.nonzero(row["position_ids"] == 0).flatten().tolist(), LENGTH]
        for first, last in itertools.pairwise(starts):
            logits = model(input_ids=row["input_ids"][None, first:last], use_cache=False).logits[0]
            labels = row["labels"][first:last]
            nll = nll + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            tokens += int((labels >= 0).sum())
    (nll / tokens).backward()
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return torch.cat([named[name].double().flatten() for name in sorted(named)])
