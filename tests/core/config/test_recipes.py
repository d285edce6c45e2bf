"""The configurations that come with the project: each is short, loads, and has every key explained."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel

from core.config.loader import Config, dump, load
from core.config.schema import ModelConfig
from core.errors import UserError
from data.pipeline import DataConfig
from eval.tasks.task import TaskConfig, TaskGroup, load_task
from pretrain.config import PretrainConfig
from sft.config import SftConfig
from sft.dpo import DpoConfig
from tests.conftest import ROOT, run
from tools.steps_file import StepsFile

SCHEMAS: dict[str, type[Config]] = {
    "pretrain": PretrainConfig, "data": DataConfig, "model": ModelConfig, "eval": TaskConfig,
    "sft": SftConfig, "dpo": DpoConfig, "groups": TaskGroup, "general": SftConfig, "domain": SftConfig,
    "plan": StepsFile, "demo": TaskConfig, "asked": TaskConfig, "few-shot": TaskConfig,
    "lawbench": TaskConfig, "lexeval": TaskConfig, "without-sources": TaskConfig, "configs": StepsFile,
    "studies": StepsFile, "real-model": TaskConfig,
}  # fmt: skip
"""What the files of each folder of configs/ hold; those of a whole recipe by their own names."""

FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/**/*.yaml"))


@pytest.mark.parametrize("file", FILES)
def test_a_recipe_is_short_and_loads_also_from_its_dump(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    whole = Path(file).stem if Path(file).stem == "dpo" or "patent-llama" in file else ""
    schema = SCHEMAS[whole or Path(file).parent.name]
    assert len(Path(file).read_text("utf-8").splitlines()) <= (240 if schema is StepsFile else 40)
    config = load(schema, Path(file))
    (tmp_path / "dumped.yaml").write_text(dump(config), "utf-8")
    assert load(schema, tmp_path / "dumped.yaml") == config
    if isinstance(config, TaskGroup):
        assert all(load_task(member) for member in config.tasks)


def keys(config: BaseModel, prefix: str = "") -> Iterator[str]:
    """The dotted names of a configuration's values."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        yield from keys(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else [f"{prefix}{name}"]


@pytest.mark.parametrize("command", [["pretrain"], ["data", "run"]])
def test_every_key_of_a_command_is_listed_with_its_meaning(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = run(*command, "--keys")
    assert done.returncode == 0, done.stderr
    following = {line.split(" ")[0]: after for line, after in pairwise(done.stdout.splitlines())}
    for key in keys(load(SCHEMAS[command[0]], Path(f"configs/{command[0]}/tiny.yaml"))):
        assert following[key].startswith("    "), key


@pytest.mark.parametrize(
    ("prompt", "problem"), [("", "is empty"), ("The device ", "'The device ' ends with a space")]
)
def test_a_prompt_that_a_model_cannot_continue_is_refused(
    prompt: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=problem):
        load(PretrainConfig, Path("configs/pretrain/tiny.yaml"), [f"collapse.prompts=[{json.dumps(prompt)}]"])
