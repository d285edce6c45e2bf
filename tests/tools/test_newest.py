"""Which folders make targets use if they are given none."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from tools.newest import base_of, newest


def model(folder: Path, minute: int, path: str | None, **files: str) -> Path:
    """A finished model that was written at `minute`, trained from `path` or from random weights."""
    folder.mkdir(parents=True)
    config: dict[str, Any] = {"model": {"path": path}}
    content = {"format": 1, "config": config, "counts": {}, "inputs": {}, "outputs": {}}
    (folder / "manifest.json").write_text(json.dumps(content))
    os.utime(folder / "manifest.json", (60 * minute, 60 * minute))
    for name, text in files.items():
        (folder / f"{name}.json").write_text(text)
    return folder


def test_the_newest_model_of_a_kind_and_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    with pytest.raises(UserError, match="no trained model found under runs/: run `make pretrain` first"):
        newest(runs, "model")
    base = model(runs / "tiny/model", 1, None)
    with pytest.raises(UserError, match="no chat model found under runs/: run `make sft` first"):
        newest(runs, "chat")
    general = model(runs / "sft/general/model", 2, str(base))
    domain = model(runs / "sft/domain/model", 3, str(general), tokenizer_config='{"chat_template": "x"}')
    adapter = model(runs / "lora/model", 4, "org/base", adapter_config="{}")
    model(runs / "tiny/checkpoints/step-5/model", 9, None)
    (runs / "unfinished/model").mkdir(parents=True)
    assert newest(runs, "model") == adapter
    assert newest(runs, "whole") == newest(runs, "chat") == domain
    assert base_of(domain) == base_of(base) == "runs/tiny/base"
    assert base_of(adapter) == "org/base"
    with pytest.raises(UserError, match="Give BASE=folder"):
        base_of(Path("runs/unfinished/model"))
