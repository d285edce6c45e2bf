"""Engines that fail, clients that go away or ask too much, and what cannot be served: nothing is lost without
a reason."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.provenance import atomic_io
from tests.conftest import ROOT, run
from tests.serve.client import call, chat, events, metric
from tests.serve.engine import ANSWER, FakeEngine, assistant, engine


def test_an_engine_that_fails_before_the_first_token_is_asked_again(url: str, fake: FakeEngine) -> None:
    fake.fault = lambda number: "status" if number == 1 else None
    assert chat(url, "pump")[0] == 200
    assert len(fake.asked) == 2


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [("refuse", 400, "the engine refused the request: too many tokens"), ("busy", 503, "too many requests")],
)
def test_an_engines_refusal_reaches_the_client(
    url: str, fake: FakeEngine, fault: str, status: int, message: str
) -> None:
    fake.fault = lambda _: fault
    found, answer, headers = chat(url, "pump", stream=True)
    assert (found, message in answer["error"]["message"]) == (status, True), answer
    assert ("Retry-After" in headers) == (status == 503)


@pytest.mark.parametrize("fault", ["cut", "garbage", "odd", "error"])
def test_an_answer_that_breaks_off_ends_with_an_error(url: str, fake: FakeEngine, fault: str) -> None:
    fake.fault = lambda _: fault
    status, text, _ = chat(url, "pump", stream=True)
    assert status == 200
    found = events(text)
    assert "engine" in found[-1]["error"]["message"]
    assert not any(event.get("citations") for event in found)


@pytest.mark.parametrize("fault", ["cut", "garbage", "odd", "error"])
def test_an_answer_at_once_that_breaks_off_is_an_error(url: str, fake: FakeEngine, fault: str) -> None:
    fake.fault = lambda _: fault
    status, answer, _ = chat(url, "pump")
    assert (status, "engine" in answer["error"]["message"]) == (502, True)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_stream(url: str, fake: FakeEngine, stream: bool) -> None:
    fake.pieces, fake.delay, left = ["word "] * 1000, 0.05, fake.left
    parts = urllib.parse.urlsplit(url)
    body = json.dumps({"messages": [{"role": "user", "content": "pump"}], "stream": stream})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        deadline = time.monotonic() + 20
        while not fake.asked or (stream and b"word" not in client.recv(100_000)):
            assert time.monotonic() < deadline
        assert metric(url, "streams") == 1
    while fake.left <= left or metric(url, "streams") > 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_thousand_requests_with_failing_engines_lose_none(url: str, fake: FakeEngine) -> None:
    faults = ["status", "cut", "garbage", "busy"]
    fake.fault = lambda number: faults[number % 4] if number % 10 == 0 else None
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: chat(url, "pump", stream=True), range(1000)))
    whole = broken = refused = 0
    for status, answer, _ in found:
        if status != 200:
            assert answer["error"]["message"]
            refused += 1
        elif "error" in events(answer)[-1]:
            broken += 1
        else:
            pieces = [event["choices"][0]["delta"].get("content", "") for event in events(answer)]
            assert "".join(pieces) == "".join(ANSWER)
            whole += 1
    assert whole + broken + refused == 1000
    assert whole >= 800
    assert metric(url, "streams") == 0


def test_the_least_busy_engine_is_asked_and_a_dead_one_is_left_out(tmp_path: Path) -> None:
    with engine(delay=0.2) as slow, engine() as fast, engine() as dead:
        gone = dead.url
        with assistant(tmp_path, "--endpoint", slow.url, fast.url, "--model", "m", "--rate", "0") as url:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: chat(url, "pump"), range(40)))
            assert 0 < len(slow.asked) < len(fast.asked) / 2
    with (
        engine() as alive,
        assistant(tmp_path, "--endpoint", gone, alive.url, "--model", "m", "--rate", "0") as url,
    ):
        for _ in range(6):
            assert chat(url, "pump")[0] == 200
        assert len(alive.asked) == 6
        assert call(url, "/health")[1]["engines"] == 1
    with assistant(tmp_path, "--endpoint", gone, "--model", "m") as url:
        status, answer, headers = chat(url, "pump")
        assert (status, "engine" in answer["error"]["message"]) == (502, True) or status == 503
        assert call(url, "/health")[0] == 503
        status, answer, headers = chat(url, "pump")
        assert (status, answer["error"]["message"]) == (503, "no engine can be reached at the moment")
        assert int(headers["Retry-After"]) >= 1


def test_an_engine_that_is_back_is_asked_again(tmp_path: Path) -> None:
    with engine() as fake:
        address = fake.url
    port = int(address.split(":")[2].split("/")[0])
    with assistant(tmp_path, "--endpoint", address, "--model", "m", "--rate", "0") as url:
        assert chat(url, "pump")[0] in (502, 503)
        with engine(port=port):
            deadline = time.monotonic() + 20
            while chat(url, "pump")[0] != 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)


def test_a_key_is_needed_where_other_machines_reach_the_service(
    index: Path, fake: FakeEngine, tmp_path: Path
) -> None:
    done = run("serve", "run", "--run", tmp_path, "--endpoint", fake.url, "--model", "m", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "clients need a key. Set PATENT_LLAMA_KEY" in done.stderr
    key = "long-enough-key-ü"
    given = ("--endpoint", fake.url, "--model", "m", "--index", index, "--host", "0.0.0.0")
    with assistant(tmp_path, *given, PATENT_LLAMA_KEY=key) as everywhere:
        url = everywhere.replace("0.0.0.0", "127.0.0.1")
        for path, body in (
            ("/v1/models", None),
            ("/metrics", None),
            ("/v1/ratings", None),
            ("/v1/search", {"query": "pump"}),
        ):
            assert call(url, path, body)[0] == 401
            for wrong in ("", "Bearer", "Bearer x", f"Basic {key}", "Bearer " + key[:-1]):
                assert call(url, path, body, Authorization=wrong.encode().decode("latin-1"))[0] == 401
            assert call(url, path, body, Authorization=f"Bearer {key}".encode().decode("latin-1"))[0] == 200
        assert call(url, "/")[0] == call(url, "/health")[0] == 200
    done = run("serve", "run", "--run", tmp_path, "--endpoint", fake.url, "--model", "m", "--host", "::")
    assert done.returncode == 2


def test_limits_on_rate_and_streams(fake: FakeEngine, tmp_path: Path) -> None:
    with assistant(tmp_path, "--endpoint", fake.url, "--model", "m", "--rate", "5", "--streams", "2") as url:
        found = [chat(url, "pump") for _ in range(7)]
        assert [status for status, _, _ in found] == [200] * 5 + [429] * 2
        assert int(found[-1][2]["Retry-After"]) >= 1
        assert "more than 5 requests a minute" in found[-1][1]["error"]["message"]
    fake.pieces, fake.delay = ["word "] * 20, 0.05
    given = ("--endpoint", fake.url, "--model", "m", "--rate", "0", "--streams", "2")
    with assistant(tmp_path, *given) as url, ThreadPoolExecutor(6) as pool:
        statuses = [status for status, _, _ in pool.map(lambda _: chat(url, "pump"), range(6))]
        assert sorted(statuses) == [200, 200, 503, 503, 503, 503]


def test_questions_are_kept_only_if_asked_for_and_as_long_as_asked_for(
    fake: FakeEngine, tmp_path: Path
) -> None:
    given = ("--endpoint", fake.url, "--model", "m")
    with assistant(tmp_path, *given) as url:
        chat(url, "secret")
    assert not (tmp_path / "questions").exists()
    with assistant(tmp_path, *given, "--keep-days", "2") as url:
        chat(url, "../../x")
    (kept,) = (tmp_path / "questions").iterdir()
    assert json.loads(kept.read_text())["question"] == "../../x"
    assert oct(kept.stat().st_mode & 0o777) == "0o600"
    atomic_io.write_text(kept.with_name("2020-01-01.jsonl"), "")
    with assistant(tmp_path, *given, "--keep-days", "2"):
        assert [file.name for file in kept.parent.iterdir()] == [kept.name]
    with assistant(tmp_path, *given):
        assert not list(kept.parent.iterdir())


def test_one_run_has_one_service(fake: FakeEngine, tmp_path: Path) -> None:
    with assistant(tmp_path, "--endpoint", fake.url, "--model", "m"):
        done = run("serve", "run", "--run", tmp_path, "--endpoint", fake.url, "--model", "m", "--port", "0")
    assert done.returncode == 2
    assert "is used by another service" in done.stderr


def test_a_port_that_is_taken_is_named(url: str, fake: FakeEngine, tmp_path: Path) -> None:
    port = url.rpartition(":")[2]
    done = run("serve", "run", "--run", tmp_path, "--endpoint", fake.url, "--model", "m", "--port", port)
    assert done.returncode == 2
    assert f"--port {port}: " in done.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--model", "none"], "--model none: no model's folder"),
        (["--model", "m", "--endpoint", "localhost:8000"], "must begin with http:// or https://"),
        (["--model", "m", "--endpoint", "http://user:pass@host/v1"], "must have no user name, password"),
        (["--model", "m", "--endpoint", "http://h/v1", "--index", "none"], "none is not a complete folder"),
        (["--model", "m", "--endpoint", "http://h/v1", "--gate-mode", "refuse"], "needs a gate"),
        (["--model", "m", "--endpoint", "http://h/v1", "--streams", "0"], "--streams 0: at least 1"),
        (
            ["--model", "m", "--endpoint", "http://h/v1", "--prompt-bytes", "0"],
            "--prompt-bytes 0: at least 1",
        ),
        (["--model", "m", "--endpoint", "http://h/v1", "--port", "99999"], "--port 99999: from 0 to 65535"),
        (
            ["--model", "m", "--endpoint", "http://h/v1", "--input-slot"],
            "does not pass the messages' `input`",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, given: list[str], message: str) -> None:
    done = run("serve", "run", "--run", tmp_path / "run", *given)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


ENGINE = """#!/usr/bin/env python
import http.server, pathlib, subprocess, sys, threading
worker = subprocess.Popen(["sleep", "300"])
pathlib.Path(__file__).with_name("worker").write_text(str(worker.pid))
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler)
threading.Timer(SECONDS, server.shutdown).start()
server.serve_forever()
print("out of memory", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize(("seconds", "said"), [("2", "the assistant:"), ("0", "")])
def test_an_engine_that_ends_ends_the_service_with_its_last_words(
    tmp_path: Path, seconds: str, said: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    program = tmp_path / "vllm"
    program.write_text(ENGINE.replace("SECONDS", seconds).replace("/usr/bin/env python", sys.executable))
    program.chmod(0o755)
    if seconds == "0":
        program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('out of memory')")
    command = [sys.executable, "-m", "serve", "run", "--model", str(tmp_path / "model"), "--port", "0"]
    given = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command += ["--run", str(tmp_path / "run")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, env=given
    )
    assert done.returncode == 2
    assert "the engine ended with exit code" in done.stderr
    assert "out of memory" in done.stderr
    assert said in done.stdout
    if said:
        worker = Path("/proc", (tmp_path / "worker").read_text(), "stat")
        assert not worker.exists() or worker.read_text().split()[2] == "Z"


def test_an_adapter_is_to_be_merged_first(tmp_path: Path) -> None:
    for name in ("config.json", "adapter_config.json"):
        (tmp_path / name).write_text("{}")
    done = run("serve", "run", "--model", tmp_path, "--run", tmp_path / "run")
    assert (done.returncode, "python -m sft merge" in done.stderr) == (2, True)
