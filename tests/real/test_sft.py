"""`make sft` on the real instruction files, general then domain: `pipeline` prompts the result as trained."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.config.schema import ModelConfig
from data.chat.prepare import ChatSet
from data.packing.indexed_dataset import Documents
from tests.conftest import ROOT, run
from tests.real.test_chats import LAYOUTS

DOMAIN = ("belle_dev1K.jsonl", "safety_prompts_layout.json", "kullm-v1.jsonl")


def make_base(real: Path, folder: Path) -> str:
    """A small LLaMA of random weights with Chinese-LLaMA's real tokenizer."""
    from core.model.loading import create_base
    from data.packing.tokenizer import TokenizerConfig, prepare_tokenizer

    (folder / "tokenizer").mkdir()
    given = TokenizerConfig(path=str(real / "tokenizers" / "chinese_llama2_tokenizer.model"))
    tokenizer = prepare_tokenizer(given, iter(()), folder / "tokenizer")
    shape = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}  # fmt: skip
    create_base(ModelConfig(architecture=shape), tokenizer, folder / "base")
    return str(folder / "base")


def trained_documents(chats: ChatSet) -> Iterator[tuple[list[int], Any]]:
    """The ids of each chat that was trained on, and its marks."""
    documents, marks = Documents(chats.split("train")), chats.trained("train")
    for i in range(len(documents)):
        first = documents.first_token(i)
        yield documents[i].tolist(), marks[first : first + len(documents[i])]


def test_general_then_domain_ends_in_a_chat_model_that_pipeline_prompts_as_trained(
    real: Path, tmp_path: Path
) -> None:
    from transformers import pipeline
    from transformers.utils.chat_template_utils import Chat

    def source(name: str, **more: Any) -> dict[str, Any]:
        return {"path": str(real / "instructions" / name), "name": name} | more

    general = [source(name) for name in LAYOUTS if name not in DOMAIN]
    domain = [source(name) for name in DOMAIN] + [source("alpaca_zh_demo.json", replay=True)]
    stages = [
        {"name": "general", "data": {"output_dir": str(tmp_path / "a"), "sources": general}},
        {
            "name": "domain",
            "data": {"output_dir": str(tmp_path / "b"), "sources": domain, "replay_share": 0.2},
        },
    ]
    settings = [
        f"run_dir={tmp_path / 'run'}", f"model.path={make_base(real, tmp_path)}",
        f"stages={json.dumps(stages)}", "data.max_tokens=256",
        "data.engine.workers=1", "data.error_budget=null",
        "data.validation_share=0.02", "validation_tokens=2000", "training.steps=20",
        "training.global_batch_size=2", "training.micro_batch_size=2", "training.validate_every_steps=20",
        "training.save_every_steps=null", "optimizer.learning_rate=1e-2", "logging.tensorboard=false",
    ]  # fmt: skip
    for part in (["--prepare"], []):
        done = run("sft", *part, "--config", ROOT / "configs/sft/tiny.yaml", *settings)
        assert done.returncode == 0, done.stdout + done.stderr
    losses = []
    for stage in ("general", "domain"):
        log = (tmp_path / "run" / stage / "log.txt").read_text()
        lines = (tmp_path / "run" / stage / "metrics.jsonl").read_text().splitlines()
        losses += [float(log.partition("step 0: validation loss ")[2].split()[0])]
        losses += [json.loads(lines[-1])["validation_loss"]]
    assert losses[1] < 0.95 * losses[0]
    assert losses[3] < losses[2] < 0.95 * np.log(55296), "it begins where the first stage ended"

    chat = pipeline("text-generation", str(tmp_path / "run/domain/model"), device="cpu", dtype=torch.float32)
    answered = 0
    asked = [json.loads(line) for line in (real / "instructions" / DOMAIN[0]).open(encoding="utf-8")]
    prompts = []
    for record in asked[:20]:
        question = "\n".join(filter(None, [record["instruction"], record.get("input")]))
        messages = [{"role": "user", "content": question}]
        prompts.append(chat.preprocess(Chat(messages))["input_ids"][0].tolist())
    for ids, marks in trained_documents(ChatSet(tmp_path / "b")):
        for prompt in prompts:
            if ids[: len(prompt)] == prompt:
                assert not marks[: len(prompt)].any()
                assert marks[len(prompt) :].all(), "one answer, with its end"
                answered += 1
    assert answered >= 10, "the others are too long or held out"
    told = chat([{"role": "user", "content": asked[0]["instruction"]}], max_new_tokens=8, do_sample=False)
    assert told[0]["generated_text"][-1]["role"] == "assistant"
    assert chat.model.generation_config.eos_token_id == chat.tokenizer.eos_token_id
    assert chat.tokenizer.pad_token_id != chat.tokenizer.eos_token_id
