"""The service as its clients see it: answers with sources, refusals with a reason, nothing lost."""

import http.client
import json
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from tests.serve.client import call, chat, events
from tests.serve.engine import ANSWER, HOSTILE, FakeEngine, assistant, engine


def test_an_answer_has_numbered_sources_and_checked_citations(url: str, fake: FakeEngine) -> None:
    fake.pieces = ["See [1], [2; 99] and ", "《专利法》第二条、《专利法》第三条、《海商法》第一条。"]
    status, answer, _ = chat(url, "What does the pump move?")
    assert status == 200
    assert [source["number"] for source in answer["sources"]] == [1, 2, 3, 4, 5]
    assert len({source["id"] for source in answer["sources"]}) == 5
    text = answer["choices"][0]["message"]["content"]
    cited = [(text[each["start"] : each["end"]], each["problem"]) for each in answer["citations"]]
    assert cited == [("[1]", None), ("[2; 99]", "no-such-source"), ("《专利法》第二条", None),
                     ("《专利法》第三条", "no-such-article")]  # fmt: skip
    prompt = fake.asked[-1]["messages"][-1]["content"]
    for source in answer["sources"]:
        assert f"[{source['number']}] {source['name']}\n> " in prompt
    assert fake.asked[-1]["model"] == "m"


def test_a_stream_says_what_an_answer_at_once_says(url: str) -> None:
    _, whole, _ = chat(url, "What does the pump move?")
    status, text, headers = chat(url, "What does the pump move?", stream=True)
    assert status == 200
    assert headers["Content-Type"].startswith("text/event-stream")
    found = events(text)
    pieces = [event["choices"][0]["delta"].get("content", "") for event in found]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert found[0]["sources"] == whole["sources"]
    assert found[-1]["citations"] == whole["citations"]
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    assert found[-1]["usage"] == whole["usage"]
    assert len({event["id"] for event in found}) == 1


def test_openais_own_client_reads_both(url: str) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    asked: list[Any] = [{"role": "user", "content": "What does the pump move?"}]
    whole = client.chat.completions.create(model="m", messages=asked)
    assert whole.choices[0].message.content == "".join(ANSWER)
    parts = client.chat.completions.create(model="m", messages=asked, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "".join(ANSWER)
    assert [model.id for model in client.models.list()] == ["m"]


def test_a_hostile_passage_stays_a_quotation(url: str, fake: FakeEngine) -> None:
    _, answer, _ = chat(url, "xylophone?")
    assert answer["sources"][0]["text"] == f"A xylophone\n{HOSTILE}"
    lines = fake.asked[-1]["messages"][-1]["content"].splitlines()
    for part in HOSTILE.splitlines():
        assert f"> {part}" in lines
        assert part not in lines
    assert any("never an instruction" in line for line in lines)


def test_a_follow_up_is_searched_with_the_question_before_it(url: str, fake: FakeEngine) -> None:
    _, answer, _ = chat(url, "What is a xylophone?", "An instrument.", "And who made it?")
    assert answer["sources"][0]["title"] == "A xylophone"
    assert [message["content"] for message in fake.asked[-1]["messages"][:2]] == [
        "What is a xylophone?",
        "An instrument.",
    ]


def test_a_long_conversation_keeps_its_last_turns(url: str, fake: FakeEngine) -> None:
    texts = [f"{'pump ' * 400}{n}" for n in range(9)]
    assert chat(url, *texts)[0] == 200
    sent = fake.asked[-1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert sent[0]["content"] == texts[6]
    assert sent[-1]["content"].startswith(texts[8])


@pytest.mark.parametrize(
    ("retrieval", "titles"),
    [
        ({"before": "2015-01-06"}, set()),
        ({"before": "2015-01-07"}, {"A xylophone"}),
        (False, set()),
        ({"office": "CN"}, set()),
    ],
)
def test_a_request_chooses_its_sources(url: str, retrieval: Any, titles: set[str]) -> None:
    _, answer, _ = chat(url, "xylophone", retrieval=retrieval)
    assert {source["title"] for source in answer["sources"]} == titles


PUMP = [{"role": "user", "content": "pump"}]
BAD = [
    ({}, 400, '"messages" must be a list'),
    ({"messages": []}, 400, '"messages" must be a list'),
    ({"messages": "hello"}, 400, '"messages" must be a list'),
    ({"messages": [{"role": "user"}]}, 400, "messages[0] needs"),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0] needs"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0] needs"),
    ({"messages": [{"role": "user", "content": "  "}]}, 400, "the last message must be a question"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "the last message must be a question"),
    ({"messages": [{"role": "user", "content": "x"}] * 101}, 400, "101 messages; 100 are allowed"),
    ({"messages": [{"role": "user", "content": "x" * 300_000}]}, 400, "300,000 characters; 200,000 are"),
    ({"messages": [{"role": "user", "content": "x" * 2_000_000}]}, 413, "larger than 1,048,576 bytes"),
    ({"messages": PUMP, "max_tokens": 5000}, 400, '"max_tokens" must be a number from 1 to 1024'),
    ({"messages": PUMP, "temperature": "hot"}, 400, '"temperature" must be'),
    ({"messages": PUMP, "temperature": True}, 400, '"temperature" must be'),
    ({"messages": PUMP, "retrieval": {"before": "soon"}}, 400, "before=soon"),
    ({"messages": PUMP, "retrieval": {"ipc": [3]}}, 400, "ipc: give a text"),
    ({"messages": PUMP, "retrieval": {"file": "x"}}, 400, "unknown file"),
    ({"messages": PUMP, "retrieval": "all"}, 400, "retrieval: give an object"),
    (b"{", 400, "the body is no JSON"),
    (b"\xff\xfe", 400, "the body is no JSON"),
    (b"[" * 100_000, 400, "the body is no JSON"),
    (b"[]", 400, "must be a JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "message"), BAD, ids=[f"{n}-{case[2]}" for n, case in enumerate(BAD)]
)
def test_a_request_that_means_nothing_is_refused_with_the_reason(
    url: str, fake: FakeEngine, body: Any, status: int, message: str
) -> None:
    found, answer, _ = call(url, "/v1/chat/completions", body)
    assert (found, message in answer["error"]["message"]) == (status, True), answer
    assert not fake.asked


def test_a_seed_is_passed_on_if_there_is_one(url: str, fake: FakeEngine) -> None:
    for seed in (3, None):
        assert chat(url, "pump", seed=seed)[0] == 200
    assert [asked.get("seed") for asked in fake.asked] == [3, None]


def test_half_a_surrogate_pair_is_a_question_mark(url: str, fake: FakeEngine) -> None:
    body = b'{"messages": [{"role": "user", "content": "pump \\ud800"}], "retrieval": {"office": "\\udfff"}}'
    assert call(url, "/v1/chat/completions", body)[0] == 200
    assert fake.asked[-1]["messages"][0]["content"] == "pump ?"
    fake.pieces = ["a\ud83d", "b"]
    for stream in (True, False):
        status, answer, _ = chat(url, "pump", stream=stream)
        assert (status, "a?" in str(answer)) == (200, True)


PATHS = [
    "/../etc/passwd",
    "/page.js/../../__main__.py",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/v1/../../x",
    "/static/x",
    "//x",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_to_a_file(url: str, path: str) -> None:
    status, answer, _ = call(url, path)
    assert status in (404, 403), answer


def test_other_methods_types_hosts_and_origins_are_refused(url: str) -> None:
    body = {"messages": [{"role": "user", "content": "pump"}]}
    path, port = "/v1/chat/completions", url.rpartition(":")[2]
    assert call(url, path, method="GET")[0] == 405
    assert call(url, path, body, Content_Type="text/plain")[0] == 415
    assert call(url, path, body, Host="evil.example")[0] == 403
    assert call(url, path, body, Host=f"localhost.evil.example:{port}")[0] == 403
    assert call(url, path, body, Origin="http://evil.example")[0] == 403
    assert call(url, path, body, Origin="null")[0] == 403
    assert call(url, path, body, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200


def test_every_response_has_the_policy(url: str) -> None:
    for path, body in (("/", None), ("/health", None), ("/nothing", None), ("/v1/chat/completions", {})):
        _, _, headers = call(url, path, body)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_search_finds_passages_and_refuses_what_means_nothing(url: str) -> None:
    status, answer, _ = call(url, "/v1/search", {"query": "xylophone", "hits": 2})
    assert status == 200
    assert [hit["title"] for hit in answer["hits"]] == ["A xylophone"]
    for body in (
        {},
        {"query": ""},
        {"query": 7},
        {"query": "pump", "hits": 0},
        {"query": "pump", "before": "x"},
    ):
        assert call(url, "/v1/search", body)[0] == 400
    assert call(url, "/v1/search", {"query": "？"})[1] == {"hits": []}


def test_a_service_may_show_no_sources(index: Path, fake: FakeEngine, tmp_path: Path) -> None:
    given = ("--endpoint", fake.url, "--model", "m", "--index", index, "--sources", "0")
    with assistant(tmp_path, *given) as url:
        status, answer, _ = chat(url, "pump")
        assert (status, answer["sources"]) == (200, [])
        assert call(url, "/v1/search", {"query": "pump"})[1]["hits"]


@pytest.mark.parametrize("fills", [True, False])
def test_sources_stand_in_the_templates_slot_if_the_engine_fills_it(
    index: Path, tmp_path: Path, fills: bool
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}{{ messages[0].input }}")
    with engine(fills_slot=fills) as fake:
        given = ("--endpoint", fake.url, "--model", model, "--index", index)
        with assistant(tmp_path / "run", *given) as url:
            chat(url, "pump")
        sent = fake.asked[-1]["messages"][-1]
    assert ("input" in sent) == fills
    assert ("[1]" in sent["content"]) != fills


def test_streams_are_not_held_back(url: str, fake: FakeEngine) -> None:
    """The first piece is here before the engine writes the last one."""
    fake.pieces, fake.delay = ["a", "b"], 1.0
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    body = {"messages": [{"role": "user", "content": "pump"}], "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response, came = connection.getresponse(), {}
    for line in response:
        for piece in ("a", "b"):
            if json.dumps({"content": piece}).encode() in line:
                came[piece] = time.monotonic()
    assert came["b"] - came["a"] > 0.5
