"""Forgetting and collapse: seen, told, and no influence on training."""

from collections.abc import Sequence

import pytest

from core.train.validation import repeated_share
from tests.conftest import TinyRuns, losses, warm


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], 0),
        ([[7] * 23], 19 / 20),
        ([[1, 2, 3, 4] * 5 + [1, 2, 3]], 16 / 20),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], 0),
        ([[1, 2]], 0),
        ([], 0),
    ],
)
def test_the_share_of_repeated_4_grams(texts: Sequence[Sequence[int]], share: float) -> None:
    assert repeated_share(texts, 4) == pytest.approx(share)


@pytest.mark.parametrize(("stage", "processes"), [(1, 1), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_general_text_and_prompts_are_looked_at_and_change_no_loss(
    tiny: TinyRuns, stage: int, processes: int
) -> None:
    """The general corpus is the domain's own, so that its numbers are known."""
    settings = [f"deepspeed.zero_stage={stage}"]
    looks = [f"general_dir={tiny.folder / 'corpus'}", "collapse.prompts=[一种, A method]"]
    name = f"looked-{stage}"
    found = tiny.train(name, *settings, *looks, "collapse.max_new_tokens=12", processes=processes)
    plain = tiny.train(f"{name}-plain", *settings, processes=processes)
    assert losses(found) == losses(plain)
    looked = [line for line in found if "general_loss" in line]
    assert [line["step"] for line in looked] == [5, 10]
    for line in looked:
        for column in ("loss", "perplexity", "bits_per_byte"):
            assert line[f"general_{column}"] == line[f"validation_{column}"]
        assert 0 <= line["repeated_ngrams"] <= 1
    log = (tiny.folder / name / "log.txt").read_text("utf-8")
    assert log.count("sample: 一种 ▸ ") == log.count("sample: A method ▸ ") == 3, "before, at 5, at 10"
    assert "the model is forgetting" not in log
    assert (tiny.folder / name / "forgetting.png").stat().st_size > 5_000


def test_a_model_that_forgets_is_warned_of_and_on_request_stopped_also_after_a_resume(tiny: TinyRuns) -> None:
    settings = [f"general_dir={tiny.folder / 'corpus'}", "training.spike_z=null", "schedule.warmup_steps=8"]
    tiny.train("forgets", *settings, "training.steps=5", "optimizer.learning_rate=1e-5")
    settings += ["optimizer.learning_rate=30", "training.steps=10"]
    done = warm("pretrain", *tiny.overrides("forgets", *settings, "forgetting.stop_share=0.5"))
    assert done.returncode == 2, done.stdout
    assert "general loss rose by" in done.stderr
    assert "forgetting.stop_share=0.5" in done.stderr
    assert "from 7.2" in done.stderr, "measured against the model before training, not before the resume"
    done = warm("pretrain", *tiny.overrides("forgets", *settings))
    assert done.returncode == 0, done.stderr
    assert "warning: general loss rose by" in done.stdout


def test_general_text_of_another_tokenizer_or_unfinished_is_refused(tiny: TinyRuns) -> None:
    done = warm("pretrain", *tiny.overrides("no-general", f"general_dir={tiny.folder / 'nowhere'}"))
    assert done.returncode == 2
    assert "no finished corpus" in done.stderr
