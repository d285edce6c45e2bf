"""Processes that share rows train as one process does: losses, gradient norms, validation and weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.config.loader import load
from data.packing.indexed_dataset import Documents
from data.packing.packed_dataset import Blocks
from pretrain.config import PretrainConfig
from tests.conftest import ROOT, TinyRuns, losses, run, warm
from tests.pretrain.folders import weights

GROUPED = (
    "{model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2,"
    " num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 256}"
)
SHARED = [
    "training.micro_batch_size=1",
    "model.activation_checkpointing=full",
    "optimizer.epsilon=1e-5",  # else Adam makes large updates of the rounding in tiny gradients
]
CONSTANT = ["schedule.kind=constant", "schedule.warmup_steps=0"]  # else the length would change the rates


def sharing(size: int) -> str:
    return f"training.sequence_parallel_size={size}"


@pytest.fixture(scope="module")
def one(tiny: TinyRuns) -> list[dict[str, Any]]:
    """Ten steps of one process with one key-value head."""
    return tiny.train("sp-one", *SHARED, "deepspeed.zero_stage=1")


@pytest.fixture(scope="module")
def grouped(tiny: TinyRuns) -> list[dict[str, Any]]:
    """Ten steps of one process with four heads and two key-value heads."""
    settings = [f"model.architecture={GROUPED}", "model.path=null"]
    done = warm("pretrain", "--prepare", *tiny.overrides("sp-base", *settings))
    assert done.returncode == 0, done.stdout + done.stderr
    return tiny.train("sp-grouped", *SHARED, "deepspeed.zero_stage=1", _grouped_base(tiny))


def _grouped_base(tiny: TinyRuns) -> str:
    return f"model.path={tiny.folder / 'sp-base' / 'base'}"


def _same(tiny: TinyRuns, name: str, found: list[dict[str, Any]], expected: str) -> None:
    """The run `name` has the figures and the weights of the run `expected`."""
    wanted = tiny.metrics(expected)
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=1e-5)
    for column in ("gradient_norm", "validation_loss", "validation_bits_per_byte"):
        ours, theirs = ([line[column] for line in lines if column in line] for lines in (found, wanted))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=column)
    assert [line["tokens"] for line in found] == [line["tokens"] for line in wanted], "counted once"
    both_weights = [weights(tiny.folder / each / "model") for each in (name, expected)]
    torch.testing.assert_close(*both_weights, rtol=0, atol=3e-6)


def test_documents_cross_the_border_of_the_parts(tiny: TinyRuns) -> None:
    """Else the tests below would say little."""
    config = load(PretrainConfig, ROOT / "configs/pretrain/tiny.yaml", tiny.overrides("prepared"))
    documents = Documents(Path(config.data.output_dir) / "pack" / "train")
    blocks = Blocks(documents, config.sequence_length, packing=config.packing, padding_id=2)
    positions = np.stack([blocks[i]["position_ids"] for i in range(len(blocks))])
    several = (positions == 0).sum(1) > 1
    crossing = (positions[:, 64] > 0) & (positions[:, 65] > 1)
    assert (several & crossing).sum() > 5


@pytest.mark.parametrize(
    "stage", [1, 2, pytest.param(0, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("one")
def test_two_processes_that_share_rows_give_the_figures_of_one(tiny: TinyRuns, stage: int) -> None:
    """One key-value head, which both processes get; four micro-batches a step."""
    settings = [*SHARED, f"deepspeed.zero_stage={stage}", sharing(2)]
    _same(tiny, f"sp-{stage}", tiny.train(f"sp-{stage}", *settings, processes=2), "sp-one")


@pytest.mark.usefixtures("grouped")
def test_key_value_heads_are_divided_and_the_launcher_starts_it(tiny: TinyRuns) -> None:
    settings = [*SHARED, "deepspeed.zero_stage=2", sharing(2), _grouped_base(tiny)]
    overrides = tiny.overrides("sp-launched", *settings)
    done = run("core.launch", "--processes", "2", "-m", "pretrain", *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    _same(tiny, "sp-launched", tiny.metrics("sp-launched"), "sp-grouped")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "stage"), [(2, 1), (2, 3), (4, 2)])
@pytest.mark.usefixtures("grouped")
def test_four_processes_in_groups_of_two_or_four(tiny: TinyRuns, size: int, stage: int) -> None:
    """Two groups that have different rows, or one in which each key-value head is on two processes."""
    name = f"sp-four-{size}-{stage}"
    settings = [*SHARED, f"deepspeed.zero_stage={stage}", sharing(size), _grouped_base(tiny)]
    _same(tiny, name, tiny.train(name, *settings, processes=4), "sp-grouped")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["model.activation_checkpointing=none", "model.compile=true"],
        ["model.activation_checkpointing=selective"],
        ["model.cross_entropy=full", "training.micro_batch_size=2"],
        ["collapse.prompts=[A method]", "collapse.max_new_tokens=4"],
    ],
)
@pytest.mark.usefixtures("one")
def test_other_settings_change_nothing(
    tiny: TinyRuns, more: list[str], request: pytest.FixtureRequest
) -> None:
    name = f"sp-more-{request.node.callspec.indices['more']}"
    found = tiny.train(name, *SHARED, "deepspeed.zero_stage=2", sharing(2), *more, processes=2)
    _same(tiny, name, found, "sp-one")


@pytest.fixture(scope="module")
def whole(tiny: TinyRuns) -> list[dict[str, Any]]:
    """Ten steps of two processes that share rows, in one go."""
    settings = [*SHARED, *CONSTANT, "deepspeed.zero_stage=1", sharing(2)]
    return tiny.train("sp-whole", *settings, processes=2)


@pytest.mark.parametrize(("processes", "size"), [(2, 2), (2, 1), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_a_checkpoint_goes_on_with_the_same_or_another_size(
    tiny: TinyRuns, whole: list[dict[str, Any]], processes: int, size: int
) -> None:
    name = f"sp-resumed-{processes}-{size}"
    settings = [*SHARED, *CONSTANT, "deepspeed.zero_stage=1"]
    tiny.train(name, *settings, sharing(2), "training.steps=5", processes=2)
    found = tiny.train(name, *settings, sharing(size), processes=processes)
    assert len(found) == 10
    if size == 2:
        columns = ("loss", "gradient_norm", "validation_loss")
        for ours, theirs in zip(found, whole, strict=True):
            assert [ours.get(c) for c in columns] == [theirs.get(c) for c in columns], "to the bit"
    _same(tiny, name, found, "sp-whole")
    written = tiny.folder / name / "checkpoints" / "step-00000010" / "progress.json"
    assert json.loads(written.read_text())["world_size"] == processes
    assert ("training.sequence_parallel_size" in (tiny.folder / name / "log.txt").read_text()) == (size != 2)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([sharing(2)], ["sequence_parallel_size=2", "number of processes, 1", "multiple of 2"]),
        ([sharing(4)], ["sequence_parallel_size=4", "the 2 attention heads", "1, 2"]),
        ([sharing(2), "sequence_length=127"], ["sequence_parallel_size=2", "rows of 127", "e.g. 128"]),
        ([sharing(2), "model.attention=sdpa"], ["sequence_parallel_size=2", "model.attention=documents"]),
        ([sharing(0)], ["training.sequence_parallel_size", "greater than or equal to 1"]),
    ],
)
def test_what_would_come_out_wrong_is_refused_at_the_start(
    tiny: TinyRuns, overrides: list[str], words: list[str]
) -> None:
    done = warm("pretrain", *tiny.overrides("sp-refused", *overrides))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_dry_run_shows_the_processes_that_share_a_row(tiny: TinyRuns) -> None:
    """Not launched, it is of as many processes as share one."""
    done = warm("pretrain", "--dry-run", *tiny.overrides("prepared", *SHARED, sharing(2)))
    assert done.returncode == 0, done.stderr
    assert "1 x 2 processes / 2 that share a row x 4 times" in done.stdout


def test_the_batch_is_divided_among_groups(tiny: TinyRuns) -> None:
    overrides = tiny.overrides("sp-batch", sharing(2), "training.global_batch_size=5")
    done = warm("pretrain", *overrides, processes=2)
    assert done.returncode == 2, done.stdout
    assert "global_batch_size=5 is not a multiple" in done.stderr
    assert "2 processes / 2 that share a row" in done.stderr
