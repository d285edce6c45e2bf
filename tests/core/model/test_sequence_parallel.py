"""Processes that share rows attend as one does, and a model that parts of rows do not suit is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from core.config.schema import ModelConfig
from core.errors import UserError
from core.model import proof
from core.model.loss_head import IGNORED
from core.model.sequence_parallel import check, check_length
from core.train.dataloader import collate
from tests.conftest import warm

SHAPE: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 6}
LONG = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


def test_outputs_and_gradients_are_those_of_whole_rows_and_of_deepspeeds_class(tmp_path: Path) -> None:
    """Documents that cross the border of the parts; all kinds of key-value heads; a sliding window; values
    narrower than keys."""
    done = warm("tests.core.model.ulysses_worker", tmp_path, processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for rank in (0, 1) for line in json.loads((tmp_path / f"{rank}.json").read_text())]
    assert len(lines) == 2 * 9
    assert sum("off_deepspeed" in line for line in lines) == 2 * 6
    for line in lines:
        assert line["off"] < 2e-6, line
        assert line.get("off_deepspeed", 0.0) == 0.0, line


@pytest.mark.parametrize("last_label", [300, 130, 70, 0])
def test_parts_of_a_batch_are_the_batch(last_label: int) -> None:
    """Labels, counts and boundaries are those of whole rows, whatever is left out behind the last label."""
    labels = np.full(320, IGNORED)
    labels[5:last_label] = 1
    positions = np.concatenate([np.arange(100), np.arange(220)])
    sample = {"input_ids": np.arange(320), "position_ids": positions, "labels": labels}
    device = torch.device("cpu")
    whole = collate([sample, sample], device)
    parts = [collate([sample, sample], device, part, 4) for part in range(4)]
    length = whole["input_ids"].shape[1]
    for name in ("input_ids", "position_ids", "labels"):
        joined = torch.cat([part[name] for part in parts], 1)
        assert torch.equal(joined[:, :length], whole[name])
    assert (torch.cat([part["labels"] for part in parts], 1)[:, length:] == IGNORED).all()
    for part in parts:
        assert torch.equal(part["boundaries"], parts[0]["boundaries"])
        assert part["boundaries"][-1] == 2 * 4 * part["input_ids"].shape[1]
        learnt = part.get("learnt", torch.arange(part["labels"].numel()))
        left = part["labels"].flatten()[learnt] != IGNORED
        assert left.sum() == (part["labels"] != IGNORED).sum()


@pytest.mark.parametrize(
    ("family", "more", "settings", "size", "words"),
    [
        ("llama", {}, {}, 4, ["does not divide the 6 attention heads", "1, 2, 3, 6"]),
        ("llama", {}, {"attention": "sdpa"}, 2, ["needs model.attention=documents, not sdpa"]),
        ("llama", {"rope_parameters": LONG}, {}, 2, ["rotary positions of llama", "dynamic"]),
        ("gpt_oss", {"head_dim": 8}, {}, 2, ["documents cannot share rows of gpt_oss", "s_aux"]),
        ("opt", {"layerdrop": 0.1}, {}, 2, ["layerdrop to 0"]),
    ],
)
def test_what_parts_of_rows_do_not_suit_is_refused(
    family: str, more: dict[str, Any], settings: dict[str, Any], size: int, words: list[str]
) -> None:
    described = AutoConfig.for_model(family, **SHAPE, **more)
    with pytest.raises(UserError) as refused:
        check(size, described, ModelConfig.model_validate({"path": "x", **settings}))
    for word in [f"training.sequence_parallel_size={size}", *words]:
        assert word in str(refused.value)


def test_rows_that_have_no_equal_parts_are_refused() -> None:
    check_length(2, 128)
    with pytest.raises(UserError, match=r"rows of 126 tokens.*multiple of 4, e\.g\. 128"):
        check_length(4, 126)


def test_a_model_that_mixes_tokens_outside_its_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers that look at the token before, as a convolution does."""
    described = AutoConfig.for_model("llama", **SHAPE, num_key_value_heads=3)
    check(2, described, ModelConfig(path="x"))
    plain = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: plain(self, x + x.roll(1, 1)))
    assert not proof.by_token(described)
    with pytest.raises(UserError, match="mixes tokens outside its attention"):
        check(2, described, ModelConfig(path="x"))
