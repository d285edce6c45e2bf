"""Read, check and tokenise one shard of chats in one worker, and write it in sorted parts.

    rows ──layout──▶ chats ──check──▶ ──template──▶ ids, mask ──by key──▶ shard-00000.0000.train.bin, …

A part has at most PART_TOKENS, so that memory is bounded whatever the file's size. Its `.rows.npy` has ROW
for each chat: the key that determines its position, the draw for caps and shares, its source, the number of
the copy, and the number of trained tokens.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from data.chat.chat_template import Encoded, encode
from data.chat.config import ChatDataConfig, ChatSource
from data.chat.messages import Chat, answered, problem
from data.chat.record_formats import Unfit, read_row
from data.chat.row_reader import dataset_rows, rows
from data.chat.truncate import shorten
from data.executor import Rows, to_rows
from data.packing.indexed_dataset import Writer, with_ending
from data.packing.train_val_split import SPLITS
from data.record import Rejected
from data.stream import FileSplit

PART_TOKENS = 4_000_000

ROW = np.dtype([("key", "u8"), ("draw", "u8"), ("source", "u2"), ("copy", "u2"), ("trained", "u4")])


class Todo(NamedTuple):
    """The input of a shard."""

    source: int
    """The number of its source in the configuration."""
    path: Path | None
    """None for a data set of the hub."""
    part: FileSplit | None


class Kept(NamedTuple):
    """A chat of the part that is being collected."""

    encoded: Encoded
    row: tuple[int, int, int, int, int]


def encode_shard(config: ChatDataConfig, tokenizer: Path, vocabulary: int, todo: Todo, folder: Path) -> Rows:
    """Write the parts of one shard into `folder`, and `dropped.jsonl`; returns its counts, by ("records",
    SOURCE), ("layout", SOURCE, NAME), ("chats", SOURCE), ("cut", SOURCE), ("answers left out", SOURCE) and
    ("dropped", SOURCE, REASON)."""
    source = config.sources[todo.source]
    loaded = open_tokenizer(tokenizer)
    counts: Counter[tuple[str, ...]] = Counter()
    waiting: dict[str, list[Kept]] = {split: [] for split in SPLITS}
    tokens = parts = 0
    with (folder / "dropped.jsonl").open("w", encoding="utf-8") as dropped:
        for place, found in _chats(source, todo, counts):
            outcome = found if isinstance(found, Rejected) else _encode(config, loaded, found, counts, source)
            if isinstance(outcome, Rejected):
                counts["dropped", source.title, outcome.reason] += 1
                line = {"source": place, "reason": outcome.reason, "detail": outcome.detail}
                dropped.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n")
                continue
            assert not isinstance(found, Rejected)
            counts["chats", source.title] += 1
            split, draw = _side(config, source, found)
            copies = -int(-source.weight // 1) if split == "train" else 1
            for copy in range(copies):
                key = xxhash.xxh3_64_intdigest(f"{draw} {copy} order".encode(), config.seed)
                row = (key, draw, todo.source, copy, int(outcome.trained.sum()))
                waiting[split].append(Kept(outcome, row))
            tokens += copies * len(outcome.ids)
            if tokens >= PART_TOKENS:
                _write_part(waiting, folder, parts, vocabulary)
                tokens, parts = 0, parts + 1
    _write_part(waiting, folder, parts, vocabulary)
    return to_rows(counts)


@lru_cache(maxsize=1)
def open_tokenizer(folder: Path) -> Any:
    """The tokenizer, loaded once per process."""
    from core.model.loading import load_tokenizer

    return load_tokenizer(str(folder))


def _chats(
    source: ChatSource, todo: Todo, counts: Counter[tuple[str, ...]]
) -> Iterator[tuple[str, Chat | Rejected]]:
    """Every chat of the shard, or why a record has none."""
    if todo.path is None:
        found = dataset_rows(str(source.dataset), source.revision, source.split)
    else:
        found = rows(todo.path, todo.part)
    for place, row in found:
        counts["records", source.title] += 1
        if isinstance(row, Rejected):
            yield place, row
            continue
        try:
            layout, chats = read_row(row, place, source.layout)
        except Unfit as error:
            yield place, Rejected(place, "no-layout", str(error))
            continue
        counts["layout", source.title, layout] += 1
        if not chats:
            yield place, Rejected(place, "no-messages", "the record has no chat")
        yield from ((place, chat) for chat in chats)


def _encode(
    config: ChatDataConfig, tokenizer: Any, chat: Chat, counts: Counter[tuple[str, ...]], source: ChatSource
) -> Encoded | Rejected:
    """The chat's ids, cut if it is too long, or why it is dropped."""
    messages = answered(chat["messages"])
    if config.system_prompt and messages and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": config.system_prompt}, *messages]
    if wrong := problem(messages):
        return Rejected(chat["source"], *wrong)
    tools = chat.get("tools")
    try:
        encoded = encode(tokenizer, messages, train_on=config.train_on, tools=tools)
        if len(encoded.ids) > config.max_tokens:
            if config.over_long == "drop":
                return Rejected(chat["source"], "over-long", f"{len(encoded.ids)} tokens")
            length = len(encoded.ids)
            shorter = shorten(tokenizer, messages, config.max_tokens, config.train_on, tools)
            if shorter is None:
                return Rejected(
                    chat["source"],
                    "answer-too-long",
                    f"{length} tokens; no prompt fits",
                )
            encoded, left_out = shorter
            counts["cut", source.title] += 1
            counts["answers left out", source.title] += left_out
    except ValueError as error:
        return Rejected(chat["source"], "template", str(error))
    if not encoded.trained[1:].any():
        return Rejected(chat["source"], "nothing-trained", "no token of it would be trained on")
    return encoded


def _side(config: ChatDataConfig, source: ChatSource, chat: Chat) -> tuple[str, int]:
    """The side of the split, by the first question, and the chat's draw. Neither depends on the folder of the
    data, so the same data in another folder give the same order."""
    first = next(message for message in chat["messages"] if message["role"] == "user")
    question = f"{first['content']}\n{first.get('input', '')}".strip()
    within = chat["source"].removeprefix(str(Path(source.path or str(source.dataset))))
    draw = xxhash.xxh3_64_intdigest(f"{source.label} {within} {chat['messages']}".encode(), config.seed)
    if source.side != "auto":
        return source.side, draw
    held_out = xxhash.xxh3_64_intdigest(f"{question} side".encode(), config.seed)
    return ("validation" if held_out < config.validation_share * 2**64 else "train"), draw


def _write_part(waiting: dict[str, list[Kept]], folder: Path, number: int, vocabulary: int) -> None:
    """Write the collected chats in order of their keys, and clear them."""
    for split, chats in waiting.items():
        chats.sort(key=lambda kept: kept.row)
        name = folder / f"{number:04d}.{split}"
        with (
            Writer(name, vocabulary) as writer,
            with_ending(name, ".trained").open("wb") as trained,
        ):
            for kept in chats:
                writer.add(kept.encoded.ids)
                trained.write(kept.encoded.trained.astype(np.uint8).tobytes())
        np.save(with_ending(name, ".rows.npy"), np.array([kept.row for kept in chats], ROW))
        chats.clear()
