"""A user's DeepSpeed file adds settings; what this program decides too is equal in it, or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.config import json_file
from core.config.schema import DeepSpeedConfig, TrainingConfig
from core.distributed.deepspeed_backend import buckets, settings
from core.errors import UserError
from tests.conftest import TinyRuns, losses

TRAINING = TrainingConfig(global_batch_size=8, micro_batch_size=2, precision="fp32")
TRANSFORMERS = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16, "min_loss_scale": 1},
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 2, "allgather_bucket_size": 5e8, "reduce_bucket_size": "auto",
                          "overlap_comm": False, "contiguous_gradients": True},
}  # fmt: skip
"""As in the files that are handed round for transformers' trainer and LLaMA-Factory."""


@pytest.fixture(autouse=True)
def before_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def chosen(folder: Path, tree: Any, training: TrainingConfig = TRAINING, stage: Any = 2) -> dict[str, Any]:
    """The settings with this file."""
    file = folder / "own.json"
    file.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return settings(DeepSpeedConfig(zero_stage=stage, json_file=str(file)), training)[0]


def test_auto_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    plain = settings(DeepSpeedConfig(), TRAINING)[0]
    assert chosen(tmp_path, {"train_batch_size": "auto", "bf16": {"enabled": "auto"}}) == plain
    found = json_file.flat(chosen(tmp_path, TRANSFORMERS))
    assert found.items() >= json_file.flat(plain).items()
    assert found["zero_optimization.allgather_bucket_size"] == 5e8
    assert "auto" not in found.values()


@pytest.mark.parametrize(
    ("stage", "processes", "overlap"), [(2, 1, False), (1, 2, False), (2, 2, True), (3, 2, True)]
)
def test_several_processes_reduce_during_the_backward_pass_where_deepspeed_can_unless_a_file_says_no(
    stage: Any, processes: int, overlap: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    plain = DeepSpeedConfig(zero_stage=stage)
    zero = settings(plain, TRAINING)[0]["zero_optimization"]
    assert (zero["reduce_bucket_size"], zero["overlap_comm"]) == buckets(plain, processes)
    assert zero["overlap_comm"] == overlap
    own = {"zero_optimization": {"overlap_comm": False, "reduce_bucket_size": 1000}}
    assert chosen(tmp_path, own, stage=stage)["zero_optimization"]["overlap_comm"] is False
    file = DeepSpeedConfig(zero_stage=stage, json_file=str(tmp_path / "own.json"))
    assert buckets(file, processes) == (1000, False), "the estimate sees the file too"


def test_sections_in_which_all_is_auto_are_not_there_either(tmp_path: Path) -> None:
    tree = {"a": {"b": {"c": "auto"}, "d": "auto"}, "e": {}, "f": {"g": 0, "h": "auto"}}
    (tmp_path / "own.json").write_text(json.dumps(tree))
    assert json_file.read(tmp_path / "own.json", "key") == {"f": {"g": 0}}


EQUAL = [
    {"train_batch_size": 8, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4},
    {"gradient_accumulation_steps": 2},  # on two processes, of which nothing is known before the launch
    {"gradient_clipping": 1.0},
    {"bf16": {"enabled": False}, "fp16": {"enabled": False}, "data_types": {"grad_accum_dtype": "fp32"}},
    {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}},
    {"optimizer": {"params": {"lr": "auto"}}, "scheduler": {"type": "auto"}},
]


@pytest.mark.parametrize("tree", EQUAL, ids=str)
def test_what_is_equal_is_taken_and_this_program_still_does_it_itself(tmp_path: Path, tree: Any) -> None:
    found = chosen(tmp_path, tree)
    plain = settings(DeepSpeedConfig(), TRAINING)[0]
    assert json_file.flat(found).items() >= json_file.flat(plain).items()
    assert "train_batch_size" not in found


WRONG: list[tuple[Any, str]] = [
    ({"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}, "`optimizer`: set `optimizer` in this"),
    ({"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-5}}}, "`scheduler`: set `schedule`"),
    ({"gradient_clipping": 0.5}, "gradient_clipping=0.5, but training.max_gradient_norm"),
    ({"train_batch_size": 16}, "train_batch_size=16, but training.global_batch_size is 8"),
    ({"train_micro_batch_size_per_gpu": 4}, "train_micro_batch_size_per_gpu=4, but training.micro_batch"),
    ({"gradient_accumulation_steps": 3}, "gradient_accumulation_steps=3, but"),
    ({"zero_optimization": {"stage": 3}}, "zero_optimization.stage=3, but deepspeed.zero_stage is 2"),
    ({"zero_optimization": True}, "zero_optimization=True, which is no section"),
    ({"fp16": {"enabled": True}}, "fp16.enabled=True, but training.precision=fp32"),
    ({"bf16": {"enabled": True}}, "bf16.enabled=True, but training.precision=fp32"),
    ({"bfloat16": {"enabled": True}}, "`bfloat16`: set training.precision"),
    ({"torch_autocast": {"enabled": True}}, "torch_autocast.enabled=True"),
    ({"data_types": {"grad_accum_dtype": "bf16"}}, "deepspeed.gradient_dtype"),
    ({"managed_gradient_accumulation": True}, "managed_gradient_accumulation=True"),
    ({"gradient_allreduce_op": "sum"}, "gradient_allreduce_op='sum'"),
    ({"activation_checkpointing": {"cpu_checkpointing": True}}, "set model.activation_checkpointing"),
    ({"tensor_parallel": {"autotp_size": 2}}, "`tensor_parallel`: not supported"),
    ({"sparse_gradients": True}, "DeepSpeed does not take it: .*sparse_gradients"),
    ({"zero_optimization": {"stge": 2}}, "DeepSpeed does not take it: .*stge"),
    ({"zero_optimisation": {"stage": 2}}, "no setting 'zero_optimisation'. Did you mean 'zero_optimization'"),
    ('{"steps_per_print": 1, "steps_per_print": 2}', '"steps_per_print" is set twice'),
    ("[1]", "expected a JSON object"),
]


@pytest.mark.parametrize(("tree", "words"), WRONG, ids=lambda each: str(each)[:60])
def test_what_contradicts_the_configuration_is_refused_by_name(tmp_path: Path, tree: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        chosen(tmp_path, tree)
    assert "own.json" in str(refused.value)


def test_all_contradictions_are_told_at_once_and_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        chosen(tmp_path, {"optimizer": {"type": "Adam"}, "train_batch_size": 1, "gradient_clipping": 9})
    assert all(word in str(refused.value) for word in ("`optimizer`", "train_batch_size", "clipping"))
    with pytest.raises(UserError, match="cannot be read"):
        settings(DeepSpeedConfig(json_file=str(tmp_path)), TRAINING)


def test_accumulation_is_exact_once_the_number_of_processes_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    chosen(tmp_path, {"gradient_accumulation_steps": 2})
    with pytest.raises(UserError, match=r"gradient_accumulation_steps=4, but .* is 2"):
        chosen(tmp_path, {"gradient_accumulation_steps": 4})


def test_a_precision_of_auto_is_what_the_file_says(tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"precision": "auto"})
    file = tmp_path / "own.json"
    for enabled, dtype in [(True, torch.bfloat16), (False, torch.float32)]:
        file.write_text(json.dumps({"bf16": {"enabled": enabled}}))
        found, loaded = settings(DeepSpeedConfig(json_file=str(file)), training)
        assert loaded == dtype
        assert ("bf16" in found and found["bf16"]["enabled"]) == enabled
    with pytest.raises(UserError, match="zero_stage=0 keeps no fp32 copy"):
        chosen(tmp_path, {"bf16": {"enabled": True}}, training, stage=0)


def test_a_run_with_such_a_file_is_the_run_without_it(tiny: TinyRuns) -> None:
    file = tiny.folder / "transformers.json"
    file.write_text(json.dumps(TRANSFORMERS))
    shared = ("training.steps=3", "deepspeed.zero_stage=2")
    plain = tiny.train("no-file", *shared)
    assert losses(tiny.train("with-file", *shared, f"deepspeed.json_file={file}")) == losses(plain)
