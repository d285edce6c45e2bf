"""A decay that branches off a stable run, and a pointer to a checkpoint that is not there."""

import json
from pathlib import Path

import pytest

from tests.conftest import TinyRuns, losses, warm

STABLE = ["schedule.warmup_steps=2", "training.validate_every_steps=null", "training.save_every_steps=6"]
DECAY = [
    "schedule.kind=warmup-stable-decay",
    "schedule.decay_steps=4",
    "schedule.final_share=0.1",
    "training.steps=10",
]


@pytest.fixture(scope="module")
def stable(tiny: TinyRuns) -> Path:
    """The checkpoint at step 6 of a run of 8 steps at a constant rate."""
    tiny.train("stable", *STABLE, "schedule.kind=constant", "training.steps=8")
    return tiny.folder / "stable" / "checkpoints" / "step-00000006"


def test_a_branch_is_the_run_that_would_have_decayed_from_the_start(tiny: TinyRuns, stable: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in stable.parent.rglob("*"))
    branch = tiny.train("branch", *STABLE, *DECAY, f"branch_from={stable}")
    whole = tiny.train("branch-whole", *STABLE, *DECAY)
    assert [line["step"] for line in branch] == [7, 8, 9, 10]
    assert losses(branch) == losses(whole)[6:]
    assert branch[-1]["learning_rate"] == pytest.approx(0.1 * whole[5]["learning_rate"])
    assert before == sorted((path, path.stat().st_mtime_ns) for path in stable.parent.rglob("*"))


def test_a_branch_of_another_model_or_of_no_checkpoint_is_refused(tiny: TinyRuns, stable: Path) -> None:
    done = warm("pretrain", *tiny.overrides("other-branch", f"branch_from={stable}", "sequence_length=64"))
    assert done.returncode == 2
    assert "sequence_length: was 128, is now 64" in done.stderr
    done = warm("pretrain", *tiny.overrides("no-branch", f"branch_from={stable.parent / 'step-1'}"))
    assert done.returncode == 2
    assert "is not a complete folder" in done.stderr


def test_a_pointer_to_nowhere_is_told_and_the_newest_checkpoint_used(tiny: TinyRuns, stable: Path) -> None:
    (stable.parent / "latest").write_text("step-00000099\n")
    settings = ["schedule.kind=constant", "training.steps=8"]
    done = warm("pretrain", *tiny.overrides("stable", *STABLE, *settings))
    assert done.returncode == 0, done.stderr
    assert "latest names 'step-00000099', which does not exist" in done.stdout
    assert "step-00000008" in done.stdout
    for folder in stable.parent.glob("step-*"):
        folder.rename(folder.with_name(f"moved-{folder.name}"))
    done = warm("pretrain", *tiny.overrides("stable", *STABLE, *settings))
    assert done.returncode == 2, "it never starts over by itself"
    assert "all checkpoints in" in done.stderr
    assert json.loads((tiny.folder / "stable" / "model" / "manifest.json").read_text())["counts"]["step"] == 8
