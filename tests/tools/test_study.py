"""Studies: what nothing varies is done once, what is new alone is added, a kill leaves no trace, what was
picked on is never scored. With toy steps; test_demo_whole.py has the real ones."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from tests.conftest import ROOT, run
from tools.step_runner import Step, record_file
from tools.step_runner import run as run_steps
from tools.study import reading

STUDY = """
study:
  axes:
    pretraining:
      without: {start: "${base}"}
      with: {start: "${continued}"}
    examples: [25, 100]
  seeds: 3
  scores: [scores]
variables:
  folder: study
  start: ""
  better: 8
  step: tests.tools.study_step
steps:
  - name: base
    command: ${step} make ${here}
    outputs: ["${here}"]
  - name: continued
    command: ${step} make ${here} ${base} ${seed}
    outputs: ["${here}"]
  - name: tuned
    command: ${step} make ${here} ${start} ${examples} ${seed}
    outputs: ["${here}"]
  - name: scores
    command: ${step} score ${here} ${tuned} ${better}
    outputs: ["${here}"]
  - name: published
    command: ${step} make ${here} ${tuned}
    outputs: ["${here}"]
    only: {pretraining: with, examples: 100, seed: 1}
"""
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def study(tmp_path: Path) -> Call:
    (tmp_path / "study.yaml").write_text(STUDY, "utf-8")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run("tools.study", "--config", "study.yaml", *arguments, folder=tmp_path)

    return call


def calls(folder: Path) -> list[str]:
    """The outputs that steps have made since the last look."""
    file = folder / "calls"
    made = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return sorted(made)


def results(folder: Path) -> str:
    """Every number of a study but what it cost."""
    tree = json.loads((folder / "study/report/results.json").read_text("utf-8"))
    return json.dumps({key: value for key, value in tree.items() if key not in ("cost", "runs")})


def test_what_nothing_varies_is_done_once_and_what_is_new_is_added(study: Call, tmp_path: Path) -> None:
    done = study("--seeds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    made = calls(tmp_path)
    assert [name for name in made if "tuned" not in name and "scores" not in name] == [
        "study/base", "study/continued/seed-1", "study/continued/seed-2",
        "study/published/pretraining-with/examples-100/seed-1",
    ]  # fmt: skip
    assert len(made) == 4 + 2 * 8
    assert "all 20 steps are up to date" in study("--seeds", "2").stdout
    assert calls(tmp_path) == []

    assert study("--seeds", "3").returncode == 0
    added = calls(tmp_path)
    assert len(added) == 9
    assert all(name.endswith("seed-3") for name in added)

    text = (tmp_path / "study.yaml").read_text("utf-8")
    (tmp_path / "study.yaml").write_text(text.replace("[25, 100]", "[10, 25, 100, 400]"), "utf-8")
    assert study().returncode == 0
    added = calls(tmp_path)
    assert len(added) == 2 * 2 * 2 * 3
    assert all("examples-10/" in name or "examples-400" in name for name in added)

    assert study("pretraining=with", "examples=25").returncode == 0, "without `published`, for 100 only"
    assert study("pretraining=with", "examples=25,100").returncode == 0
    assert calls(tmp_path) == []
    assert study("better=9").returncode == 0
    assert len(calls(tmp_path)) == 24, "scores alone"


@pytest.mark.timeout(300)
def test_a_study_killed_at_ten_moments_ends_as_one_that_was_not(study: Call, tmp_path: Path) -> None:
    assert study("--at-once", "2").returncode == 0
    whole = results(tmp_path)
    (tmp_path / "study").rename(tmp_path / "unkilled")
    chance = random.Random(3)
    command = [sys.executable, "-m", "tools.study", "--config", "study.yaml", "--at-once", "2"]
    for _ in range(10):
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(0.5, 2))
        process.kill()
        process.wait()
    assert study("--at-once", "2").returncode == 0
    assert results(tmp_path) == whole


PICKING = STUDY
for old, new in (
    ("examples: [25, 100]", "rate: [1, 8]"),
    ("${examples}", "${rate}"),
    ("examples: 100, ", ""),
    ("[scores]\n", "[scores]\n  pick: {axis: rate, step: validated, task: v, metric: exact-match}\n"),
    ("steps:\n", "steps:\n  - {name: validated, command: '${step} score ${here} ${tuned} ${rate} 30 v',"
                 " outputs: ['${here}']}\n"),
):  # fmt: skip
    assert old in PICKING
    PICKING = PICKING.replace(old, new)


def test_only_what_was_picked_on_validation_is_scored(study: Call, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(PICKING, "utf-8")
    done = study()
    assert done.returncode == 0, done.stdout + done.stderr
    made = calls(tmp_path)
    assert len([name for name in made if "validated" in name]) == 12
    scored = [name for name in made if "scores" in name]
    assert len(scored) == 6
    assert all("rate-8" in name for name in scored)
    assert "rate-1" not in " ".join(name for name in made if "published" in name)
    manifest = json.loads((tmp_path / "study/report/manifest.json").read_text("utf-8"))
    assert "by exact-match of v in the step validated" in manifest["config"]["decided_on"]["rate"]
    assert "rate" in json.loads((tmp_path / "study/report/results.json").read_text("utf-8"))["decided_on"]

    same = PICKING.replace("${rate} 30 v", "${rate} 30 toy").replace("task: v", "task: toy")
    (tmp_path / "study.yaml").write_text(same, "utf-8")
    done = study()
    assert done.returncode == 2
    assert "is one of those that `rate` was picked on" in done.stderr


def test_what_is_read_from_outside_may_lie_behind_a_link_and_is_read_again_if_it_changes(
    study: Call, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "first").write_text("1", "utf-8")
    (tmp_path / "given").symlink_to("elsewhere")
    reading = PICKING.replace(
        "command: ${step} make ${here}\n", "command: ${step} make ${here} ./given\n    reads: [./given]\n"
    )
    (tmp_path / "study.yaml").write_text(reading, "utf-8")
    done = study()
    assert done.returncode == 0, done.stdout + done.stderr
    first = calls(tmp_path)
    assert len([name for name in first if "scores" in name]) == 6
    assert "up to date" in study().stdout
    (tmp_path / "elsewhere" / "second").write_text("2", "utf-8")
    assert study().returncode == 0
    assert calls(tmp_path) == ["study/base"]  # which comes out the same, so that the rest is kept


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{start: \"${base}\"}", "{strat: x}", r":4: no variable `strat`; did you mean `start`"),
        ("examples: [25, 100]", "examples: []", r":7: the axis has no level"),
        ("examples: [25, 100]", "examples: ['1.5', '1 5']", "two of its levels would have the same folder"),
        ("examples: [25, 100]", "base: [25, 100]", "`base` is set by the program"),
        ("scores: [scores]", "scores: [score]", r":9: no step `score`; did you mean `scores`"),
        ("only: {pretraining: with, examples: 100", "only: {pretrained: with, examples: 100",
         r":31: no axis `pretrained`; did you mean `pretraining`"),
        ("seed: 1}", "seed: 4}", "no level 4 of `seed`. It has 1, 2, 3."),
        ("  start: \"\"\n", "  start: \"\"\n  seed: 3\n", ":13: `seed` is set by the program"),
        ("make ${here}\n", "make ${here} ${tuned}\n", "a circle: "),
        ("folder: study", "place: study", r"`\$\{folder\}`: no such variable"),
        ("make ${here} ${base} ${seed}", "make ${here} ${published} ${seed}", "a circle|runs only for"),
        ("score ${here} ${tuned}", "score ${here} ${published}", "`scores` needs `published`, which runs"),
        ("seeds: 3", "seeds: 0", "study.seeds"),
        ("  scores: [scores]", "  scores: [scores]\n  replay_law: {domain: a, general: b}", "axis `replay`"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace(old, new, 1), "utf-8")
    with pytest.raises(UserError, match=message):
        reading.read(file)


def test_a_level_that_is_not_there_is_refused(study: Call) -> None:
    done = study("pretraining=wiht")
    assert done.returncode == 2
    assert "no such level; did you mean `with`? It has without, with." in done.stderr
    assert study("--seeds", "0").returncode == 2
    assert study("--at-once", "0").returncode == 2
    done = study("--step", "tuned-1")
    assert done.returncode == 2
    assert "no such step" in done.stderr


def test_each_step_is_a_job_that_names_those_before_it(study: Call, tmp_path: Path) -> None:
    listed = run("tools.jobs", "--config", "study.yaml", "better=7", folder=tmp_path)
    jobs = [line.split("\t") for line in listed.stdout.splitlines()]
    names = [job[0] for job in jobs]
    assert len(set(names)) == len(names) == 1 + 3 + 12 + 12 + 1
    place = {name: number for number, name in enumerate(names)}
    for name, needs, *_, command in jobs:
        assert all(place[need] < place[name] for need in needs.split(",") if need)
        assert command.endswith(f"--step {name} better=7")
    done = study("--step", "scores-pretraining-with-examples-25-seed-2", "better=7")
    assert done.returncode == 2
    assert "needs `tuned pretraining-with examples-25 seed-2`: not finished yet" in done.stderr
    for name in ("base", "continued-seed-2", "tuned-pretraining-with-examples-25-seed-2"):
        assert study("--step", name, "better=7").returncode == 0
    assert study("--step", "scores-pretraining-with-examples-25-seed-2", "better=7").returncode == 0
    assert calls(tmp_path)[0] == "study/base"


def toy(name: str, kind: str = "make", needs: tuple[str, ...] = ()) -> Step:
    return Step(
        name, (f"tests.tools.study_step {kind} out/{name} {' '.join(needs)}",), (f"out/{name}",), needs=needs
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "records").mkdir()
    return tmp_path


def test_steps_at_once_wait_for_those_that_they_need_alone(here: Path) -> None:
    steps = [toy("a"), toy("b", needs=("a",)), toy("c"), toy("d", needs=("b", "c"))]
    assert sorted(run_steps(steps, Path("records"), at_once=3)) == ["a", "b", "c", "d"]
    made = [line.rpartition("/")[2] for line in (here / "calls").read_text().splitlines()]
    assert made.index("a") < made.index("b") < made.index("d")
    assert made.index("c") < made.index("d")
    assert run_steps(steps, Path("records"), at_once=3) == []


def test_a_failing_step_lets_those_beside_it_end_and_starts_no_more(here: Path) -> None:
    steps = [toy("a", "fail"), toy("b"), toy("c", needs=("b",)), toy("d", needs=("a",))]
    (here / "hold").touch()

    def let_go() -> None:
        log = record_file(steps[0], Path("records")).with_suffix(".log")
        while not log.exists() or "out of luck" not in log.read_text():
            time.sleep(0.05)
        time.sleep(1)  # the runner learns of it
        (here / "hold").unlink()

    threading.Thread(target=let_go).start()
    with pytest.raises(UserError, match="`a` failed with exit code 2:\nout of luck"):
        run_steps(steps, Path("records"), at_once=2)
    assert json.loads(record_file(steps[1], Path("records")).read_text())["done"]
    assert calls(here) == ["out/a", "out/b"]


def test_an_interrupt_ends_all_steps(here: Path) -> None:
    (here / "hold").touch()
    # A job in the background ignores interrupts.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from pathlib import Path; from tests.tools.test_study import toy, run_steps\n"
    code += "run_steps([toy('a'), toy('b')], Path('records'), at_once=2)"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True)
    while not (here / "calls").exists() or len((here / "calls").read_text().splitlines()) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=20)[1]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # none of its group is left
