"""The benchmark of training runs to its end with the choices that a GPU takes."""

import json

import pytest

from tests.conftest import run


@pytest.mark.slow
def test_training_is_measured_beside_both_peers_as_on_a_gpu() -> None:
    ways = ("ours-equal", "ours-packed", "trainer-equal", "trl-packed")
    batches = ("--accumulation", "2", "--micro-batch", "2", "--checkpointing", "selective", "--bf16")
    done = run("benchmarks.train", "--quick", "--shape", "tiny", *batches, "--ways", *ways)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.strip().splitlines()
    assert [line.split()[0] for line in table[-len(ways) :]] == list(ways)
    results = json.loads(last)["results"]
    assert set(results) == {
        "tokens_per_s_vs_hf_trainer_ratio",
        "tokens_per_s_vs_trl_ratio",
        "peak_memory_vs_hf_trainer_ratio",
    }
    assert all(value > 0 for value in results.values())
