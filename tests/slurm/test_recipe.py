"""A whole recipe as SLURM jobs on two nodes, cut by its time limit, gives what an uncut one gives."""

import hashlib
import json
import re
import time
from pathlib import Path

import pytest
import yaml

from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

SHAPE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
DATA = {
    "output_dir": "corpora/toy", "synthetic": {"inventions": 200}, "tokenizer": {"vocabulary_size": 1400},
    "pack": {"validation_share": 0.1},
}  # fmt: skip
STEPS = 300
TRAINING = {"global_batch_size": 4, "micro_batch_size": 2}
PRETRAIN = {
    "run_dir": "runs/toy", "model": {"architecture": SHAPE}, "data": "toy/data.yaml", "sequence_length": 128,
    "training": {**TRAINING, "steps": STEPS, "validate_every_steps": 150, "save_every_steps": 150},
    "deepspeed": {"zero_stage": 1}, "logging": {"every_steps": 1},
}  # fmt: skip
SFT = {
    "run_dir": "runs/toy-chat", "model": {"path": "runs/toy/model"},
    "data": {
        "output_dir": "corpora/toy-chat", "template": "patent-llama", "max_tokens": 256,
        "validation_share": 0.1,
        "sources": [{"name": "general", "path": "configs/sft/tiny/general.jsonl"}],
    },
    "training": {**TRAINING, "epochs": 1}, "deepspeed": {"zero_stage": 1},
}  # fmt: skip
TASK = {"layout": "text", "data": "texts.jsonl", "prompt": "{text}", "metrics": ["bits-per-byte"]}
PLAN = {
    "architecture": {**SHAPE, "vocab_size": 1400},
    "machines": [{"name": "two nodes", "card": "H100", "gpus": 2, "gib": 79}],
    "steps": [
        {"name": "data", "command": "data run --config toy/data.yaml"},
        {"name": "pretrain", "command": "pretrain --config toy/pretrain.yaml"},
        {"name": "chats", "command": "sft --config toy/sft.yaml"},
        {
            "name": "delta",
            "command": "delta make --base runs/toy/base --target runs/toy-chat/model --delta deltas/toy",
        },
        {
            "name": "eval",
            "command": "eval run --model runs/toy-chat/model --base runs/toy/model --tasks toy/task.yaml"
            " --data toy --output evals/toy",
        },
    ],
}


OPTIONS = ["--cpus-per-task=1", "--mem=2G", "--time=60"]
"""For every job of these two nodes, which are one machine."""


@pytest.fixture
def checkout(checkout: Path) -> Path:
    """A checkout with the configurations of a toy recipe."""
    (checkout / "toy").mkdir()
    parts = {"data": DATA, "pretrain": PRETRAIN, "sft": SFT, "task": TASK, "plan": PLAN}
    for name, content in parts.items():
        (checkout / "toy" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    texts = [{"text": f"A housing with {number} ribs and a cover."} for number in range(40)]
    (checkout / "toy/texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return checkout


def weights(run: Path) -> dict[str, str]:
    """SHA-256 of each file of weights that a run published."""
    files = sorted((run / "model").glob("*.safetensors"))
    assert files, run
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def losses(run: Path) -> dict[int, float]:
    """Loss by step, as the run's log has it."""
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return {entry["step"]: entry["loss"] for entry in map(json.loads, lines) if "loss" in entry}


@pytest.mark.timeout(1200)
def test_a_recipe_that_its_time_limit_cuts_ends_as_one_that_is_not_cut(
    slurm: Cluster, checkout: Path
) -> None:
    chain = ["configs/slurm/submit.sh", "--plan", "toy/plan.yaml", *OPTIONS]
    submitted = slurm("bash", *chain, cwd=checkout, NODES="2", GPUS="1", DATA_TASKS="2")
    jobs = dict(re.findall(r"--job-name=(\S+) .*# job (\d+)", submitted))
    assert list(jobs) == ["data", "pretrain", "chats", "delta", "eval"]
    (lead,) = re.findall(r"--job-name=pretrain .*--signal=USR1@(\d+)", submitted)

    slurm.wait(jobs["data"])
    run = checkout / "runs/toy"
    slurm.until(lambda: len(losses(run)) > 5, 120, jobs["pretrain"])
    slurm.cut(jobs["pretrain"], int(lead))
    assert max(losses(run)) < STEPS
    for job in list(jobs.values())[1:]:
        slurm.wait(job)

    assert "resumed from" in (checkout / f"runs/slurm-{jobs['pretrain']}.log").read_text()

    def alone(run: str) -> str:
        """Submit the same training as a job of its own."""
        nodes = ["--parsable", "--nodes=2", "--gpus-per-node=1", *OPTIONS, "configs/slurm/train.sbatch"]
        settings = ["pretrain", "--config", "toy/pretrain.yaml", f"run_dir=runs/{run}"]
        return slurm("sbatch", *nodes, *settings, cwd=checkout)

    uncut = alone("uncut")
    slurm.wait(uncut)
    assert weights(run) == weights(checkout / "runs/uncut")
    assert losses(run) == losses(checkout / "runs/uncut")
    assert list((checkout / "deltas/toy").glob("*.safetensors"))
    assert list((checkout / "evals/toy").iterdir())

    lost = alone("lost")
    slurm.until(lambda: len(losses(checkout / "runs/lost")) > 5, 120, lost)
    slurm.kill_rank(lost, 1)
    while slurm.states(lost) & {"RUNNING", "COMPLETING"}:
        time.sleep(0.5)
    assert slurm.states(lost) == {"FAILED"}, "an error is not taken for a signal, and not queued again"
    assert "rank 1 ended: Signal 9 (SIGKILL)" in slurm.logs(lost)
