"""Resuming with another number of processes, and pickles that are not loaded."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.checkpoint.resume import check_pickles
from core.errors import UserError
from core.provenance import manifest
from tests.conftest import TinyRuns, losses, warm

STEPS = ["training.save_every_steps=null", "training.validate_every_steps=null"]
CONSTANT = ["schedule.kind=constant", "schedule.warmup_steps=0"]  # else the length would change the rates


@pytest.fixture(scope="module")
def whole(tiny: TinyRuns) -> list[dict[str, Any]]:
    """Fourteen steps of one process, in one go."""
    return tiny.train("ranks-whole", *STEPS, *CONSTANT, "training.steps=14")


@pytest.mark.parametrize(
    "parts",
    [
        [(3, 2), (3, 1)],
        pytest.param([(3, 1), (3, 2)], marks=pytest.mark.slow),
        pytest.param([(0, 2), (0, 1), (0, 2)], marks=pytest.mark.slow),
        pytest.param([(1, 2), (1, 1), (1, 2), (2, 2), (2, 1), (2, 2), (1, 1)], marks=pytest.mark.slow),
    ],
)
def test_another_number_of_processes_or_stage_goes_on_with_the_same_samples_and_losses(
    tiny: TinyRuns, whole: list[dict[str, Any]], parts: list[tuple[int, int]]
) -> None:
    """A few steps by each (ZeRO stage, number of processes) in turn."""
    name = f"ranks {parts}".replace("[", "").replace("]", "")
    for number, (stage, processes) in enumerate(parts, 1):
        length = f"training.steps={14 * number // len(parts)}"
        settings = [*STEPS, *CONSTANT, f"deepspeed.zero_stage={stage}", length]
        found = tiny.train(name, *settings, processes=processes)
    np.testing.assert_allclose(losses(found), losses(whole), rtol=0, atol=1e-3)
    assert [m["tokens"] for m in found] == [m["tokens"] for m in whole], "the same samples at each step"
    for column in ("gradient_norm", "learning_rate"):
        np.testing.assert_allclose([m[column] for m in found], [m[column] for m in whole], rtol=1e-3)
    left = [path.name for path in (tiny.folder / name / "checkpoints").glob(".*")]
    assert not left, "the converted checkpoint is removed"


@pytest.mark.parametrize(
    ("stage", "processes"),
    [
        (2, (1, 1)),
        pytest.param(0, (1, 1), marks=pytest.mark.slow),
        pytest.param(2, (2, 1), marks=pytest.mark.slow),
        pytest.param(3, (2, 1), marks=pytest.mark.slow),
    ],
)
def test_a_run_keeps_the_parameter_groups_that_it_began_with(
    tiny: TinyRuns, whole: list[dict[str, Any]], stage: int, processes: tuple[int, int]
) -> None:
    """Begun with groups of 20,000 elements or with one, and continued where the limit is another one."""
    for limits in ((20_000, 10**9), (10**9, 20_000)):
        name = f"groups-{stage}-{processes[0]}-{limits[0]}"
        for steps, limit, size in zip((7, 14), limits, processes, strict=True):
            settings = [*STEPS, *CONSTANT, f"deepspeed.zero_stage={stage}", f"training.steps={steps}"]
            words = [str(limit), *tiny.overrides(name, *settings)]
            done = warm("tests.pretrain.small_groups", *words, processes=size)
            assert done.returncode == 0, done.stdout + done.stderr
        np.testing.assert_allclose(losses(tiny.metrics(name)), losses(whole), rtol=0, atol=1e-4)
        last = tiny.folder / name / "checkpoints" / "step-00000014"
        assert json.loads((last / "progress.json").read_text())["group_elements"] == limits[0]
        if stage == 2:
            state = torch.load(next((last / "state").glob("*optim_states.pt")), weights_only=False)
            groups = state["optimizer_state_dict"]["single_partition_of_fp32_groups"]
            assert (len(groups) > 2) == (limits[0] == 20_000), "with and without weight decay are two"


@pytest.mark.parametrize("stages", [(3, 2), (2, 3), (0, 1)])
def test_what_cannot_be_taken_over_is_refused_with_the_way_out(
    tiny: TinyRuns, stages: tuple[int, int]
) -> None:
    name = "stages-{}-{}".format(*stages)
    tiny.train(name, *STEPS, "training.steps=2", f"deepspeed.zero_stage={stages[0]}")
    done = warm("pretrain", *tiny.overrides(name, "training.steps=4", f"deepspeed.zero_stage={stages[1]}"))
    assert done.returncode == 2, done.stdout
    assert f"Set deepspeed.zero_stage={stages[0]}, or start a new run" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_is_past_the_end_asked_for_is_refused(tiny: TinyRuns) -> None:
    tiny.train("past", *STEPS, "training.steps=4")
    done = warm("pretrain", *tiny.overrides("past", *STEPS, "training.steps=2"))
    assert done.returncode == 2, done.stdout
    assert "has trained 16 samples in 4 steps, and this command ends after 8" in done.stderr
    tiny.train("past", *STEPS, "training.steps=4")


class Evil:
    """What a changed checkpoint might hold: loading it would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_pickle_that_would_run_code_is_refused_even_where_all_hashes_agree(
    tiny: TinyRuns, tmp_path: Path, stage: int
) -> None:
    name = f"evil-{stage}"
    settings = [*STEPS, f"deepspeed.zero_stage={stage}"]
    tiny.train(name, *settings, "training.steps=2")
    checkpoint = tiny.folder / name / "checkpoints" / "step-00000002"
    check_pickles(checkpoint)
    file = next((checkpoint / "state").glob("*optim_states.pt"))
    content = torch.load(file, weights_only=False)
    torch.save(content | {"more": Evil(tmp_path / "made")}, file)
    written = manifest.read(checkpoint)
    (checkpoint / manifest.NAME).unlink()
    manifest.write(checkpoint, step="checkpoint", config=written["config"], inputs={}, counts={})
    done = warm("pretrain", *tiny.overrides(name, *settings, "training.steps=4"))
    assert done.returncode == 2, done.stdout
    assert file.name in done.stderr
    assert re.search(r"(os|posix)\.mkdir", done.stderr)
    assert not (tmp_path / "made").exists(), "nothing of it ran"


def test_a_file_that_is_no_archive_of_torch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(json.dumps({}).encode())
    with pytest.raises(UserError, match="was not written by torch"):
        check_pickles(tmp_path)
