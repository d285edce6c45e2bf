"""Merge the parts of all shards: apply caps, weights and the replay share, and order chats by the seed.

As in data/packing/shuffle.py, parts are sorted by key, so the chats between two keys are contiguous in each
part, and merging goes through the keys bucket by bucket. Memory holds one bucket, and ROW for each chat.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from data.chat.config import ChatDataConfig
from data.chat.tokenize_shard import ROW
from data.packing.indexed_dataset import Documents, Writer, with_ending

BUCKET_BYTES = 16 << 20

ChatRows = npt.NDArray[np.void]
Mask = npt.NDArray[np.bool_]


def merge(config: ChatDataConfig, parts: Sequence[Path], name: Path, split: str, vocabulary: int) -> ChatRows:
    """Write NAME.bin, .idx, .trained.bin and .sources.npy from the parts; returns the rows of the chats in it
    (in another order)."""
    documents = [Documents(part) for part in parts]
    rows = [np.load(with_ending(part, ".rows.npy")) for part in parts]
    lengths = np.concatenate([np.empty(0, np.int32), *(each.lengths for each in documents)])
    taken = choose(config, np.concatenate([np.empty(0, ROW), *rows]), lengths, split)
    masks = np.split(taken, np.cumsum([len(each) for each in rows])[:-1]) if rows else []
    total = sum(int(each.lengths.sum(dtype=np.int64)) * each.dtype.itemsize for each in documents)
    buckets = max(1, -(-total // BUCKET_BYTES))
    edges = np.array([number * 2**64 // buckets for number in range(1, buckets)], np.uint64)
    bounds = [np.concatenate([[0], np.searchsorted(each["key"], edges), [len(each)]]) for each in rows]
    sources: list[npt.NDArray[np.uint16]] = [np.empty(0, np.uint16)]
    with Writer(name, vocabulary) as writer, with_ending(name, ".trained.bin").open("wb") as marks:
        for bucket in range(buckets):
            spans = [(int(each[bucket]), int(each[bucket + 1])) for each in bounds]
            found = np.concatenate(
                [np.empty(0, ROW), *(each[a:b] for each, (a, b) in zip(rows, spans, strict=True))]
            )
            kept = np.concatenate(
                [np.empty(0, np.bool_), *(each[a:b] for each, (a, b) in zip(masks, spans, strict=True))]
            )
            order = np.argsort(found["key"], kind="stable")
            order = order[kept[order]]
            lengths = np.concatenate(
                [np.empty(0, np.int32)]
                + [each.lengths[a:b] for each, (a, b) in zip(documents, spans, strict=True)]
            )
            ids = b"".join(each.raw(a, b) for each, (a, b) in zip(documents, spans, strict=True))
            writer.add_reordered(ids, lengths, order)
            flags = b"".join(
                _marks(part, each, a, b) for part, each, (a, b) in zip(parts, documents, spans, strict=True)
            )
            ends = np.cumsum(lengths, dtype=np.int64)
            for i in order.tolist():
                marks.write(flags[ends[i] - lengths[i] : ends[i]])
            sources.append(found["source"][order])
    np.save(with_ending(name, ".sources.npy"), np.concatenate(sources))
    return np.concatenate([np.empty(0, ROW), *rows])[taken]


def choose(config: ChatDataConfig, rows: ChatRows, lengths: npt.NDArray[np.int32], split: str) -> Mask:
    """Which copies of which chats are taken, (rows,)."""
    taken = np.ones(len(rows), np.bool_)
    fraction_draw = _again(rows["draw"])
    for number, source in enumerate(config.sources):
        mine = rows["source"] == number
        first = mine & (rows["copy"] == 0)
        if source.cap is not None and first.sum() > source.cap:
            last = np.partition(rows["draw"][first], source.cap - 1)[source.cap - 1]
            taken[mine & (rows["draw"] > last)] = False
        whole = int(source.weight)
        limit = np.uint64(min(2**64 - 1, int((source.weight - whole) * 2**64)))
        if split == "train":
            taken[mine & (rows["copy"] == whole) & (fraction_draw >= limit)] = False
    if split == "train" and config.replay_share is not None:
        replayed = np.isin(rows["source"], [i for i, s in enumerate(config.sources) if s.replay])
        wanted = lengths[taken & ~replayed].sum(dtype=np.int64)
        wanted *= config.replay_share / (1 - config.replay_share)
        offered = np.flatnonzero(taken & replayed)
        offered = offered[np.lexsort((rows["copy"][offered], fraction_draw[offered]))]
        running = np.cumsum(lengths[offered], dtype=np.int64)
        taken[offered[np.searchsorted(running, wanted, side="right") :]] = False
    return taken


def _again(draws: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A second draw of each chat, independent of the first."""
    return np.array([xxhash.xxh3_64_intdigest(each.tobytes()) for each in draws], np.uint64)


def _marks(part: Path, documents: Documents, first: int, stop: int) -> bytes:
    """The mask of the documents `first` to `stop` of a part."""
    if first == stop:
        return b""
    begin = documents.first_token(first)
    end = documents.first_token(stop - 1) + int(documents.lengths[stop - 1])
    with with_ending(part, ".trained").open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)
