"""The card's version history, and its refusals; what it tells of a run stands in test_run.py."""

import json
from pathlib import Path

import pytest

from core.config.loader import load
from core.errors import UserError
from core.train.model_card import _history
from sft.card import main
from sft.config import SftConfig, stages

MODEL = ["model.path=base", "run_dir=runs/x", "data={output_dir: d, sources: [{path: p}]}"]


def test_the_history_of_the_former_card_is_carried_on(tmp_path: Path) -> None:
    former = tmp_path / "README.md"
    former.write_text("# old\n\nVersion 2. All weights.\n\n## Version history\n\n- 2: old\n- 1: first\n")
    overrides = [*MODEL, f"card={{name: new, version: '3', former: {former}}}"]
    config = load(SftConfig, None, overrides)
    assert _history(config, "new") == "## Version history\n\n- 3: new\n- 2: old\n- 1: first"
    former.write_text("# old\n\nVersion 1. All weights.\n")
    assert _history(config, "new") == "## Version history\n\n- 3: new\n- 1: old"


def test_there_is_no_card_of_a_run_that_left_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished run"):
        main(["--run", str(tmp_path)])


def test_stages_differ_where_they_say_and_follow_one_another() -> None:
    said = [{"name": "a", "data": {"output_dir": "a"}}, {"name": "b", "optimizer": {"learning_rate": 1e-6}}]
    whole = load(SftConfig, None, [*MODEL, f"stages={json.dumps(said)}", "neftune_alpha=5"])
    first, second = stages(whole)
    assert (first.run_dir, first.base, first.data.output_dir) == ("runs/x/a", "base", "a")
    assert (second.run_dir, second.base, second.data.output_dir) == ("runs/x/b", "runs/x/a/model", "d")
    assert (first.neftune_alpha, second.optimizer.learning_rate) == (5, 1e-6)
    adapted = stages(whole.model_copy(update={"model": whole.model.model_copy(
        update={"adapter": {"r": 2}})}))  # fmt: skip
    assert adapted[1].base == "base"
    assert adapted[1].model.adapter is not None
    assert adapted[1].model.adapter.path == "runs/x/a/model"
    with pytest.raises(UserError, match="its own"):
        stages(load(SftConfig, None, [*MODEL, 'stages=[{"name": "a"}, {"name": "b"}]']))
