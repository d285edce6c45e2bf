"""What must not end a run, be scored without a word, or destroy what is there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import UserError
from eval.analysis.scoring import check_references, score
from eval.answers import check_folder
from eval.models.base import Backend, Likelihood, ask
from eval.models.hf import generate, open_model
from eval.models.openai_api import EvalEndpointConfig
from eval.models.openai_api import generate as ask_endpoint
from eval.sample import EvalSample, read_jsonl, read_predictions, whole_characters
from eval.tasks.task import Request
from tests.eval.in_process import here
from tests.eval.models.server import serve
from tests.eval.models.tiny import write_jsonl, write_model, write_task


def sample(reference: str, metric: str, prediction: str = "", **more: Any) -> EvalSample:
    return EvalSample(
        task="t", id="s1", prediction=prediction, reference=reference, metrics=(metric,), **more
    )  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "malformed", "right"),
    [("extraction", "解决问题:甲;技术手段:乙;", "解决问题:甲;技术手段:乙;实施效果:;"),
     ("extraction", "", "解决问题：；技术手段：；实施效果：乙"),
     ("entities", "张三", "人名:张三"), ("entities", "[{", "[]"),
     ("accuracy", "E", "D"), ("accuracy", "", "a"), ("accuracy", "AF", "A、C"),
     ("statute", " ", "第一条")],
)  # fmt: skip
def test_a_reference_that_a_metric_cannot_read_is_an_error_that_names_the_sample(
    metric: str, malformed: str, right: str
) -> None:
    check_references([sample(right, metric, options=4)])
    for call in (lambda s: check_references([s]), lambda s: score([s])):
        with pytest.raises(UserError, match=r"task t, sample s1: the reference .* is malformed"):
            call(sample(malformed, metric, malformed, options=4))


def test_malformed_references_are_found_before_a_model_is_asked(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", {"q": "1", "answer": "解决问题:甲"})
    task = write_task(
        tmp_path, "a", "layout: jsonl\ndata: a.jsonl\nprompt: '{q}'\nmetrics: [extraction]\n"
    )  # fmt: skip
    asked: list[str | Path] = [
        "eval",
        "run",
        "--endpoint",
        "http://127.0.0.1:9/v1",
        "--model",
        "m",
        "--tasks",
        task,
    ]
    for more in ([], ["--dry-run"]):
        code, said = here(*asked, "--data", tmp_path, "--output", tmp_path / "out", *more)
        assert code == 2
        assert "sample a-0: the reference" in said
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are all NaN."""
    folder = write_model(tmp_path_factory.mktemp("broken"))
    file = folder / "model.safetensors"
    tensors = {name: torch.full_like(tensor, float("nan")) for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    return folder


def test_a_model_that_gives_no_numbers_fails_its_requests(broken: Path) -> None:
    local = open_model(str(broken))
    found = list(generate(local, [Request(text, sample("", "chrf"), 4, ()) for text in ("a", "bc", "d")]))
    assert sorted(i for i, _ in found) == [0, 1, 2]
    assert all("logits are not numbers" in str(error) for _, error in found)


def test_one_answer_that_overflows_does_not_fail_the_others_of_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = open_model(str(write_model(tmp_path)))
    requests = [Request(text, sample("", "chrf"), 4, ()) for text in ("abc", "z", "de")]
    expected = dict(generate(local, requests))
    whole = local.model.forward

    def overflowing(**arguments: Any) -> Any:
        out = whole(**arguments)
        out.logits[(arguments["input_ids"] == local.tokenizer("z")["input_ids"][0]).any(-1)] = float("nan")
        return out

    monkeypatch.setattr(local.model, "forward", overflowing)
    found = dict(generate(local, requests))
    assert isinstance(found.pop(1), FloatingPointError)
    assert found == {i: expected[i] for i in (0, 2)}


@pytest.mark.parametrize("nats", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["options", "answer", "text"])
def test_likelihoods_that_are_no_numbers_are_failures(nats: float, kind: Any) -> None:
    likelihood = Likelihood(nats, 1)
    backend = Backend(
        {},
        lambda _: iter(()),
        lambda pairs: iter((i, likelihood) for i in range(len(pairs))),
        lambda texts: iter((i, likelihood) for i in range(len(texts))),
        lambda pairs: iter((i, (likelihood, likelihood)) for i in range(len(pairs))),
    )
    request = Request("p", sample("A", "accuracy"), 4, (), kind, ("A", "B"))
    ((_, answer),) = ask(backend, [request])
    assert "not numbers" in str(answer)


def test_predictions_with_likelihoods_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    line = {"task": "t", "id": "1", "prediction": "A", "reference": "A", "measured": {"A": float("nan")}}
    write_jsonl(tmp_path / "p.jsonl", line)
    with pytest.raises(UserError, match=r"p.jsonl:1: `measured.A`"):
        read_predictions(tmp_path / "p.jsonl")


def test_half_an_emoji_is_a_replacement_character_wherever_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"q\\ud83d": ["half \\ud83d", "whole \\ud83d\\ude00"], "n": 1}\n')
    ((_, tree),) = read_jsonl(file)
    assert tree == {"q\ufffd": ["half \ufffd", "whole \U0001f600"], "n": 1}
    assert whole_characters("\ud83d" + "\ude00") == "\U0001f600"
    backend = Backend({}, lambda requests: iter((i, "x\udc00") for i in range(len(requests))))
    ((_, answer),) = ask(backend, [Request("p", sample("", "chrf"), 4, ())])
    assert answer == {"prediction": "x\ufffd", "by": "generation"}


def test_a_run_ends_with_half_an_emoji_among_its_answers(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", *({"q": f"{i}", "answer": "x"} for i in range(3)))
    task = write_task(tmp_path, "a", "layout: jsonl\ndata: a.jsonl\nprompt: '{q}'\nmetrics: [chrf]\n")
    with serve(lambda prompt: f"half {chr(0xD83D)}" if prompt == "1" else "x") as (url, _):
        code, said = here("eval", "run", "--endpoint", url, "--model", "m", "--tasks", task,
                          "--data", tmp_path, "--output", tmp_path / "out")  # fmt: skip
    assert code == 0, said
    assert {s.prediction for s in read_predictions(tmp_path / "out")} == {"half \ufffd", "x"}


@contextmanager
def redirecting(status: int) -> Iterator[tuple[str, list[str | None]]]:
    """An endpoint that redirects to another host, and the keys that this host is sent."""
    keys: list[str | None] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"choices": [{"text": "not asked"}]}')

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    class First(Other):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", f"http://localhost:{other.server_address[1]}/v1/completions")
            self.end_headers()

    other, first = (ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (Other, First))
    for server in (other, first):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{first.server_address[1]}/v1", keys
    finally:
        for server in (other, first):
            server.shutdown()
            server.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_goes_to_no_other_address(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "made-up")
    with redirecting(status) as (url, keys):
        config = EvalEndpointConfig(url=url, model="m", first_wait_seconds=0.01, attempts=2)
        ((_, answer),) = ask_endpoint(config, [Request("p", sample("", "chrf"), 4, ())])
    assert f"HTTP {status}: the endpoint redirects to http://localhost" in str(answer)
    assert keys == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [("file:///etc", "must begin with http"), ("localhost:8000/v1", "must begin with http"),
     ("http://me:secret@host/v1", "no user name, password"), ("https://host/v1?key=secret", "or query")],
)  # fmt: skip
def test_an_address_that_is_no_endpoint_or_holds_a_secret_is_refused(
    url: str, problem: str, tmp_path: Path
) -> None:
    code, said = here("eval", "run", "--endpoint", url, "--model", "m", "--tasks", "title", "--dry-run",
                      "--data", tmp_path)  # fmt: skip
    assert code == 2
    assert problem in said
    assert "secret" not in said


@pytest.mark.parametrize(
    "given",
    [("--endpoint", "http://host/v1", "--dtype", "float16"), ("--endpoint", "http://host/v1", "--four-bit"),
     ("--endpoint", "http://host/v1", "--context", "64"), ("--log-probabilities",)],
)  # fmt: skip
def test_a_setting_that_would_be_ignored_is_refused(given: tuple[str, ...], tmp_path: Path) -> None:
    code, said = here(
        "eval", "run", "--model", "m", *given, "--tasks", "title", "--dry-run", "--data", tmp_path
    )
    assert code == 2
    assert f"{[word for word in given if word.startswith('--')][-1]} is for " in said


def model_folder(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")


def other_step(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"step": "sft"}')


def foreign_predictions(folder: Path) -> None:
    write_jsonl(folder / "predictions.jsonl", {"task": "t", "id": "1", "prediction": "x", "reference": "y"})


def questions(folder: Path) -> None:
    write_jsonl(folder / "questions.jsonl", {"q": "1"})


@pytest.mark.parametrize("fill", [model_folder, other_step, foreign_predictions, questions])
@pytest.mark.parametrize("linked", [False, True])
def test_a_run_does_not_write_into_what_is_no_evaluation(tmp_path: Path, fill: Any, linked: bool) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    fill(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    if linked:
        (tmp_path / "link").symlink_to(folder)
    output = tmp_path / ("link" if linked else "there")
    with pytest.raises(UserError, match="Choose another folder"):
        check_folder(output)
    code, said = here("eval", "run", "--copy", "--tasks", "title", "--data", tmp_path, "--output", output)
    assert code == 2
    assert "Choose another folder" in said
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_run_writes_into_what_is_new_empty_or_its_own(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    (tmp_path / "predictions.jsonl").write_text('{"task": "t", "key": "k"}\n')
    (tmp_path / "manifest.json").write_text('{"step": "eval"}')
    check_folder(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        check_folder(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    "command", [["score", "p.jsonl"], ["compare", "p.jsonl", "p.jsonl"], ["report", "p.jsonl"]]
)
@pytest.mark.parametrize("output", ["p.jsonl", ".", "predictions.jsonl"])
def test_no_command_writes_over_answers(tmp_path: Path, command: list[str], output: str) -> None:
    line = {"task": "t", "id": "1", "prediction": "x", "reference": "y", "metrics": ["chrf"]}
    files = [write_jsonl(tmp_path / name, line) for name in ("p.jsonl", "predictions.jsonl")]
    before = [file.read_bytes() for file in files]
    name, *paths = command
    code, said = here("eval", name, *(tmp_path / path for path in paths), "--output", tmp_path / output)
    assert code == 2
    assert "Choose another file" in said
    assert [file.read_bytes() for file in files] == before
