"""LoRA and QLoRA through `python -m pretrain`: what is trained, stored, gone on from and refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from core.config.schema import ModelConfig
from core.errors import UserError
from core.model.loading import load_model
from core.model.loss_head import measure, summed_loss, take_measures
from core.train.dataloader import collate
from tests.conftest import TinyRuns, losses, warm

QLORA = ["model.adapter={r: 4, embeddings: true, load_in_4bit: true}", "optimizer.learning_rate=1e-2"]
SHORT = ["training.steps=3", "training.validate_every_steps=3", "training.save_every_steps=2"]
SHAPES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize("kind", ["qlora", pytest.param("lora", marks=pytest.mark.slow)])
def test_an_adapter_run_resumes_and_leaves_pefts_layout(tiny: TinyRuns, kind: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = QLORA if kind == "qlora" else [QLORA[0].replace("true}", "false}"), QLORA[1]]
    whole = tiny.train(f"{kind}-whole", *adapter, *SHORT)
    assert whole[-1]["validation_loss"] < whole[0]["loss"]
    tiny.train(f"{kind}-cut", *adapter, *SHORT)
    newest = tiny.folder / f"{kind}-cut" / "checkpoints" / "step-00000003"
    for file in sorted(newest.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    newest.rmdir()
    (newest.parent / "latest").write_text("step-00000002\n")
    resumed = tiny.train(f"{kind}-cut", *adapter, *SHORT)
    assert losses(resumed)[-1] == losses(whole)[-1]
    assert resumed[-1]["validation_loss"] == whole[-1]["validation_loss"]
    model = tiny.folder / f"{kind}-whole" / "model"
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {
        file.name for file in model.iterdir()
    }
    assert not (model / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(tiny.folder / "prepared" / "base")
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    tuned = PeftModel.from_pretrained(base, str(model)).merge_and_unload()
    changed = {name for name, weight in tuned.named_parameters() if not torch.equal(weight, before[name])}
    assert any("q_proj" in name for name in changed)
    assert any("embed_tokens" in name for name in changed)
    assert not any("norm" in name for name in changed)


def test_a_first_run_of_the_embeddings_alone_leaves_every_other_weight_and_resumes(tiny: TinyRuns) -> None:
    from safetensors.torch import load_file

    settings = ["model.trained=embeddings", "optimizer.learning_rate=1e-2", "deepspeed.zero_stage=2"]
    whole = tiny.train("embeddings", *settings, *SHORT)
    tiny.train("embeddings-cut", *settings, *SHORT)
    checkpoints = tiny.folder / "embeddings-cut" / "checkpoints"
    shutil.rmtree(checkpoints / "step-00000003")
    shutil.rmtree(tiny.folder / "embeddings-cut" / "model")
    assert losses(tiny.train("embeddings-cut", *settings, *SHORT)) == losses(whole)
    folders = (
        tiny.folder / "prepared" / "base",
        *(tiny.folder / f"embeddings{x}" / "model" for x in ("", "-cut")),
    )
    before, after, again = (load_file(folder / "model.safetensors") for folder in folders)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.embed_tokens.weight", "lm_head.weight"}
    assert all(torch.equal(after[name], again[name]) for name in after)
    following = tiny.train("all-after", f"model.path={folders[1]}", "training.steps=1")
    assert following[0]["loss"] < whole[0]["loss"]


def test_zero_3_and_layers_that_are_not_there_are_refused(tiny: TinyRuns) -> None:
    done = warm("pretrain", *tiny.overrides("z3", *QLORA, "deepspeed.zero_stage=3"))
    assert done.returncode == 2
    assert "deepspeed.zero_stage=3" in done.stderr
    assert "QLoRA" in done.stderr
    done = warm("pretrain", *tiny.overrides("layers", "model.adapter.target_modules=[query_key_value]"))
    assert done.returncode == 2
    assert "q_proj" in done.stderr


def test_an_adapter_of_another_base_is_refused(tiny: TinyRuns, tmp_path: Path) -> None:
    base = str(tiny.folder / "prepared" / "base")
    adapter = tmp_path / "adapter"
    config = ModelConfig(path=base, adapter={"r": 2})
    load_model(base, config, torch.float32).save_pretrained(adapter)
    other = make_base("llama", tmp_path)
    wrong = ModelConfig(path=other, adapter={"path": str(adapter)})
    with pytest.raises(UserError, match="another base"):
        load_model(other, wrong, torch.float32)
    with pytest.raises(UserError, match="not an adapter"):
        load_model(other, ModelConfig(path=other, adapter={"path": other}), torch.float32)


@pytest.mark.parametrize(
    "kind",
    [
        "llama",
        "gpt_neox",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("qwen2", "qwen3", "mistral")),
    ],
)
@pytest.mark.parametrize("bits", [4, 32])
def test_every_family_learns_through_an_adapter(kind: str, bits: int, tmp_path: Path) -> None:
    base = make_base(kind, tmp_path)
    settings = {"load_in_4bit": bits == 4, "embeddings": True, "dropout": 0.0}
    model = load_model(base, ModelConfig(path=base, adapter=settings), torch.float32)
    ids = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(1))
    batch = as_batch(ids, ids.roll(-1, 1))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    seen = []
    for _ in range(5):
        loss = summed_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.9 * seen[0]


def as_batch(ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Rows of one document each, as the loop collates them."""
    rows = zip(ids.numpy(), labels.numpy(), strict=True)
    samples = [{"input_ids": i, "position_ids": np.arange(len(i)), "labels": x} for i, x in rows]
    return collate(samples, torch.device("cpu"))


def make_base(kind: str, folder: Path) -> str:
    """A small model of the family `kind` with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    heads = {} if kind == "gpt_neox" else {"num_key_value_heads": 1}
    config = AutoConfig.for_model(
        kind, **SHAPES, **heads, vocab_size=256, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / kind)
    return str(folder / kind)


@pytest.mark.parametrize("way", ["chunked", "full"])
def test_accuracy_and_entropy_are_those_of_the_plain_formulas(way: str, tmp_path: Path) -> None:
    from core.distributed.process_group import World

    base = make_base("llama", tmp_path)
    model = load_model(base, ModelConfig(path=base, cross_entropy=way), torch.float32)
    measure(model)
    ids = torch.randint(3, 250, (4, 16), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = model(input_ids=ids, position_ids=torch.arange(16).expand(4, -1)).logits
        labels = torch.where(torch.rand(4, 16) < 0.3, logits.argmax(-1), ids)
        labels[0, :9], labels[3, 2:] = -100, -100
        for rows in (slice(0, 2), slice(2, 4)):
            summed_loss(model, as_batch(ids[rows], labels[rows]))
    found = take_measures(model, World(0, 1, 0, torch.device("cpu")))
    trained = labels != -100
    hits = (logits.argmax(-1) == labels).double()
    entropy = torch.distributions.Categorical(logits=logits.double()).entropy()
    assert found["token_accuracy"] == pytest.approx(float(hits[trained].mean()))
    assert found["entropy"] == pytest.approx(float(entropy[trained].mean()), rel=1e-5)
    halves = [(hits[rows][trained[rows]].mean(), entropy[rows][trained[rows]].mean()) for rows in
              (slice(0, 2), slice(2, 4))]  # fmt: skip
    assert found["mean_token_accuracy_trl"] == pytest.approx(float(sum(h for h, _ in halves)) / 2)
    assert found["entropy_trl"] == pytest.approx(float(sum(e for _, e in halves)) / 2, rel=1e-5)
    assert take_measures(model, World(0, 1, 0, torch.device("cpu"))) == {}, "each is told once"
