"""`make plan`: what it says is what the estimator says and what multiplication gives."""

from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig

from core.config.loader import load
from core.config.schema import DeepSpeedConfig, ModelConfig
from core.errors import UserError
from core.model.flops import PEAK_TFLOPS
from core.model.memory_estimate import estimate
from tests.conftest import ROOT, run
from tools.plan import PlanConfig, plan, shape_of

SMALL = "{model_type: llama, vocab_size: 320, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 4,"
SMALL += " num_attention_heads: 2}"
STEP = "pretrain --config configs/patent-llama/pretrain.yaml training.micro_batch_size=1 sequence_length=128"


def lines(*overrides: str) -> list[str]:
    """The plan of a small model's pretraining on one machine."""
    given = [f"architecture={SMALL}", f"steps=[{{name: pretrain, command: '{STEP}', tokens: 1e15}}]"]
    machine = "machines=[{name: one, card: H200, gpus: 4, gib: 139}]"
    return list(plan(load(PlanConfig, None, [*given, machine, *overrides])))


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_memory_is_the_estimators_and_hours_are_tokens_by_operations_by_the_assumed_share() -> None:
    said = lines("mfu_share=0.25")
    assert any("25% of a card's bf16 peak" in line for line in said)
    (row,) = (line for line in said if line.startswith("  one"))
    architecture = yaml.safe_load(SMALL)
    needed = estimate(
        ModelConfig(path="x", activation_checkpointing="full"), AutoConfig.for_model(**architecture),
        DeepSpeedConfig(zero_stage=2), processes=4, batch=1, length=128, bf16=True,
    )  # fmt: skip
    assert float(row.split()[1]) == pytest.approx(needed.total / 2**30, abs=0.06)
    _, flops = shape_of(tuple(sorted(architecture.items())), 128)
    hours = 1e15 * flops / (0.25 * PEAK_TFLOPS["H200"] * 1e12) / 3600
    assert float(row.split()[-4].replace(",", "")) == pytest.approx(hours, rel=0.01)
    assert float(row.split()[-2].replace(",", "")) == pytest.approx(hours / 4, rel=0.01)


def test_what_does_not_fit_is_made_smaller_or_refused_by_name() -> None:
    """The small model's activations are much, its gradients nothing: bf16 gradients are not proposed."""
    tight = "machines=[{name: one, card: H200, gpus: 1, gib: 0.001}]"
    large = STEP.replace("size=1 sequence_length=128", "size=4 sequence_length=4096")
    large += " model.activation_checkpointing=none"
    said = "\n".join(lines(tight, f"steps=[{{name: pretrain, command: '{large}', tokens: 1e15}}]"))
    assert "does not fit" in said
    assert "with model.activation_checkpointing=full training.micro_batch_size=1" in said
    assert "gradient_dtype" not in said
    assert "model.adapter" in said
    assert "as configured; train an adapter" in "\n".join(lines(tight))
    with pytest.raises(UserError, match="H200"):
        lines("machines=[{name: one, card: Abacus, gpus: 1, gib: 1}]")
    with pytest.raises(UserError, match="tokens_per_sample"):
        lines(f"steps=[{{name: x, command: '{STEP}', samples: 10}}]")


def test_a_machine_that_cannot_share_the_batch_is_told() -> None:
    with pytest.raises(UserError, match="global_batch_size"):
        lines("machines=[{name: one, card: H200, gpus: 3, gib: 139}]")


@pytest.mark.slow
def test_the_plan_of_patent_llama_has_every_step_and_fits_every_machine() -> None:
    done = run("tools.plan")
    assert done.returncode == 0, done.stderr
    for step in ("data", "pretrain", "general", "domain", "delta", "eval"):
        assert f"\n{step}: python -m " in done.stdout
    assert "does not fit" not in done.stdout
    assert done.stdout.count("1 x H200") == 4
    assert Path("configs/patent-llama/plan.yaml").is_file()
