"""The runner of steps: what is up to date is kept, what changed runs again with everything that depends on
it, a kill costs one step."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import UserError
from core.provenance import manifest
from tests.conftest import ROOT
from tools.step_runner import Step, record_file
from tools.step_runner import run as run_steps


def story(folder: Path, stories: int = 3) -> list[Step]:
    """Texts, a tokenizer trained on them, and texts that depend on neither."""
    made, vocabulary, other = (f"{folder}/{name}" for name in ("made", "vocabulary", "other"))
    tokenizer = f"data tokenizer --vocabulary-size 500 --output {vocabulary} {made}/texts.jsonl"
    return [
        Step("texts", (f"data everyday --stories {stories} --chats 1 --output {made}",), (made,)),
        Step("tokenizer: all", (tokenizer,), (vocabulary,)),
        Step("other", (f"data everyday --stories 1 --chats 1 --output {other}",), (other,)),
    ]


def test_only_what_changed_runs_again_with_everything_that_depends_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    records = tmp_path / "records"
    records.mkdir()
    assert run_steps(story(tmp_path), records) == ["texts", "tokenizer: all", "other"]
    assert run_steps(story(tmp_path), records) == []
    assert run_steps(story(tmp_path, stories=4), records) == ["texts", "tokenizer: all"]
    (tmp_path / "other" / "manifest.json").unlink()  # shows that the step is complete
    assert run_steps(story(tmp_path, stories=4), records) == ["other"]


def test_a_file_that_comes_is_seen_also_behind_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a command names the folder or `reads` does, and although the folder has no manifest."""
    monkeypatch.chdir(ROOT)
    raw, linked, records = tmp_path / "raw", tmp_path / "linked", tmp_path / "records"
    for folder in (raw, linked, records):
        folder.mkdir()
    (linked / "raw").symlink_to(raw)
    (linked / "again").symlink_to(linked)
    (raw / "first.txt").write_text("first", "utf-8")
    steps = [
        Step("named", (f"data show --help {linked}",)), Step("read", ("data --help",), reads=(str(linked),)),
        Step("neither", ("data --help",)),
    ]  # fmt: skip
    assert run_steps(steps, records) == ["named", "read", "neither"]
    assert run_steps(steps, records) == []
    (raw / ".hidden").write_text("no input", "utf-8")
    assert run_steps(steps, records) == []
    (raw / "second.txt").write_text("second", "utf-8")
    assert run_steps(steps[1:2], records, reads_may_change=True) == ["read"]  # recorded without what it reads
    assert run_steps(steps, records) == ["named", "read"]
    assert run_steps(steps, records) == []
    with manifest.build(linked / "made", step="made", config={}, inputs={}):
        pass  # something finished in it does not hide the rest from `reads`
    assert "read" in run_steps(steps, records)
    (raw / "third.txt").write_text("third", "utf-8")
    assert run_steps(steps, records) == ["read"]


def test_what_comes_after_a_step_of_a_refresh_is_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    raw = tmp_path / "raw"
    raw.mkdir()
    steps = [Step("read", (f"data show --help {raw}",), reads=(str(raw),))]
    assert run_steps(steps, tmp_path, reads_may_change=True) == ["read"]
    (raw / "late.txt").write_text("late", "utf-8")
    assert run_steps(steps, tmp_path, reads_may_change=True) == []


def test_a_failed_step_is_reported_with_its_output_and_then_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    step = Step("shown", (f"data show {tmp_path / 'missing'}",), ())
    with pytest.raises(UserError, match=r"step `shown` failed with exit code 2:[^$]*missing") as error:
        run_steps([step], tmp_path)
    assert str(record_file(step, tmp_path).with_suffix(".log")) in str(error.value)
    assert run_steps([Step("shown", ("data --help",))], tmp_path) == ["shown"]
    assert run_steps([Step("shown", ("data --help",))], tmp_path) == []


def test_a_killed_demo_kills_its_step(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tools.step_runner import Step, run\n"
        "run([Step('long', ('http.server 0 --bind 127.0.0.1',))], Path(sys.argv[1]))"
    )
    demo = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children")
    while not children.read_text().split():
        assert demo.poll() is None
        time.sleep(0.1)
    child = int(children.read_text())
    demo.send_signal(signal.SIGKILL)
    demo.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the step outlived the demo")


def test_a_folder_without_a_record_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("years", "utf-8")
    step = Step(
        "texts", (f"data everyday --stories 1 --chats 1 --output {tmp_path}/mine",), (f"{tmp_path}/mine",)
    )
    for _ in range(2):
        with pytest.raises(UserError, match="mine already exists, and there is no record"):
            run_steps([step], tmp_path)
    assert (tmp_path / "mine" / "work.txt").read_text("utf-8") == "years"
