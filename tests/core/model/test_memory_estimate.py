"""The estimate of memory, against the live tensors of DeepSpeed and against torch's memory tracker."""

import json
from pathlib import Path

import pytest
import torch

from core.config.schema import ModelConfig
from core.model import activation_checkpointing
from core.model.memory_estimate import activation_bytes, logits_bytes, measured
from tests.conftest import warm


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_weights_gradients_and_optimiser_are_those_of_live_tensors(processes: int, tmp_path: Path) -> None:
    """All stages, fp32, and bf16 with both gradient dtypes; to 0.1%: alignment and scalars are left."""
    done = warm("tests.core.model.memory_worker", tmp_path, processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "memory.json").read_text())
    assert len(found) == 4 + 3 + 3
    for line in found:
        assert line["estimated"] == pytest.approx(line["live"], rel=1e-3), line
        assert line["estimated_optimizer"] == pytest.approx(line["live_optimizer"], rel=1e-3), line


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_total_is_the_peak_of_two_micro_batches_and_a_step(processes: int, tmp_path: Path) -> None:
    """ZeRO 1 to 3, with several parameter groups and many buckets; to 3%."""
    done = warm("tests.core.model.step_peak", tmp_path, processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "peaks.json").read_text())
    assert len(found) == 3 * 3
    for line in found:
        assert line["total"] == pytest.approx(max(line["backward"], line["step"]), rel=0.03), line
    (step,) = (line["step"] for line in found if (line["stage"], line["gradients"]) == (2, "bf16"))
    assert step < {1: 18, 2: 10.5}[processes], "with one group 22 and 12 bytes a parameter"


def test_with_an_adapter_frozen_weights_too_are_those_of_live_tensors(tmp_path: Path) -> None:
    """LoRA, with embeddings, and 4 bits with plain and with quantised scales; ZeRO 1 and 2, fp32 and bf16."""
    done = warm("tests.core.model.memory_worker", tmp_path, "adapters")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "memory.json").read_text())
    assert len(found) == 2 * 2 * 4
    for line in found:
        assert line["estimated"] == pytest.approx(line["live"], rel=2e-3), line
        assert line["estimated_optimizer"] == pytest.approx(line["live_optimizer"], rel=1e-3), line


@pytest.mark.parametrize("kind", ["none", "selective", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_those_that_the_memory_tracker_sees(kind: str, dtype: torch.dtype) -> None:
    """A real model of nine layers, estimated from two and four layers without storage."""
    from transformers import AutoModel, LlamaConfig

    shape = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=500, num_hidden_layers=9, **shape)
    settings = ModelConfig.model_validate({"path": "x", "activation_checkpointing": kind})
    estimated = activation_bytes(config, settings, 2, 128, dtype)
    model = AutoModel.from_config(config, dtype=dtype, attn_implementation="one_document").train()
    activation_checkpointing.prepare(model, settings)
    assert estimated == pytest.approx(measured(model, torch.zeros(2, 128, dtype=torch.long)), rel=0.05)


@pytest.mark.slow
def test_activations_of_processes_that_share_rows(tmp_path: Path) -> None:
    """Half of them, and what the exchange adds. Attention on a CPU copies more than a GPU's kernel, with one
    process too."""
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        done = warm("tests.core.model.parts_peak", folder, processes=processes)
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(json.loads((folder / "0.json").read_text()))
    for one, two in zip(*found, strict=True):
        for line in (one, two):
            assert 0.8 * line["peak"] < line["estimated"] <= line["peak"], line
        assert two["estimated"] / one["estimated"] == pytest.approx(two["peak"] / one["peak"], rel=0.1)


def test_chunked_logits_take_a_fraction_of_whole_ones() -> None:
    from transformers import LlamaConfig

    config = LlamaConfig(vocab_size=128_256, hidden_size=1024)
    whole, chunked = (logits_bytes(config, 16_384, kind, torch.bfloat16) for kind in ("full", "auto"))
    assert whole > 16_384 * 128_256 * 8
    assert chunked < whole / 10
