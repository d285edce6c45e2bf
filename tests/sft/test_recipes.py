"""The recipes of systems that this replaces: their published settings, and a run of each at tiny scale."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.config.loader import load
from sft.config import SftConfig
from tests.conftest import ROOT, run
from tests.sft.chats import CHATS, Bases, answer, metrics

QLORA: dict[str, Any] = {
    "model.adapter.load_in_4bit": True,
    "model.adapter.quant_type": "nf4",
    "model.adapter.double_quant": True,
    "model.adapter.r": 16,
    "model.adapter.alpha": 32,
    "model.adapter.dropout": 0.05,
    "model.adapter.target_modules": (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ),
    "optimizer.learning_rate": 2e-4,
    "schedule.kind": "cosine",
    "schedule.warmup_share": 0.03,
    "schedule.warmup_steps": None,
    "optimizer.weight_decay": 0.01,
    "training.micro_batch_size": 2,
    "training.global_batch_size": 2 * 8,
    "optimizer.name": "paged_adamw_32bit",
    "data.max_tokens": 2048,
    "training.epochs": 3,
    "data.validation_share": 0.1,
    "data.template": "llama3",
    "data.train_on": "answers",
}  # fmt: skip
TAIWAN: dict[str, Any] = {
    "model.adapter": None,
    "optimizer.learning_rate": 5e-5,
    "schedule.kind": "cosine",
    "schedule.warmup_steps": 100,
    "training.micro_batch_size": 20,
    "training.global_batch_size": 20 * 16 * 8,
    "optimizer.name": "adamw",
    "training.epochs": 3,
}
LAWBOT: dict[str, Any] = {
    "model.adapter.r": 8,
    "model.adapter.alpha": 32,
    "model.adapter.dropout": 0.05,
    "model.adapter.target_modules": ("query_key_value",),
    "model.adapter.load_in_4bit": True,
    "model.adapter.quant_type": "fp4",
    "model.adapter.double_quant": True,
    "model.adapter.compute_dtype": "bf16",
    "data.template": "kullm",
    "data.train_on": "all",
    "data.max_tokens": 1024,
    "optimizer.learning_rate": 1e-4,
    "training.epochs": 6,
}
PATENT_LLAMA: dict[str, Any] = {"model.adapter": None, "data.template": "patent-llama"}
SETTINGS = {
    "korean-patent-qa-qlora": QLORA,
    "taiwan-legal-3b": TAIWAN,
    "korean-legal-lora": LAWBOT,
    "general": PATENT_LLAMA,
    "domain": PATENT_LLAMA,
}
"""Each system's published settings, as its sources state them; not what the YAML happens to say."""


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_resolves_to_the_published_settings(name: str) -> None:
    config = load(SftConfig, recipe(name))
    for key, published in SETTINGS[name].items():
        assert value_of(config, key) == published, key
    assert name != "korean-patent-qa-qlora" or "특허" in str(config.data.system_prompt)
    assert name != "taiwan-legal-3b" or "1,280" in (recipe(name)).read_text("utf-8")


def recipe(name: str) -> Path:
    """The file of a recipe."""
    folder = "patent-llama" if name in ("general", "domain") else "sft"
    return ROOT / f"configs/{folder}/{name}.yaml"


def value_of(config: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def test_general_sources_are_those_of_patent_llama() -> None:
    general, domain = (load(SftConfig, recipe(name)) for name in ("general", "domain"))
    assert [source.name for source in general.data.sources] == ["pCLUE", "Firefly", "BELLE", "Safety-Prompts"]
    assert {"extraction", "title", "zh-en", "en-zh"} < {source.name for source in domain.data.sources}
    assert domain.model.path == f"{general.run_dir}/model"


OVERLAYS = {
    "korean-patent-qa-qlora": ["training.steps=25", "optimizer.learning_rate=1e-2"],
    "taiwan-legal-3b": ["training.steps=30", "training.global_batch_size=20", "optimizer.learning_rate=3e-3"],
    "korean-legal-lora": ["training.steps=40", "optimizer.learning_rate=3e-3"],
    "general": ["training.steps=25", "training.global_batch_size=2", "optimizer.learning_rate=3e-3"],
    "domain": ["training.steps=25", "training.global_batch_size=2", "optimizer.learning_rate=3e-3"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
def test_a_recipe_runs_at_tiny_scale_learns_and_stops(name: str, bases: Bases, tmp_path: Path) -> None:
    template = str(load(SftConfig, recipe(name)).data.template)
    base = bases.taught("gpt_neox" if name == "korean-legal-lora" else "llama", template)
    sources = f"[{{name: tiny, path: {bases.folder / 'chats.jsonl'}}}]"
    replay = f"[{{name: a, path: {bases.folder / 'chats.jsonl'}}}, " + sources[1:].replace(
        "}]", ", replay: true}]"
    )
    split = []  # of so few chats the share that it holds out would be none
    for side, chats in (("validation", CHATS[::10]), ("train", [c for i, c in enumerate(CHATS) if i % 10])):
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
        split.append(f"{{name: {side}, path: {tmp_path / side}.jsonl, side: {side}}}")
    given = {"domain": replay, "general": f"[{', '.join(split)}]"}.get(name, sources)
    overlay = [f"model.path={base}", f"data.sources={given}", *OVERLAYS[name]]
    assert len({key.partition("=")[0] for key in overlay}) <= 5
    places = [f"run_dir={tmp_path / 'run'}", f"data.output_dir={tmp_path / 'chats'}"]
    for part in (["--prepare"], []):
        done = run("sft", *part, "--config", recipe(name), *overlay, *places, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
    log = (tmp_path / "run/log.txt").read_text()
    first = float(log.partition("step 0: validation loss ")[2].split()[0])
    last = metrics(tmp_path / "run")[-1]["validation_loss"]
    assert last < first, "held-out loss ends below the base's"
    adapter = tmp_path / "run/model" if "korean" in name else None
    said = answer(base if adapter else tmp_path / "run/model", "class G4", adapter, length=60)
    assert said.rstrip().endswith(("</s>", "<|eot_id|>")), said
