"""Clean records to token ids: documents laid out, split by invention, tokenised, written as indexed datasets.

    clean/shard-*.parquet ──layout──▶ text ──split──▶ train | validation ──tokenise──▶ NAME.bin, NAME.idx

Every document is `<bos> text <eos>` (`<eos> text <eos>` where the tokenizer has no beginning token). All
texts of one invention, in every language, stand on the same side of the split. Beside each split,
`NAME.bytes.npy` holds the UTF-8 bytes of each document's text (int64), for bits per byte.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from core.config import Config
from core.errors import UserError
from data.engine import add_counts, map_shards, nested, shard_name
from data.indexed import Writer, merge
from data.ingest import read_shard
from data.record import Record, invention
from data.tokenizer import Encoder, choose_encoder, open_encoder

BATCH = 256
SAMPLE = 400
SPLITS = ("train", "validation")
Part = Literal["title", "abstract", "claims", "description"]


class PackConfig(Config):
    """How a record becomes a document, and which inventions are held out."""

    parts: tuple[Part, ...] = ("title", "abstract", "claims", "description")
    """The parts of a document, in order, with an empty line between them."""
    validation_share: float = Field(0.01, ge=0, lt=1)
    """Share of the inventions that is held out from training."""
    seed: int = Field(0, ge=0)
    """Seed of the split."""


def pack(
    config: PackConfig, tokenizer: Path, shards: Sequence[Path], folder: Path, executor: Executor | None
) -> dict[str, Any]:
    """Tokenise every shard of records and merge the results into `train` and `validation` in `folder`.

    `tokenizer` is a folder that transformers opens. Returns the counts for the manifest.
    """
    from core.model import load_tokenizer

    loaded = load_tokenizer(str(tokenizer))
    start = loaded.bos_token_id if loaded.bos_token_id is not None else loaded.eos_token_id
    ids = Ids(start, loaded.eos_token_id, max(loaded.get_vocab().values()) + 1)
    encoder = choose_encoder(tokenizer, [layout(record, config.parts) for record in sample(shards)])
    work = partial(pack_shard, config, tokenizer, encoder, ids)
    counts: dict[str, Any] = add_counts(map_shards(work, shards, folder, executor, title="tokenise"))
    for split in SPLITS:
        parts = [folder / f"{shard_name(number)}.{split}" for number in range(len(shards))]
        merge(parts, folder / split, ids.vocabulary_size)
        sizes = [folder / f"{part.name}.bytes.npy" for part in parts]
        np.save(folder / f"{split}.bytes.npy", np.concatenate([np.load(file) for file in sizes]))
    for file in folder.glob("shard-*"):
        file.unlink()
    if not counts["train"].get("documents"):
        raise UserError("no document is left to train on: add sources, or lower pack.validation_share.")
    return counts | {"encoder": encoder}


def sample(shards: Sequence[Path]) -> Iterator[Record]:
    """The first records of shards spread over the corpus, `SAMPLE` at most."""
    chosen = shards[:: max(1, len(shards) // 20)]
    for shard in chosen:
        yield from islice(read_shard(shard), max(1, SAMPLE // len(chosen)))


class Ids(NamedTuple):
    """What a document begins and ends with, and the size of the vocabulary, which decides the dtype."""

    start: int
    end: int
    vocabulary_size: int


def pack_shard(
    config: PackConfig, tokenizer: Path, encoder: Encoder, ids: Ids, shard: Path, folder: Path
) -> dict[str, Any]:
    """Write `train` and `validation` of one shard of records into `folder`; returns its counts."""
    encode = open_encoder(tokenizer, encoder)
    counts = {split: Counter[str]() for split in SPLITS}
    by_language: dict[str, Counter[tuple[str, ...]]] = {"documents": Counter(), "tokens": Counter()}
    empty = 0
    sizes: dict[str, list[int]] = {split: [] for split in SPLITS}
    with (
        Writer(folder / "train", ids.vocabulary_size) as train,
        Writer(folder / "validation", ids.vocabulary_size) as held_out,
    ):
        writers = {"train": train, "validation": held_out}
        for batch in batches(read_shard(shard), BATCH):
            texts = [layout(record, config.parts) for record in batch]
            for record, text, tokens in zip(batch, texts, encode(texts), strict=True):
                if not text:
                    empty += 1
                    continue
                split, size = split_of(record, config), len(text.encode())
                key = (record["office"] or "unknown", record["language"] or "unknown")
                writers[split].add([ids.start, *tokens, ids.end])
                sizes[split].append(size)
                counts[split].update(documents=1, tokens=len(tokens) + 2, characters=len(text), bytes=size)
                by_language["documents"][key] += 1
                by_language["tokens"][key] += len(tokens) + 2
    for split in SPLITS:
        np.save(folder / f"{split}.bytes.npy", np.array(sizes[split], np.int64))
    return {
        **{split: dict(counts[split]) for split in SPLITS},
        **{k: nested(v) for k, v in by_language.items()},
        "dropped": {"empty": empty} if empty else {},
    }


def layout(record: Record, parts: Iterable[Part]) -> str:
    """The text of a document: its parts, claims numbered from 1, an empty line between parts."""
    texts = []
    for part in parts:
        if part == "claims":
            texts.append("\n".join(f"{i}. {claim}" for i, claim in enumerate(record["claims"] or (), 1)))
        else:
            texts.append(record[part] or "")
    return "\n\n".join(text for text in texts if text)


def split_of(record: Record, config: PackConfig) -> str:
    """`train` or `validation`: a pure function of the seed and the invention."""
    digest = hashlib.blake2b(f"{config.seed}:{invention(record)}".encode(), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "big") < config.validation_share * 2**64 else "train"


def batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """The records in lists of `size`; the last may be shorter."""
    iterator = iter(records)
    while batch := list(islice(iterator, size)):
        yield batch
