"""Results that the code made when it was frozen (make_old.py) still open, go on, restore and verify."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.frozen import inputs
from tests.frozen.commands import arguments_of
from tests.frozen.contents import hashes
from tests.frozen.make_old import ARCHIVE, ASK
from tests.frozen.pinned import check
from tests.frozen.work import Work, metrics, norms

TOLERANCE = 1e-5


@pytest.fixture
def old(tmp_path: Path) -> Work:
    """The old results, opened in a folder in which they were never before."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")
    return Work(tmp_path / "old")


def do(old: Work, *arguments: str) -> str:
    """A command typed in the folder of the old results."""
    return old.do("tests.frozen.at", old.folder, *arguments)


@pytest.mark.parametrize(
    ("run", "command"), [("run", "pretrain"), ("lora", "sft"), ("dpo", "sft dpo")], ids=str
)
def test_an_old_run_goes_on_from_its_checkpoint(old: Work, run: str, command: str) -> None:
    before = metrics(old.folder / run)
    assert [line["step"] for line in before] == [1, 2, 3, 4]
    said = do(old, *command.split(), "--config", f"{run}/config.yaml", "training.steps=8")
    assert "step-00000004" in said
    now = metrics(old.folder / run)
    assert now[:4] == before
    found = {"metrics": now[4:], "norms": norms(old.folder / run / "model")}
    check("golden.json", f"old {run} goes on", found, tolerance=TOLERANCE)


@pytest.mark.parametrize(
    ("run", "command", "made"), [("run", "pretrain", "corpus run/base"), ("lora", "sft", "chats")]
)
def test_old_data_is_not_made_again(old: Work, run: str, command: str, made: str) -> None:
    files = [file for name in made.split() for file in (old.folder / name).rglob("manifest.json")]
    before = {file: file.read_bytes() for file in files}
    do(old, command, "--prepare", "--config", f"{run}/config.yaml")
    assert before
    assert {file: file.read_bytes() for file in files} == before


def test_a_new_run_trains_on_the_old_corpus_and_base(old: Work) -> None:
    do(
        old, "pretrain", "--config", "run/config.yaml", "run_dir=new", "model.architecture=null",
        "model.path=run/base", "training.steps=3", "training.save_every_steps=null",
    )  # fmt: skip
    check("golden.json", "old corpus trains", metrics(old.folder / "new"), tolerance=TOLERANCE)


def test_the_old_delta_restores_the_model_to_the_byte(old: Work) -> None:
    do(old, "delta", "verify", "--base", "run/base", "--target", "run/model", "--delta", "difference")
    do(old, "delta", "apply", "--base", "run/base", "--delta", "difference", "--target", "again")
    for file in (old.folder / "run" / "model").iterdir():
        assert (old.folder / "again" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("name", ["run", "lora", "dpo", "difference", "answers-model"])
def test_all_that_an_old_result_rests_on_is_found_and_verified(old: Work, name: str) -> None:
    said = do(old, *arguments_of("make lineage"), name, "--verify")
    assert "files are unchanged" in said
    assert name == "dpo" or "corpus/ingest" in said
    assert "corpus/synthetic" in said


def test_old_answers_are_compared_and_reported_and_asked_again_only_after_a_space(old: Work) -> None:
    """A model now continues a prompt without the spaces at its end, so what was written after one is old."""
    folder = old.folder

    def answers() -> set[str]:
        return set((folder / "answers-model" / "predictions.jsonl").read_text("utf-8").splitlines())

    before = answers()
    continued = {line for line in before if is_written_after_a_space(json.loads(line))}
    assert 0 < len(continued) < len(before)
    scores = json.loads((folder / "answers-model" / "scores.json").read_text("utf-8"))
    do(old, "eval", "score", "answers-model", "--output", "scores.json")
    check("golden.json", "old answers scored", json.loads((folder / "scores.json").read_text("utf-8")),
          tolerance=1e-9)  # fmt: skip
    do(old, "eval", "compare", "answers-base", "answers-model", "--output", "compared.json")
    check("golden.json", "old answers compared", json.loads((folder / "compared.json").read_text("utf-8")),
          tolerance=1e-9)  # fmt: skip
    do(old, "eval", "report", "answers-model", "--base", "answers-base")
    assert "bits-per-byte" in (folder / "answers-model" / "report.html").read_text("utf-8")
    said = do(old, "eval", "run", "--model", "run/model", *ASK, "--output", "answers-model")
    assert "answers already exist" in said
    assert before - answers() == continued
    assert len(answers()) == len(before)
    assert json.loads((folder / "answers-model" / "scores.json").read_text("utf-8")).keys() == scores.keys()


def is_written_after_a_space(answer: dict[str, str]) -> bool:
    return answer["by"] == "generation" and answer["prompt"].endswith(" ")


def test_the_inputs_are_what_they_were(old: Work) -> None:
    """The other tests of this folder begin from the same files."""
    new = inputs.write_all(old.folder.parent / "new")
    shared = {name: each for name, each in hashes(old.folder).items() if name in hashes(new)}
    assert shared
    assert shared == {name: each for name, each in hashes(new).items() if name in shared}
