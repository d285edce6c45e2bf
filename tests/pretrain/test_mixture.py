"""A domain corpus and general text to replay, through the command that users run."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TinyRuns, losses, warm


@pytest.fixture(scope="module")
def general(tiny: TinyRuns) -> Path:
    """Another corpus, by the same tokenizer."""
    folder = tiny.folder / "general"
    done = warm(
        "data", "run", f"output_dir={folder}", "synthetic.inventions=20", "synthetic.seed=7",
        f"tokenizer={{path: {tiny.folder / 'corpus' / 'tokenizer'}}}", "pack.parts=[title, abstract]",
        "pack.validation_share=0.3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_shares_are_kept_at_every_step_and_a_resume_goes_on_in_them(tiny: TinyRuns, general: Path) -> None:
    settings = [
        f"mixture=[{{name: general, output_dir: {general}, share: 0.25}}]",
        f"general_dir={general}",
        "training.validate_every_steps=6",
        "schedule.warmup_steps=2",
        "schedule.kind=constant",
    ]
    whole = tiny.train("mixed", *settings, "training.steps=12")
    tiny.train("mixed-twice", *settings, "training.steps=6", processes=2)
    assert losses(tiny.train("mixed-twice", *settings, "training.steps=12", processes=2)) == pytest.approx(
        losses(whole), rel=1e-4
    )
    log = (tiny.folder / "mixed" / "log.txt").read_text("utf-8")
    blocks = int(log.split("epochs of ")[2].split(" blocks")[0])
    assert "mixture: general: " in log
    drawn = np.array([line["epochs_general"] * blocks for line in whole])
    assert np.abs(drawn - 0.25 * 4 * np.arange(1, 13)).max() <= 2, (
        "shares are of tokens, blocks differ in fill"
    )
    assert "general_loss" in whole[-1]
    inputs = (tiny.folder / "mixed" / "model" / "manifest.json").read_text("utf-8")
    assert str(general / "pack" / "train.bin") in inputs


def test_a_corpus_of_another_tokenizer_and_shares_beyond_1_are_refused(tiny: TinyRuns, general: Path) -> None:
    other = tiny.folder / "other-tokenizer-corpus"
    settings = [f"output_dir={other}", "synthetic.inventions=20", "tokenizer.vocabulary_size=1300"]
    assert warm("data", "run", *settings, "pack.parts=[title]").returncode == 0
    done = warm("pretrain", *tiny.overrides("mixed-wrong", f"mixture=[{{name: x, output_dir: {other}}}]"))
    assert done.returncode == 2
    assert "mixture: x" in done.stderr
    assert "another tokenizer" in done.stderr
    half = "{{name: {}, output_dir: {}, share: 0.6}}"
    both = f"mixture=[{half.format('a', general)}, {half.format('b', general)}]"
    done = warm("pretrain", *tiny.overrides("mixed-wrong", both))
    assert done.returncode == 2
    assert "sum to 1.2" in done.stderr
