"""The same index and the same search in OpenSearch, for more passages than one machine should hold.

    python -m serve index  --corpus corpora/mine --output http://localhost:9200/mine
    python -m serve search http://localhost:9200/mine "heat pump" --office CN

Passages, terms, filters and what is stored are those of the index in a folder; OpenSearch's BM25 has the same
k1 and b. It splits terms at white space only, so the rule of terms stays in one place. A passage's id is its
record's key and its number, so that a command that was killed is simply run again. `OPENSEARCH_AUTH` holds
`user:password` if the server wants it. There are no vectors.
"""

import base64
import http.client
import itertools
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from core.errors import UserError
from core.openai_client import OPENER
from data.record import Record
from data.record_store import read_records
from serve.retrieval.embedding import ServerError
from serve.retrieval.index import (
    FILTERS,
    digest_of,
    fields_of,
    law_key,
    number_key,
    record_key,
    records_folder,
)
from serve.retrieval.search import EVERYTHING, MOST_TERMS, PASSAGES, Filter, Hit, counted_terms
from serve.retrieval.terms import RULE, refuse_other_rule, spans

T = TypeVar("T")
AUTH = "OPENSEARCH_AUTH"
RECORDS = 200
"""In one request."""
TIMEOUT = 120.0
"""Seconds of a request."""

MAPPING = {
    "settings": {"index": {"similarity": {"default": {"type": "BM25", "k1": 1.2, "b": 0.75}}}},
    "mappings": {
        "_meta": {"rule": RULE},
        "dynamic": "strict",
        "properties": {
            "terms": {"type": "text", "analyzer": "whitespace", "index_options": "freqs"},
            "date": {"type": "integer"},
            "stored": {"type": "object", "enabled": False},
            **{name: {"type": "keyword"} for name in FILTERS},
        },
    },
}
"""How passages are indexed."""


class OpenSearch:
    """An index on a server; the same methods as an index in a folder."""

    encoder = None

    def __init__(self, url: str) -> None:
        self.folder = url.rstrip("/")
        described = self._ask("GET", "/_mapping")
        refuse_other_rule(next(iter(described.values()))["mappings"].get("_meta", {}).get("rule"), url)
        self.counts = {"passages": self._ask("GET", "/_count")["count"]}

    def search(self, question: str, hits: int = 10, wanted: Filter = EVERYTHING) -> list[Hit]:
        """The best inventions for a question; UserError if the question has no words or is too long."""
        counted = self._rarest(counted_terms(question))
        found = self._ask("POST", "/_search", body(counted, hits, wanted))["hits"]["hits"]
        return [_hit(each, counted) for each in found]

    def publication(self, number: str) -> dict[str, Any] | None:
        """What is stored of a publication, in any spelling of its number; None if it is not in the index."""
        query = {"query": {"term": {"number": number_key(number)}}, "size": 1}
        found = self._ask("POST", "/_search", query)["hits"]["hits"]
        return dict(found[0]["_source"]["stored"]) if found else None

    def has_law(self, title: str, article: str | None = None) -> bool:
        """Whether the index has a law of this title, or an article of it."""
        query = {"query": {"term": {"law": law_key(title, article)}}}
        return bool(self._ask("POST", "/_count", query)["count"])

    def _rarest(self, counted: Counter[str]) -> Counter[str]:
        """The terms that are looked for: a server refuses a query of more than 1,024."""
        if len(counted) <= MOST_TERMS:
            return counted
        text = {"terms": " ".join(counted)}
        options = {"term_statistics": True, "field_statistics": False, "positions": False, "offsets": False}
        said = self._ask("POST", "/_termvectors", {"doc": text, "fields": ["terms"], **options})
        known = said["term_vectors"].get("terms", {"terms": {}})["terms"]
        rarest = sorted((each["doc_freq"], term) for term, each in known.items() if each.get("doc_freq"))
        return Counter({term: counted[term] for _, term in rarest[:MOST_TERMS]}) or counted

    def _ask(self, method: str, path: str, given: Any = None) -> Any:
        return request(self.folder, method, path, given)


def body(counted: Counter[str], hits: int, wanted: Filter) -> dict[str, Any]:
    """The request for the best inventions, each with its best passages."""
    must: list[dict[str, Any]] = [{"terms": {name: values}} for name, values in wanted.values().items()]
    if day := wanted.day():
        must.append({"range": {"date": {"lt": day}}})
    scored = [{"term": {"terms": {"value": term, "boost": count}}} for term, count in counted.items()]
    query: dict[str, Any] = {"should": scored, "minimum_should_match": 1, "filter": must}
    if wanted.without:
        query["must_not"] = [{"term": {"invention": wanted.without}}]
    best = {"name": "best", "size": PASSAGES, "_source": ["stored"]}
    return {
        "query": {"bool": query},
        "collapse": {"field": "invention", "inner_hits": best},
        "size": hits,
        "_source": False,
    }


def upload(corpora: Sequence[Path], url: str) -> dict[str, int]:
    """Index the records of corpora on a server, whose index is made if it is not there; passages of the same
    records that have changed are replaced. Returns counts."""
    from tqdm import tqdm

    folders = [records_folder(corpus) for corpus in corpora]
    if not request(url, "HEAD", "", missing=True):
        request(url, "PUT", "", MAPPING)
    index, counts, seen = OpenSearch(url), {"records": 0}, dict[str, list[str]]()
    records = (record for folder in folders for record in read_records(folder))
    for batch in _batches(tqdm(records, "index", unit="record", delay=2, disable=None)):
        digests = list(map(digest_of, batch))
        answer = request(url, "POST", "/_bulk", lines=_lines(batch, digests))
        if answer["errors"]:
            failed = next(each["index"]["error"] for each in answer["items"] if each["index"].get("error"))
            raise UserError(f"{url}: a passage was not indexed: {failed.get('reason', failed)}")
        counts["records"] += len(batch)
        for record, digest in zip(batch, digests, strict=True):
            seen.setdefault(record_key(record), []).append(digest)
    request(url, "POST", "/_refresh")
    for keys in _batches(seen):  # after the last batch: two texts may have one id and stay two records
        kept = [digest for key in keys for digest in seen[key]]
        old = {"filter": [{"terms": {"key": keys}}], "must_not": [{"terms": {"digest": kept}}]}
        request(url, "POST", "/_delete_by_query", {"query": {"bool": old}})
    request(url, "POST", "/_refresh")
    return counts | {"passages": index._ask("GET", "/_count")["count"]}


def request(
    url: str, method: str, path: str, given: Any = None, *, lines: Iterable[str] = (), missing: bool = False
) -> Any:
    """The JSON that a server answers; ServerError if it refuses, leads elsewhere or cannot be reached. With
    `missing`, None if there is no such index."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or not parts.path.strip("/"):
        raise UserError(
            f"{url}: give server and index, such as http://localhost:9200/mine; {AUTH} holds a password."
        )
    data = json.dumps(given, ensure_ascii=False).encode() if given is not None else None
    kind = "application/json"
    if text := "".join(lines):
        data, kind = text.encode(), "application/x-ndjson"
    headers = {"Content-Type": kind}
    if auth := os.environ.get(AUTH):
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    asked = urllib.request.Request(f"{url.rstrip('/')}{path}", data, headers, method=method)
    try:
        with OPENER.open(asked, timeout=TIMEOUT) as response:
            return json.loads(response.read() or b"{}") or {"ok": True}
    except urllib.error.HTTPError as error:
        if error.code == 404 and missing:
            return None
        said = " ".join(error.read(300).decode("utf-8", "replace").split())
        raise ServerError(f"{url}: HTTP {error.code} {said}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ServerError(f"{url}: {error}") from None


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, RECORDS)):
        yield batch


def _lines(batch: Sequence[Record], digests: Sequence[str]) -> Iterator[str]:
    for record, digest in zip(batch, digests, strict=True):
        key = record_key(record)
        for number, (_, fields) in enumerate(fields_of(record, key, digest)):
            yield json.dumps({"index": {"_id": f"{key} {number} {digest}"}}, ensure_ascii=False) + "\n"
            yield json.dumps(fields, ensure_ascii=False) + "\n"


def _hit(found: dict[str, Any], counted: Counter[str]) -> Hit:
    best = found["inner_hits"]["best"]["hits"]["hits"]
    hit = Hit.of(best[0]["_source"]["stored"], found["_score"])
    for each in best:
        hit.add(each["_source"]["stored"], each["_score"])
    for passage in hit.passages:
        passage["found"] = spans(passage["text"], set(counted))
    return hit
