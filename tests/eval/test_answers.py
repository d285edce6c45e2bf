"""Answers are kept by what they depend on: other tasks, metrics, prompts and models in one folder."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.provenance import manifest
from eval.answers import FIRST_FORMAT, OTHERS, answer_key, first_format_key
from eval.models.base import Backend, continuation_of
from eval.progress import progress
from eval.run_command import limited
from eval.runner import run
from eval.sample import EvalSample, read_predictions
from eval.tasks.task import Request
from tests.eval.models.tiny import read_lines

Asked = list[str]


def model(name: str = "m", fails_at: str | None = None) -> tuple[Backend, Asked]:
    """A model that answers with its name, and the prompts that it was asked."""
    asked: Asked = []

    def generate(requests: Sequence[Request]) -> Iterator[tuple[int, str | Exception]]:
        for i, request in enumerate(requests):
            if request.prompt == fails_at:
                yield i, OSError("planted")
                continue
            asked.append(request.prompt)
            yield i, f"{name} {request.prompt}"

    return Backend({"backend": name}, generate), asked


def requests(task: str, n: int = 4, prompt: str = "{task}{i}", **more: Any) -> list[Request]:
    return [
        Request(
            prompt.format(task=task, i=i),
            EvalSample(
                task=task, id=str(i), prediction="", reference="r", **{"metrics": ("chrf",), **more}
            ),
            8,
            (),
        )
        for i in range(n)
    ]  # fmt: skip


def tasks_of(folder: Path) -> dict[str, int]:
    lines = [line["task"] for line in read_lines(folder)]
    scores = json.loads((folder / "scores.json").read_text("utf-8"))
    assert {task: lines.count(task) for task in scores} == {task: tree["n"] for task, tree in scores.items()}
    return {task: tree["n"] for task, tree in scores.items()}


def test_a_run_with_other_tasks_keeps_those_that_are_finished(tmp_path: Path) -> None:
    backend, asked = model()
    run(requests("a"), backend, tmp_path, {"a.yaml": "sha256:1"})
    run(requests("b", 3), backend, tmp_path, {"b.yaml": "sha256:2"})
    assert tasks_of(tmp_path) == {"a": 4, "b": 3}
    made = manifest.read(tmp_path)
    assert {"a.yaml", "b.yaml"} <= made["inputs"].keys()
    assert made["counts"]["samples"] == {"a": 4, "b": 3}
    run(requests("a"), backend, tmp_path, {})
    assert len(asked) == 7


@pytest.mark.parametrize(
    "change", [{"metrics": ("chrf", "bleu-char")}, {"groups": {"ipc": "G"}}, {"reference": "corrected"}]
)
def test_what_no_answer_depends_on_is_changed_without_asking_again(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    backend, asked = model()
    run(requests("a"), backend, tmp_path, {})
    changed = [request._replace(sample=request.sample.model_copy(update=change)) for request in requests("a")]
    run(changed, backend, tmp_path, {})
    assert len(asked) == 4
    for s in read_predictions(tmp_path):
        assert s.prediction.startswith("m a")
        assert all(getattr(s, name) == value for name, value in change.items())
    if "metrics" in change:
        scores = json.loads((tmp_path / "scores.json").read_text("utf-8"))["a"]["scores"]
        assert [s["metric"] for s in scores] == ["chrf", "bleu-char"]


def test_another_models_answers_are_kept_apart_and_used_again(tmp_path: Path) -> None:
    (one, asked_one), (two, asked_two) = model("one"), model("two")
    run(requests("a"), one, tmp_path, {})
    run(requests("b"), two, tmp_path, {})
    assert tasks_of(tmp_path) == {"b": 4}
    assert (tmp_path / OTHERS).read_text("utf-8").count("one a") == 4
    run(requests("a"), one, tmp_path, {})
    assert {s.prediction[:3] for s in read_predictions(tmp_path)} == {"one"}
    assert (len(asked_one), len(asked_two)) == (4, 4)


def test_another_prompt_is_asked_and_the_old_answers_are_there_when_it_returns(tmp_path: Path) -> None:
    backend, asked = model()
    for prompt in ("{task}{i}", "other {i}", "{task}{i}"):
        run(requests("a", prompt=prompt), backend, tmp_path, {})
    assert len(asked) == 8
    assert {s.prompt[0] for s in read_predictions(tmp_path)} == {"a"}


def test_samples_that_are_not_asked_now_are_neither_scored_nor_lost(tmp_path: Path) -> None:
    backend, asked = model()
    run(requests("a", 6), backend, tmp_path, {})
    run(requests("a", 2), backend, tmp_path, {})
    assert tasks_of(tmp_path) == {"a": 2}
    run(requests("a", 6), backend, tmp_path, {})
    assert tasks_of(tmp_path) == {"a": 6}
    assert len(asked) == 6


def test_a_task_that_was_never_finished_is_not_scored_beside_others(tmp_path: Path) -> None:
    backend, asked = model(fails_at="a3")
    run(requests("old"), backend, tmp_path, {})
    with pytest.raises(UserError, match="1 of 4 requests failed"):
        run(requests("a"), backend, tmp_path, {})
    run(requests("b"), backend, tmp_path, {})
    assert tasks_of(tmp_path) == {"old": 4, "b": 4}
    whole, asked_now = model()
    run(requests("a"), whole, tmp_path, {})
    assert asked_now == ["a3"]
    assert tasks_of(tmp_path) == {"old": 4, "b": 4, "a": 4}
    assert len(asked) == 11


def test_a_question_that_is_there_twice_is_asked_once(tmp_path: Path) -> None:
    backend, asked = model()
    run([*requests("a", prompt="same"), *requests("b", prompt="same")], backend, tmp_path, {})
    assert asked == ["same"]
    assert tasks_of(tmp_path) == {"a": 4, "b": 4}


def in_first_format(folder: Path, backend: Backend, asked: list[Request]) -> None:
    """The folder as the code before wrote it, when a key depended on all of the sample."""
    lines = {(line["task"], line["id"]): line for line in read_lines(folder)}
    for request in asked:
        key = first_format_key(backend.identity, request)
        lines[request.sample.task, request.sample.id]["key"] = key
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines.values())
    (folder / "predictions.jsonl").write_text(text, "utf-8")


def test_a_folder_of_the_first_format_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    backend, asked = model()
    run(requests("a"), backend, tmp_path, {})
    in_first_format(tmp_path, backend, requests("a"))
    before = (tmp_path / "predictions.jsonl").read_bytes()
    run(requests("a"), backend, tmp_path, {})
    assert (tmp_path / "predictions.jsonl").read_bytes() == before
    run(requests("a", metrics=("bleu-char",)), backend, tmp_path, {})  # its key said `chrf`
    assert len(asked) == 4
    other, asked_other = model("other")
    in_first_format(tmp_path, backend, requests("a", metrics=("bleu-char",)))
    run(requests("a"), other, tmp_path, {})
    assert len(asked_other) == 4


def test_an_answer_of_the_first_format_saw_the_spaces_at_the_end_and_is_asked_again(tmp_path: Path) -> None:
    backend, asked = model()
    backend = backend._replace(depends_on=continuation_of)
    spaced = requests("a", prompt="{task}{i}: ")
    run(spaced, backend, tmp_path, {})
    in_first_format(tmp_path, backend, spaced)
    run(spaced, backend, tmp_path, {})
    assert len(asked) == 8


def test_a_key_covers_what_an_answer_depends_on_and_nothing_else() -> None:
    (first,) = requests("t", 1)
    backend = Backend({"backend": "m"}, lambda _: iter(()))

    def key(request: Request, of: Backend = backend) -> str:
        return answer_key(of, request)

    others = [
        first._replace(prompt="q"), first._replace(max_new_tokens=9), first._replace(stop=("\n",)),
        first._replace(kind="options"), first._replace(options=("A", "B")),
    ]  # fmt: skip
    assert len({key(first), key(first, Backend({"backend": "n"}, backend.generate)), *map(key, others)}) == 7
    sample = first.sample.model_copy(update={"reference": "s", "id": "9", "metrics": ("ter",)})
    assert key(first._replace(sample=sample, texts=("x",), publication="p")) == key(first)
    read = first._replace(kind="answer")
    assert key(read._replace(sample=sample)) != key(read)  # the reference is what is read


def test_the_first_format_is_not_changed_by_new_fields_of_a_sample() -> None:
    assert set(FIRST_FORMAT) <= EvalSample.model_fields.keys()
    (first,) = requests("t", 1)
    assert first_format_key({"backend": "m"}, first) == "0eec320e59cffaf6c58949e785c565e9"


def test_a_limit_is_for_each_task_and_subject_and_a_full_run_reuses_its_answers(tmp_path: Path) -> None:
    backend, asked = model()
    law, physics = (
        [r._replace(sample=r.sample.model_copy(update={"groups": {"subject": s}, "id": f"{s}{r.sample.id}"}))
         for r in requests("exam", prompt=f"{s}{{i}}")]
        for s in ("law", "physics")
    )  # fmt: skip
    whole = [*law, *physics, *requests("a")]
    few = limited(whole, 2)
    assert [request.prompt for request in few] == ["law0", "law1", "physics0", "physics1", "a0", "a1"]
    run(few, backend, tmp_path, {}, limit=2)
    assert manifest.read(tmp_path)["config"]["limits"] == {"exam": 2, "a": 2}
    run(requests("b"), backend, tmp_path, {}, name="m")
    assert manifest.read(tmp_path)["config"]["limits"] == {"exam": 2, "a": 2}  # they are still the first two
    run(limited(whole, None), backend, tmp_path, {})
    assert manifest.read(tmp_path)["config"]["limits"] == {}
    assert len(asked) == len(whole) + 4
    assert tasks_of(tmp_path) == {"exam": 8, "a": 4, "b": 4}


def test_a_log_gets_a_line_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, 30.0, 61.0, 90.0, 125.0])
    monkeypatch.setattr("eval.progress.time.monotonic", lambda: next(times))
    assert list(progress("abcd", 4)) == list("abcd")
    assert capsys.readouterr().out.splitlines() == [
        "2 of 4 answers, 01:01 left",
        "4 of 4 answers, 00:00 left",
    ]
    assert list(progress("ab", 2, shown=False)) == ["a", "b"]
