"""What counts as a spike, and what becomes of it."""

import json
import math
import shutil
import statistics
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.checkpoint.progress import Progress
from core.config.schema import TrainingConfig
from core.provenance import manifest
from core.train.spike_guard import MIN_STEPS, RECURRING, WINDOW, Guard, Window, _Taken
from tests.conftest import TinyRuns, losses, warm

Pairs = list[list[float]]
CPU = torch.device("cpu")


def score(value: float, past: Pairs | list[float]) -> float:
    """How far `value` stands out of a window that holds `past`."""
    pairs = [[each, 1.0] if isinstance(each, float) else each for each in past]
    scores, _ = Window(pairs, CPU).scores(torch.tensor([value, 1.0], dtype=torch.float64))
    return float(scores[0])


def by_hand(value: float, past: list[float]) -> float:
    """The same by Python's statistics."""
    median = statistics.median(past)
    deviation = 1.4826 * statistics.median(abs(each - median) for each in past)
    return (value - median) / max(deviation, 0.01 * abs(median), 1e-12)


def test_a_spike_stands_out_and_earlier_spikes_do_not_hide_it() -> None:
    noise = np.random.default_rng(0).normal(2.5, 0.1, 128)
    assert score(7.5, noise.tolist()) == pytest.approx(50, rel=0.2)
    spiked = [*noise[:100].tolist(), *[7.5] * 28]
    assert score(7.5, spiked) > 20, "mean and standard deviation would say 1.9"


def test_ordinary_noise_and_falling_losses_are_none() -> None:
    random = np.random.default_rng(1)
    falling = np.linspace(9, 6, 2000) + random.normal(0, 0.1, 2000)
    window = Window([], CPU)
    for loss in falling.tolist():
        pair = torch.tensor([loss, 1.0], dtype=torch.float64)
        assert float(window.scores(pair)[0][0]) < 6
        window.add(pair, torch.tensor(True))


def test_a_plateau_does_not_make_spikes_of_its_noise() -> None:
    assert score(2.01, [2.0] * 128) == pytest.approx(0.5)


@given(st.lists(st.floats(-100, 100), min_size=MIN_STEPS, max_size=WINDOW), st.floats(-100, 100))
def test_the_score_is_what_statistics_say(past: list[float], value: float) -> None:
    assert score(value, past) == by_hand(value, past)


@given(st.lists(st.tuples(st.floats(0, 9), st.booleans()), max_size=3 * WINDOW), st.integers(0, WINDOW))
def test_the_window_is_that_of_the_last_applied_steps_also_when_it_is_resumed(
    steps: list[tuple[float, bool]], resumed: int
) -> None:
    applied = [[loss, loss + 1] for loss, good in steps if good]
    held = [[8.0, 9.0]] * resumed
    window = Window(held, CPU)
    for loss, good in steps:
        window.add(torch.tensor([loss, loss + 1], dtype=torch.float64), torch.tensor(good))
    last = [*held, *applied][-WINDOW:]
    scores, medians = window.scores(torch.tensor([5.0, 5.0], dtype=torch.float64))
    if len(last) < MIN_STEPS:
        assert scores.tolist() == [-np.inf] * 2, "nothing is called a spike yet"
    else:
        for i in (0, 1):
            assert float(scores[i]) == by_hand(5.0, [pair[i] for pair in last])
            assert float(medians[i]) == statistics.median(pair[i] for pair in last)


def verdicts(steps: list[tuple[float, float]], cuts: AbstractSet[int] = frozenset()) -> list[bool]:
    """Which of these steps (loss, gradient norm) are applied; at `cuts` the run is resumed."""
    guard: Any = Guard.__new__(Guard)
    guard.progress, guard.skipped, guard.log = Progress(), None, SimpleNamespace(line=str)
    guard.training, guard._in_a_row = TrainingConfig(max_skipped_steps=len(steps)), 0
    applied = []
    for number, (loss, norm) in enumerate(steps):
        if number in cuts or not number:
            guard._window = guard._outliers = None
        guard._loss = torch.tensor(loss, dtype=torch.float64)
        verdict = guard._judge(torch.tensor(norm, dtype=torch.float64))
        guard.progress.advance(1, number + 1)
        guard._taken = _Taken(number + 1, number, number + 1, 1, verdict.tolist)
        guard.settle()
        applied.append(bool(verdict[0]))
    return applied


def ordinary(count: int) -> list[tuple[float, float]]:
    """Steps of a run in which all is well."""
    random = np.random.default_rng(0)
    return list(
        zip(random.normal(2.5, 0.1, count).tolist(), random.normal(1, 0.1, count).tolist(), strict=True)
    )


@pytest.mark.parametrize("every", [3, 20, 90])
def test_a_rare_kind_of_sample_is_trained_on_once_it_has_come_up_some_times(every: int) -> None:
    steps = [(7 + 0.1 * loss, 5 * norm) if i % every == every - 1 else (loss, norm)
             for i, (loss, norm) in enumerate(ordinary(450))]  # fmt: skip
    assert verdicts(steps).count(False) <= RECURRING


def test_a_gradient_norm_that_rises_for_good_is_accepted_within_the_limit_of_steps() -> None:
    steps = [(loss, norm * (5 if i >= 200 else 1)) for i, (loss, norm) in enumerate(ordinary(400))]
    applied = verdicts(steps)
    assert applied.index(False) == 200
    assert applied.count(False) <= RECURRING < TrainingConfig().max_skipped_steps


def test_spikes_are_skipped_and_so_is_every_step_of_a_broken_model() -> None:
    steps = ordinary(1200)
    for i in (100, 650, 651, 1190):
        steps[i] = (9.0, 40.0)
    steps[700] = (2.5, 1e4)
    assert [i for i, good in enumerate(verdicts(steps)) if not good] == [100, 650, 651, 700, 1190]
    broken = [(9.0, norm) if i >= 50 else (loss, norm) for i, (loss, norm) in enumerate(ordinary(80))]
    assert not any(verdicts(broken)[50:])


def test_a_spike_beyond_what_recurs_is_skipped() -> None:
    steps = [(7.0, 5.0) if i % 20 == 19 else each for i, each in enumerate(ordinary(240))]
    steps[200], steps[210], steps[220] = (7.0, 90.0), (70.0, 5.0), (math.nan, 5.0)
    assert [i for i, good in enumerate(verdicts(steps)) if not good][RECURRING:] == [200, 210, 220]


STEP = st.tuples(st.sampled_from([2.4, 2.5, 2.6, 7.0, 40.0]), st.sampled_from([0.9, 1.0, 1.1, 5.0, math.inf]))


@given(st.lists(STEP, min_size=10, max_size=60), st.sets(st.integers(0, 99), max_size=3))
@settings(deadline=None, max_examples=12)
def test_a_resumed_run_decides_the_same(steps: list[tuple[float, float]], cuts: set[int]) -> None:
    steps = [*ordinary(40), *steps]
    assert verdicts(steps, cuts) == verdicts(steps)


@pytest.mark.parametrize("processes", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_refused_step_changes_no_weight_at_any_zero_stage_and_is_told(
    tiny: TinyRuns, tmp_path: Path, processes: int
) -> None:
    base = tiny.folder / "prepared" / "base"
    done = warm("tests.pretrain.refusals", base, tmp_path, processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    told = (tmp_path / "log.txt").read_text("utf-8").splitlines()
    assert len(told) == 4 * (4 * 2 + 4 + 1)
    for loss, norm, infinite, none in zip(*(told[i::4] for i in range(4)), strict=True):
        assert "loss" in loss
        assert "deviations above" in loss
        assert "gradient norm" in norm
        assert "deviations above" in norm
        assert "gradients are not finite" in infinite
        assert "the loss is nan" in none
        assert "(4 in a row)" in none


@pytest.mark.slow
def test_between_log_steps_nothing_waits_for_the_device(tiny: TinyRuns, tmp_path: Path) -> None:
    done = warm("tests.pretrain.waits", tiny.folder / "prepared" / "base", tmp_path, processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "waits.json").read_text("utf-8"))
    watched = found.pop("watched")
    assert any("float(loss)" in place for place in watched), "what waits is seen"
    assert len(found) == 9
    for case, places in found.items():
        if case.startswith("ZeRO 3"):  # DeepSpeed makes a constant on the host; docs/decisions.md
            assert all("stage3.py err = torch.tensor" in place for place in places), case
        else:
            assert not places, case


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
    card = (tiny.folder / "spiky" / "model" / "README.md").read_text("utf-8")
    assert f"{found['skipped_steps']} of 48 steps were skipped" in card
    tiny.train("spiky-rarely", *settings, "logging.every_steps=16", "training.validate_every_steps=null")
    rarely = manifest.read(tiny.folder / "spiky-rarely" / "model")["counts"]
    assert [rarely[name] for name in ("skipped", "tokens")] == [found[name] for name in ("skipped", "tokens")]
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
