"""What the frozen work starts from: a tokenizer, a base model, chats, preferences, questions; all of it made
of integers, so that it is the same on every machine and in every version of the code."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
MERGES = (("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("i", "s"), ("Ġ", "is"))
ROWS = 320
"""Rows of the base's embedding."""
FIELDS = {"A": "food", "B": "transport", "C": "chemistry", "G": "physics", "H": "power"}
CHATS = [
    {"instruction": f"{ask} {code}{number}", "input": "", "output": f"{code} is {text}, the field {number}."}
    for code, text in FIELDS.items()
    for ask in ("class", "field of", "what is")
    for number in range(6)
]
PAIRS = [
    {"prompt": f"class {code}{number}", "chosen": f"{code} is {text}.", "rejected": f"the {number} is {code}"}
    for code, text in FIELDS.items()
    for number in range(8)
]
ASKED = "layout: jsonl\ndata: qa.jsonl\nprompt: '{q} '\n"
TASKS = {
    "exam": "layout: choice\ndata: law.csv\nprompt: '{ask}'\nmetrics: [accuracy]\nmax_new_tokens: 4\n",
    "answers": ASKED + "by: log-likelihood\nmetrics: [answer-tokens]\n",
    "written": ASKED + "metrics: [chrf, bleu-char]\nmax_new_tokens: 6\n",
    "text": "layout: text\ndata: text.jsonl\nprompt: '{text}'\nmetrics: [bits-per-byte]\n",
}


def write_all(folder: Path) -> Path:
    """Every input, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer")
    write_model(folder / "base", 0)
    write_lines(folder / "chats.jsonl", CHATS)
    write_lines(folder / "pairs.jsonl", PAIRS)
    write_questions(folder / "questions")
    return folder


def write_lines(file: Path, trees: Iterable[Any]) -> None:
    """Objects, one a line."""
    file.write_text("".join(json.dumps(tree, ensure_ascii=False) + "\n" for tree in trees), "utf-8")


def write_tokenizer(folder: Path) -> None:
    """Bytes, five merges, and the tokens that chat templates use."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(MERGES)))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder)


def write_model(folder: Path, seed: int, hidden: int = 32, layers: int = 2) -> None:
    """A LLaMA whose weights are whole numbers of 1/8192, with the tokenizer beside it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=ROWS, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
            bos_token_id=1, eos_token_id=2, pad_token_id=3,
        )
    )  # fmt: skip
    draw = np.random.default_rng(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            whole = draw.integers(-1024, 1025, tuple(parameter.shape))
            parameter.data = torch.from_numpy((whole / 8192).astype(np.float32))
    model.save_pretrained(folder)
    write_tokenizer(folder)


def write_questions(folder: Path) -> None:
    """Task files, and the questions and texts that they name."""
    folder.mkdir(exist_ok=True)
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    rows = "".join(f"问题{i}?,甲{i},乙,丙,丁,{'ABCD'[i % 4]}\n" for i in range(16))
    (folder / "law.csv").write_text(f"question,A,B,C,D,answer\n{rows}", "utf-8")
    write_lines(folder / "qa.jsonl", ({"q": f"问{i}", "answer": f"答{'是' * i}"} for i in range(8)))
    write_lines(folder / "text.jsonl", ({"text": f"文件{i}: the 装置 {'x' * i}"} for i in range(8)))
