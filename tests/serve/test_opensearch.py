"""OpenSearch: what is asked of it means what the index in a folder does. A server that reads the requests as
their reference says stands in for it; with OPENSEARCH_URL the same tests ask a real one."""

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from data.record import Record
from serve.retrieval.index import build
from serve.retrieval.opensearch import OpenSearch, upload
from serve.retrieval.search import Filter, Index, open_index
from tests.conftest import run
from tests.data.records import record, write_shards
from tests.serve.client import call, chat, events
from tests.serve.engine import assistant, engine
from tests.serve.test_index import FILTERS, WORDS, bm25, made


class Server(BaseHTTPRequestHandler):
    """The parts of OpenSearch's API that are used, over passages in memory."""

    documents: dict[str, dict[str, Any]]
    mapping: dict[str, Any] | None

    def answer(self) -> None:
        """Any request."""
        server: Any = self.server
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        _, _, action = self.path.partition("/mine")
        if server.mapping is None and self.command not in ("PUT", "HEAD"):
            self.send(404, {"error": "index_not_found_exception"})
        elif self.command == "HEAD":
            self.send(200 if server.mapping else 404, {})
        elif self.command == "PUT":
            server.mapping = json.loads(text)
            self.send(200, {"acknowledged": True})
        elif action == "/_mapping":
            self.send(200, {"mine": {"mappings": server.mapping["mappings"]}})
        elif action == "/_bulk":
            lines = list(map(json.loads, text.splitlines()))
            for head, document in zip(lines[::2], lines[1::2], strict=True):
                assert document.keys() == server.mapping["mappings"]["properties"].keys()
                server.documents[head["index"]["_id"]] = document
            self.send(200, {"errors": False, "items": []})
        elif action.startswith("/_delete_by_query"):
            old = [name for name, each in server.documents.items() if fits(each, json.loads(text)["query"])]
            for name in old:
                del server.documents[name]
            self.send(200, {"deleted": len(old)})
        elif action == "/_count":
            query = json.loads(text)["query"] if text else {"bool": {}}
            self.send(200, {"count": sum(fits(each, query) for each in server.documents.values())})
        elif action == "/_termvectors":
            asked = json.loads(text)
            assert asked["term_statistics"]
            texts = [set(each["terms"].split()) for each in server.documents.values()]
            terms = {term: sum(term in each for each in texts) for term in asked["doc"]["terms"].split()}
            counts = {term: {"doc_freq": n} if n else {} for term, n in terms.items()}
            self.send(200, {"term_vectors": {"terms": {"terms": counts}}})
        elif action == "/_search":
            scored = json.loads(text)["query"].get("bool", {}).get("should", ())
            assert len(scored) <= 1024, "too_many_clauses"
            self.send(200, {"hits": {"hits": found(list(server.documents.values()), json.loads(text))}})
        else:
            self.send(200, {})

    do_GET = do_POST = do_PUT = do_HEAD = answer

    def send(self, status: int, value: Any) -> None:
        """A response."""
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def fits(document: dict[str, Any], query: dict[str, Any]) -> bool:
    """Whether a document is found."""
    ((kind, given),) = query.items()
    if kind == "bool":
        must = all(fits(document, each) for each in given.get("filter", ()))
        least = given.get("minimum_should_match", 0)
        should = sum(fits(document, each) for each in given.get("should", ())) >= least
        return must and should and not any(fits(document, each) for each in given.get("must_not", ()))
    ((name, value),) = given.items()
    own = document[name] if isinstance(document[name], list) else [document[name]]
    own = document[name].split() if name == "terms" else own
    match kind:
        case "term":
            return (value["value"] if isinstance(value, dict) else value) in own
        case "terms":
            return bool(set(value) & set(own))
        case "range":
            return document[name] is not None and document[name] < value["lt"]
    raise AssertionError(kind)


def found(documents: list[dict[str, Any]], asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The hits of a search, by the formula of BM25, collapsed."""
    texts = [Counter(each["terms"].split()) for each in documents]
    clauses = [each["term"]["terms"] for each in asked["query"].get("bool", {}).get("should", ())]
    scores = bm25(texts, {each["value"]: each["boost"] for each in clauses})
    hits = [
        {"_score": score, "_source": {"stored": each["stored"]}, "own": each["invention"][0]}
        for score, each in zip(scores, documents, strict=True)
        if fits(each, asked["query"])
    ]
    hits.sort(key=lambda hit: -hit["_score"])
    if "collapse" not in asked:
        return hits[: asked["size"]]
    groups: dict[str, list[dict[str, Any]]] = {}
    for hit in hits:
        groups.setdefault(hit["own"], []).append(hit)
    most = asked["collapse"]["inner_hits"]["size"]
    collapsed = [
        {"_score": own[0]["_score"], "inner_hits": {"best": {"hits": {"hits": own[:most]}}}}
        for own in groups.values()
    ]
    return collapsed[: asked["size"]]


@contextmanager
def running(handler: type[BaseHTTPRequestHandler] = Server) -> Iterator[str]:
    """The address of an index on a server, while the block runs."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.documents, server.mapping = {}, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/mine"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def url() -> Iterator[str]:
    if real := os.environ.get("OPENSEARCH_URL"):
        yield f"{real.rstrip('/')}/patent-llama-test-{os.getpid()}"
        return
    with running() as address:
        yield address


@pytest.fixture
def records() -> list[Record]:
    law = record(
        900, id="law", title="专利法", abstract=None, claims=None, description="第一条 甲。\n第二条 乙。"
    )
    return [*(made(number) for number in range(60)), law]


def test_it_finds_what_the_index_in_a_folder_finds(url: str, records: list[Record], tmp_path: Path) -> None:
    write_shards([records], tmp_path / "records")
    build([tmp_path / "records"], tmp_path / "index")
    done = run("serve", "index", "--corpus", tmp_path / "records", "--output", url)
    assert done.returncode == 0, done.stderr
    assert "61 records read; 62 passages there now" in done.stdout
    here, there = Index(tmp_path / "index"), open_index(url)
    assert isinstance(there, OpenSearch)
    for wanted in (Filter(), *FILTERS):
        long = " ".join(["pump", *WORDS, *(f"w{number}" for number in range(2000))])
        for question in (" ".join(WORDS), "水泵 pump pump", "펌프", long):
            own = {hit.invention: round(hit.score, 3) for hit in here.search(question, 100, wanted)}
            assert {hit.invention: round(hit.score, 3) for hit in there.search(question, 100, wanted)} == own
    (hit,) = there.search("第二条 乙", 1)
    assert (hit.passages[0]["label"], hit.passages[0]["text"]) == ("第二条", "第二条 乙。")
    assert there.has_law("《专利法》", "第2条")
    assert not there.has_law("专利法", "第三条")
    stored = there.publication(records[3]["id"])
    assert stored is not None
    assert stored["title"] == records[3]["title"]
    done = run("serve", "search", url, "pump", "--before", "2010-01-01", "--hits", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1. ")


def test_a_second_upload_changes_only_what_changed(url: str, records: list[Record], tmp_path: Path) -> None:
    write_shards([records], tmp_path / "a")
    changed: Any = {**records[3], "title": "a turbine"}
    write_shards([[changed, *records[4:8]]], tmp_path / "b")
    assert upload([tmp_path / "a"], url) == upload([tmp_path / "a"], url)
    twins: Any = [*records, *(made(number) for number in range(100, 320)), {**records[5], "title": "seal"}]
    write_shards([twins], tmp_path / "twins")  # the texts of one id are in two requests
    assert upload([tmp_path / "twins"], url)["passages"] == 62 + 220 + 1
    assert upload([tmp_path / "a"], url)["passages"] == 62 + 220, "its other text is no longer in the corpus"
    assert upload([tmp_path / "b"], url) == {"records": 5, "passages": 62 + 220}
    index = OpenSearch(url)
    assert [hit.id for hit in index.search("turbine")] == [records[3]["id"]]
    assert not any(
        each["text"] == records[3]["title"]
        for hit in index.search(" ".join(WORDS), 100)
        for each in hit.passages
    )


def test_what_cannot_be_asked_is_refused(
    url: str, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="HTTP 404"):
        OpenSearch(url)
    for wrong in ("http://127.0.0.1:9/mine", "http://127.0.0.1:9", "http://u:p@127.0.0.1:9/mine"):
        with pytest.raises(UserError, match=wrong.partition("/mine")[0]):
            OpenSearch(wrong)
    write_shards([records], tmp_path / "a")
    done = run("serve", "index", "--corpus", tmp_path / "a", "--output", url, "--extends", tmp_path)
    assert (done.returncode, "--extends does not go with an index on a server" in done.stderr) == (2, True)
    upload([tmp_path / "a"], url)
    with pytest.raises(UserError, match="no words"):
        OpenSearch(url).search("？")
    monkeypatch.setattr("serve.retrieval.terms.RULE", "another")
    with pytest.raises(UserError, match="made with other terms"):
        OpenSearch(url)


def test_a_server_that_leads_elsewhere_gets_no_password_there(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[str] = []

    class Elsewhere(Server):
        def answer(self) -> None:
            came.append(self.headers["Authorization"])

        do_GET = answer

    class Leading(Server):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", other)
            self.end_headers()

    monkeypatch.setenv("OPENSEARCH_AUTH", "user:password")
    with running(Elsewhere) as other, running(Leading) as url, pytest.raises(UserError, match="HTTP 302"):
        OpenSearch(url)
    assert came == []


def test_an_assistant_whose_index_is_gone_says_so_and_answers_without(
    records: list[Record], tmp_path: Path
) -> None:
    write_shards([records], tmp_path / "records")
    with ExitStack() as stack:
        fake = stack.enter_context(engine(pieces=["《专利法》第三条。"]))
        with running() as url:
            upload([tmp_path / "records"], url)
            given = ("--endpoint", fake.url, "--model", "m", "--rate", "0", "--index", url)
            served = stack.enter_context(assistant(tmp_path / "run", *given))
            _, answer, _ = chat(served, "第二条")
            assert [each["problem"] for each in answer["citations"]] == ["no-such-article"]
        gone = "the index cannot be searched at the moment"
        for path, body in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "pump"}], "stream": True}),
            ("/v1/search", {"query": "pump"}),
        ):
            status, answer, _ = call(served, path, body)
            assert (status, answer["error"]["message"]) == (502, gone)
        status, answer, _ = chat(served, "pump", retrieval=False)
        assert (status, answer["citations"]) == (200, [])
        status, text, _ = chat(served, "pump", retrieval=False, stream=True)
        assert (status, events(text)[-1]["citations"]) == (200, [])
