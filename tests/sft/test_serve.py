"""`transformers serve` with a tuned model: prompted as it was trained, it answers and stops."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.launch import free_port
from tests.sft.chats import Bases, answer, train
from tests.sft.served import ask, serving

CHAT = [
    {"role": "system", "content": "You know patents."},
    {"role": "user", "content": "field A1"},
    {"role": "assistant", "content": "A is food."},
    {"role": "user", "content": "class G4"},
]


@pytest.fixture(scope="module")
def model(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    train(bases, folder, "training.steps=100", "training.validate_every_steps=100")
    return folder / "run" / "model"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server, as the documentation starts it."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--port", port]
    with serving(command, port, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.mark.slow
def test_a_served_model_is_prompted_as_it_was_trained_and_stops(url: str, model: Path) -> None:
    from core.model.loading import load_tokenizer
    from data.chat.chat_template import prompt_ids

    tokenizer = load_tokenizer(str(model))
    for messages in (CHAT[-1:], CHAT):
        told = json.loads(ask(url, model, messages, stream=False))
        assert told["usage"]["prompt_tokens"] == len(prompt_ids(tokenizer, messages))
        assert told["choices"][0]["finish_reason"] == "stop"
    told = json.loads(ask(url, model, CHAT[-1:], stream=False))
    said = told["choices"][0]["message"]["content"]
    assert said + "</s>" == answer(model, "class G4")
    assert said.strip() == "G is physics."


@pytest.mark.slow
def test_a_served_model_streams_its_answer(url: str, model: Path) -> None:
    lines = ask(url, model, CHAT[-1:], stream=True).splitlines()
    parts = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    pieces = [choice["delta"].get("content") or "" for part in parts for choice in part["choices"]]
    assert sum(map(bool, pieces)) > 1
    assert "".join(pieces).strip() == "G is physics."
