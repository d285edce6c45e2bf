"""configs/refresh.yaml with the real commands, at a size where scores mean little: a first corpus, model and
index; two new files; a kill; nothing new; a model that is worse; back to the first."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.synthetic.patents import synthesize
from tests.conftest import ROOT, run
from tests.tools.test_refresh import targets, tree

DATA = """
tokenizer: {vocabulary_size: 1400}
pack: {validation_share: 0.1, parts: [title, abstract]}
engine: {workers: 1}
"""
TRAINING = """
training: {global_batch_size: 8, micro_batch_size: 8, save_every_steps: 5, validate_every_steps: 100%s}
optimizer: {learning_rate: 5e-3}
deepspeed: {zero_stage: 0}
logging: {tensorboard: false}
"""
PRETRAIN = f"sequence_length: 128\nvalidation_tokens: 1000\n{TRAINING % ', steps: 10'}"
SFT = f"""
data:
  output_dir: set by refresh.yaml
  template: patent-llama
  max_tokens: 128
  validation_share: 0.1
  sources: [{{name: general, path: {ROOT}/configs/sft/tiny/general.jsonl, cap: 40}}]
{TRAINING % ", epochs: 1"}
"""
MODEL = (
    "{model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2,"
    " num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 256}"
)
SETTINGS = ["incoming=raw", "source={path: raw, licence: made up}", "base=runs/first/base", "gpus=1",
            "first_corpora=corpora/first", "data=data.yaml", "pretrain=pretrain.yaml", "sft=sft.yaml",
            "evaluate=--tasks tiny --data held-out"]  # fmt: skip
COMMAND = ["tools.refresh", "--config", f"{ROOT}/configs/refresh.yaml", *SETTINGS]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a first corpus, model and index, in use, of the first of three files."""
    synthesize(tmp_path / "made", inventions=60, seed=3)
    lines = (tmp_path / "made" / "records.jsonl").read_text("utf-8").splitlines(keepends=True)
    for number in (1, 2, 3, 4):
        part = "".join(lines[(number - 1) * 30 : number * 30])
        (tmp_path / f"{number}.jsonl").write_text(part, "utf-8")
    (tmp_path / "raw").mkdir()
    (tmp_path / "1.jsonl").rename(tmp_path / "raw" / "1.jsonl")
    for name, text in (("data", DATA), ("pretrain", PRETRAIN), ("sft", SFT)):
        (tmp_path / f"{name}.yaml").write_text(text, "utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    first = ["data.output_dir=corpora/first", "data.sources=[raw]", "run_dir=runs/first"]
    for command in (
        ["pretrain", "--prepare", "--config", "pretrain.yaml", "data=data.yaml", *first,
         f"model.architecture={MODEL}"],
        ["serve", "index", "--corpus", "corpora/first", "--output", "indexes/first"],
        ["tools.held_out", "--output", "held-out"],
    ):  # fmt: skip
        done = run(*command, folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    for name, target in (("models", "runs/first/base"), ("indexes", "indexes/first")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "current").symlink_to(tmp_path / target)
    return tmp_path


def killed(folder: Path, log: Path, text: str) -> None:
    """Start a refresh and kill it outright as soon as `log` holds `text`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", *COMMAND]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    while not (log.is_file() and text in log.read_text("utf-8", "replace")):
        assert process.poll() is None, log.read_text("utf-8")
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_is_renewed_with_new_files(place: Path) -> None:
    for number in (2, 3):
        (place / f"{number}.jsonl").rename(place / "raw" / f"{number}.jsonl")
    steps = place / "runs/refresh/0001/steps"
    killed(place, steps / "pretrain.log", "saved ")
    assert targets(place) == ["runs/first/base", "indexes/first"]
    done = run(*COMMAND, folder=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(resumed)" in done.stdout
    assert "data …" not in done.stdout
    assert targets(place) == ["runs/refresh/0001/sft/model", "indexes/refresh/0001"]
    rows = json.loads((place / "runs/refresh/0001/comparison.json").read_text("utf-8"))
    assert [row["verdict"] for row in rows if row["primary"]] == ["better"]
    lineage = run("tools.lineage", "runs/refresh/0001/published", folder=place).stdout
    for part in ("raw/3.jsonl", "raw/1.jsonl", "corpora/refresh/0001/pack", "indexes/first"):
        assert part in lineage, lineage

    before = tree(place)
    assert run(*COMMAND, folder=place).stdout.startswith("nothing new since generation 0001")
    assert tree(place).keys() == before.keys()

    (place / "4.jsonl").rename(place / "raw" / "4.jsonl")
    (place / "pretrain.yaml").write_text(PRETRAIN.replace("5e-3", "0.5"), "utf-8")
    done = run(*COMMAND, folder=place)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "B is worse in 1 of its primary scores" in done.stdout
    assert "not published: runs/refresh/0002/comparison.json" in done.stdout
    assert targets(place) == ["runs/refresh/0001/sft/model", "indexes/refresh/0001"]
    assert run(*COMMAND, "--rollback", folder=place).returncode == 0
    assert targets(place) == ["runs/first/base", "indexes/first"]
