"""Every pretraining recipe, at tiny size and on a base with what published bases have, ends with a whole
model, a card and a delta."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.train.model_card import front_matter
from tests.conftest import ROOT, warm
from tests.sft.awkward import VICUNA, awkward
from tests.sft.chats import make_bases

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain/1x24gb": ("llama", {"tokens": {"bos_token": "</s>", "pad_token": "</s>"}}),
    "pretrain/1x24gb-lora": ("qwen2", {"tie_word_embeddings": True}),
    "pretrain/1x24gb-full": ("gpt_neox", {"tokens": {"pad_token": None}}),
    "pretrain/1x80gb": ("mistral", {"tie_word_embeddings": True}),
    "pretrain/8x80gb": ("llama", {"tie_word_embeddings": True}),
    "pretrain/8x80gb-32k": ("mistral", {"tokens": {"pad_token": None}}),
    "pretrain/4-nodes": ("llama", {"tokens": {"pad_token": None}}),
    "patent-llama/pretrain": ("llama", {"tie_word_embeddings": True}),
}
"""Family and what is awkward about the base, by recipe; all have Vicuna's generation settings."""
SHORT = [
    "sequence_length=128", "training.steps=2", "training.global_batch_size=2", "training.micro_batch_size=1",
    "training.validate_every_steps=1", "training.save_every_steps=1", "validation_tokens=500",
    "logging.tensorboard=false", "data.synthetic.inventions=20", "data.pack.parts=[title]",
    "data.pack.validation_share=0.2", "data.engine.workers=1",
]  # fmt: skip


def must(*arguments: str | Path) -> str:
    """Run a command that must succeed; what it printed."""
    done = warm(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_all_recipes_are_here() -> None:
    there = {f"pretrain/{file.stem}" for file in (ROOT / "configs/pretrain").glob("*.yaml")}
    elsewhere = {"pretrain/tiny", "pretrain/smollm2"}
    assert there - RECIPES.keys() == elsewhere, "make pretrain and make real-model are run by others"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_ends_with_a_whole_model_a_card_and_a_delta(recipe: str, tmp_path: Path) -> None:
    kind, different = RECIPES[recipe]
    base = awkward(make_bases(tmp_path), tmp_path / "base", kind, generation=VICUNA, **different)
    file = ROOT / f"configs/{recipe}.yaml"
    places = [f"model.path={base}", f"data.tokenizer.path={base}", f"run_dir={tmp_path / 'run'}"]
    places += [f"data.output_dir={tmp_path / 'corpus'}", "data.sources=[]"]
    if recipe == "patent-llama/pretrain":
        places.append("data.decontaminate.sets=[]")
    train: list[str | Path] = ["pretrain", "--config", file, *SHORT, *places, "card.base_model=some/base"]
    must(*train, "--prepare")
    must(*train)
    whole = tmp_path / "run/model"
    if (whole / "adapter_config.json").exists():
        must("sft", "merge", "--adapter", whole, "--output", tmp_path / "merged", "--dtype", "float32")
        whole = tmp_path / "merged"
    assert front_matter(whole / "README.md")[0]["base_model"] == "some/base"
    settings = json.loads((whole / "generation_config.json").read_text())
    assert settings.items() >= (VICUNA | {"do_sample": True}).items()
    must("delta", "make", "--base", base, "--target", whole, "--delta", tmp_path / "delta")
    must("delta", "apply", "--base", base, "--target", tmp_path / "again", "--delta", tmp_path / "delta")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
