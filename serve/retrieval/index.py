"""An index of passages: a folder that tantivy searches, made from one or more corpora.

    corpora/mine/dedup/shard-*.parquet ──▶ indexes/mine/{segments/, manifest.json [vectors.f16, embedding/]}

A new index may extend an older one: its segments, which never change, are linked into the new folder, and
only records that are new or have changed are added. The older index stays as it was, byte for byte, and can
be searched meanwhile. The folder appears under its name when it is complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tantivy

from core.errors import NothingNewError, UserError
from core.openai_client import OpenAIEndpointConfig
from core.provenance import manifest
from data.law_citations import law_name
from data.patent_numbers import publication_key
from data.record import Record, invention
from data.record_store import read_records, shard_files, shard_hashes
from serve.retrieval.embedding import SIZE, Encoder, Endpoint, Hashed
from serve.retrieval.passages import Passage, article_key, passages
from serve.retrieval.terms import RULE, refuse_other_rule, terms

STEP = "index"
SEGMENTS = "segments"
VECTORS = "vectors.f16"
EMBEDDING = "embedding"
WAITING = 512
"""Passages that are encoded at a time."""
HEAP_BYTES = 256 << 20
"""Of passages in memory before tantivy writes a segment."""

STEPS = ("dedup", "clean", "ingest")
"""The step of a corpus whose records are indexed, the first that is there. What `decontaminate` takes out of
training may be found."""

FILTERS = ("key", "digest", "number", "invention", "office", "language", "ipc", "law")
"""What filters compare."""
MUTABLE = ("meta.json", ".managed.json")
"""What tantivy replaces in a folder of segments; all its other files never change."""


def build(
    corpora: Sequence[Path],
    output: Path,
    extends: Path | None = None,
    *,
    embedding: Path | None = None,
    endpoint: OpenAIEndpointConfig | None = None,
    force: bool = False,
) -> dict[str, int]:
    """Index the records of corpora in a new folder, with vectors if there is an embedding; returns its
    counts. An index that extends another has the vectors that that one has.

    Raises UserError if a corpus or the older index cannot be read, NothingNewError if the older index has
    every record as it is.
    """
    folders = [records_folder(corpus) for corpus in corpora]
    inputs = {name: digest for folder in folders for name, digest in shard_hashes(folder).items()}
    config: dict[str, Any] = {"rule": RULE, "corpora": list(map(str, corpora))}
    config |= {"extends": str(extends) if extends else None}
    counts = {"records": 0, "passages": 0}
    if extends:
        described = check(extends)
        counts, before = dict(described["counts"]), described["config"].get("embedding")
        inputs |= manifest.outputs_of(extends)
        embedding, endpoint = _as_before(extends, before, embedding, endpoint)
    counts |= {"new": 0, "changed": 0}
    encoder, config["embedding"] = _encoder(embedding, endpoint) or (None, None)
    with manifest.build(output, step=STEP, config=config, inputs=inputs, force=force) as made:
        segments = made.path / SEGMENTS
        segments.mkdir()
        for file in sorted((extends / SEGMENTS).iterdir()) if extends else ():
            (shutil.copy2 if file.name in MUTABLE else os.link)(file, segments / file.name)
        index = tantivy.Index.open(str(segments)) if extends else tantivy.Index(_schema(), str(segments))
        vectors = None
        if encoder:
            vectors = _NewVectors(encoder, config["embedding"]["size"], made.path, extends, embedding)
        _add(index, folders, counts, vectors)
        _tidy(segments)
        if extends and not counts["new"] + counts["changed"]:
            raise NothingNewError(
                f"nothing new: {extends} has every record of {', '.join(map(str, folders))}."
            )
        if not counts["passages"]:
            raise UserError(f"{', '.join(map(str, folders))}: no record has any text.")
        made.counts |= counts
    return counts


def check(folder: Path) -> dict[str, Any]:
    """The manifest of an index; UserError if the folder is none, or its terms were made by another rule."""
    described = manifest.read(folder)
    if described.get("step") != STEP:
        raise UserError(f"{folder} is no index, but the result of `{described.get('step')}`.")
    refuse_other_rule(described["config"].get("rule"), folder)
    return described


def records_folder(corpus: Path) -> Path:
    """The folder with the records of a corpus, or of one of its steps."""
    if any(corpus.glob("shard-*.parquet")):
        return corpus
    for step in STEPS:
        if (corpus / step / manifest.NAME).exists():
            return corpus / step
    raise UserError(f"{corpus}: no corpus, and no step of one. Make one with `python -m data run`.")


def record_key(record: Record) -> str:
    """What identifies a record in an index."""
    return f"{record['id']} {record['language'] or ''}"


def digest_of(record: Record) -> str:
    """A hash of a record, wherever it was read."""
    return hashlib.sha256(repr({**record, "source": ""}).encode()).hexdigest()[:32]


def ipc_prefixes(symbol: str) -> Iterator[str]:
    """An IPC or CPC symbol and everything above it: `F25B 1/10` gives F, F25, F25B, F25B1, F25B1/10."""
    plain = "".join(symbol.split()).upper()
    yield from dict.fromkeys(filter(None, (plain[:1], plain[:3], plain[:4], plain.partition("/")[0], plain)))


def law_key(title: str, article: str | None = None) -> str:
    """A law's title, or one of its articles, as it is looked for, in any spelling."""
    return law_name(title) + (f" {article_key(article)}" if article else "")


def number_key(number: str) -> str:
    """A publication's number as it is looked for, in any spelling; another id as it is."""
    return publication_key(number) or number.strip()


class _NewVectors:
    """The vectors of passages while they are indexed: 16-bit floats, one row a passage, in the order in which
    passages were added; the rows of passages that are gone stay."""

    def __init__(
        self, encoder: Encoder, size: int, folder: Path, extends: Path | None, embedding: Path | None
    ) -> None:
        """Take over the rows and the embedding of the older index."""
        self.encoder = encoder
        self.waiting: list[str] = []
        file = folder / VECTORS
        if extends:
            shutil.copyfile(extends / VECTORS, file)
        self.output = file.open("ab")
        self.rows: int = file.stat().st_size // (2 * size)
        if embedding:
            shutil.copytree(embedding, folder / EMBEDDING)

    def add(self, text: str) -> int:
        """The row of a passage."""
        self.waiting.append(text)
        if len(self.waiting) == WAITING:
            self.write()
        self.rows += 1
        return self.rows - 1

    def write(self) -> None:
        """Encode what waits."""
        if self.waiting:
            self.output.write(self.encoder.encode(self.waiting).astype(np.float16).tobytes())
        self.waiting.clear()
        self.output.flush()


def _as_before(
    extends: Path,
    before: dict[str, Any] | None,
    embedding: Path | None,
    endpoint: OpenAIEndpointConfig | None,
) -> tuple[Path | None, OpenAIEndpointConfig | None]:
    """What made the vectors of the older index; UserError if another embedding is given."""
    if before is None:
        if embedding or endpoint:
            raise UserError(f"{extends} has no vectors. Index all corpora again, with the embedding.")
        return None, None
    own = extends / EMBEDDING
    if "url" in before:
        other = embedding is not None or (endpoint is not None and endpoint.model != before["name"])
        endpoint = endpoint or OpenAIEndpointConfig(url=before["url"], model=before["name"])
    else:
        same = embedding is None or manifest.read(embedding)["outputs"] == manifest.read(own)["outputs"]
        other = endpoint is not None or not same
        embedding = own
    if other:
        raise UserError(
            f"{extends}: the older index has vectors of {before['name']}. Leave the embedding out, or index"
            " all corpora again."
        )
    return embedding, endpoint


def _encoder(
    embedding: Path | None, endpoint: OpenAIEndpointConfig | None
) -> tuple[Encoder, dict[str, Any]] | None:
    """What encodes the passages, and what the manifest says of it."""
    if embedding:
        return Hashed.open(embedding), {"name": "hashed", "size": SIZE}
    if endpoint is None:
        return None
    encoder = Endpoint(endpoint)
    size = encoder.encode(["size"]).shape[1]
    return encoder, {"name": endpoint.model, "url": endpoint.url, "size": size}


def _add(
    index: tantivy.Index, folders: Sequence[Path], counts: dict[str, int], vectors: _NewVectors | None
) -> None:
    """Add the records that the index does not have as they are."""
    from tqdm import tqdm

    before, seen, older = index.searcher(), dict[str, set[str]](), dict[str, set[str]]()
    schema = index.schema
    writer = index.writer(HEAP_BYTES, num_threads=1)  # one thread: passages stay in the order of the corpus
    total = sum(map(_rows, folders))
    records = (record for folder in folders for record in read_records(folder))
    for record in tqdm(records, "index", total, unit="record", delay=2, disable=None):
        key, digest = record_key(record), digest_of(record)
        texts = seen.setdefault(key, set())  # other texts with the same id and language stay other records
        if digest in texts:
            continue
        texts.add(digest)
        known = before.search(_same(schema, "key", key), max(1, before.num_docs)).hits
        there = {json.loads(before.doc(address)["stored"][0])["digest"] for _, address in known}
        if digest in there:
            continue
        if there:
            older[key] = there
        for passage, fields in fields_of(record, key, digest):
            document = _document(fields)
            if vectors:
                document.add_integer("row", vectors.add(passage.text))
            writer.add_document(document)
            counts["passages"] += 1
        counts["new"] += 1
        counts["records"] += 1
    for key, there in older.items():
        for digest in there - seen[key]:  # replaced by one of the new texts
            replaced = _same(schema, "digest", digest)
            counts["passages"] -= len(before.search(replaced, before.num_docs).hits)
            writer.delete_documents_by_query(replaced)
            counts["records"] -= 1
            if counts["new"]:
                counts["new"] -= 1
                counts["changed"] += 1
    if vectors:
        vectors.write()
    writer.commit()
    writer.wait_merging_threads()


def _same(schema: tantivy.Schema, name: str, value: str) -> tantivy.Query:
    return tantivy.Query.term_query(schema, name, value, "basic")


def _tidy(segments: Path) -> None:
    """Without tantivy's locks, and readable by whom the other files are: tantivy makes two for the owner."""
    for lock in segments.glob("*.lock"):
        lock.unlink()
    mode = segments.stat().st_mode & 0o666
    for name in MUTABLE:
        (segments / name).chmod(mode)


def _rows(folder: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(shard).num_rows for shard in shard_files(folder))


def _schema() -> tantivy.Schema:
    """`terms` is searched, `stored` is shown, the others are filters."""
    schema = tantivy.SchemaBuilder().add_text_field("terms", tokenizer_name="whitespace", index_option="freq")
    for name in FILTERS:
        schema = schema.add_text_field(name, tokenizer_name="raw", index_option="basic")
    for name in ("date", "row"):
        schema = schema.add_integer_field(name, indexed=True, fast=True)
    return schema.add_bytes_field("stored", stored=True).build()


def fields_of(record: Record, key: str, digest: str) -> Iterator[tuple[Passage, dict[str, Any]]]:
    """The passages of a record, each with what is indexed of it: `terms` (searched), `stored` (shown), `date`
    and lists of texts that filters compare."""
    title, language = record["title"] or "", (record["language"] or "").lower()
    shared = {
        "key": [key],
        "digest": [digest],
        "number": [number_key(record["id"])],
        "invention": [invention(record)],
        "office": [record["office"].upper()] if record["office"] else [],
        "language": sorted({language, language.partition("-")[0]} - {""}),
        "ipc": sorted({prefix for symbol in record["ipc"] or () for prefix in ipc_prefixes(symbol)}),
        "date": int(record["date"].replace("-", "")) if record["date"] else None,
    }
    names = ("id", "office", "language", "date", "priority", "title")
    about: dict[str, Any] = {name: value for name, value in record.items() if name in names}
    about |= {"invention": invention(record), "digest": digest}
    for number, passage in enumerate(passages(record)):
        named, laws = [], []
        if passage.part == "article":
            named, laws = [title, passage.label or ""], [law_key(title), law_key(title, passage.label)]
        elif number == 0 and passage.part != "abstract":
            named = [title]
        searched = " ".join(terms("\n".join([*named, passage.text])))
        yield passage, shared | {"law": laws, "terms": searched, "stored": about | passage._asdict()}


def _document(fields: dict[str, Any]) -> tantivy.Document:
    document = tantivy.Document()
    for name in FILTERS:
        for value in fields[name]:
            document.add_text(name, value)
    document.add_text("terms", fields["terms"])
    if fields["date"]:
        document.add_integer("date", fields["date"])
    document.add_bytes("stored", json.dumps(fields["stored"], ensure_ascii=False).encode())
    return document
