"""The card's numbers, names, version history and refusals; a whole run's card stands in test_run.py."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.config.loader import load
from core.errors import UserError
from core.provenance import manifest
from core.train.model_card import _history, base_on_hub, front_matter, write
from sft.card import main
from sft.config import SftConfig, stages
from sft.merge_adapter import merged_card
from sft.recipe import SftRecipe

MODEL = ["model.path=base", "run_dir=runs/x", "data={output_dir: d, sources: [{path: p}]}"]


def test_the_history_of_the_former_card_is_carried_on(tmp_path: Path) -> None:
    former = tmp_path / "README.md"
    former.write_text("# old\n\nVersion 2. All weights.\n\n## Version history\n\n- 2: old\n- 1: first\n")
    overrides = [*MODEL, f"card={{name: new, version: '3', former: {former}}}"]
    config = load(SftConfig, None, overrides)
    assert _history(config, "new") == "## Version history\n\n- 3: new\n- 2: old\n- 1: first"
    former.write_text("# old\n\nVersion 1. All weights.\n")
    assert _history(config, "new") == "## Version history\n\n- 3: new\n- 1: old"


def test_there_is_no_card_of_a_run_that_left_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished run"):
        main(["--run", str(tmp_path)])


def test_stages_differ_where_they_say_and_follow_one_another() -> None:
    said = [{"name": "a", "data": {"output_dir": "a"}}, {"name": "b", "optimizer": {"learning_rate": 1e-6}}]
    whole = load(SftConfig, None, [*MODEL, f"stages={json.dumps(said)}", "neftune_alpha=5"])
    first, second = stages(whole)
    assert (first.run_dir, first.base, first.data.output_dir) == ("runs/x/a", "base", "a")
    assert (second.run_dir, second.base, second.data.output_dir) == ("runs/x/b", "runs/x/a/model", "d")
    assert (first.neftune_alpha, second.optimizer.learning_rate) == (5, 1e-6)
    adapted = stages(whole.model_copy(update={"model": whole.model.model_copy(
        update={"adapter": {"r": 2}})}))  # fmt: skip
    assert adapted[1].base == "base"
    assert adapted[1].model.adapter is not None
    assert adapted[1].model.adapter.path == "runs/x/a/model"
    with pytest.raises(UserError, match="its own"):
        stages(load(SftConfig, None, [*MODEL, 'stages=[{"name": "a"}, {"name": "b"}]']))


NUMBERS = {
    "validation_loss": 1.5, "validation_perplexity": 4.4817, "validation_token_accuracy": 0.625,
    "validation_entropy": 1.25, "validation_entropy_trl": 1.2, "validation_reward_accuracy": math.nan,
}  # fmt: skip


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run's records, as they are when its model is published."""
    for name in ("chats", "run/model", "base"):
        (tmp_path / name).mkdir(parents=True)
    train = {"train": {"chats": 9, "trained_tokens": 99}, "trained_share": 1.0}
    counts = {"sources": {"p": train}, "validation": {"chats": 2}}
    manifest.write(tmp_path / "chats", step="chats", config={}, inputs={}, counts=counts)
    manifest.write(tmp_path / "run/model", step="train", config={}, inputs={}, counts={"step": 4})
    lines = [{"step": 0, "validation_loss": 2.5}, {"step": 4, "loss": 1.0} | NUMBERS]
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "run"


def recipe(run: Path, base: str, *more: str) -> SftRecipe:
    data = f"data={{output_dir: {run.parent / 'chats'}, sources: [{{path: p}}]}}"
    config = load(SftConfig, None, [f"model.path={base}", f"run_dir={run}", data, *more])
    made = SftRecipe(config)
    made.open = lambda: [run.parent / "chats"]  # type: ignore[method-assign]
    made.chats = lambda: SimpleNamespace(folder=run.parent / "chats")  # type: ignore[assignment,method-assign,return-value]
    return made


def test_the_card_has_loss_accuracy_and_entropy_in_its_text_and_its_metadata(trained: Path) -> None:
    tree, text = front_matter(write(recipe(trained, str(trained.parent / "base")), trained))
    told = {each["type"]: each["value"] for each in tree["model-index"][0]["results"][0]["metrics"]}
    assert told == {"loss": 1.5, "perplexity": 4.4817, "token_accuracy": 0.625, "entropy": 1.25}
    assert "| held-out chats | step 0 | step 4, this model |" in text
    assert "| loss (nats per token) | 2.5000 | 1.5000 |" in text
    assert "| token accuracy |  | 0.6250 |" in text


@pytest.mark.parametrize(
    ("base", "more", "named"),
    [
        ("meta-llama/Llama-2-7b-hf", [], "meta-llama/Llama-2-7b-hf"),
        ("BASE", [], None),
        ("BASE", ["card.base_model=EleutherAI/polyglot-ko-12.8b"], "EleutherAI/polyglot-ko-12.8b"),
        ("OURS", [], "meta-llama/Llama-2-7b-hf"),
    ],
)
def test_the_base_in_the_metadata_is_a_name_of_the_hub(
    trained: Path, base: str, more: list[str], named: str | None
) -> None:
    first = write(recipe(trained, "meta-llama/Llama-2-7b-hf"), trained)
    places = {"BASE": str(trained.parent / "base"), "OURS": str(first.parent)}
    path = places.get(base, base)
    card = front_matter(write(recipe(trained, path, *more), trained))[0] if base != "OURS" else {
        "base_model": base_on_hub(None, path)}  # fmt: skip
    assert card.get("base_model") == named


def test_a_base_that_is_no_name_of_the_hub_is_refused(trained: Path) -> None:
    with pytest.raises(UserError, match=r"card\.base_model"):
        recipe(trained, "b", "card.base_model=/models/llama")


@pytest.mark.parametrize("own", [True, False])
def test_a_merged_model_has_the_adapters_card(trained: Path, own: bool) -> None:
    adapter, base = trained / "model", str(trained.parent / "base")
    if own:
        write(recipe(trained, base, "card.base_model=some/base", "card.licence=mit"), trained)
    else:
        (adapter / "README.md").write_text(f"---\nbase_model: {base}\nlibrary_name: peft\n---\n# By peft\n")
    (trained / "README.md").write_text(merged_card(adapter, base, "whole"))
    tree, text = front_matter(trained / "README.md")
    assert tree.get("base_model") == ("some/base" if own else None)
    assert tree["library_name"] == "transformers"
    assert tree.get("license") == ("mit" if own else None)
    assert text.startswith("# whole\n\nA whole model in bf16")
    assert ("token accuracy" if own else "# By peft") in text
