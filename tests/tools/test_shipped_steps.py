"""The files of steps that come with the project: each command is right before any runs."""

import shlex
from pathlib import Path

import pytest

from core.config.loader import Config, load
from data.chat.from_patents import BuildConfig
from data.pipeline import DataConfig
from eval.tasks.task import load_tasks
from pretrain.config import PretrainConfig
from sft.config import SftConfig
from sft.dpo import DpoConfig
from tests.conftest import ROOT, run
from tools.study import reading

FILES = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/studies/*.yaml")]
SCHEMAS: dict[tuple[str, ...], type[Config]] = {
    ("data", "run"): DataConfig, ("data", "build"): BuildConfig, ("pretrain",): PretrainConfig,
    ("sft", "dpo"): DpoConfig, ("sft",): SftConfig,
}  # fmt: skip
OPTIONS_ONLY = [("sft", "merge")]


@pytest.mark.parametrize("file", FILES)
def test_every_command_is_right_before_any_runs(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    checked = 0
    for step in reading.read(Path(file)).steps():
        for command in map(shlex.split, step.commands):
            words = command[command.index("-m") + 1 :] if command[0] == "core.launch" else command
            schema = next((s for name, s in SCHEMAS.items() if words[: len(name)] == list(name)), None)
            if schema is not None and tuple(words[:2]) not in OPTIONS_ONLY:
                named = words[words.index("--config") + 1] if "--config" in words else None
                given = named or ("configs/data/tiny.yaml" if schema is DataConfig else None)
                keys = [word for word in words[1:] if "=" in word and not word.startswith("data=")]
                corpora = ["data=configs/data/tiny.yaml"] if "data=" in " ".join(words) else []
                load(schema, Path(given) if given else None, [*corpora, *keys])
                checked += 1
            if "--tasks" in words:
                assert load_tasks(words[words.index("--tasks") + 1])
                checked += 1
    assert checked


def test_the_list_of_commands_can_be_typed(tmp_path: Path) -> None:
    listed = run("tools.study", "--config", "configs/studies/demo.yaml", "--list", f"folder={tmp_path}/runs")
    assert listed.returncode == 0, listed.stderr
    assert f"python -m delta apply --base {tmp_path}/runs/base/model" in listed.stdout
    assert not any(tmp_path.iterdir())
