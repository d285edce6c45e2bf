"""Every stage has every ability of the trainer, and a training method is one file."""

import json
from pathlib import Path

import pytest

from core.provenance import manifest
from tests.conftest import TinyRuns, warm
from tests.sft.chats import CHATS, Bases, bases, metrics, overrides

__all__ = ["bases"]

STAGES = ("pretrain", "sft", "dpo")
PAIRS = [
    {"prompt": c["instruction"], "chosen": c["output"], "rejected": f"{c['output']} Perhaps not so."}
    for c in CHATS[::9]
]


class Stages:
    """The three stages at the size of seconds, on data made once."""

    def __init__(self, tiny: TinyRuns, bases: Bases, folder: Path) -> None:
        self.tiny, self.bases, self.folder = tiny, bases, folder
        (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))

    def command(self, stage: str, name: str, *more: str) -> list[str]:
        """The command of `stage` for the run FOLDER/name."""
        run = f"run_dir={self.folder / name}"
        short = ["training.steps=4", "training.validate_every_steps=2", "training.save_every_steps=null"]
        if stage == "pretrain":
            return ["pretrain", *self.tiny.overrides(name, *short), run, *more]
        if stage == "sft":
            config = ["--config", "configs/sft/tiny.yaml"]
            return ["sft", *config, *overrides(self.bases, self.folder, *short), run, *more]
        pairs = [f"data.paths=[{self.folder / 'pairs.jsonl'}]", "data.template=llama3", "data.max_tokens=64"]
        batch = ["data.validation_share=0.3", "training.global_batch_size=4", "training.micro_batch_size=2"]
        quiet = ["logging.every_steps=1", "logging.tensorboard=false", "deepspeed.zero_stage=1"]
        base = [f"model.path={self.bases.path()}"]
        return ["sft", "dpo", *base, *pairs, *batch, *short, *quiet, run, *more]

    def train(self, stage: str, name: str, *more: str) -> Path:
        """Prepare and train; returns the run's folder."""
        for part in (["--prepare"], []):
            done = warm(*self.command(stage, name, *more, *part))
            assert done.returncode == 0, done.stdout + done.stderr
        return self.folder / name

    def general(self) -> str:
        """A finished corpus with the tokenizer of `bases`."""
        corpus = self.folder / "general"
        if not corpus.exists():
            made = ["synthetic.inventions=20", "pack.validation_share=0.3", f"output_dir={corpus}"]
            tokenizer = [f"tokenizer.path={self.bases.path()}", "tokenizer.vocabulary_size=null"]
            done = warm("data", "run", *made, *tokenizer)
            assert done.returncode == 0, done.stdout + done.stderr
        return str(corpus)


@pytest.fixture(scope="module")
def stages(tiny: TinyRuns, bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(tiny, bases, tmp_path_factory.mktemp("stages"))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("phase", ["--dry-run", "--prepare", None])
def test_what_cannot_train_is_refused_in_every_phase_before_anything_is_written(
    stages: Stages, stage: str, phase: str | None
) -> None:
    if phase is None and stage == "sft":  # training without prepared chats is refused for that
        assert warm(*stages.command(stage, "made", "--prepare")).returncode == 0
    name = f"refused-{stage}-{phase}"
    command = stages.command(stage, name, "model.compile=true", "deepspeed.zero_stage=3")
    done = warm(*command, *([phase] if phase else []))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "zero_stage" in done.stderr
    assert not (stages.folder / name).exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_dry_run_lists_what_would_be_used_and_writes_nothing(stages: Stages, stage: str) -> None:
    done = warm(*stages.command(stage, f"dry-{stage}", "--dry-run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"batch", "training", "base", "run"} <= {line.split()[1] for line in done.stdout.splitlines()}
    assert not (stages.folder / f"dry-{stage}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_stops_early_and_keeps_the_best_model(stages: Stages, stage: str) -> None:
    worse = ["optimizer.learning_rate=1.0", "training.validate_every_steps=1", "training.steps=20"]
    run = stages.train(stage, f"early-{stage}", *worse, "patience=2", "publish=best", "training.spike_z=null",
                       "training.max_gradient_norm=null")  # fmt: skip
    lines = {line["step"]: line["validation_loss"] for line in metrics(run) if line["step"]}
    kept = manifest.read(run / "model")["counts"]["step"]
    assert max(lines) < 20
    assert lines[kept] == min(lines.values())
    assert max(lines) == kept + 2


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_watches_forgetting_and_repetition(stages: Stages, stage: str) -> None:
    general = str(stages.tiny.folder / "corpus") if stage == "pretrain" else stages.general()
    watch = [f"general_dir={general}", "validation_tokens=1000", "collapse.prompts=[the]"]
    run = stages.train(stage, f"watch-{stage}", *watch, "collapse.max_new_tokens=8")
    last = metrics(run)[-1]
    assert {"general_loss", "repeated_ngrams", "validation_loss"} <= last.keys()
    limit = [*watch, "collapse.prompts=[]", "forgetting.stop_share=0.0", "optimizer.learning_rate=1.0"]
    done = warm(*stages.command(stage, f"stop-{stage}", *limit))
    assert done.returncode == 2, done.stdout
    assert "forgetting.stop_share" in done.stderr


@pytest.mark.slow
def test_without_held_out_chats_the_last_model_is_published_and_patience_is_named(stages: Stages) -> None:
    general = [f"general_dir={stages.general()}", "validation_tokens=1000", "data.validation_share=0"]
    chats = [f"data.output_dir={stages.folder / 'all-chats'}", "patience=1"]
    for steps in (2, 4):
        run = stages.train("sft", "general-only", *general, *chats, f"training.steps={steps}")
        assert manifest.read(run / "model")["counts"]["step"] == steps
    assert "patience has no effect" in (run / "log.txt").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_model_has_a_card_and_the_licences_of_its_data_and_of_its_base(
    stages: Stages, stage: str, tmp_path: Path
) -> None:
    chats = f"data.output_dir={tmp_path / 'chats-of-the-base'}"
    first = stages.train("sft", f"base-of-{stage}", _licensed(stages, "CC BY 4.0"), chats)
    more = [f"model.path={first / 'model'}"] if stage != "pretrain" else []
    terms = ["data.licence=CC0", "data.use=research"] if stage == "dpo" else []
    sources = [_licensed(stages, "CC0"), f"data.output_dir={tmp_path / 'chats'}"] if stage == "sft" else []
    run = stages.train(stage, f"card-{stage}", *more, *terms, *sources, "card.licence=apache-2.0")
    found = manifest.read(run / "model")["sources"]
    licences = {each["licence"] for each in found.values()}
    assert licences == ({"made by this program"} if stage == "pretrain" else {"CC0", "CC BY 4.0"})
    card = (run / "model" / "README.md").read_text("utf-8")
    assert "license: apache-2.0" in card
    assert all(licence in card for licence in licences)
    again = warm(stage if stage == "pretrain" else "sft", "card", "--run", str(run))
    assert again.returncode == 0, again.stderr
    assert (run / "model" / "README.md").read_text("utf-8") == card


def _licensed(stages: Stages, licence: str) -> str:
    path = stages.bases.folder / "chats.jsonl"
    return f"data.sources=[{{path: {path}, name: {licence[:3].strip()}, licence: {licence}, use: research}}]"


def test_pairs_are_tokenised_once_by_prepare_and_again_if_they_change(stages: Stages) -> None:
    command = stages.command("dpo", "pairs-once")
    first, second = warm(*command, "--prepare"), warm(*command, "--prepare")
    assert ("done" in first.stdout, "up to date" in second.stdout) == (True, True), first.stderr
    assert manifest.read(stages.folder / "pairs-once/pairs")["step"] == "pairs"
    other = warm(*command, "--prepare", "data.seed=1")
    assert "done" in other.stdout, other.stderr
    assert warm(*command, "data.seed=1").returncode == 0
    refused = warm(*command, "data.seed=2")
    assert refused.returncode == 2
    assert "data.seed" in refused.stderr


def test_a_new_training_method_is_one_file(bases: Bases, tmp_path: Path) -> None:
    for phase in (["--prepare"], []):
        done = warm("tests.core.train.smoothed_labels", tmp_path / "run", bases.path(), *phase)
        assert done.returncode == 0, done.stdout + done.stderr
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert losses[-1] < losses[0]
    assert "smoothed labels" in (tmp_path / "run/model/README.md").read_text("utf-8")
