"""What counts as a spike."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import manifest
from core.guard import robust_z
from tests.conftest import TinyRuns, losses, warm


def test_a_spike_stands_out_and_earlier_spikes_do_not_hide_it() -> None:
    noise = np.random.default_rng(0).normal(2.5, 0.1, 128)
    assert robust_z(7.5, noise.tolist()) == pytest.approx(50, rel=0.2)
    spiked = [*noise[:100].tolist(), *[7.5] * 28]
    assert robust_z(7.5, spiked) > 20, "mean and standard deviation would say 1.9"


def test_ordinary_noise_and_falling_losses_are_none() -> None:
    random = np.random.default_rng(1)
    falling = np.linspace(9, 6, 5000) + random.normal(0, 0.1, 5000)
    scores = [robust_z(falling[i], falling[i - 128 : i].tolist()) for i in range(128, 5000)]
    assert max(scores) < 6


def test_a_plateau_does_not_make_spikes_of_its_noise() -> None:
    assert robust_z(2.01, [2.0] * 128) == pytest.approx(0.5)


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=30), st.floats(-100, 100), st.floats(0, 100))
def test_the_score_grows_with_the_value(past: list[float], value: float, more: float) -> None:
    assert robust_z(value + more, past) >= robust_z(value, past)


def test_a_loss_that_is_not_a_number_is_no_small_one() -> None:
    assert not robust_z(float("nan"), [1.0, 2.0, 3.0]) <= 10


@pytest.mark.parametrize("processes", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_refused_step_changes_no_weight_at_any_zero_stage_and_is_told(
    tiny: TinyRuns, tmp_path: Path, processes: int
) -> None:
    base = tiny.folder / "prepared" / "base"
    done = warm("tests.pretrain.refusals", base, tmp_path, processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    told = (tmp_path / "log.txt").read_text("utf-8").splitlines()
    for first in range(0, 12, 3):
        assert "deviations above" in told[first]
        assert "loss" in told[first]
        assert "gradient norm" in told[first + 1]
        assert "not finite" in told[first + 2]
        assert "(3 in a row)" in told[first + 2]


@pytest.mark.slow
def test_skipped_samples_are_part_of_the_state_and_of_the_manifest(tiny: TinyRuns) -> None:
    settings = ["training.steps=48", "training.spike_z=0.3", "training.max_skipped_steps=100"]
    whole = tiny.train("spiky", *settings)
    assert whole[-1]["skipped_steps"] > 0
    assert whole[31]["skipped_steps"] == 0, "too few steps to compare with"
    again = tiny.train("spiky-twice", *settings[1:], "training.steps=48", "training.save_every_steps=40")
    assert losses(again) == losses(whole)
    found = manifest.read(tiny.folder / "spiky" / "model")["counts"]
    assert found["skipped_steps"] == whole[-1]["skipped_steps"]
    assert sum(last - first for first, last in found["skipped"]) == 4 * found["skipped_steps"]
    checkpoint = tiny.folder / "spiky-twice" / "checkpoints"
    shutil.rmtree(checkpoint / "step-00000048")
    shutil.rmtree(tiny.folder / "spiky-twice" / "model")
    assert losses(tiny.train("spiky-twice", *settings)) == losses(whole)
    assert manifest.read(tiny.folder / "spiky-twice" / "model")["counts"] == found


def test_too_many_spikes_in_a_row_end_the_run_with_their_samples(tiny: TinyRuns) -> None:
    settings = ["training.steps=60", "training.spike_z=1e-9", "training.max_skipped_steps=1"]
    done = warm("pretrain", *tiny.overrides("too-spiky", *settings, "optimizer.learning_rate=1e-9"))
    assert done.returncode == 2, done.stdout
    assert "2 steps in a row were skipped" in done.stderr
    assert "samples" in done.stderr
    assert "training.spike_z" in done.stderr
