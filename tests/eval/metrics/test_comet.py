"""COMET through another interpreter: values that fit their texts, are kept, and never meet another model's.

The models are on the hub, which tests do not reach. So the worker's interpreter finds a stand-in for the
package `comet` on its PYTHONPATH, with the functions of unbabel-comet 2.2.7 that the worker calls; everything
else is as a user runs it.
"""

import json
import sys
from pathlib import Path

import pytest

from core.errors import UserError
from eval.metrics.comet_values import NAME
from eval.metrics.metrics import check
from eval.sample import read_predictions
from tests.eval.in_process import here

STAND_IN = """
import os, sys
from types import SimpleNamespace

try:
    import terminology  # beside the worker, in this project
    sys.exit("the worker's neighbours are in the way")
except ImportError:
    pass

def download_model(name):
    print("Fetching 1 file", flush=True)
    if "none" in name:
        raise KeyError(f"Model '{name}' not supported by COMET.")
    return name

def load_from_checkpoint(path):
    return Model(path)

class Model:
    def __init__(self, name):
        self.name = name

    def requires_references(self):
        return "kiwi" not in self.name

    def predict(self, samples, batch_size=16, gpus=1):
        assert batch_size > 0 and gpus == 0
        with open(os.environ["CALLS"], "a") as out:
            out.writelines(f"{s['mt']}\\n" for s in samples)
        assert len({"ref" in s for s in samples}) == 1
        scores = [(len(s["mt"]) + len(s["src"]) + 2 * ("ref" in s)) / 100 for s in samples]
        print("Predicting: 50%\\rPredicting: 100%", flush=True)
        match os.environ.get("FAULT"):
            case "nan":
                scores[2] = float("nan")
            case "short":
                scores.pop()
            case "died" if any(s["mt"] == "t 3" for s in samples):
                raise RuntimeError("CUDA out of memory")
        return SimpleNamespace(scores=scores)
"""
X, KIWI = "comet|Unbabel/wmt22-comet-da@2.2.7", "comet|kiwi@2.2.7"


def write(run: Path, word: str = "t", n: int = 8, tasks: str = "ab", **more: str) -> Path:
    """A run of translation tasks, and one without sources."""
    run.mkdir(exist_ok=True)
    lines = [
        {"task": task, "id": str(i), "source": f"source {i}", "prediction": f"{word} {i}",
         "reference": f"r {i}", "metrics": ["chrf"], **more}
        for task in tasks for i in range(n)
    ]  # fmt: skip
    lines.append({"task": "letters", "id": "0", "prediction": "A", "reference": "A", "metrics": ["accuracy"]})
    (run / "predictions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return run


@pytest.fixture(autouse=True)
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in on the worker's path; the file has a line for each text that it was asked to score."""
    package = tmp_path / "packages"
    (package / "comet").mkdir(parents=True)
    (package / "comet/__init__.py").write_text(STAND_IN)
    (package / "unbabel_comet-2.2.7.dist-info").mkdir()
    (package / "unbabel_comet-2.2.7.dist-info/METADATA").write_text("Name: unbabel-comet\nVersion: 2.2.7\n")
    monkeypatch.setenv("PYTHONPATH", str(package))
    file = tmp_path / "calls"
    file.write_text("")
    monkeypatch.setenv("CALLS", str(file))
    return file


def comet(run: Path, *more: str | Path) -> tuple[int, str]:
    return here("eval", "comet", run, "--python", sys.executable, *more)


def scores(run: Path, *metrics: str) -> dict[str, dict[str, float]]:
    """Value by score, by task."""
    code, said = here("eval", "score", run, "--metrics", *metrics)
    assert code == 0, said
    tree = json.loads((run / "scores.json").read_text())
    return {task: {s["metric"]: s["value"] for s in found["scores"]} for task, found in tree.items()}


def test_a_run_is_measured_and_its_values_are_scores(tmp_path: Path, calls: Path) -> None:
    run = write(tmp_path / "run", prediction="<think>long</think>tt")
    code, said = comet(run)
    assert code == 0, said
    assert f"{NAME}: 16 values" in said
    assert "Predicting: 100%" in said  # passed on
    assert set(calls.read_text().splitlines()) == {"tt"}  # without the thought
    found = scores(run, "comet", "chrf")
    assert found["a"][X] == found["b"][X] == pytest.approx((2 + 8 + 2) / 100)
    assert list(found["letters"]) == ["chrf"]
    line = json.loads((run / "scores.json").read_text())["a"]["scores"][0]
    assert (line["signature"], line["primary"]) == (X, True)


def test_values_are_reused_and_only_for_the_same_texts(tmp_path: Path, calls: Path) -> None:
    run = write(tmp_path / "run")
    assert comet(run, "--tasks", "a")[0] == 0
    assert comet(run)[0] == 0
    assert len(calls.read_text().splitlines()) == 16
    code, said = comet(run)
    assert "16 values (16 were there)" in said
    assert len(calls.read_text().splitlines()) == 16
    lines = (run / "predictions.jsonl").read_text()
    for old, new in (("t 5", "new 5"), ("source 5", "new source"), ("r 5", "new r")):
        (run / "predictions.jsonl").write_text(lines.replace(old, new, 1))
        changed = next(s for s in read_predictions(run) if s.id == "5")
        assert not changed.measured
        code, said = here("eval", "score", run, "--metrics", "comet")
        assert code == 2
        assert "task a, sample 5: no COMET value for this answer. Run `python -m eval comet RUN" in said
    assert comet(run)[0] == 0
    assert len(calls.read_text().splitlines()) == 17
    assert X in scores(run, "comet")["a"]
    (run / "predictions.jsonl").write_text(lines)
    assert X in scores(run, "comet")["a"]  # the old value was kept


def test_every_command_reads_the_values(tmp_path: Path) -> None:
    base, run = write(tmp_path / "base"), write(tmp_path / "run", "longer")
    for each in (base, run):
        assert comet(each)[0] == 0
    code, said = here("eval", "compare", base, run, "--metrics", "comet")
    assert code == 0, said
    assert said.count("better") == 2
    code, said = here("eval", "report", run, "--base", base, "--metrics", "comet")
    assert code == 0, said
    page = (run / "report.html").read_text()
    assert X in page
    assert "as the COMET model in the name rates it" in page
    for name in ("scores.csv", "scores.tex"):
        assert here("eval", "export", base, run, "--metrics", "comet", "--output", tmp_path / name)[0] == 0
        assert "wmt22-comet-da@2.2.7" in (tmp_path / name).read_text()


def test_values_of_two_models_never_meet(tmp_path: Path) -> None:
    base, run = write(tmp_path / "base"), write(tmp_path / "run", "longer")
    assert comet(base)[0] == 0
    assert comet(run, "--model", "kiwi")[0] == 0
    for command in (["compare", base, run], ["report", run, "--base", base]):
        code, said = here("eval", *map(str, command), "--metrics", "comet")
        assert code == 2
        assert f"task a: A has {X}, B has {KIWI}. Measure both in the same way." in said
    assert here("eval", "export", base, run, "--metrics", "comet", "--output", tmp_path / "s.csv")[0] == 0
    assert {X, KIWI} <= {
        cell for row in (tmp_path / "s.csv").read_text().split("\n") for cell in row.split(",")
    }
    assert comet(base, "--model", "kiwi")[0] == 0
    code, said = here("eval", "score", base, "--metrics", "comet")
    assert code == 2
    assert f"task a: measured by {X}, {KIWI}. Pass one of them to --metrics." in said
    for name in (KIWI, "comet|kiwi"):
        assert list(scores(base, name)["a"]) == [KIWI]
    assert list(scores(base, X, KIWI)["a"]) == [X, KIWI]
    assert here("eval", "compare", base, run, "--metrics", "comet|kiwi")[0] == 0
    code, said = here("eval", "score", base, "--metrics", "comet|title")
    assert code == 2
    assert "no COMET value of title for this answer (it was measured by" in said


def test_a_checkpoint_file_is_known_by_its_content(tmp_path: Path) -> None:
    run, model = write(tmp_path / "run"), tmp_path / "model"
    (model / "checkpoints").mkdir(parents=True)
    (model / "checkpoints/model.ckpt").write_text("weights")
    for given in (model, model / "checkpoints/model.ckpt"):
        assert comet(run, "--model", given)[0] == 0
    (first,) = scores(run, "comet")["a"]
    assert first.startswith("comet|model.ckpt:")
    for file, text in (("checkpoints/model.ckpt", "other weights"), ("hparams.yaml", "class_identifier: x")):
        (model / file).write_text(text)
        assert comet(run, "--model", model)[0] == 0
    assert len({name for s in read_predictions(run) for name in s.measured}) == 3


@pytest.mark.parametrize(
    ("fault", "message", "kept"),
    [
        ("nan", "task a, sample 2: COMET gave nan (so for 1 of 16 samples). The other values are kept.", 15),
        ("short", "COMET gave 15 scores for 16 samples", 0),
        ("died", "RuntimeError: CUDA out of memory", 0),
    ],
)
def test_a_worker_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str, kept: int
) -> None:
    run = write(tmp_path / "run")
    monkeypatch.setenv("FAULT", fault)
    code, said = comet(run)
    assert code == 2
    assert message in said.partition("error: ")[2]
    assert len((run / NAME).read_text().splitlines()) == kept
    monkeypatch.delenv("FAULT")
    code, said = comet(run)
    assert code == 0
    assert len((run / NAME).read_text().splitlines()) == 16


def test_parts_before_a_failure_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Path
) -> None:
    run = write(tmp_path / "run", n=1100, tasks="a")
    text = (run / "predictions.jsonl").read_text()
    (run / "predictions.jsonl").write_text(text.replace('"t 3"', '"x"').replace('"t 1050"', '"t 3"'))
    monkeypatch.setenv("FAULT", "died")
    code, said = comet(run)
    assert code == 2
    assert "1000 values are kept" in said
    monkeypatch.delenv("FAULT")
    calls.write_text("")
    assert comet(run)[0] == 0
    assert len(calls.read_text().splitlines()) == 100


def test_without_references_a_model_that_needs_none_is_asked(tmp_path: Path) -> None:
    run = write(tmp_path / "run", reference="")
    code, said = comet(run)
    assert code == 2
    assert "Unbabel/wmt22-comet-da needs references, and these samples have none" in said
    assert comet(run, "--model", "kiwi")[0] == 0
    text = (run / "predictions.jsonl").read_text()
    (run / "predictions.jsonl").write_text(text.replace('"reference": ""', '"reference": "r"', 1))
    code, said = comet(run, "--model", "kiwi")
    assert code == 2
    assert "task a, sample 1: no reference, but other samples have one" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--python", "no-such-python"], "--python no-such-python: not found"),
        (["--python", "README.md"], "--python README.md: not found, or not a program"),
        (["--python", sys.prefix], f"--python {sys.prefix}: a folder. Pass {sys.prefix}/bin/python"),
        (["--python", "/bin/false"], "not a Python with unbabel-comet"),
        (["--model", "none"], "KeyError: \"Model 'none' not supported by COMET.\""),
        (["--model", "none.ckpt"], "--model none.ckpt: none.ckpt not found"),
        (["--tasks", "a,c"], "--tasks c: not in"),
        (["--tasks", "letters"], "task letters, sample 0: no `source`"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--gpus", "-1"], "--gpus -1: must be at least 0"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, more: list[str], message: str) -> None:
    code, said = comet(write(tmp_path / "run"), *more)
    assert code == 2, said
    assert message in said


def test_an_environment_without_the_package_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    code, said = comet(write(tmp_path / "run"))
    assert code == 2
    assert f"{sys.executable} -m pip install unbabel-comet" in said
    code, said = comet(tmp_path / "empty")
    assert "not a run folder" in said


def test_an_empty_answer_with_a_value_is_still_empty(tmp_path: Path) -> None:
    run = write(tmp_path / "run", prediction="")
    assert comet(run)[0] == 0
    assert here("eval", "report", run)[0] == 0
    assert "16 answers are empty" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"task": "a", "id": "0", "texts": "", "measure": "comet|x", "value": NaN}', "`value` is"),
        ('{"task": "a", "id": "0", "texts": "", "value": 1}', "no field `measure`"),
        ("{", "not valid JSON"),
    ],
)
def test_a_damaged_file_of_values_is_named(tmp_path: Path, line: str, message: str) -> None:
    run = write(tmp_path / "run")
    (run / NAME).write_text(f"{line}\n")
    code, said = here("eval", "score", run)
    assert code == 2
    assert f"{NAME}:1: " in said
    assert message in said


def test_a_task_file_cannot_name_what_is_measured_after_the_run() -> None:
    with pytest.raises(UserError, match="measured after a run"):
        check(["chrf", "comet"])
