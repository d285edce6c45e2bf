"""The demo's driver: what is done stays, what changed is done again with what rests on it, a kill costs a
step."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.config.loader import Config, load
from core.errors import UserError
from data.chat.from_patents import BuildConfig
from data.pipeline import DataConfig
from eval.tasks.task import load_task
from pretrain.config import PretrainConfig
from sft.config import SftConfig, stages
from tests.conftest import ROOT, run
from tools.demo.__main__ import run as do
from tools.demo.steps import Sizes, Step, slug, steps


def story(folder: Path, stories: int = 3) -> list[Step]:
    """Texts, a tokenizer of them, and texts that rest on neither."""
    made, words, other = (f"{folder}/{name}" for name in ("made", "words", "other"))
    tokenizer = f"data tokenizer --vocabulary-size 500 --output {words} {made}/texts.jsonl"
    return [
        Step("texts", (f"data everyday --stories {stories} --chats 1 --output {made}",), (made,)),
        Step("words: all", (tokenizer,), (words,)),
        Step("other", (f"data everyday --stories 1 --chats 1 --output {other}",), (other,)),
    ]


def test_only_what_changed_is_done_again_with_what_rests_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    records = tmp_path / "records"
    records.mkdir()
    assert do(story(tmp_path), records) == ["texts", "words: all", "other"]
    assert do(story(tmp_path), records) == []
    assert do(story(tmp_path, stories=4), records) == ["texts", "words: all"]
    (tmp_path / "other" / "manifest.json").unlink()  # what proves the step
    assert do(story(tmp_path, stories=4), records) == ["other"]


def test_a_step_that_failed_is_named_with_its_words_and_then_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    step = Step("shown", (f"data show {tmp_path / 'missing'}",), ())
    with pytest.raises(UserError, match=r"step `shown` ended with code 2:[^$]*missing") as error:
        do([step], tmp_path)
    assert str(tmp_path / f"{slug(step)}.log") in str(error.value)
    assert do([Step("shown", ("data --help",))], tmp_path) == ["shown"]
    assert do([Step("shown", ("data --help",))], tmp_path) == []


def test_a_killed_demo_takes_its_step_along(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tools.demo.__main__ import run; from tools.demo.steps import Step\n"
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


def test_every_command_of_the_demo_is_right_before_any_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    schemas: dict[tuple[str, ...], type[Config]] = {
        ("data", "run"): DataConfig, ("data", "build"): BuildConfig, ("pretrain",): PretrainConfig,
        ("sft",): SftConfig,
    }  # fmt: skip
    checked = set()
    for command in [words for step in steps(Sizes()) for words in map(shlex.split, step.commands)]:
        schema = next((s for name, s in schemas.items() if command[: len(name)] == list(name)), None)
        if schema is not None:
            named = "--config" in command
            default = "configs/data/tiny.yaml" if schema is DataConfig else None
            file = command[command.index("--config") + 1] if named else default
            config = load(schema, Path(file) if file else None, [word for word in command[1:] if "=" in word])
            if isinstance(config, SftConfig):
                assert len(stages(config)) == 2
            checked.add(schema)
        if "--tasks" in command:
            assert all(load_task(name) for name in command[command.index("--tasks") + 1].split(","))
    assert checked == set(schemas.values())


def test_the_list_of_commands_can_be_typed(tmp_path: Path) -> None:
    listed = run("tools.demo", "--list", f"runs={tmp_path}/runs", f"corpora={tmp_path}/corpora")
    assert listed.returncode == 0, listed.stderr
    assert f"python -m delta apply --base {tmp_path}/runs/base/model" in listed.stdout
    assert not any(tmp_path.iterdir())


def test_what_no_record_tells_of_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("years", "utf-8")
    step = Step(
        "texts", (f"data everyday --stories 1 --chats 1 --output {tmp_path}/mine",), (f"{tmp_path}/mine",)
    )
    for _ in range(2):
        with pytest.raises(UserError, match="mine is there already, and no record says"):
            do([step], tmp_path)
    assert (tmp_path / "mine" / "work.txt").read_text("utf-8") == "years"
