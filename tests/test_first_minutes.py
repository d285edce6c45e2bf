"""What a newcomer types after `git clone`: every make target works without arguments on the results of those
before."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.eval.browser import browse
from tests.serve.client import call
from tests.serve.reader import ask, click, failures, show, texts, until

SMALL_BASE = (
    "data.synthetic.inventions=40 data.pack.validation_share=0.1 data.tokenizer.vocabulary_size=1400"
    " sequence_length=128 validation_tokens=2000"
    " model.architecture.hidden_size=32 model.architecture.intermediate_size=64"
    " model.architecture.num_hidden_layers=2 model.architecture.num_attention_heads=2"
    " model.architecture.num_key_value_heads=2 training.steps=4 training.validate_every_steps=4"
    " training.save_every_steps=4 logging.tensorboard=false"
)
SMALL_CHATS = "training.epochs=1 training.validate_every_steps=20 logging.tensorboard=false"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the files that git knows, with the pieces that `make setup` leaves."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    folder = tmp_path / "clone"
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def make(clone: Path, target: str, arguments: str = "", typed: str = "") -> subprocess.CompletedProcess[str]:
    """`make TARGET`, with the packages of this interpreter."""
    ready = f"{sys.prefix}/.patent-llama-ready"
    return subprocess.run(
        ["make", "--no-print-directory", f"--assume-old={ready}", target, f"VENV={sys.prefix}",
         f"ARGS={arguments}"],
        cwd=clone, input=typed, capture_output=True, text=True, check=False, timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


@contextmanager
def served(clone: Path) -> Iterator[str]:
    """The address that `make serve` prints, while it runs."""
    command = ["make", "--no-print-directory", f"--assume-old={sys.prefix}/.patent-llama-ready", "serve"]
    process = subprocess.Popen(
        [*command, f"VENV={sys.prefix}", "ARGS=--port 0 --answer-tokens 16"],
        cwd=clone, stdout=subprocess.PIPE, text=True, process_group=0,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert process.stdout
    try:
        yield next(line.split()[-1] for line in process.stdout if line.startswith("the assistant:"))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_before_anything_is_trained_each_target_says_what_to_run_first(clone: Path) -> None:
    (clone / "corpora/tiny-held-out").mkdir(parents=True)
    (clone / "corpora/tiny-held-out/manifest.json").touch()
    for target in ("eval", "delta", "delta-apply", "lineage"):
        done = make(clone, target)
        assert done.returncode == 2
        assert "error: no trained model found under runs/: run `make pretrain` first\n" in done.stderr, target
    assert "error: no chat model found under runs/: run `make sft` first\n" in make(clone, "chat").stderr
    done = make(clone, "serve")
    assert done.returncode == 2
    assert "error: corpora/tiny not found: run `make pretrain` first" in done.stderr
    done = make(clone, "sft")
    assert done.returncode == 2
    assert "error: runs/tiny/model: no such folder" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_target_works_on_what_the_one_before_left(clone: Path) -> None:
    printed = {}
    steps = {"pretrain": SMALL_BASE, "sft": SMALL_CHATS, "eval": "", "delta": "", "delta-apply": "",
             "chat": "--max-new-tokens 8", "lineage": ""}  # fmt: skip
    for target, arguments in steps.items():
        done = make(clone, target, arguments, typed="Hello\n" if target == "chat" else "")
        assert done.returncode == 0, f"{target}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        printed[target] = done.stdout
        if target not in ("pretrain", "sft", "delta-apply"):
            assert "model: runs/sft-tiny/domain/model\n" in done.stderr
        if target in ("eval", "delta", "delta-apply"):
            assert "base: runs/tiny/base\n" in done.stderr
    assert "base model (step 0): loss" in printed["pretrain"]
    assert "A is runs/eval/runs-tiny-base, B is runs/eval/runs-sft-tiny-domain-model" in printed["eval"]
    tuned, again = clone / "runs/sft-tiny/domain/model", clone / "runs/applied/sft-tiny-domain"
    assert (again / "model.safetensors").read_bytes() == (tuned / "model.safetensors").read_bytes()
    assert "runs/tiny/base" in printed["lineage"]
    for target in ("eval", "delta", "delta-apply"):
        assert make(clone, target).returncode == 0, f"{target}, the second time"
    with served(clone) as url, browse() as page:
        show(page, url)
        assert ask(page, "压缩机的作用是什么？")
        assert texts(page, ".sources summary")
        click(page, ".up")
        until(page, "document.body.innerText.includes('Saved')")
        assert failures(page) == []
    with served(clone) as url:
        assert call(url, "/v1/ratings")[1] == {"up": 1, "down": 0, "corrections": 0}
