"""Clean records to token ids: format documents, split by invention, tokenise, shuffle, and write indexed
datasets.

    shard-*.parquet ──layout──▶ text ──split──▶ train | validation ──tokenise──▶ ──shuffle──▶ NAME.bin, .idx

A record is one document, or two (data/packing/document_text.py). Each is `<bos> text <eos>` (`<eos> text
<eos>` if the tokenizer has no beginning token). All texts of one invention, in every language and office, are
on the same side of the split (data/packing/train_val_split.py), and the seed determines the order
(data/packing/shuffle.py). For each split, `NAME.bytes.npy` has the UTF-8 bytes of each document's text
(int64), for bits per byte; `seen.parquet` lists what is in `train` (data/dedup/training_index.py).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from core.errors import NothingNewError, UserError
from data.dedup import training_index
from data.dedup.normalise import read_batches
from data.executor import (
    Rows,
    forget_shards,
    map_shards,
    nested,
    shard_name,
    sum_rows,
    to_rows,
)
from data.packing.document_text import LayoutConfig, documents, layout
from data.packing.indexed_dataset import Writer
from data.packing.markup_scan import scan
from data.packing.shuffle import ROWS, merge_parts, order_key, sort_part
from data.packing.tokenizer import Encoder, choose_encoder, open_encoder
from data.packing.train_val_split import (
    SPLITS,
    Families,
    Split,
    SplitConfig,
    link_families,
    split_of,
)
from data.record import SCHEMA, Record, with_all_columns
from data.record_store import read_shard

SAMPLE = 400
"""Number of documents on which two encoders must agree, with SAMPLE_CHARACTERS of each."""
SAMPLE_CHARACTERS = 2500
AMOUNTS = ("documents", "tokens", "characters", "bytes")

Counts = Counter[tuple[str, ...]]
"""AMOUNTS by ("split", NAME, AMOUNT), ("language", LANGUAGE, AMOUNT) and ("source", NAME, AMOUNT);
("documents", OFFICE, LANGUAGE) and ("tokens", OFFICE, LANGUAGE); records by ("dropped", RULE); characters by
("left_out", SECTION) and ("repeated_claims", LANGUAGE)."""


class PackConfig(LayoutConfig, SplitConfig):
    """How a record is formatted, which inventions are held out, and how ids are written."""

    dtype: Literal["smallest", "int32"] = "smallest"
    """`smallest` is uint16 for up to 65,536 tokens, else int32. DeepSpeed's own reader only supports
    int32."""


def pack(
    config: PackConfig,
    tokenizer: Path,
    shards: Sequence[Path],
    folder: Path,
    executor: Executor | None,
    sources: Sequence[str] | None = None,
    earlier: Sequence[Sequence[Path]] = (),
) -> dict[str, Any]:
    """Tokenise every shard of records and merge the results into `train` and `validation` in `folder`.

    `tokenizer` is a folder that transformers can open; `sources` are the names of each shard's source;
    `earlier` are the shards of corpora that this one extends, the oldest first: their inventions stay on the
    same side.

    Returns the counts for the manifest: AMOUNTS of each split, `documents` and `tokens` by office and
    language, `by_language` and `by_source` (AMOUNTS and `tokens_per_character`, of the texts only, without
    beginning and end tokens), `dropped`, `left_out` (characters by section of the description),
    `repeated_claims` (characters by language), `encoder`.
    """
    from core.model.loading import load_tokenizer

    loaded = load_tokenizer(str(tokenizer))
    start = loaded.bos_token_id if loaded.bos_token_id is not None else loaded.eos_token_id
    size = max(loaded.get_vocab().values()) + 1 if config.dtype == "smallest" else 2**31
    ids = Ids(start, loaded.eos_token_id, size)
    encoder = choose_encoder(tokenizer, [text for text in sample(shards, config) if text])
    families = link_families([*earlier, shards], executor)
    work = partial(pack_shard, config, tokenizer, encoder, ids, families)
    todo = list(zip(shards, sources or ["unknown"] * len(shards), strict=True))
    counts = sum_rows(map_shards(work, todo, folder, executor, title="tokenise"))
    if earlier and not any(counts["split", split, "documents"] for split in SPLITS):
        raise NothingNewError("nothing new: the earlier corpora have all documents of the new files.")
    if not counts["split", "train", "documents"]:
        raise UserError("no document is left to train on. Add sources, or lower pack.validation_share.")
    for split in SPLITS:
        parts = [folder / f"{shard_name(number)}.{split}" for number in range(len(shards))]
        merge_parts(parts, folder / split, size, folder / training_index.NAME if split == "train" else None)
    forget_shards(folder)  # before its files, so that a shard with missing files never looks finished
    for file in folder.glob("shard-*"):
        file.unlink()
    return _summary(counts) | {"encoder": encoder}


def sample(shards: Sequence[Path], config: LayoutConfig) -> Iterator[str]:
    """Pieces of the first documents of shards across the corpus, from all positions in a document."""
    chosen = shards[:: max(1, len(shards) // 20)]
    records = (record for shard in chosen for record in islice(read_shard(shard), SAMPLE // len(chosen)))
    for number, record in enumerate(records):
        text = layout(record, config)
        start = number * SAMPLE_CHARACTERS % max(1, len(text))
        yield text[start : start + SAMPLE_CHARACTERS].strip()  # as no document begins with a space


class Ids(NamedTuple):
    """The first and last id of a document, and the size of the vocabulary, which determines the dtype."""

    start: int
    end: int
    vocabulary_size: int


def pack_shard(
    config: PackConfig,
    tokenizer: Path,
    encoder: Encoder,
    ids: Ids,
    families: Families,
    todo: tuple[Path, str],
    folder: Path,
) -> Rows:
    """Write `train` and `validation` of one shard of records to `folder`, sorted by key; returns its
    counts."""
    shard, source = todo
    encode = open_encoder(tokenizer, encoder)
    counts: Counts = Counter()
    rows: dict[Split, list[pa.RecordBatch]] = {split: [] for split in SPLITS}
    with (
        Writer(folder / "unsorted-train", ids.vocabulary_size) as train,
        Writer(folder / "unsorted-validation", ids.vocabulary_size) as validation,
    ):
        writers = {"train": train, "validation": validation}
        for batch in read_batches(shard, SCHEMA.names):
            records: list[Record] = with_all_columns(batch).to_pylist()
            laid_out = [documents(record, config) for record in records]
            texts = [text for each in laid_out for text in each.texts]
            record_of = [number for number, each in enumerate(laid_out) for _ in each.texts]
            counts["dropped", "empty"] += sum(not each.texts for each in laid_out)
            for record, each in zip(records, laid_out, strict=True):
                counts.update({("left_out", name): n for name, n in each.left_out.items()})
                counts["repeated_claims", record["language"] or "unknown"] += each.repeated
            tokens = encode(texts) if texts else []
            sides = [split_of(record, config, families) for record in records]
            for split in SPLITS:
                chosen = [i for i, number in enumerate(record_of) if sides[number] == split]
                for i in chosen:
                    writers[split].add([ids.start, *tokens[i], ids.end])
                    _count(counts, records[record_of[i]], split, source, texts[i], len(tokens[i]) + 2)
                owners = batch.take(pa.array([record_of[i] for i in chosen], pa.int64()))
                rows[split].append(_rows(owners, [texts[i].encode() for i in chosen], config.seed))
    for split in SPLITS:
        sort_part(folder / f"unsorted-{split}", rows[split], folder / split, ids.vocabulary_size)
    return to_rows(counts)


def _rows(owners: pa.RecordBatch, encoded: Sequence[bytes], seed: int) -> pa.RecordBatch:
    """The rows of documents (ROWS of data/packing/shuffle.py): the record of each, and its text in UTF-8."""
    found = training_index.seen_rows(owners)
    named = zip(found["id"].to_pylist(), found["language"].to_pylist(), encoded, strict=True)
    keys = pa.array([order_key(*each, seed) for each in named], pa.uint64())
    sizes = pa.array([len(text) for text in encoded], pa.int64())
    return pa.RecordBatch.from_arrays([keys, sizes, *found.columns], schema=ROWS)


def _count(counts: Counts, record: Record, split: str, source: str, text: str, tokens: int) -> None:
    office, language = record["office"] or "unknown", record["language"] or "unknown"
    amounts = dict(zip(AMOUNTS, (1, tokens, len(text), len(text.encode())), strict=True))
    for key in (("split", split), ("language", language), ("source", source)):
        for what, amount in amounts.items():
            counts[*key, what] += amount
    for kind, number in scan(text).items():
        counts["markup", source, kind] += number
    counts["documents", office, language] += 1
    counts["tokens", office, language] += tokens


def _summary(counts: Counts) -> dict[str, Any]:
    def of(what: str) -> dict[tuple[str, ...], int]:
        return {key[1:]: number for key, number in counts.items() if key[0] == what}

    splits = nested(of("split"))
    return {
        **{split: splits.get(split, {}) for split in SPLITS},
        **{what: nested(of(what)) for what in ("documents", "tokens")},
        **{f"by_{what}": _with_ratio(nested(of(what))) for what in ("language", "source")},
        "markup": nested(of("markup")),
        **{
            what: {name: number for (name,), number in of(what).items() if number}
            for what in ("dropped", "left_out", "repeated_claims")
        },
    }


def _with_ratio(amounts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, float]]:
    return {
        name: {**each, "tokens_per_character": (each["tokens"] - 2 * each["documents"]) / each["characters"]}
        for name, each in amounts.items()
    }
