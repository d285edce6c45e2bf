"""Each recipe on a base with what published bases have ends with a whole model, a card and a delta; a run
does not go on from other files, and does not publish what learnt nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.errors import UserError
from core.train.model_card import front_matter
from sft.merge_adapter import merge
from tests.conftest import ROOT, TinyRuns, warm
from tests.sft.awkward import VICUNA, awkward
from tests.sft.chats import CHATS, Bases

POLYGLOT: dict[str, str | None] = {"bos_token": "</s>", "unk_token": None, "pad_token": "</s>"}
"""One token begins, ends and pads."""
TIED: dict[str, Any] = {"tie_word_embeddings": True}
RECIPES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "sft/korean-legal-lora": ("gpt_neox", {"tokens": POLYGLOT}, []),
    "sft/korean-patent-qa-qlora": ("llama", TIED, ["model.adapter.embeddings=true"]),
    "sft/taiwan-legal-3b": ("llama", TIED, ["training.global_batch_size=20"]),
    "patent-llama/general": ("llama", {"tokens": {"pad_token": None}}, []),
    "patent-llama/domain": ("mistral", TIED, []),
    "sft/tiny": ("qwen2", TIED, ["stages=[]", "model.adapter={r: 2, embeddings: true}"]),
    "sft/dpo": ("llama", TIED, ["model.adapter={r: 2, embeddings: true}"]),
}
"""Family, what is awkward about the base, and settings, by recipe; all have Vicuna's generation settings."""
SHORT = ["training.steps=2", "training.validate_every_steps=1", "training.save_every_steps=1"]
QUICK = ["training.micro_batch_size=2", "logging.tensorboard=false", "validation_tokens=500"]
HUB = "some/base"
ALWAYS = ("sft/korean-legal-lora",)


def must(*arguments: str | Path) -> str:
    """Run a command that must succeed; what it printed."""
    done = warm(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def command(recipe: str, base: str, folder: Path) -> list[str]:
    """The command of a recipe at the size of seconds, on `base`."""
    settings = [*RECIPES[recipe][2], *SHORT, *QUICK, f"model.path={base}", f"run_dir={folder / 'run'}"]
    settings += [f"card.base_model={HUB}", "deepspeed.zero_stage=1"]
    if not any("global_batch" in each for each in settings):
        settings.append("training.global_batch_size=2")
    rows = CHATS[::9]
    if recipe == "sft/dpo":
        rows = [{"prompt": c["instruction"], "chosen": c["output"], "rejected": "No."} for c in rows]
        settings += [f"data.paths=[{folder / 'rows.jsonl'}]", "data.validation_share=0.3"]
        settings += ["data.max_tokens=64", "data.template=patent-llama"]
    else:
        given = [f"{{name: a, path: {folder / 'rows.jsonl'}}}"]
        if recipe == "patent-llama/domain":
            given.append(f"{{name: b, path: {folder / 'rows.jsonl'}, replay: true}}")
        settings += [f"data.sources=[{', '.join(given)}]", "data.validation_share=0.3"]
        settings += [f"data.output_dir={folder / 'chats'}", "data.max_tokens=256", "data.engine.workers=1"]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    room = ["sft", "dpo"] if recipe == "sft/dpo" else ["sft"]
    return [*room, "--config", str(ROOT / f"configs/{recipe}.yaml"), *settings]


@pytest.mark.parametrize(
    "recipe", [each if each in ALWAYS else pytest.param(each, marks=pytest.mark.slow) for each in RECIPES]
)
def test_a_recipe_ends_with_a_whole_model_a_card_and_a_delta(
    bases: Bases, tmp_path: Path, recipe: str
) -> None:
    kind, different, _ = RECIPES[recipe]
    base = awkward(bases, tmp_path / "base", kind, generation=VICUNA, **different)
    train = command(recipe, base, tmp_path)
    must(*train, "--prepare")
    assert "saved with do_sample=true" in must(*train)
    whole = tmp_path / "run/model"
    assert "validation" in front_matter(whole / "README.md")[1].lower()
    if (whole / "adapter_config.json").exists():
        # A delta stores as differences what has the base's type.
        must("sft", "merge", "--adapter", whole, "--output", tmp_path / "merged", "--dtype", "float32")
        whole = tmp_path / "merged"
    tree, _ = front_matter(whole / "README.md")
    assert (tree["base_model"], tree["library_name"]) == (HUB, "transformers")
    settings = json.loads((whole / "generation_config.json").read_text())
    assert settings.items() >= (VICUNA | {"do_sample": True}).items()
    must("delta", "make", "--base", base, "--target", whole, "--delta", tmp_path / "delta")
    must("delta", "apply", "--base", base, "--target", tmp_path / "again", "--delta", tmp_path / "delta")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    if recipe not in ALWAYS:
        assert "resumed from" in must(*train, "training.steps=3")

    weights = load_file(tmp_path / "base/model.safetensors")
    changed = {name: weight + 0.01 for name, weight in weights.items()}
    save_file(changed, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    for phase in (["--dry-run"], ["--prepare"], []):
        done = warm(*train, "training.steps=4", *phase)
        assert done.returncode == 2, done.stdout
        assert f"{base}/model.safetensors: changed" in done.stderr


def test_pretraining_goes_on_from_its_own_corpus_and_base_only(tiny: TinyRuns, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny.folder / "prepared/base", base)
    (base / "generation_config.json").write_text(json.dumps(VICUNA))
    settings = [f"model.path={base}", "training.steps=2", "training.save_every_steps=1"]
    tiny.train("own-base", *settings)
    assert (
        json.loads((tiny.folder / "own-base/model/generation_config.json").read_text())["do_sample"] is True
    )
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    done = warm("pretrain", *tiny.overrides("own-base", *settings, "training.steps=4"))
    assert done.returncode == 2
    assert f"{base}/config.json: changed" in done.stderr


def test_a_run_in_which_no_step_was_applied_ends_with_an_error(tiny: TinyRuns, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder / "prepared/base", tmp_path / "base")
    weights = load_file(tmp_path / "base/model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    settings = [f"model.path={tmp_path / 'base'}", "training.steps=3", "publish=best"]
    done = warm("pretrain", *tiny.overrides("nan-base", *settings))
    assert done.returncode == 2
    assert "all 3 steps were skipped" in done.stderr
    assert "perplexity nan" in done.stdout
    assert not (tiny.folder / "nan-base/model").exists()


def longer(base: str, folder: Path, modules: list[str], *, tied: bool) -> int:
    """Write an adapter for `base` whose own embeddings have rows for more tokens; the number of rows."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    rows = model.config.vocab_size + 64
    tokenizer.add_tokens([f"专利{number}" for number in range(rows - len(tokenizer) - 5)])
    model.resize_token_embeddings(rows, mean_resizing=False)
    layers = {"r": 2, "target_modules": ["q_proj"], "modules_to_save": modules, "ensure_weight_tying": tied}
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **layers))
    adapted.peft_config["default"].base_model_name_or_path = base
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.copy_(0.1 * torch.randn_like(weight))
    adapted.save_pretrained(folder, save_embedding_layers=tied or len(modules) > 1)
    tokenizer.save_pretrained(folder)
    return int(rows)


@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_with_a_longer_vocabulary_brings_its_rows(
    bases: Bases, tmp_path: Path, tied: bool
) -> None:
    base = awkward(bases, tmp_path / "base", generation=VICUNA, tie_word_embeddings=tied)
    own = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    rows = longer(base, tmp_path / "adapter", own, tied=tied)
    merge(tmp_path / "adapter", tmp_path / "whole")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert whole.config.vocab_size == rows
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    for layer, name in ((whole.get_input_embeddings(), "model.embed_tokens"), (whole.lm_head, "lm_head")):
        assert torch.equal(layer.weight, stored[f"base_model.model.{name}.weight"].bfloat16())
    added = AutoTokenizer.from_pretrained(tmp_path / "whole").convert_tokens_to_ids("专利3")
    assert rows - 128 < added < rows


def test_an_adapter_that_brings_some_rows_only_is_told_by_shapes(bases: Bases, tmp_path: Path) -> None:
    base = awkward(bases, tmp_path / "base")
    longer(base, tmp_path / "adapter", ["embed_tokens"], tied=False)
    with pytest.raises(
        UserError, match=r"embed_tokens\.\S*weight \(\d+, 64\) .*has \(\d+, 64\).* vocabulary"
    ) as told:
        merge(tmp_path / "adapter", tmp_path / "whole")
    assert "another base" not in str(told.value)
    with pytest.raises(UserError, match=r"another base, .*base\. Use that one"):
        merge(tmp_path / "adapter", tmp_path / "whole", bases.path("gpt_neox"))
    assert not (tmp_path / "whole").exists()
