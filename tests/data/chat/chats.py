"""What the tests of chats share: a small tokenizer with every template's tokens, and chats of any length."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.chat.config import ChatDataConfig
from data.chat.messages import Message
from data.chat.prepare import ChatSet, prepare
from data.executor import EngineConfig

SPECIAL = ("<s>", "</s>", "<pad>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>",
           "<|im_end|>")  # fmt: skip
TEXT = [
    "User: Bot: ### Instruction: Response: 명령어 응답 what is a pump? 一种水泵，用于输送水。 특허란?"
] * 5


def write_tokenizer(folder: Path, *, special: tuple[str, ...] = SPECIAL, template: str | None = None) -> Path:
    """A byte-level BPE tokenizer of a few hundred pieces, which cuts any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    """The tokenizer of a folder, a new one each time."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def conversation(turns: int, *, system: bool = False) -> list[Message]:
    """So many questions, each with its answer."""
    said: list[Message] = [{"role": "system", "content": "당신은 전문가입니다."}] if system else []
    for turn in range(turns):
        said.append({"role": "user", "content": f"What is pump {turn}? 水泵"})
        said.append({"role": "assistant", "content": f"一种水泵，pump {turn}."})
    return said


def write_lines(file: Path, rows: list[Any]) -> Path:
    """A file of JSON lines."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return file


def pairs(number: int, tag: str = "q") -> list[dict[str, str]]:
    """So many different records of Alpaca's layout."""
    return [{"instruction": f"{tag} {i}?", "input": "", "output": f"{tag} answer {i}"} for i in range(number)]


def prepared(
    folder: Path, tokenizer: Path, sources: list[dict[str, Any]], *, workers: int = 1, **settings: Any
) -> ChatSet:
    """A finished folder of these sources."""
    settings = {"template": "chatml", "error_budget": None} | settings
    engine = EngineConfig(workers=workers)
    config = ChatDataConfig.model_validate(
        {"output_dir": str(folder), "sources": sources, "engine": engine, **settings}
    )
    return prepare(config, tokenizer, say=lambda _: None)


@pytest.fixture(scope="session")
def chat_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer without a template."""
    return write_tokenizer(tmp_path_factory.mktemp("chats") / "tokenizer")
