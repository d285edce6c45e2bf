"""A LLaMA of two layers with random weights, in a folder, as small as a test can use."""

import json
from pathlib import Path
from typing import Any

import torch

CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


def write_model(path: Path, seed: int = 0, context: int = 128, width: int = 32) -> Path:
    """The model and a byte-level tokenizer that knows ` A` but not ` B`, and has a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet, "ĠA"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "A")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=CHAT
    ).save_pretrained(path)
    torch.manual_seed(seed)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=context, initializer_range=0.3,
            bos_token_id=0, eos_token_id=1,
        )
    ).save_pretrained(path)  # fmt: skip
    return path


def write_task(folder: Path, name: str, text: str) -> Path:
    """A task file."""
    file = folder / f"{name}.yaml"
    file.write_text(text, "utf-8")
    return file


def write_jsonl(file: Path, *trees: dict[str, Any]) -> Path:
    """Objects, one a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(tree, ensure_ascii=False) + "\n" for tree in trees), "utf-8")
    return file


def read_lines(run: Path) -> list[dict[str, object]]:
    """The predictions of a run."""
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text("utf-8").splitlines()]
