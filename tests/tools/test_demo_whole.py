"""The whole demo at a size where its scores mean nothing: killed twice, it gives the results of one that was
not."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.config.loader import load
from tests.conftest import ROOT, run
from tools.demo.steps import Sizes, demo_steps
from tools.step_runner import record_file
from tools.step_runner import run as run_steps

SMALL = ["inventions=60", "held_out=10", "stories=60", "chats=60", "samples=30", "asked=10", "width=32",
         "layers=2", "base_steps=4", "cpt_steps=30", "vocabulary=1000", "save_every_steps=5", "searched=10",
         "cited=10"]  # fmt: skip


def killed(arguments: list[str], mark: Path, text: str) -> None:
    """Start the demo and kill it outright as soon as the file `mark` holds `text`."""
    command = [sys.executable, "-m", "tools.demo", *arguments]
    demo = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (mark.is_file() and text in mark.read_text("utf-8", "replace")):
        assert demo.poll() is None, demo.stderr.read().decode() if demo.stderr else ""
        time.sleep(0.05)
    demo.send_signal(signal.SIGKILL)
    demo.communicate()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_killed_and_resumed_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    arguments = [*SMALL, f"runs={runs}", f"corpora={tmp_path / 'corpora'}"]
    records = runs / "steps"
    killed(arguments, records / "continued-pretraining.log", "saved ")
    killed(arguments, records / "scores-cpt.json", "{")
    done = run("tools.demo", *arguments, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((records / "continued-pretraining.json").read_text("utf-8"))["starts"] == 2
    summary = (runs / "summary.txt").read_text("utf-8")
    assert summary in done.stdout
    for words in (
        "domain chat, not continued",
        "copies its input",
        "bits-per-byte",
        "CPU seconds",
        "terms and vectors",
        "source-citations-f1",
    ):
        assert words in summary
    assert "<svg" in (runs / "report.html").read_text("utf-8")
    again = run("tools.demo", *arguments)
    assert "all 40 steps are up to date" in again.stdout
    lineage = ("tools.lineage", runs / "scores/domain", "--verify")
    traced = run(*lineage)
    assert traced.returncode == 0, traced.stdout[-2000:]
    traced = run("tools.lineage", runs / "published", "--verify")
    assert traced.returncode == 0, traced.stdout[-2000:]
    assert traced.stdout.count("[train] ") >= 2, "base and target"
    raw = tmp_path / "corpora/made-up/patents/records.jsonl"
    content = raw.read_bytes()
    raw.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    traced = run(*lineage)
    assert traced.returncode == 1
    assert f"{raw}: modified since" in traced.stdout
    assert f"  {runs / 'scores/domain'}" in traced.stdout
    raw.write_bytes(content)

    monkeypatch.chdir(ROOT)
    todo = demo_steps(load(Sizes, None, arguments))
    chosen = [step for step in todo if step.name in ("continued pretraining", "scores: cpt")]
    results = [runs / "cpt/model/model.safetensors", runs / "scores/cpt/scores.json"]
    before = [file.read_bytes() for file in results]
    for step in chosen:
        record_file(step, records).write_text('{"made_from": "another", "starts": 1, "done": true}')
    # This time from the start, and not killed.
    assert run_steps(chosen, records) == [step.name for step in chosen]
    assert [file.read_bytes() for file in results] == before
