"""The corpus's tokenizer: the base model's, a SentencePiece model, or one trained here.

In every case the result is a folder that `AutoTokenizer.from_pretrained` can open, so that packing, training
and serving use the same tokenizer.
"""

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.config.loader import Config
from core.errors import UserError
from data.packing.word_cache import word_encoder
from data.record import Record

PARTS = ("title", "abstract", "description")
Encoder = Literal["tokenizers", "sentencepiece"]


class TokenizerConfig(Config):
    """Which tokenizer: an existing one, or a new one trained on the corpus."""

    path: str | None = None
    """A folder or hub id that transformers can open (the base model's), or a SentencePiece file `….model`."""
    vocabulary_size: int | None = Field(None, ge=300)
    """Instead of `path`: train a SentencePiece BPE model with byte fallback and this many pieces on the
    corpus."""
    training_characters: int = Field(50_000_000, ge=1000)
    """Characters of training text, from the start of the corpus."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.path is None) == (self.vocabulary_size is None):
            raise ValueError("set either `path` or `vocabulary_size`, and the other to null")
        return self


def prepare_tokenizer(config: TokenizerConfig, texts: Iterator[str], folder: Path) -> Any:
    """Write the tokenizer of `config` to `folder` and return it; `texts` is only read to train one."""
    from core.model.loading import load_tokenizer

    if config.path is None:
        train_sentencepiece(config, texts, folder / "tokenizer.model")
        _describe_sentencepiece(folder)
        tokenizer = load_tokenizer(str(folder))
    elif config.path.endswith(".model"):
        if not Path(config.path).is_file():
            raise UserError(f"tokenizer.path={config.path}: file not found.")
        shutil.copyfile(config.path, folder / "tokenizer.model")
        _describe_sentencepiece(folder)
        tokenizer = load_tokenizer(str(folder))
    else:
        tokenizer = load_tokenizer(config.path)
        if (Path(config.path) / "tokenizer.model").is_file():
            shutil.copyfile(Path(config.path) / "tokenizer.model", folder / "tokenizer.model")
    tokenizer.save_pretrained(folder)
    return tokenizer


def choose_encoder(folder: Path, sample: Sequence[str]) -> Encoder:
    """SentencePiece if the folder has its model and it gives the tokenizer's ids for the whole sample.

    It is several times faster, also by its memory of words (data/packing/word_cache.py). It differs if
    pieces have equal scores, e.g. in merged vocabularies, so it has to be tested.
    """
    texts = list(sample)
    if not texts or not (folder / "tokenizer.model").is_file():
        return "tokenizers"
    same = open_encoder(folder, "sentencepiece")(texts) == open_encoder(folder, "tokenizers")(texts)
    return "sentencepiece" if same else "tokenizers"


def open_encoder(folder: Path, encoder: Encoder) -> Callable[[list[str]], list[list[int]]]:
    """A function from texts to ids, without special tokens; their names in a text are plain text."""
    if encoder == "sentencepiece":
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        threads = 1 if os.environ.get("TOKENIZERS_PARALLELISM") == "false" else len(os.sched_getaffinity(0))
        words = word_encoder(model)

        def encode(texts: list[str]) -> list[list[int]]:
            found = [words(text) for text in texts] if words else [None] * len(texts)
            rest = [text for text, ids in zip(texts, found, strict=True) if ids is None]
            others = iter(model.encode(rest, num_threads=threads) if rest else ())
            return [list(next(others)) if ids is None else ids for ids in found]

        return encode
    from core.model.loading import load_tokenizer

    tokenizer = load_tokenizer(str(folder))
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    return lambda texts: list(tokenizer(texts, verbose=False, **options)["input_ids"])


def train_sentencepiece(config: TokenizerConfig, texts: Iterator[str], file: Path) -> None:
    """Train a BPE model with byte fallback like LLaMA's: split digits, keep white space, no normalisation."""
    import sentencepiece

    def lines() -> Iterator[str]:
        left = config.training_characters
        for text in texts:
            for line in text.splitlines():
                if left <= 0:
                    return
                left -= len(line)
                yield line[:4000]

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(),
            model_writer=model,  # given a file name, SentencePiece writes it into the model
            vocab_size=config.vocabulary_size,
            model_type="bpe",
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            character_coverage=0.9995,
            max_sentence_length=20_000,
            pad_id=3,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise UserError(_explain_training(str(error), config.vocabulary_size)) from None
    file.write_bytes(model.getvalue())


def _explain_training(error: str, size: int | None) -> str:
    """SentencePiece's error, with what to do."""
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        return (
            f"tokenizer.vocabulary_size={size} is too small: the corpus needs at least {found[1]}"
            " (characters, bytes and special tokens)."
        )
    if found := re.search(r"Vocabulary size too high .* value <= (\d+)", error):
        return (
            f"tokenizer.vocabulary_size={size} is too large: the corpus has at most {found[1]} pieces. Lower"
            " it, or add text."
        )
    return f"tokenizer.vocabulary_size={size}: training on the corpus failed: {error}"


def record_texts(records: Iterator[Record]) -> Iterator[str]:
    """Every text of every record, to train a tokenizer."""
    for record in records:
        yield from (text for part in PARTS if (text := record[part]))  # type: ignore[literal-required]
        yield from record["claims"] or ()


def _describe_sentencepiece(folder: Path) -> None:
    """Turn a folder with only `tokenizer.model` into a LLaMA tokenizer."""
    import sentencepiece

    file = folder / "tokenizer.model"
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (RuntimeError, OSError):
        raise UserError(f"{file.name}: not a valid SentencePiece model.") from None
    tokens = {"bos_token": model.bos_id(), "eos_token": model.eos_id(), "unk_token": model.unk_id()}
    tokens |= {"pad_token": model.pad_id()}
    named = {name: model.id_to_piece(i) for name, i in tokens.items() if i >= 0}
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | named, indent=1) + "\n", "utf-8")
