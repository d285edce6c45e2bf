"""Search an index: inventions (or documents), best first, each with its best passages.

Passages are ranked by BM25 over their terms; an invention has the rank of its best passage. Publications of
one invention, in several languages or kinds, are one hit. An index with vectors ranks by them, too: the two
rankings are joined by reciprocal rank (Cormack et al. 2009).
"""

import datetime
import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tantivy

from core.errors import UserError
from core.openai_client import OpenAIEndpointConfig
from serve.retrieval.embedding import Encoder, Endpoint, Hashed
from serve.retrieval.index import EMBEDDING, SEGMENTS, VECTORS, check, ipc_prefixes, law_key, number_key
from serve.retrieval.terms import spans, terms

if TYPE_CHECKING:
    import numpy.typing as npt

    from serve.retrieval.opensearch import OpenSearch

LONGEST_QUESTION = 100_000
"""Characters. The description of a patent fits."""
MOST_TERMS = 300
"""Different terms of a question that are looked for: the rarest."""
COMMON = 0.3
"""A term in a larger share of the passages (`the`, `的`) is not marked in them."""
JOINED = 50
"""Hits of each ranking that are joined."""
BLOCK = 1 << 16
"""Vectors that are compared at a time."""
PASSAGES = 3
"""Of a hit."""


class NoWordsError(UserError):
    """A question without words."""


@dataclass(frozen=True)
class Filter:
    """What a hit must be. A passage without a date does not pass `before`: nothing shows that it is
    earlier."""

    before: str | None = None
    """Published before this day (ISO 8601)."""
    offices: tuple[str, ...] = ()
    """WIPO ST.3 codes."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes; `zh` includes `zh-Hant`."""
    ipc: tuple[str, ...] = ()
    """IPC or CPC symbols at any level: H, H01, H01L, H01L21, H01L21/02."""
    without: str | None = None
    """An invention that is not wanted: that of the publication whose prior art is looked for."""

    def __post_init__(self) -> None:
        if self.before is not None and not _is_date(self.before):
            raise UserError(f"before={self.before}: no date such as 2015-01-06.")
        for symbol in self.ipc:
            if not re.fullmatch(
                r"[A-HY](\d\d([A-Z](\d{1,4}(/\d{2,6})?)?)?)?", "".join(symbol.upper().split())
            ):
                raise UserError(f"ipc={symbol}: no IPC or CPC symbol such as H01L or H01L 21/02.")

    def values(self) -> dict[str, list[str]]:
        """The values of which each field must have one, as they are indexed; without fields that may have
        any."""
        found = {
            "office": [office.upper() for office in self.offices],
            "language": [language.lower() for language in self.languages],
            "ipc": [list(ipc_prefixes(symbol))[-1] for symbol in self.ipc],
        }
        return {name: values for name, values in found.items() if values}

    def day(self) -> int | None:
        """`before` as dates are indexed: 20150106."""
        return int(self.before.replace("-", "")) if self.before else None


EVERYTHING = Filter()
FIELDS = ("before", "office", "language", "ipc")
"""What a request filters by; see `filter_of`."""


@dataclass
class Hit:
    """An invention that was found."""

    id: str
    """The publication with its best passage."""
    title: str | None
    office: str | None
    language: str | None
    date: str | None
    invention: str
    """What all its publications share."""
    score: float
    """BM25 of its best passage; with vectors, the sum of its reciprocal ranks."""
    passages: list[dict[str, Any]] = field(default_factory=list)
    """Best first: `part`, `label`, `text`, `score`, and `found`, where the question's terms stand in `text`
    (start and end in characters); `id` and `language` of the publication."""

    @classmethod
    def of(cls, stored: dict[str, Any], score: float) -> "Hit":
        """The hit whose best passage is stored as this; still without passages."""
        names = ("id", "title", "office", "language", "date", "invention")
        return cls(**{name: stored[name] for name in names}, score=score)

    def add(self, stored: dict[str, Any], score: float) -> None:
        """Add a passage, if there are not enough."""
        if len(self.passages) < PASSAGES:
            names = ("id", "language", "part", "label", "text")
            self.passages.append({name: stored[name] for name in names} | {"score": score})


class Index:
    """An index that is open for searching; a folder that is replaced meanwhile goes on being read.

    tantivy makes a lock beside what it reads: it gets a folder of links, so that the index may be read-only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        described = check(folder)
        self.counts: dict[str, int] = described["counts"]
        self._links = tempfile.TemporaryDirectory(prefix="patent-llama-index-")
        for file in (file for file in (folder / SEGMENTS).glob("*") if file.suffix != ".lock"):
            (Path(self._links.name) / file.name).symlink_to(file.resolve())
        try:
            index = tantivy.Index.open(self._links.name)
            self.schema, self.searcher = index.schema, index.searcher()
            readable = self.searcher.num_docs
        except (ValueError, OSError) as error:
            raise UserError(f"{folder} is damaged ({error}). Build it again.") from None
        if readable != self.counts["passages"]:
            raise UserError(
                f"{folder} is damaged: it has {readable:,} passages, and its manifest says"
                f" {self.counts['passages']:,}. Build it again."
            )
        self.encoder: Encoder | None = None
        if embedding := described["config"].get("embedding"):
            self._open_vectors(embedding)

    def _open_vectors(self, embedding: dict[str, Any]) -> None:
        """Map the vectors into memory, and get ready what makes the questions'."""
        if "url" in embedding:
            self.encoder = Endpoint(OpenAIEndpointConfig(url=embedding["url"], model=embedding["name"]))
        else:
            self.encoder = Hashed.open(self.folder / EMBEDDING)
        try:
            flat = np.memmap(self.folder / VECTORS, np.float16, "r")
            self.vectors = flat.reshape(-1, embedding["size"])
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / VECTORS} is damaged ({error}). Build the index again.") from None
        self.rows = self._rows(tantivy.Query.all_query())
        if len(self.rows) != self.counts["passages"] or self.rows.max(initial=-1) >= len(self.vectors):
            raise UserError(
                f"{self.folder / VECTORS} is damaged: vectors are missing. Build the index again."
            )

    def search(
        self, question: str, hits: int = 10, wanted: Filter = EVERYTHING, *, mark: bool = True
    ) -> list[Hit]:
        """The best inventions for a question; UserError if the question has no words or is too long.

        Without `mark` passages have no `found`, which takes most of the time.
        """
        counted = self._terms(question)
        depth = max(hits, JOINED) if self.encoder else hits
        best = self._by_terms(counted, depth, wanted)
        if self.encoder:
            best = _joined([best, self._by_vector(self.encoder, question, depth, wanted)])
        best = best[:hits]
        if mark:
            common = self.counts["passages"] * COMMON
            looked_for = {term for term in counted if self.searcher.doc_freq("terms", term) <= common}
            for passage in (passage for hit in best for passage in hit.passages):
                passage["found"] = spans(passage["text"], looked_for)
        return best

    def _by_terms(self, counted: dict[str, int], hits: int, wanted: Filter) -> list[Hit]:
        """The best inventions by BM25."""
        if not counted:
            return []
        scored = [
            (tantivy.Occur.Should, tantivy.Query.boost_query(self._term("terms", term), float(count)))
            for term, count in counted.items()
        ]
        query = tantivy.Query.boolean_query(scored)
        if clauses := self._clauses(wanted):
            query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), *clauses])
        limit = hits * 8
        while True:
            found = self.searcher.search(query, limit, count=False).hits
            inventions = self._grouped(found)
            if len(inventions) >= hits or len(found) < limit:
                return sorted(inventions.values(), key=lambda hit: (-hit.score, hit.id))[:hits]
            limit *= 4

    def _by_vector(self, encoder: Encoder, question: str, hits: int, wanted: Filter) -> list[Hit]:
        """The best inventions by the cosine of their passages' vectors and the question's."""
        vector = encoder.encode([question])[0]
        cosines = np.empty(len(self.vectors), np.float32)
        for start in range(0, len(cosines), BLOCK):
            cosines[start : start + BLOCK] = self.vectors[start : start + BLOCK].astype(np.float32) @ vector
        if clauses := self._clauses(wanted):
            rows = self._rows(
                tantivy.Query.boolean_query([(tantivy.Occur.Must, tantivy.Query.all_query()), *clauses])
            )
        else:
            rows = self.rows
        limit = min(hits * 8, len(rows))
        while True:
            best = rows[np.argsort(-cosines[rows], kind="stable")[:limit]]
            found = [(float(cosines[row]), self._row(int(row))) for row in best]
            inventions = self._grouped(found)
            if len(inventions) >= hits or limit == len(rows):
                return list(inventions.values())[:hits]
            limit = min(limit * 4, len(rows))

    def _row(self, row: int) -> Any:
        """Where the passage with this vector is."""
        query = tantivy.Query.term_query(self.schema, "row", row, index_option="basic")
        return self.searcher.search(query, 1, count=False).hits[0][1]

    def _rows(self, query: Any) -> "npt.NDArray[np.int64]":
        """The vectors of all passages that a query finds."""
        found = self.searcher.search(
            query, max(1, self.searcher.num_docs), count=False, order_by_field="row"
        ).hits
        return np.array([row for row, _ in found], np.int64)

    def publication(self, number: str) -> dict[str, Any] | None:
        """What is stored of a publication, in any spelling of its number; None if it is not in the index."""
        found = self.searcher.search(self._term("number", number_key(number)), 1).hits
        return self._stored(found[0][1]) if found else None

    def has_law(self, title: str, article: str | None = None) -> bool:
        """Whether the index has a law of this title, or an article of it."""
        return self.searcher.doc_freq("law", law_key(title, article)) > 0

    def _terms(self, question: str) -> dict[str, int]:
        """The terms that are looked for and how often the question has them."""
        counted = counted_terms(question)
        known = {term: self.searcher.doc_freq("terms", term) for term in counted}
        rarest = sorted((frequency, term) for term, frequency in known.items() if frequency)[:MOST_TERMS]
        return {term: counted[term] for _, term in rarest}

    def _clauses(self, wanted: Filter) -> list[tuple[Any, Any]]:
        """The filter as parts of a query that do not change its scores."""
        must: list[Any] = [
            tantivy.Query.term_set_query(self.schema, name, values)
            for name, values in wanted.values().items()
        ]
        if day := wanted.day():
            kind = tantivy.FieldType.Integer
            must.append(tantivy.Query.range_query(self.schema, "date", kind, 0, day, include_upper=False))
        clauses = [(tantivy.Occur.Must, tantivy.Query.const_score_query(each, 0.0)) for each in must]
        if wanted.without:
            clauses.append((tantivy.Occur.MustNot, self._term("invention", wanted.without)))
        return clauses

    def _term(self, name: str, value: str) -> Any:
        return tantivy.Query.term_query(
            self.schema, name, value, index_option="freq" if name == "terms" else "basic"
        )

    def _stored(self, address: Any) -> dict[str, Any]:
        return dict(json.loads(self.searcher.doc(address)["stored"][0]))

    def _grouped(self, found: Sequence[tuple[float, Any]]) -> dict[str, Hit]:
        inventions: dict[str, Hit] = {}
        for score, address in found:
            stored = self._stored(address)
            inventions.setdefault(stored["invention"], Hit.of(stored, score)).add(stored, score)
        return inventions


def counted_terms(question: str) -> Counter[str]:
    """The terms of a question; UserError if it is too long or has none."""
    if len(question) > LONGEST_QUESTION:
        raise UserError(f"the question has {len(question):,} characters; {LONGEST_QUESTION:,} are allowed.")
    counted = Counter(terms(question))
    if not counted:
        raise NoWordsError("the question has no words.")
    return counted


def open_index(place: str | Path) -> "Index | OpenSearch":
    """An index in a folder, or on a server (http://…)."""
    if not str(place).startswith(("http://", "https://")):
        return Index(Path(place))
    from serve.retrieval.opensearch import OpenSearch

    return OpenSearch(str(place))


def _joined(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
    """One ranking: each invention has the sum of 1 / (60 + rank) over those that have it."""
    found: dict[str, Hit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, 1):
            own = found.setdefault(hit.invention, replace(hit, score=0.0, passages=[]))
            own.score += 1 / (60 + rank)
            known = {(passage["id"], passage["language"], passage["text"]) for passage in own.passages}
            own.passages += [
                each for each in hit.passages if (each["id"], each["language"], each["text"]) not in known
            ]
            del own.passages[PASSAGES:]
    return sorted(found.values(), key=lambda hit: (-hit.score, hit.id))


def filter_of(index: "Index | OpenSearch", given: Any) -> Filter:
    """The filter of a request: `before` (a day or a publication), and `office`, `language` and `ipc` (a text
    with commas or a list). Raises UserError."""
    given = {} if given is None or given is True else given
    if not isinstance(given, dict):
        raise UserError("retrieval: give an object, or false for none.")
    if unknown := given.keys() - FIELDS:
        raise UserError(f"retrieval: unknown {', '.join(sorted(map(str, unknown)))}.")

    def listed(name: str) -> tuple[str, ...]:
        value = given.get(name) or ()
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise UserError(f"{name}: give a text, or a list of texts.")
        return tuple(filter(None, map(str.strip, items)))

    before = given.get("before") or None
    if before is not None and not isinstance(before, str):
        raise UserError("before: give a date such as 2015-01-06, or a publication number.")
    day, without = prior_art(index, before)
    return Filter(day, listed("office"), listed("language"), listed("ipc"), without)


def prior_art(index: "Index | OpenSearch", before: str | None) -> tuple[str | None, str | None]:
    """What `--before` gives: a day, or a publication of the index, whose priority date is meant and whose own
    invention is left out."""
    if before is None or _is_date(before):
        return before, None
    stored = index.publication(before)
    if stored is None:
        raise UserError(f"before={before}: neither a date such as 2015-01-06 nor a publication of the index.")
    day = stored["priority"] or stored["date"]
    if day is None:
        raise UserError(f"before={before}: {stored['id']} has no date. Give one such as 2015-01-06.")
    return day, stored["invention"]


def _is_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
