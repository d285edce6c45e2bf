"""The recipes of systems that this replaces: their published settings, and a run of each at tiny scale."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from core.config.loader import load
from core.provenance import manifest
from core.train.model_card import front_matter
from sft.config import SftConfig
from tests.conftest import ROOT, run
from tests.sft.awkward import VICUNA, set_tokens
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
POLYGLOT = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "</s>"}


def lay_out(name: str, folder: Path) -> None:
    """The chats as files of the recipe's sources, in the layouts of the systems' own data."""
    alpaca = [chat | {"input": ""} for chat in CHATS]
    asked = [(chat["instruction"], chat["output"]) for chat in CHATS]
    if name == "korean-patent-qa-qlora":
        rows = "".join(f'"{question}","{said}"\n' for question, said in asked)
        write(folder / "korean-patent-qa.csv", "\ufeff질문,답변\n" + rows)
    elif name == "korean-legal-lora":
        write(folder / "korean-legal/kullm.json", json.dumps(alpaca, indent=2))
    elif name == "taiwan-legal-3b":
        told = [[{"from": "human", "value": q}, {"from": "gpt", "value": a}] for q, a in asked[::2]]
        write(folder / "taiwan-legal/a.json", json.dumps([{"conversations": each} for each in told]))
        roles = ("user", "assistant")
        parts = [
            [{"role": r, "content": t} for r, t in zip(roles, each, strict=True)] for each in asked[1::2]
        ]
        write(folder / "taiwan-legal/b.jsonl", lines({"messages": each} for each in parts))
    elif name == "general":
        pclue = ({"input": q, "target": a, "type": "mrc", "answer_choices": []} for q, a in asked[::4])
        write(folder / "pclue/train.jsonl", lines(pclue))
        firefly = ({"kind": "NLI", "input": q, "target": a} for q, a in asked[1::4])
        write(folder / "firefly/firefly.jsonl", lines(firefly))
        write(folder / "belle/belle.json", lines(alpaca[2::4]))
        safety = [{"prompt": q, "response": a, "type": "Insult"} for q, a in asked[3::4]]
        kinds = {"Insult": safety[::2], "Physical_Harm": safety[1::2]}
        write(folder / "safety-prompts/typical_safety_scenarios.json", json.dumps(kinds))
    else:
        for number, task in enumerate(("extraction", "title", "zh-en", "en-zh")):
            write(folder / f"patent/{task}/{task}.json", json.dumps(alpaca[number::5]))
        write(folder / "belle/belle.json", lines(alpaca[4::5]))


def lines(rows: Iterable[Any]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(file: Path, text: str) -> None:
    """Write a file and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
def test_a_recipe_runs_at_tiny_scale_learns_and_stops(name: str, bases: Bases, tmp_path: Path) -> None:
    config = load(SftConfig, recipe(name))
    kind = "gpt_neox" if name == "korean-legal-lora" else "llama"
    base = tmp_path / str(config.model.path)
    shutil.copytree(bases.taught(kind, str(config.data.template)), base)
    (base / "generation_config.json").write_text(json.dumps(VICUNA))
    if kind == "gpt_neox":
        set_tokens(base, POLYGLOT)
    lay_out(name, tmp_path / "instructions")
    overlay = [*OVERLAYS[name], "data.validation_share=0.1", "card.licence=apache-2.0"]
    for part in (["--prepare"], []):
        done = run("sft", *part, "--config", recipe(name), *overlay, timeout=500, folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    whole = tmp_path / config.run_dir
    log = (whole / "log.txt").read_text()
    first = float(log.partition("step 0: validation loss ")[2].split()[0])
    last = metrics(whole)[-1]["validation_loss"]
    assert last < first, "held-out loss ends below the base's"
    adapter = whole / "model" if "korean" in name else None
    said = answer(base if adapter else whole / "model", "class G4", adapter, length=60)
    assert said.rstrip().endswith(("</s>", "<|eot_id|>")), said
    tree, text = front_matter(whole / "model/README.md")
    assert tree["license"] == "apache-2.0"
    assert "| loss (nats per token) |" in text
    assert "| token accuracy |" in text
    told = manifest.read(tmp_path / config.data.output_dir)["counts"]["sources"]
    assert sum(source["records"] for source in told.values()) == len(CHATS)
    assert not any(source["dropped"] for source in told.values())
