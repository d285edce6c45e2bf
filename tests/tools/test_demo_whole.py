"""The whole demo at a size where its scores mean nothing: killed twice, it gives the results of one that was
not."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tools.step_runner import record_file
from tools.step_runner import run as run_steps
from tools.study import reading

DEMO = "configs/studies/demo.yaml"
SMALL = ["inventions=60", "held_out=10", "stories=60", "chats=60", "asked=10", "width=32", "intermediate=88",
         "layers=2", "base_steps=4", "continued_steps=30", "vocabulary=1000", "save_every_steps=5",
         "searched=10", "cited=10", "domain_epochs=1"]  # fmt: skip


def killed(arguments: list[str], mark: Path, text: str) -> None:
    """Start the demo and kill it outright as soon as the file `mark` holds `text`."""
    command = [sys.executable, "-m", "tools.study", *arguments]
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
    options = ["--config", DEMO, "--seeds", "1", "--at-once", "2"]
    arguments = [*options, *SMALL, f"folder={runs}"]
    records = runs / "steps"
    killed(arguments, records / "continued-seed-1.log", "saved ")
    killed(arguments, records / "texts-pretraining-with-seed-1.json", "{")
    done = run("tools.study", *arguments, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((records / "continued-seed-1.json").read_text("utf-8"))["starts"] == 2
    summary = (runs / "report/summary.txt").read_text("utf-8")
    assert summary in done.stdout
    for words in (
        "variance that is training's",
        "over questions only",
        "bits-per-byte",
        "CPU seconds",
        "terms and vectors",
        "source-citations-f1",
    ):
        assert words in summary
    assert "<svg" in (runs / "report/report.html").read_text("utf-8")
    again = run("tools.study", *arguments)
    assert "all 40 steps are up to date" in again.stdout
    lineage = ("tools.lineage", runs / "report", "--verify")
    traced = run(*lineage)
    assert traced.returncode == 0, traced.stdout[-2000:]
    delta = next(runs.glob("delta/**/manifest.json")).parent
    traced = run("tools.lineage", delta, "--verify")
    assert traced.returncode == 0, traced.stdout[-2000:]
    assert traced.stdout.count("[train] ") >= 2, "base and target"
    raw = runs / "patents/records.jsonl"
    content = raw.read_bytes()
    raw.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    traced = run(*lineage)
    assert traced.returncode == 1
    assert f"{raw}: modified since" in traced.stdout
    raw.write_bytes(content)

    monkeypatch.chdir(ROOT)
    todo = reading.read(Path(DEMO), [*SMALL, f"folder={runs}"], 1).steps()
    chosen = [step for step in todo if step.name in ("continued seed-1", "texts pretraining-with seed-1")]
    results = [runs / "continued/seed-1/model/model.safetensors", Path(chosen[1].outputs[0]) / "scores.json"]
    before = [file.read_bytes() for file in results]
    for step in chosen:
        record_file(step, records).write_text('{"made_from": "another", "starts": 1, "done": true}')
    # This time from the start, and not killed.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run_steps(chosen, records) == [step.name for step in chosen]
    assert [file.read_bytes() for file in results] == before
