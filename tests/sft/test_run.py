"""`python -m sft` as a user runs it: the model answers and stops; best, patience, stages, going on."""

import json
from pathlib import Path

import pytest

from sft import neftune
from tests.conftest import ROOT, run
from tests.sft.chats import Bases, answer, metrics, overrides, train

CONFIG = ["--config", str(ROOT / "configs/sft/tiny.yaml")]


@pytest.fixture(scope="module")
def finished(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    train(bases, folder, "training.steps=150", "training.validate_every_steps=50", "card.watts=100")
    return folder / "run"


def test_a_tuned_model_answers_as_it_was_taught_and_stops(finished: Path) -> None:
    said = answer(finished / "model", "class G4")
    assert said.strip() == "G is physics.</s>"


def test_metrics_tell_accuracy_and_entropy_of_answers_in_both_ways(finished: Path) -> None:
    lines = metrics(finished)
    for name in ("token_accuracy", "entropy", "mean_token_accuracy_trl", "entropy_trl"):
        assert all(name in line for line in lines)
        assert f"validation_{name}" in lines[-1]
    assert lines[0]["token_accuracy"] < 0.2
    assert lines[-1]["validation_token_accuracy"] > 0.9
    assert lines[-1]["entropy"] < lines[0]["entropy"]


def test_the_card_tells_what_was_recorded_and_nothing_else(finished: Path) -> None:
    card = (finished / "model" / "README.md").read_text()
    last = [line for line in metrics(finished) if "validation_loss" in line][-1]
    counts = json.loads((finished.parent / "chats" / "manifest.json").read_text())["counts"]
    assert f"{counts['train']['chats']:,}" in card
    assert "model-index" in card
    best = json.loads((finished / "model" / "manifest.json").read_text())["counts"]
    assert f"{best['best_loss']:.4f}" in card
    assert last["step"] == 150
    assert "100 W (not measured)" in card
    assert "95% interval" not in card, "no evaluation has run"
    assert "Out of scope" not in card


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(bases: Bases, tmp_path: Path) -> None:
    settings = ["training.steps=6", "training.validate_every_steps=2", "training.save_every_steps=3"]
    settings += ["neftune_alpha=5", "model.adapter={r: 4, dropout: 0.1}"]
    whole = train(bases, tmp_path, *settings)
    newest = tmp_path / "run/checkpoints/step-00000006"
    newest.rename(newest.with_name("moved"))
    (newest.parent / "latest").write_text("step-00000003\n")
    assert run("sft", *CONFIG, *overrides(bases, tmp_path, *settings)).returncode == 0
    again = metrics(tmp_path / "run")
    assert [line["loss"] for line in again] == [line["loss"] for line in whole]
    assert again[-1]["validation_loss"] == whole[-1]["validation_loss"]


def test_noise_is_on_embedded_tokens_in_training_only_and_bounded(bases: Bases) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(bases.path())
    layer, ids = model.get_input_embeddings(), torch.arange(24).reshape(2, 12)
    plain = layer(ids)
    parts = 4  # of the rows, on as many processes
    neftune.install(model, 5.0, parts)
    assert torch.equal(model.eval().get_input_embeddings()(ids), plain)
    change = (model.train().get_input_embeddings()(ids) - plain).abs()
    assert 0.9 < float(change.max()) / (5.0 / (parts * 12 * 64) ** 0.5) <= 1.0001


@pytest.mark.slow
def test_patience_ends_a_run_and_its_model_is_the_best(bases: Bases, tmp_path: Path) -> None:
    lines = train(
        bases, tmp_path, "training.validate_every_steps=1", "patience=2", "optimizer.learning_rate=0.5"
    )
    validated = {line["step"]: line["validation_loss"] for line in lines}
    kept = json.loads((tmp_path / "run/model/manifest.json").read_text())["counts"]["step"]
    assert max(validated) < 40
    assert validated[kept] == min(validated.values())
    assert max(validated) == kept + 2
    again = run("sft", *CONFIG, *overrides(bases, tmp_path, "training.validate_every_steps=1", "patience=2",
                                           "optimizer.learning_rate=0.5"))  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert len(metrics(tmp_path / "run")) == len(lines), "a run that has ended is not gone on with"


def test_stages_run_one_after_the_other_each_from_the_one_before(bases: Bases, tmp_path: Path) -> None:
    stages = [
        {"name": "general", "data": {"output_dir": str(tmp_path / "a")}},
        {"name": "domain", "data": {"output_dir": str(tmp_path / "b")}, "optimizer": {"learning_rate": 1e-3}},
    ]
    more = ["training.steps=20", "training.validate_every_steps=10", f"stages={json.dumps(stages)}"]
    for part in (["--prepare"], []):
        done = run("sft", *part, *CONFIG, *overrides(bases, tmp_path, *more, "model.adapter={r: 8}"))
        assert done.returncode == 0, done.stdout + done.stderr
    general, domain = metrics(tmp_path / "run/general"), metrics(tmp_path / "run/domain")
    assert domain[0]["loss"] < 0.9 * general[0]["loss"], "it begins where the first stage ended"
    assert domain[0]["learning_rate"] <= 1e-3
    adapter = json.loads((tmp_path / "run/domain/model/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == bases.path()
    done = run("sft", *CONFIG, *overrides(bases, tmp_path, 'stages=[{"name": "a", "optimiser": {}}]'))
    assert done.returncode == 2
    assert "stages.0 (a)" in done.stderr


def test_a_run_without_its_data_says_how_to_make_it(bases: Bases, tmp_path: Path) -> None:
    done = run("sft", *CONFIG, *overrides(bases, tmp_path))
    assert done.returncode == 2
    assert "--prepare" in done.stderr
