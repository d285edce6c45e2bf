"""Vectors of texts, for questions in another language than the documents.

    python -m serve embed --corpus corpora/mine --output embeddings/mine     from the corpus's own families

The vector of a text is the normalised sum of its terms' vectors, weighted by 1 + ln(count) and by how rare
they are; a term has the row of its hash. Rows are trained so that the texts of one invention in two
languages are nearer to each other than to those of the others in a batch (van den Oord et al. 2018, InfoNCE).
Instead, any endpoint with OpenAI's `/v1/embeddings` may be used.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from core.errors import UserError
from core.openai_client import OpenAIEndpointConfig, ask
from core.provenance import manifest
from data.record import Record, invention
from data.record_store import read_records, shard_hashes
from serve.retrieval.terms import RULE, refuse_other_rule, terms

BUCKETS = 1 << 16
SIZE = 128
STEP = "embedding"
WEIGHTS = "embedding.safetensors"
LONGEST = 2000
"""Characters of a text that are read."""
BATCH = 256
"""Pairs that are told apart at a time."""
TEMPERATURE = 0.05
RATE = 0.02
LEAST_PAIRS = 100
REQUEST = 64
"""Texts in one request to an endpoint."""

Vectors = npt.NDArray[np.float32]


class ServerError(UserError):
    """A server that an index needs does not answer as it should."""


class Encoder(Protocol):
    """What makes vectors."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One normalised vector a text: (texts, size)."""
        ...


@dataclass
class Hashed:
    """The embedding of a folder, in memory (32 MB)."""

    weights: Vectors
    """(BUCKETS, SIZE)."""
    rarity: Vectors
    """(BUCKETS,): ln(documents / documents with a term of the bucket)."""

    @classmethod
    def open(cls, folder: Path) -> "Hashed":
        """UserError if the folder is no embedding, is damaged, or of another rule."""
        described = manifest.read(folder)
        if described.get("step") != STEP:
            raise UserError(f"{folder} is no embedding, but the result of `{described.get('step')}`.")
        refuse_other_rule(described["config"].get("rule"), folder)
        manifest.verify(folder)
        from safetensors.numpy import load_file

        tensors = load_file(folder / WEIGHTS)
        return cls(tensors["weights"], tensors["rarity"])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Zeros for a text without terms."""
        found = np.zeros((len(texts), self.weights.shape[1]), np.float32)
        for row, text in enumerate(texts):
            buckets, values = features(text, self.rarity)
            if len(buckets):
                found[row] = values @ self.weights[buckets]
        return _normalised(found)


@dataclass
class Endpoint:
    """An engine's `/v1/embeddings`."""

    config: OpenAIEndpointConfig

    def encode(self, texts: Sequence[str]) -> Vectors:
        """ServerError if the endpoint fails."""
        parts = [list(texts[start : start + REQUEST]) for start in range(0, len(texts), REQUEST)]
        bodies = [({"model": self.config.model, "input": part}, _vectors_of(len(part))) for part in parts]
        found: list[Any] = [None] * len(parts)
        for number, result in ask(self.config, "embeddings", bodies):
            if isinstance(result, Exception):
                raise ServerError(f"{self.config.url}/embeddings: {result}")
            found[number] = result
        return _normalised(np.concatenate(found))


def features(text: str, rarity: Vectors) -> tuple[npt.NDArray[np.int64], Vectors]:
    """The buckets of a text's terms and their weights."""
    counted = Counter(terms(text[:LONGEST]))
    buckets = np.fromiter((bucket(term) for term in counted), np.int64, len(counted))
    counts = np.fromiter(counted.values(), np.float32, len(counted))
    return buckets, (1 + np.log(counts)) * rarity[buckets]


def bucket(term: str) -> int:
    """The row of a term."""
    return xxhash.xxh3_64_intdigest(term.encode()) & (BUCKETS - 1)


def train(
    folders: Sequence[Path], output: Path, *, epochs: int = 20, seed: int = 0, force: bool = False
) -> dict[str, Any]:
    """Train an embedding on the inventions of corpora that are there in two languages; returns its counts.

    `folders` hold records. Raises UserError if fewer than LEAST_PAIRS inventions have two languages.
    """
    import torch
    from safetensors.numpy import save_file
    from tqdm import tqdm

    texts, pairs = _pairs(folders)
    if len(pairs) < LEAST_PAIRS:
        raise UserError(
            f"{', '.join(map(str, folders))}: {len(pairs):,} pairs of texts of one invention in two"
            f" languages; {LEAST_PAIRS} are needed. Add publications of these families, or use an endpoint:"
            " `serve index --embeddings URL`."
        )
    rarity = _rarity(texts)
    known = [features(text, rarity) for text in texts]
    torch.manual_seed(seed)
    rows = torch.nn.EmbeddingBag(BUCKETS, SIZE, mode="sum")
    torch.nn.init.normal_(rows.weight, std=SIZE**-0.5)
    optimizer = torch.optim.Adam(rows.parameters(), lr=RATE, fused=True)
    draw = np.random.default_rng(seed)
    steps = epochs * math.ceil(len(pairs) / BATCH)
    losses, progress = [], tqdm(total=steps, desc="embed", unit="step", disable=None)
    for step, chosen in enumerate(_batches(len(pairs), epochs, draw)):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        batch = [pairs[number] for number in chosen]
        sides = [_encoded(rows, [known[pair[side]] for pair in batch]) for side in (0, 1)]
        scores = sides[0] @ sides[1].T / TEMPERATURE
        right = torch.arange(len(batch))
        both = [torch.nn.functional.cross_entropy(each, right) for each in (scores, scores.T)]
        loss = torch.stack(both).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        progress.update()
    progress.close()
    inputs = {name: digest for folder in folders for name, digest in shard_hashes(folder).items()}
    config = {"rule": RULE, "buckets": BUCKETS, "size": SIZE, "epochs": epochs, "seed": seed}
    with manifest.build(output, step=STEP, config=config, inputs=inputs, force=force) as made:
        save_file({"weights": rows.weight.detach().numpy(), "rarity": rarity}, made.path / WEIGHTS)
        made.counts |= {"pairs": len(pairs), "loss": round(sum(losses[-10:]) / len(losses[-10:]), 4)}
    return made.counts


def _encoded(rows: Any, known: Sequence[tuple[npt.NDArray[np.int64], Vectors]]) -> Any:
    """Normalised vectors of texts, through which gradients flow."""
    import torch

    buckets = torch.from_numpy(np.concatenate([buckets for buckets, _ in known]))
    values = torch.from_numpy(np.concatenate([values for _, values in known]))
    starts = torch.tensor([0, *np.cumsum([len(buckets) for buckets, _ in known])[:-1]])
    return torch.nn.functional.normalize(rows(buckets, starts, per_sample_weights=values))


def _batches(pairs: int, epochs: int, draw: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    for _ in range(epochs):
        order = draw.permutation(pairs)
        yield from (order[start : start + BATCH] for start in range(0, pairs, BATCH))


def _pairs(folders: Sequence[Path]) -> tuple[list[str], list[tuple[int, int]]]:
    """The texts of all inventions that are there in two languages, and which two belong together. A text is
    title and abstract; the first claim is another."""
    of: dict[str, dict[str, int]] = {}
    texts: list[str] = []
    pairs = []
    for record in (record for folder in folders for record in read_records(folder)):
        language = (record["language"] or "").partition("-")[0]
        for part, text in enumerate(_texts(record)):
            others = of.setdefault(f"{invention(record)} {part}", {})
            if language in others or not text:
                continue
            pairs += [(other, len(texts)) for other in others.values()]
            others[language] = len(texts)
            texts.append(text)
    used = sorted({text for pair in pairs for text in pair})
    place = {text: number for number, text in enumerate(used)}
    return [texts[text] for text in used], [(place[one], place[other]) for one, other in pairs]


def _texts(record: Record) -> tuple[str, str]:
    head = "\n".join(filter(None, (record["title"], record["abstract"])))
    return head[:LONGEST], (record["claims"] or [""])[0][:LONGEST]


def _rarity(texts: Sequence[str]) -> Vectors:
    having = np.zeros(BUCKETS, np.int64)
    for text in texts:
        having[list({bucket(term) for term in terms(text)})] += 1
    return np.log((len(texts) + 1) / (having + 1)).astype(np.float32)


def _normalised(vectors: Vectors) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


def _vectors_of(number: int) -> Any:
    def read(answer: Any) -> Vectors:
        found = sorted(answer["data"], key=lambda each: each["index"])
        vectors = np.array([each["embedding"] for each in found], np.float32)
        if vectors.ndim != 2 or len(vectors) != number or not np.isfinite(vectors).all():
            raise ValueError(f"{number} texts gave vectors of shape {vectors.shape}")
        return vectors

    return read
