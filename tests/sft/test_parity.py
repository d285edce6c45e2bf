"""Beside TRL: the same losses step by step in full and LoRA tuning, and the same DPO loss."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.train.dataloader import collate
from core.train.sampler import Order, Part
from sft.dpo_loss import Preference, log_probabilities
from sft.preference_data import PairsConfig, read_pairs
from tests.sft.chats import CHATS, Bases, metrics, train

STEPS, BATCH = 20, 4
SAME = [
    "packing=none", "data.template=llama3", f"training.steps={STEPS}", f"training.global_batch_size={BATCH}",
    "training.micro_batch_size=4", "training.validate_every_steps=null", "schedule.kind=constant",
    "schedule.warmup_steps=0", "optimizer.weight_decay=0.1", "optimizer.learning_rate=2e-3",
    "training.spike_z=null",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_twenty_steps_have_the_losses_of_trl(kind: str, bases: Bases, tmp_path: Path) -> None:
    adapter = []
    if kind == "lora":
        from core.config.schema import ModelConfig
        from core.model.loading import load_model

        config = ModelConfig(path=bases.path(), adapter={"r": 8, "dropout": 0.0}, seed=3)
        load_model(bases.path(), config, torch.float32).save_pretrained(tmp_path / "adapter")
        adapter = [f"model.adapter={{path: {tmp_path / 'adapter'}}}"]
    ours = train(bases, tmp_path, *SAME, *adapter)
    theirs = trl_losses(tmp_path, bases.path(), tmp_path / "adapter" if adapter else None)
    assert [line["loss"] for line in ours] == pytest.approx([each["loss"] for each in theirs], rel=1e-4)
    for name, column in (("mean_token_accuracy", "mean_token_accuracy_trl"), ("entropy", "entropy_trl")):
        assert [line[column] for line in ours] == pytest.approx([each[name] for each in theirs], rel=1e-3)
    assert ours[-1]["loss"] < 0.9 * ours[0]["loss"]


def trl_losses(folder: Path, base: str, adapter: Path | None) -> list[dict[str, float]]:
    """Losses of TRL's SFTTrainer on the rows that our run took, in the order in which it took them."""
    from datasets import Dataset
    from peft import PeftModel
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from data.chat.prepare import ChatSet
    from data.packing.indexed_dataset import Documents

    chats = ChatSet(folder / "chats")
    documents, marks = Documents(chats.split("train")), chats.trained("train")
    order = Order([Part("data", len(documents), 1.0)], STEPS * BATCH, 0)
    rows = []
    for position in range(STEPS * BATCH):
        number = order.at(position)[1]
        first, ids = documents.first_token(number), documents[number]
        rows.append({"input_ids": ids.tolist(), "completion_mask": marks[first : first + len(ids)].tolist()})

    class InOrder(SFTTrainer):
        seen: list[dict[str, float]] = []  # noqa: RUF012

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset or self.train_dataset)

        def log(self, logs: dict[str, float], *rest: Any, **more: Any) -> None:
            if "loss" in logs:
                means = {
                    key: float(np.mean(values)) for key, values in self._metrics["train"].items() if values
                }
                self.seen.append({"loss": self.exact, **means})
            super().log(logs, *rest, **more)

        def compute_loss(self, *given: Any, **more: Any) -> Any:
            loss = super().compute_loss(*given, **more)
            self.exact = float(loss[0] if isinstance(loss, tuple) else loss)
            return loss

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    settings = SFTConfig(
        str(folder / "trl"), max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=2e-3,
        lr_scheduler_type="constant", weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.95, adam_epsilon=1e-8,
        max_grad_norm=1.0, logging_steps=1, report_to=[], use_cpu=True, bf16=False, save_strategy="no",
        completion_only_loss=True, max_length=None, packing=False, gradient_checkpointing=False,
        disable_tqdm=True, optim="adamw_torch",
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(chats.tokenizer)
    trainer = InOrder(model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    return trainer.seen


PAIRS = [
    {"prompt": chat["instruction"], "chosen": chat["output"], "rejected": f"{chat['output']} Perhaps not so."}
    for chat in CHATS[::9]
]


def test_the_dpo_loss_is_that_of_trl(bases: Bases, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from data.chat.chat_template import install

    tokenizer = AutoTokenizer.from_pretrained(bases.path())
    install(tokenizer, "llama3")
    reference = AutoModelForCausalLM.from_pretrained(bases.path())
    policy = AutoModelForCausalLM.from_pretrained(bases.path())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))

    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS[:6]))
    read, _ = read_pairs(PairsConfig(paths=(str(file),), max_tokens=64, validation_share=0), tokenizer)
    pairs = read["train"]
    with torch.no_grad():
        for model in (policy, reference):
            model.set_attn_implementation(documents())
        batch = collate([pairs[i] for i in range(6)], torch.device("cpu"))
        pairs.reference = log_probabilities(reference, batch).double().numpy()
        batch = collate([pairs[i] for i in range(6)], torch.device("cpu"))
        ours = float(Preference(0.1).loss(policy, batch)) / 6
        for model in (policy, reference):
            model.set_attn_implementation("sdpa")

    rows = [
        {"prompt": [{"role": "user", "content": pair["prompt"]}]}
        | {key: [{"role": "assistant", "content": pair[key]}] for key in ("chosen", "rejected")}
        for pair in PAIRS[:6]
    ]
    settings = DPOConfig(
        str(tmp_path / "trl"), beta=0.1, per_device_train_batch_size=6, report_to=[], use_cpu=True,
        bf16=False, max_length=None, disable_tqdm=True, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        policy, reference, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    theirs = float(trainer.compute_loss(policy, next(iter(trainer.get_train_dataloader()))))
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert abs(ours - np.log(2)) > 1e-3, "the models differ"


def documents() -> str:
    """Attention inside documents, made known to transformers."""
    from core.model import varlen_attention

    varlen_attention.register()
    return varlen_attention.NAME


def test_preference_tuning_prefers_what_was_chosen_and_goes_on(bases: Bases, tmp_path: Path) -> None:
    from tests.conftest import run

    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    settings = [
        f"run_dir={tmp_path / 'run'}", f"model.path={bases.path()}", "model.adapter={r: 4, dropout: 0.0}",
        f"data.paths=[{tmp_path / 'pairs.jsonl'}]", "data.template=llama3", "data.max_tokens=64",
        "data.validation_share=0.3", "training.steps=8", "training.global_batch_size=4",
        "training.micro_batch_size=2", "training.validate_every_steps=4", "training.save_every_steps=4",
        "logging.every_steps=1", "logging.tensorboard=false", "optimizer.learning_rate=5e-3",
        "deepspeed.zero_stage=1",
    ]  # fmt: skip
    done = run("sft", "dpo", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    whole = metrics(tmp_path / "run")
    assert whole[0]["loss"] == pytest.approx(np.log(2), rel=1e-5), "the reference is where it starts"
    assert whole[-1]["validation_loss"] < 0.9 * np.log(2)
    assert whole[-1]["validation_reward_accuracy"] == 1.0
    assert re.search(r"step 8/8 .* \d+\.\d\d pairs/s$", done.stdout, re.MULTILINE)
    assert "mfu" not in whole[0], "that would be of tokens"
    newest = tmp_path / "run/checkpoints/step-00000008"
    newest.rename(newest.with_name("moved"))
    (newest.parent / "latest").write_text("step-00000004\n")
    again = run("sft", "dpo", *settings)
    assert again.returncode == 0, again.stderr
    assert "reference log-probabilities" not in again.stdout, "they were kept"
    assert [x["loss"] for x in metrics(tmp_path / "run")] == [x["loss"] for x in whole]
