"""What several tests share: a small corpus and base model, and a way to run a room's command as a user
does."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core.launch import set_for_torch
from tests.warm import Warm

set_for_torch()  # before a test loads torch: tests run beside each other

ROOT = Path(__file__).parent.parent

TINY = [
    "model.architecture={model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2,"
    " num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 256}",
    "data.synthetic.inventions=40",
    "data.tokenizer.vocabulary_size=1400",
    "data.pack.validation_share=0.1",
    "data.pack.parts=[title, abstract]",  # some longer than a block, some so short that they share one
    "sequence_length=128",
    "validation_tokens=2000",
    "training.global_batch_size=4",
    "training.micro_batch_size=2",
    "training.steps=10",
    "training.validate_every_steps=5",
    "training.save_every_steps=5",
    "logging.every_steps=1",
    "logging.tensorboard=false",
]
"""Overrides of configs/pretrain/tiny.yaml that make a run a matter of seconds."""


LONGEST = ("test_baseline.py", "test_demo_whole.py", "test_smoke.py", "test_first_minutes.py")
"""Files with one test of minutes: they begin first, so that no process waits for the last of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def run(
    *arguments: str | Path, timeout: float = 300, threads: int = 1, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ARGUMENTS` in a folder (the repository's root), on the CPU."""
    command = [sys.executable, "-m", *map(str, arguments)]
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=timeout, check=False
    )


warm = Warm().run
"""As `run`, without the seconds that an interpreter takes to import the libraries; see tests/warm.py."""


@dataclass(frozen=True)
class TinyRuns:
    """A prepared corpus and base model that runs of a test session train on."""

    folder: Path
    owners: dict[str, str] = field(default_factory=dict)  # of each run, the test file that trains it

    def overrides(self, name: str, *more: str) -> list[str]:
        """The command-line overrides of the run `name`, which has a folder of its own."""
        file = os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]
        owner = self.owners.setdefault(name, file)
        assert name == "prepared" or owner == file, (
            f"{owner} has a run {name!r}, too: which continues which depends on their order"
        )
        base = self.folder / "prepared" / "base"
        shared = [f"data.output_dir={self.folder / 'corpus'}", f"run_dir={self.folder / name}"]
        if name != "prepared":
            shared += ["model.architecture=null", f"model.path={base}"]
        return [*TINY, *shared, *more]

    def train(self, name: str, *more: str, processes: int = 1) -> list[dict[str, Any]]:
        """Train the run `name` and return its metrics; fails with the run's own words where it fails."""
        done = warm("pretrain", *self.overrides(name, *more), processes=processes)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.metrics(name)

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """The lines of the run's metrics.jsonl, without that of the base model's validation (step 0)."""
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [numbers for line in lines if (numbers := json.loads(line))["step"] > 0]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    """The corpus and the base model, made once by the command that users run."""
    runs = TinyRuns(tmp_path_factory.mktemp("tiny"))
    done = warm("pretrain", "--prepare", *runs.overrides("prepared"))
    assert done.returncode == 0, done.stdout + done.stderr
    return runs


def losses(metrics: list[dict[str, Any]]) -> list[float]:
    """The training loss of every step."""
    return [line["loss"] for line in metrics]
