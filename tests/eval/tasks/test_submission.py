"""C-Eval's test questions, which have no answers, become the file that its site scores."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from core.errors import UserError
from eval.models.base import Backend
from eval.runner import run
from eval.tasks.submission import write_submission
from eval.tasks.task import Request, load_task, requests

SUBJECTS = ("law", "logic")
ANSWERS = ("B", "答案是②", "<think>A</think>C", "A或B", "正确答案：D。", "2")


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    for split, header in (
        ("dev", "id,question,A,B,C,D,answer,explanation\n"),
        ("test", "id,question,A,B,C,D\n"),
    ):
        (tmp_path / "ceval" / split).mkdir(parents=True)
        for subject in SUBJECTS:
            rows = (
                f"{7 * i},问{split}{i}?,甲,乙,丙,丁{',B,x' if split == 'dev' else ''}\n" for i in range(6)
            )
            (tmp_path / f"ceval/{split}/{subject}_{split}.csv").write_text(header + "".join(rows), "utf-8")
    names = {subject: [subject, f"{subject}科", "STEM"] for subject in SUBJECTS}
    (tmp_path / "ceval/subject_mapping.json").write_text(json.dumps(names), "utf-8")
    return tmp_path


def planted(asked: Sequence[Request]) -> Iterator[tuple[int, str | Exception]]:
    for i, request in enumerate(asked):
        yield i, ANSWERS[int(request.sample.id.rpartition("-")[2]) // 7]


def test_the_answers_are_written_by_subject_and_the_ids_of_the_files(exam: Path) -> None:
    asked = requests(*load_task("ceval-test"), exam)
    assert asked[0].prompt.endswith("问test0?\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案：")
    assert {request.sample.reference for request in asked} == {""}
    run(asked, Backend({"backend": "planted"}, planted), exam / "run", {})
    (answered,) = json.loads((exam / "run/scores.json").read_text())["ceval-test"]["scores"]
    assert (answered["metric"], answered["value"]) == ("answered", pytest.approx(5 / 6))
    said = write_submission(exam / "run", "ceval-test", exam / "submission.json")
    expected = {"0": "B", "7": "B", "14": "C", "21": "", "28": "D", "35": "B"}
    assert json.loads((exam / "submission.json").read_text()) == dict.fromkeys(SUBJECTS, expected)
    assert "12 answers of 2 subjects, 2 of them without a letter" in said
    assert "warning: C-Eval's test split has 12,342 questions of 52 subjects" in said


def test_a_run_with_other_questions_gives_no_submission(tmp_path: Path) -> None:
    line = {"task": "ceval", "id": "law-0", "prediction": "A", "reference": "A", "options": 4,
            "groups": {"subject": "law"}}  # fmt: skip
    (tmp_path / "p.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    for task, words in (
        ("ceval", "not a question without an answer"),
        ("ceval-test", "Its tasks: ceval. Pass"),
    ):
        with pytest.raises(UserError, match=words):
            write_submission(tmp_path / "p.jsonl", task, tmp_path / "s.json")
    assert not (tmp_path / "s.json").exists()
