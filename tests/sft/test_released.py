"""A stage starts with the memory and the results of a new process: nothing of the one before is alive."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, losses, warm
from tests.sft.chats import Bases, metrics, overrides

CONFIG = ["--config", str(ROOT / "configs/sft/tiny.yaml")]
TWO_STAGES = ["training.steps=4", "training.validate_every_steps=2", "training.micro_batch_size=1"]
LORA = ["training.precision=bf16", "model.adapter={r: 4}"]
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("zero", "more"),
    [
        (3, []),
        pytest.param(1, [], marks=slow),
        pytest.param(2, [], marks=slow),
        pytest.param(1, ["training.precision=bf16"], marks=slow),  # another optimizer of DeepSpeed's
        pytest.param(3, ["training.precision=bf16"], marks=slow),
        pytest.param(2, LORA, marks=slow),
        pytest.param(1, ["model.compile=true", "model.activation_checkpointing=none"], marks=slow),
    ],
)
def test_nothing_of_a_stage_is_alive_when_the_next_one_loads(
    bases: Bases, tmp_path: Path, zero: int, more: list[str]
) -> None:
    chats = {"data": {"output_dir": str(tmp_path / "chats-b")}}
    stages = [{"name": "a"}, {"name": "b", **chats}]
    shared = [*TWO_STAGES, f"deepspeed.zero_stage={zero}", *more]
    both = overrides(bases, tmp_path, *shared, f"stages={json.dumps(stages)}")
    assert warm("sft", "--prepare", *CONFIG, *both).returncode == 0
    done = warm("tests.sft.released", tmp_path / "alive", *CONFIG, *both, processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(2):
        first, second = json.loads((tmp_path / f"alive.{rank}.json").read_text())
        assert not first["alive"]
        assert not second["alive"], "of the first stage"
        assert second["mib"] < 0.1, "3 MiB of a stage, or 765 at ZeRO 3"

    if more != LORA:  # what an adapter goes on from is another key
        start = f"model.path={tmp_path / 'run/a/model'}"
        alone = overrides(bases, tmp_path, *shared, start, f"run_dir={tmp_path / 'alone'}")
        done = warm("sft", *CONFIG, *alone, f"data.output_dir={tmp_path / 'chats-b'}", processes=2)
        assert done.returncode == 0, done.stdout + done.stderr
        assert losses(metrics(tmp_path / "run/b")) == losses(metrics(tmp_path / "alone"))
        ours, theirs = (load_file(tmp_path / run / "model/model.safetensors") for run in ("run/b", "alone"))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
