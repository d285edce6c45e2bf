"""`python -m pretrain estimate`: the table, the starred stage, the time and where the speed comes from."""

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from core.config.loader import load
from pretrain.config import PretrainConfig
from tests.conftest import ROOT, warm

SMALL = ["model.path=null", "model.architecture={model_type: llama, hidden_size: 64, intermediate_size: 96,"
         " num_hidden_layers: 4, num_attention_heads: 2}"]  # fmt: skip


def test_the_table_and_the_time_of_a_run() -> None:
    speed = ["--gpus", "4", "--tokens", "3.6e6", "--tokens-per-s", "100"]
    done = warm(
        "pretrain", "estimate", *speed, *SMALL, "deepspeed.zero_stage=2", "training.micro_batch_size=1"
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.lstrip("* ")[:2] in ("1 ", "2 ", "3 ")]
    assert [row.startswith("*") for row in rows] == [False, True, False], done.stdout
    assert "100 tokens/s and GPU (as given)" in done.stdout
    assert "2.5 hours, 10.0 GPU-hours" in done.stdout


@pytest.mark.parametrize("measured", [False, True])
def test_a_card_that_is_not_known_is_refused(measured: bool, tmp_path: Path) -> None:
    if measured:
        (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens_per_s": 100.0}\n')
    run_dir = f"run_dir={tmp_path}"
    done = warm("pretrain", "estimate", "--card", "Abacus", "--tokens", "1e9", *SMALL, run_dir)
    assert done.returncode == 2
    assert "H200" in done.stderr


SHAPES: dict[str, dict[str, Any]] = {
    "Llama-2-7b-hf": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32000,
    },
    "Llama-3.2-1B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "head_dim": 64, "tie_word_embeddings": True,
    },
    "Llama-3.2-3B": {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
        "num_key_value_heads": 8, "vocab_size": 128256, "head_dim": 128, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""Of the models that the recipes name, as their authors published them."""
SHAPES["Llama-2-7b-32k"] = {**SHAPES["Llama-2-7b-hf"], "max_position_embeddings": 32768}


@pytest.mark.slow
def test_the_pages_table_of_recipes_says_what_the_command_says(tmp_path: Path) -> None:
    page = (ROOT / "docs/pretrain.md").read_text("utf-8")
    rows = re.findall(r"\| (?:(\d) nodes x )?(\d+) x .*\| `(configs/pretrain/.*?)` .*\| ([\d.]+) \|", page)
    assert len(rows) == 7
    for nodes, cards, file, stated in rows:
        name = str(load(PretrainConfig, ROOT / file).model.path).partition("/")[2]
        folder = tmp_path / name
        LlamaConfig(**SHAPES[name]).save_pretrained(folder)
        gpus = str(int(nodes or 1) * int(cards))
        done = warm("pretrain", "estimate", "--config", file, "--gpus", gpus, f"model.path={folder}")
        assert done.returncode == 0, done.stderr
        starred = next(line for line in done.stdout.splitlines() if line.startswith("*"))
        assert f"{float(starred.split()[-1]):.1f}" == stated, file
