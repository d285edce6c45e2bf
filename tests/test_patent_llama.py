"""The full-scale recipe: each of its commands is right, and checks all but the weights with --dry-run."""

import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.config.loader import load
from tests.conftest import ROOT, run
from tools.steps_file import StepsFile

PLAN = load(StepsFile, ROOT / "configs/patent-llama/plan.yaml")
STEPS = {step.name: shlex.split(step.commands[0]) for step in PLAN.steps}


def dry_run(command: list[str], monkeypatch: pytest.MonkeyPatch, processes: int = 8) -> int:
    """The exit code of `python -m COMMAND --dry-run`, as torchrun would start it, in this process."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr(sys, "argv", [*command, "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    return int(ended.value.code or 0)


def test_every_configuration_of_the_recipe_belongs_to_a_step() -> None:
    named = {word for words in STEPS.values() for word in words if word.endswith(".yaml")}
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/patent-llama/*.yaml")}
    assert named == there - {"configs/patent-llama/plan.yaml"}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("processes", [machine.gpus for machine in PLAN.machines])
def test_a_step_is_checked_without_weights_and_without_data(
    step: str, processes: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path for path in ROOT.iterdir() if path.is_dir()}
    assert dry_run(STEPS[step], monkeypatch, processes) == 0
    said = capsys.readouterr().out
    assert "dry run: nothing was started or written" in said
    assert step in ("data", "delta", "eval") or f"x {processes} processes x" in said
    assert {path for path in ROOT.iterdir() if path.is_dir()} == before


def test_each_step_begins_where_the_one_before_ended() -> None:
    made = [
        (STEPS["pretrain"], "runs/patent-llama-pretrain"),
        (STEPS["general"], "runs/patent-llama-general"),
    ]
    for (command, made_in), following in zip(made, ("general", "domain"), strict=True):
        assert f"run_dir: {made_in}\n" in (ROOT / command[-1]).read_text("utf-8")
        assert f"  path: {made_in}/model\n" in (ROOT / STEPS[following][-1]).read_text("utf-8")
    domain = "runs/patent-llama-domain"
    assert f"run_dir: {domain}\n" in (ROOT / STEPS["domain"][-1]).read_text("utf-8")
    assert f"{domain}/model" in STEPS["delta"]
    assert f"{domain}/model" in STEPS["eval"]


@pytest.mark.parametrize(
    ("step", "mistake", "word"),
    [
        ("data", "require_use=commercial", "these sources do not permit"),
        ("data", "pack.validation_shere=0.1", "validation_share"),
        ("pretrain", "training.global_batch_size=20", "multiple"),
        ("pretrain", "deepspeed.json_file=none.json", "none.json"),
        ("general", "deepspeed.zero_stage=3", "selective"),
        ("general", "data.template=lama", "llama2"),
        ("general", "training.micro_batch_size=3", "multiple"),
        ("domain", "model.adapter={r: 8}", ""),
        ("domain", "card.former=none.md", "none.md"),
    ],
)
def test_a_mistake_ends_a_dry_run_as_it_would_end_the_run(
    step: str, mistake: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = dry_run([*STEPS[step], mistake], monkeypatch)
    assert code == (2 if word else 0)
    assert word in capsys.readouterr().err


def test_what_is_there_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raw files and chats are counted; an empty folder is refused."""
    (tmp_path / "a.jsonl").write_text("x" * 2_000_000)
    chats = f"data.sources=[{{name: a, path: {tmp_path}}}]"
    for command in ([*STEPS["data"], f"sources=[{tmp_path}]"], [*STEPS["general"], chats]):
        assert dry_run(command, monkeypatch) == 0
        assert f"{tmp_path}: 1 files, 0.00 GB" in capsys.readouterr().out
    (tmp_path / "a.jsonl").unlink()
    assert dry_run([*STEPS["data"], f"sources=[{tmp_path}]"], monkeypatch) == 2


def test_a_delta_is_looked_at_by_its_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, rows in (("base", 3), ("tuned", 4)):
        (tmp_path / folder).mkdir()
        tensors = {"norm": np.zeros(2, np.float32), "embedding": np.zeros((rows, 2), np.float32)}
        tensors["new" if rows == 4 else "old"] = np.zeros(1, np.float32)
        save_file(tensors, tmp_path / folder / "model.safetensors")
    folders = ["--base", f"{tmp_path}/base", "--target", f"{tmp_path}/tuned", "--delta", f"{tmp_path}/delta"]
    assert dry_run(["delta", "make", *folders], monkeypatch) == 0
    assert "2 as a difference to the base, 1 in full" in capsys.readouterr().out
    assert dry_run(["delta", "apply", *folders], monkeypatch) == 0
    assert dry_run(["delta", "make", *folders, "--adapter", "x"], monkeypatch) == 2
    assert not (tmp_path / "delta").exists()


def test_the_launcher_checks_once_for_all_processes_of_all_hosts(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("one slots=8\ntwo slots=8\n")
    done = run("core.launch", "--hostfile", tmp_path / "hosts", "-m", *STEPS["domain"], "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 x 16 processes x 2 times") == 1
