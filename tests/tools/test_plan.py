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
from tools.plan import Planned, leads_s, plan, shape_of
from tools.plan import planned as planned_steps
from tools.steps_file import StepsFile
from tools.study import reading

SMALL = "{model_type: llama, vocab_size: 320, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 4,"
SMALL += " num_attention_heads: 2}"
STEP = "pretrain --config configs/patent-llama/pretrain.yaml training.micro_batch_size=1 sequence_length=128"


def lines(*overrides: str) -> list[str]:
    """The plan of a small model's pretraining on one machine."""
    given = [f"architecture={SMALL}", f"steps=[{{name: pretrain, command: '{STEP}', tokens: 1e15}}]"]
    machine = "machines=[{name: one, card: H200, gpus: 4, gib: 139}]"
    return planned(load(StepsFile, None, [*given, machine, *overrides]))


def planned(config: StepsFile) -> list[str]:
    """The plan of a file without variables."""
    return list(plan(config, [Planned(step, step.commands[0]) for step in config.steps]))


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


def test_a_signal_leads_by_three_steps_two_checkpoints_and_a_minute() -> None:
    """7B on eight cards: 107 GB, of which rank 0 hashes the weights, twice, and an eighth of the rest."""
    large = "{model_type: llama, vocab_size: 32000, hidden_size: 4096, intermediate_size: 11008,"
    large += " num_hidden_layers: 32, num_attention_heads: 32}"
    machine = "machines=[{name: eight, card: A100, gpus: 8, gib: 79}]"
    step = "pretrain --config configs/patent-llama/pretrain.yaml training.micro_batch_size=4"
    given = [f"architecture={large}", f"steps=[{{name: x, command: '{step}', tokens: 1e9}}]", machine]
    shape = tuple(sorted(yaml.safe_load(large).items()))
    parameters, flops = shape_of(shape, 2048)
    tokens = 1024 * 2048
    for disk in (2.0, 0.5):
        config = load(StepsFile, None, [*given, f"disk_gb_per_s={disk}"])
        step_s = tokens * flops / (0.4 * PEAK_TFLOPS["A100"] * 1e12 * 8)
        saved_s = 16 * parameters / 1e9 / disk + (4 + 12 / 8) * parameters / 1e9
        needed = 3 * step_s + 2 * saved_s + 60
        (lead,) = leads_s(config, Planned(config.steps[0], step)).values()
        assert needed <= lead < needed + 60
        assert lead % 60 == 0
        assert any(f"USR1@N: {lead} (eight)" in line for line in planned(config))


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
    assert done.stdout.count("\n  1 x H200 ") == 5, "pretrain, general, domain, eval, and all of them"
    assert Path("configs/patent-llama/plan.yaml").is_file()


def test_a_study_is_planned_with_all_its_trainings() -> None:
    file = Path("configs/studies/continued-pretraining.yaml")
    hours = {}
    for seeds in (1, 2):
        study = reading.read(file, ["examples=25,100", "rate=2e-5"], seeds)
        steps = planned_steps(study)
        times = {step.entry.name: step.times for step in steps}
        assert times == {"corpus": 1, "continued": seeds, "general-chats": 1, "chat": 2 * seeds,
                         "domain-chats": 2,
                         "tuned": 4 * seeds, "validated": 4 * seeds, "scores": 4 * seeds}  # fmt: skip
        said = list(plan(study.described.tree, steps))
        assert any("continued (2 times)" in line for line in said) == (seeds == 2)
        hours[seeds] = float(said[-1].split("GPU-hours")[0].split()[-1].replace(",", ""))
    assert hours[2] == pytest.approx(2 * hours[1], rel=1e-3)
