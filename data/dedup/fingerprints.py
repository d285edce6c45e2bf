"""The keys of records on disk, which deduplication compares instead of texts.

Each shard has a file of keys with a row per record and the columns of `keys_schema`. It is an uncompressed
Arrow file, so that it can be memory-mapped. Later corpora are compared with the keys of a finished one.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field

from core.config.loader import Config
from core.errors import UserError
from data.dedup.minhash import signatures
from data.dedup.normalise import TEXTS, digests, fold, read_batches, whole_texts

ABOUT = ("id", "office", "kind", "language", "application_id", "family_id", "source")


class KeyConfig(Config):
    """The settings of the keys."""

    characters: int = Field(8, ge=1)
    """n of n-grams of characters (Chinese, Japanese)."""
    words: int = Field(5, ge=1)
    """n of n-grams of words (English, Korean and others)."""
    bands: int = Field(32, ge=1)
    """Bands of a signature: more bands find more pairs near the threshold, but cost time and disk."""
    rows: int = Field(4, ge=1)
    """Bins per band: more bins exclude more pairs below the threshold."""


class KeyedShard(NamedTuple):
    """A shard of records and the file of its keys, row by row."""

    shard: Path
    keys: Path
    known: bool
    """Whether it belongs to an older corpus, from which nothing is dropped."""


def keys_schema(config: KeyConfig) -> pa.Schema:
    """The columns of a file of keys; its settings are in the metadata."""
    columns = {
        "id": pa.string(),
        "language": pa.string(),
        "grant": pa.bool_(),
        "length": pa.int64(),  # UTF-16 units of the folded text
        "tie": pa.uint64(),  # of text and source: breaks ties between records that are otherwise equal
        "application": pa.string(),  # office, application and language without script
        "family": pa.string(),  # family, else application
        "text": pa.binary(16),  # digest of the folded text, null if that is empty
        "signature": pa.binary(4 * config.bands * config.rows),
    }
    return pa.schema(columns, metadata={"settings": _settings(config)})


def sign_shard(config: KeyConfig, shard: Path, folder: Path) -> None:
    """Write the keys of a shard's records, row by row, as the file `keys` of a folder."""
    schema = keys_schema(config)
    with pa.OSFile(str(folder / "keys"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in read_batches(shard, (*ABOUT, *TEXTS)):
            folded = fold(whole_texts(batch))
            texts = digests(folded)
            signed = signatures(folded, config.characters, config.words, config.bands * config.rows)
            sources = list(map(xxhash.xxh3_64_intdigest, batch["source"].cast(pa.binary()).to_pylist()))
            application = [pc.fill_null(batch["office"], ""), batch["application_id"]]
            found = {
                "id": batch["id"],
                "language": batch["language"],
                "grant": _grants(batch),
                "length": pa.array(np.diff(folded.bounds)),
                "tie": pa.array(texts[:, 0] ^ np.array(sources, np.uint64)),
                # Null if the application number is: then no record is known to be the same.
                "application": pc.binary_join_element_wise(*application, _base(batch["language"]), " "),
                "family": pc.coalesce(batch["family_id"], batch["application_id"]),
                "text": _fixed(texts, schema.field("text").type, np.any(texts, axis=1)),
                "signature": _fixed(signed, schema.field("signature").type),
            }
            writer.write_batch(pa.RecordBatch.from_pydict(found, schema=schema))


def known_parts(folders: Sequence[Path]) -> list[KeyedShard]:
    """The shards of older corpora; UserError if a folder was not written by `dedup`."""
    parts = []
    for folder in folders:
        shards = sorted(folder.glob("shard-*.parquet"))
        found = [KeyedShard(shard, shard.with_suffix(".keys"), known=True) for shard in shards]
        if not found or not all(part.keys.is_file() for part in found):
            raise UserError(f"{folder} is not a deduplicated corpus: shard-*.keys missing.")
        parts += found
    return parts


def key_batches(config: KeyConfig, part: KeyedShard) -> Iterator[pa.RecordBatch]:
    """The keys of a shard, memory-mapped; UserError if they were made with other settings."""
    with pa.memory_map(str(part.keys)) as source:
        reader = pa.ipc.open_file(source)
        settings = (reader.schema.metadata or {}).get(b"settings", b"other settings").decode()
        if settings != _settings(config):
            raise UserError(
                f"{part.keys} was made with {settings}, not {_settings(config)}. Use the same settings."
            )
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def is_grant(office: str, kind: str) -> bool:
    """Whether a kind code (WIPO ST.16) is a granted right with its text.

    B and C are grants, E reissues, S designs, Y registered utility models everywhere; A was the grant in the
    United States until 2000, and P2 and P3 are plant grants there; U is a grant in China. B8 and similar
    codes are corrected front pages only.
    """
    kind = kind.upper()
    if kind.endswith("8"):
        return False
    special = {"US": ("P2", "P3"), "CN": ("U", "U1")}.get(office, ())
    return kind[:1] in tuple("BCESY") or kind in special or (office == "US" and kind == "A")


def _base(languages: pa.Array) -> pa.Array:
    """Languages without their script, as data.language.base: a short publication may be detected as `zh` and
    its grant as `zh-Hant`."""
    return pc.replace_substring_regex(pc.fill_null(languages, ""), "-.*", "")


def _settings(config: KeyConfig) -> str:
    return json.dumps({name: getattr(config, name) for name in KeyConfig.model_fields})


def _grants(batch: pa.RecordBatch) -> pa.Array:
    codes = pc.binary_join_element_wise(*(pc.fill_null(batch[name], "") for name in ("office", "kind")), " ")
    codes = codes.dictionary_encode()
    grants = [is_grant(*code.split(" ", 1)) for code in codes.dictionary.to_pylist()]
    return pa.array(grants, pa.bool_()).take(codes.indices)


def _fixed(rows: npt.NDArray[Any], kind: pa.DataType, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """An array's rows as binary values, null if not valid."""
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(rows), [mask, pa.py_buffer(np.ascontiguousarray(rows))])
