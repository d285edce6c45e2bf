"""`make refresh`: only what is new and not worse is published, in one step, and what was there before is
kept; a kill, a failure or nothing new leaves what is in use as it is. With toy steps; test_refresh_whole.py
has the real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from core.provenance import manifest
from tests.conftest import ROOT, run
from tools.refresh import Place, _link
from tools.step_runner import Step
from tools.step_runner import run as run_steps

STEPS = """
variables:
  incoming: raw
  base: base
  first_corpora: ""
  first_index: ""
  value: better
  folder: runs/refresh
  run: ${folder}/${generation}
  corpus: corpora/${generation}
  model: ${run}/model
  index: indexes/${generation}
  comparison: ${run}/comparison.json
  current_model: models/current
  current_index: indexes/current
steps:
  - name: data
    command: tests.tools.refresh_step data ${incoming} ${corpus} '${earlier}'
    reads: ["${incoming}"]
    outputs: ["${corpus}/pack"]
    clears: ["${corpus}"]
    nothing_new: 3
  - name: model
    needs: [data]
    command: tests.tools.refresh_step make ${model} ${value}
    outputs: ["${model}"]
  - name: compare
    needs: [model]
    command: tests.tools.refresh_step compare ${current} ${comparison} ${value}
    outputs: ["${comparison}"]
    rejects: 1
  - name: index
    needs: [data, compare]
    command: tests.tools.refresh_step make ${index} "${extends}"
    outputs: ["${index}"]
"""
Refresh = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def refresh(tmp_path: Path) -> Refresh:
    (tmp_path / "steps.yaml").write_text(STEPS, "utf-8")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "1").write_text("1", "utf-8")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run("tools.refresh", "--config", "steps.yaml", *arguments, folder=tmp_path)

    return call


def targets(folder: Path) -> list[str]:
    links = (folder / name for name in ("models/current", "indexes/current"))
    return [str(link.resolve().relative_to(folder.resolve())) for link in links]


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def begin(folder: Path) -> subprocess.Popen[bytes]:
    """A refresh that stays in its second step."""
    (folder / "hold").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.refresh", "--config", "steps.yaml"], cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not (folder / "runs/refresh").exists() or not list(folder.glob("runs/refresh/*/.model.partial-*")):
        assert process.poll() is None
        time.sleep(0.05)
    return process


def test_a_generation_is_published_after_another_and_rolled_back(refresh: Refresh, tmp_path: Path) -> None:
    done = refresh()
    assert done.returncode == 0, done.stderr
    assert targets(tmp_path) == ["runs/refresh/0001/model", "indexes/0001"]
    assert not (tmp_path / "models/current").readlink().is_absolute()

    before = tree(tmp_path)
    for _ in range(2):
        (tmp_path / "raw" / "1").touch()  # another time, the same content: the corpus finds nothing new
        done = refresh()
        assert (done.returncode, "nothing new" in done.stdout) == (0, True), done.stderr
    assert refresh("--until", "data").returncode == 3
    assert tree(tmp_path).keys() == before.keys()

    (tmp_path / "raw" / "2").write_text("2", "utf-8")
    assert refresh().returncode == 0
    assert targets(tmp_path) == ["runs/refresh/0002/model", "indexes/0002"]
    assert (tmp_path / "corpora/0002/pack/text").read_text() == "2"
    assert (tmp_path / "indexes/0002/value").read_text() == "--extends indexes/0001"
    record = manifest.read(tmp_path / "runs/refresh/0002/published")
    assert record["config"]["before"] == {"model": "runs/refresh/0001/model", "index": "indexes/0001"}
    assert "runs/refresh/0002/model/value" in record["inputs"]
    assert refresh().stdout.startswith("nothing new since generation 0002")

    done = refresh("--rollback")
    assert (done.returncode, targets(tmp_path)) == (0, ["runs/refresh/0001/model", "indexes/0001"])
    done = refresh()
    assert (done.returncode, targets(tmp_path)[0]) == (1, "runs/refresh/0001/model")
    assert "generation 0002 was rolled back" in done.stdout
    (tmp_path / "raw" / "3").write_text("3", "utf-8")
    assert refresh().returncode == 0
    assert (tmp_path / "corpora/0003/pack/text").read_text() == "23"
    assert refresh("--rollback").returncode == 0
    done = refresh("--rollback")
    assert done.returncode == 2
    assert "base, the model before generation 0001, is not a folder here" in done.stderr


def test_what_is_worse_is_not_published_and_not_used_again(refresh: Refresh, tmp_path: Path) -> None:
    assert refresh().returncode == 0
    (tmp_path / "raw" / "2").write_text("2", "utf-8")
    done = refresh("value=worse")
    assert done.returncode == 1
    assert "not published: runs/refresh/0002/comparison.json" in done.stdout
    assert targets(tmp_path)[0] == "runs/refresh/0001/model"
    before = tree(tmp_path)
    for how in ([], ["--until", "data"], ["--until", "compare"]):
        done = refresh("value=worse", *how)
        assert (done.returncode, "generation 0002 was rejected" in done.stdout) == (1, True)
    assert tree(tmp_path).keys() == before.keys()
    done = refresh("value=fine")  # another recipe
    assert done.returncode == 0, done.stderr
    assert targets(tmp_path)[0] == "runs/refresh/0003/model"
    assert (tmp_path / "corpora/0003/pack/text").read_text() == "2"
    comparison = json.loads((tmp_path / "runs/refresh/0003/comparison.json").read_text())
    assert comparison[0]["before"] == "runs/refresh/0001/model"


def test_step_by_step_it_is_the_same(refresh: Refresh, tmp_path: Path) -> None:
    for step in ("data", "model", "compare", "index"):
        assert refresh("--until", step).returncode == 0
    assert not (tmp_path / "models").exists()
    assert refresh().stdout.count("…") == 0
    assert targets(tmp_path) == ["runs/refresh/0001/model", "indexes/0001"]
    (tmp_path / "raw" / "2").write_text("2", "utf-8")
    assert refresh("--until", "model", "value=worse").returncode == 0
    for step in ("compare", "compare", "data"):
        assert refresh("--until", step, "value=worse").returncode == 1
    assert not (tmp_path / "runs/refresh/0003").exists()
    assert "did you mean `model`" in refresh("--until", "modle").stderr


def test_a_failed_step_changes_nothing_in_use_and_is_done_again(refresh: Refresh, tmp_path: Path) -> None:
    assert refresh().returncode == 0
    (tmp_path / "raw" / "2").write_text("2", "utf-8")
    done = refresh("value=broken")
    assert done.returncode == 2
    assert "the step `model` failed with exit code 9" in done.stderr
    assert targets(tmp_path)[0] == "runs/refresh/0001/model"
    assert refresh().returncode == 0
    assert targets(tmp_path)[0] == "runs/refresh/0002/model"


def test_a_killed_refresh_goes_on_with_its_files_and_a_second_one_is_refused(
    refresh: Refresh, tmp_path: Path
) -> None:
    process = begin(tmp_path)
    done = refresh()
    assert done.returncode == 2
    assert "runs/refresh: another refresh is at work there (process" in done.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "hold").unlink()
    (tmp_path / "raw" / "2").write_text("2", "utf-8")  # for the next generation
    assert refresh().returncode == 0
    assert (tmp_path / "corpora/0001/pack/text").read_text() == "1"
    assert refresh().returncode == 0
    assert (tmp_path / "corpora/0002/pack/text").read_text() == "2"


def test_a_rollback_during_a_refresh_makes_it_begin_anew(refresh: Refresh, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    assert refresh().returncode == 0
    (tmp_path / "raw" / "2").write_text("2", "utf-8")
    process = begin(tmp_path)
    assert refresh("--rollback").returncode == 0
    (tmp_path / "hold").unlink()
    assert process.wait() == 2
    assert targets(tmp_path)[0] == "base"
    assert refresh().returncode == 0
    assert targets(tmp_path)[0] == "runs/refresh/0002/model"
    assert (tmp_path / "corpora/0002/pack/text").read_text() == "12"
    rows = json.loads((tmp_path / "runs/refresh/0002/comparison.json").read_text())
    assert rows[0]["before"] == "base"


@pytest.mark.parametrize("under_way", ["publishing", "rolling back"])
def test_an_interrupted_publication_is_finished(refresh: Refresh, tmp_path: Path, under_way: str) -> None:
    assert refresh().returncode == 0
    (tmp_path / "raw" / "2").write_text("2", "utf-8")
    assert refresh().returncode == 0
    place = Place(tmp_path / "runs/refresh", tmp_path / "models/current", tmp_path / "indexes/current")
    state = place.states()[2]
    assert state
    place.write(2, {**state, "state": under_way})
    other = "0001" if under_way == "publishing" else "0002"
    _link(place.model_link, tmp_path / f"runs/refresh/{other}/model")  # the kill came between the links
    refresh()
    number = "0002" if under_way == "publishing" else "0001"
    assert targets(tmp_path) == [f"runs/refresh/{number}/model", f"indexes/{number}"]


def test_a_reader_of_a_link_never_finds_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name, "utf-8")
    _link(tmp_path / "current", tmp_path / "a")
    child = os.fork()
    if not child:
        for number in range(2000):
            _link(tmp_path / "current", tmp_path / "ab"[number % 2 : number % 2 + 1])
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert (tmp_path / "current" / "file").read_text("utf-8") in "ab"


def test_what_is_no_link_is_not_replaced(refresh: Refresh, tmp_path: Path) -> None:
    (tmp_path / "models/current").mkdir(parents=True)
    done = refresh()
    assert done.returncode == 2
    assert "models/current is not a symbolic link" in done.stderr
    (tmp_path / "models/current").rmdir()
    (tmp_path / "models/current").symlink_to("gone")
    assert "models/current leads to gone, which is gone" in refresh().stderr


def test_nothing_to_roll_back_is_said(refresh: Refresh) -> None:
    done = refresh("--rollback")
    assert done.returncode == 2
    assert "nothing was published there" in done.stderr


def test_a_missing_variable_is_named(refresh: Refresh, tmp_path: Path) -> None:
    file = tmp_path / "steps.yaml"
    file.write_text(file.read_text("utf-8").replace("  comparison: ", "  other: "), "utf-8")
    assert "comparison" in refresh("--list").stderr
    with pytest.raises(UserError, match="no variable"):
        from tools import steps_file

        steps_file.read(file, ["modle=x"])


def test_a_step_that_has_not_finished_begins_again_if_files_have_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    made, raw = str(tmp_path / "made"), tmp_path / "raw"
    raw.mkdir()
    command = f"tests.tools.refresh_step make {made} broken"
    step = Step("make", (command,), (made,), resumable=True, reads=(str(raw),))
    with pytest.raises(UserError, match="exit code 9"):
        run_steps([step], tmp_path)
    with pytest.raises(UserError, match="exit code 1:"):  # goes on with what is there, which this one cannot
        run_steps([step], tmp_path)
    (raw / "new").touch()
    with pytest.raises(UserError, match="exit code 9"):
        run_steps([step], tmp_path)
