"""A file of steps is checked before anything runs, and an error names its line."""

from pathlib import Path

import pytest

from core.errors import UserError
from tests.conftest import ROOT
from tools.refresh import Place, values
from tools.steps_file import looks, read, shown

STEPS = """variables: {run: runs/x, model: "${run}/model", width: 8}
steps:
  - name: scores
    needs: [train]
    command: eval run --model ${model} --output ${run}/scores
    outputs: ["${run}/scores"]
  - name: train
    command:
      - pretrain --prepare --config configs/pretrain/tiny.yaml
      - "pretrain --config configs/pretrain/tiny.yaml width=${width} 'mixture=[{name: a, output_dir: b/c}]'"
    outputs: ["${model}"]
    resumable: true
    resources: {gpus: 8}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "steps.yaml"
    path.write_text(STEPS, "utf-8")
    return path


def test_variables_are_filled_in_and_each_step_comes_after_those_that_it_needs(file: Path) -> None:
    train, scores = read(file, ["run=runs/y"]).steps()
    assert (train.name, train.outputs, train.resumable) == ("train", ("runs/y/model",), True)
    assert train.commands[1].endswith("width=8 'mixture=[{name: a, output_dir: b/c}]'")
    assert scores.commands == ("eval run --model runs/y/model --output runs/y/scores",)
    assert shown([scores]) == f"# scores\npython -m {scores.commands[0]}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("needs: [train]", "need: [train]", r"`steps.0.need` \(.*:4\): unknown key"),
        ("needs: [train]", "needs: [trian]", ":4: `scores` needs `trian`: no such step; did you mean `train"),
        ("- name: train", "- name: train\n    needs: [scores]", ":4: a circle: scores needs train needs"),
        ("needs: [train]", "needs: [scores]", ":4: a circle: scores needs scores"),
        ("name: scores", "name: train", ":7: a second step `train`, after that of .*:3"),
        ('["${run}/scores"]', '["${model}"]', ":3: the step `scores` writes runs/x/model, and `train` .*:7"),
        ('["${run}/scores"]', '["${run}"]', ":3: the step `scores` writes runs/x, and `train`"),
        ("--model ${model}", "--model ${modle}", r":5: `\$\{modle\}`: no such variable; did you mean `mod"),
        ('"${run}/model"', '"${model}/x"', ":1: variables that need each other: model → model"),
        ("gpus: 8", "gpus: many", r"`steps.1.resources.gpus` = 'many' \(.*:13\): must be a valid integer"),
        ("variables: {", "variables: {steps: 5, ", ":1: `steps` is a key of the file"),
        ("name: train", "name: Train it", r"`steps.1.name` = 'Train it' \(.*:7\)"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(STEPS.replace(old, new, 1), "utf-8")
    with pytest.raises(UserError, match=message):
        read(file).steps()


def test_a_variable_of_the_command_line_must_be_one_of_the_file(file: Path) -> None:
    with pytest.raises(UserError, match="has no variable `widht`; did you mean `width`"):
        read(file, ["widht=9"])
    with pytest.raises(UserError, match="not of the form"):
        read(file, ["width"])
    with pytest.raises(UserError, match=r"command line: `\$\{nothing\}`|:1: `\$\{nothing\}`"):
        read(file, ["run=${nothing}"]).steps()
    with pytest.raises(UserError, match=":1: variables: `run` is set by the program"):
        read(file).steps({"run": "mine"})


def test_configs_that_are_not_there_are_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert all(look.there for look in looks(read(file).steps()))
    file.write_text(STEPS.replace("tiny.yaml", "tyni.yaml"), "utf-8")
    assert [look.there for look in looks(read(file).steps())] == [False]


def test_the_recipe_that_is_shipped_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    described = read(Path("configs/refresh.yaml"))
    place = Place(Path(described.value("folder")), Path("models/current"), Path("indexes/current"))
    steps = described.steps(values(described, place, 1))
    assert [step.name for step in steps][-1] == "index"
    assert all(look.there for look in looks(steps) if look.found.startswith("configs/"))
