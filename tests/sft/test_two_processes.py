"""On two processes with ZeRO 2 a run has the losses of one process: all weights, LoRA, DPO, shared rows."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tests.sft.chats import CHATS, Bases, metrics, overrides

STEPS = ["training.steps=4", "training.global_batch_size=4", "training.validate_every_steps=4",
         "training.micro_batch_size=1", "training.save_every_steps=null", "logging.every_steps=1",
         "logging.tensorboard=false"]  # fmt: skip
TWO = ("core.launch", "--processes", "2", "-m")


def same(one: Path, two: Path, keys: tuple[str, ...]) -> None:
    """Both runs' metrics tell the same."""
    alone, shared = metrics(one), metrics(two)
    assert len(alone) == len(shared) == 4
    for key in keys:
        wanted = [line[key] for line in alone if key in line]
        assert wanted
        assert [line[key] for line in shared if key in line] == pytest.approx(wanted, rel=1e-4), key
    assert (two / "model/README.md").exists() == (one / "model/README.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["null", "{r: 4, dropout: 0.0}"])
def test_tuning_on_two_processes_is_that_on_one(adapter: str, bases: Bases, tmp_path: Path) -> None:
    config = ["--config", str(ROOT / "configs/sft/tiny.yaml")]
    for name, launcher, stage in (("one", (), 0), ("two", TWO, 2)):
        given = overrides(bases, tmp_path, *STEPS, f"model.adapter={adapter}",
                          f"run_dir={tmp_path / name}", f"deepspeed.zero_stage={stage}")  # fmt: skip
        if name == "one":
            assert run("sft", "--prepare", *config, *given).returncode == 0
        done = run(*launcher, "sft", *config, *given)
        assert done.returncode == 0, done.stdout + done.stderr
    same(tmp_path / "one", tmp_path / "two", ("loss", "validation_loss", "token_accuracy", "entropy"))


@pytest.mark.slow
@pytest.mark.parametrize(("packing", "adapter"), [("none", "null"), ("best-fit", "{r: 4, dropout: 0.0}")])
def test_rows_on_two_processes_are_tuned_as_on_one(
    packing: str, adapter: str, bases: Bases, tmp_path: Path
) -> None:
    """Also a row of which the second process gets padding only."""
    config = [
        "--config",
        str(ROOT / "configs/sft/tiny.yaml"),
        f"packing={packing}",
        f"model.adapter={adapter}",
    ]
    for name, launcher, size in (("one", (), 1), ("two", TWO, 2)):
        given = overrides(bases, tmp_path, *STEPS, f"run_dir={tmp_path / name}", "deepspeed.zero_stage=2",
                          f"training.sequence_parallel_size={size}")  # fmt: skip
        if name == "one":
            assert run("sft", "--prepare", *config, *given).returncode == 0
        done = run(*launcher, "sft", *config, *given)
        assert done.returncode == 0, done.stdout + done.stderr
    same(tmp_path / "one", tmp_path / "two", ("loss", "validation_loss", "token_accuracy", "entropy"))


def test_pairs_of_answers_cannot_share_rows(bases: Bases, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    settings = [f"data.paths=[{tmp_path / 'pairs.jsonl'}]", "training.sequence_parallel_size=2"]
    done = run("sft", "dpo", "--dry-run", f"model.path={bases.path()}", f"run_dir={tmp_path}", *settings)
    assert done.returncode == 2, done.stdout
    assert "sequence_parallel_size is not supported for preference tuning" in done.stderr


@pytest.mark.slow
def test_preference_tuning_on_two_processes_is_that_on_one(bases: Bases, tmp_path: Path) -> None:
    pairs = [{"prompt": chat["instruction"], "chosen": chat["output"], "rejected": f"No {chat['output']}"}
             for chat in CHATS[::9]]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    for name, launcher, stage in (("one", (), 0), ("two", TWO, 2)):
        done = run(
            *launcher, "sft", "dpo", *STEPS, f"run_dir={tmp_path / name}", f"model.path={bases.path()}",
            f"deepspeed.zero_stage={stage}", f"data.paths=[{tmp_path / 'pairs.jsonl'}]",
            "data.template=llama3",
            "data.max_tokens=64", "data.validation_share=0.3", "optimizer.learning_rate=1e-3",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    same(tmp_path / "one", tmp_path / "two", ("loss", "validation_loss", "reward_margin", "chosen_reward"))
