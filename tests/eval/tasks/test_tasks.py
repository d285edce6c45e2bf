"""Task files and the layouts of public benchmarks."""

from pathlib import Path

import pytest

from core.errors import UserError
from eval.metrics.metrics import METRICS
from eval.tasks.task import TaskConfig, load_task, read_questions, requests
from tests.conftest import ROOT

LAYOUTS = {
    "ceval": "\ufeffid,question,A,B,C,D,answer\n0,问?,NA,二,三,四,B\n",
    "cmmlu": ",Question,A,B,C,D,Answer\n0,问?,NA,二,三,四,B\n",
    "mmlu": "问?,NA,二,三,四,B\n",
    "kmmlu": "question,A,B,C,D,answer\n问?,NA,二,三,四,2\n",
    "tw-legal": "question,A,B,C,D,answer\n问?,NA,二,三,四,b\n",
}
FILES = [
    file
    for room in ("eval", "demo")
    for file in sorted((ROOT / "configs" / room).rglob("*.yaml"))
    if file.parent.name != "groups"
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_question(tmp_path: Path, layout: str) -> None:
    (tmp_path / "q.csv").write_text(LAYOUTS[layout], "utf-8")
    assert list(read_questions(tmp_path / "q.csv")) == [
        {"question": "问?", "A": "NA", "B": "二", "C": "三", "D": "四", "answer": "B"}
    ]


def test_exams_with_several_answers_and_five_options(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question,A,B,C,D,E,answer\n问?,1,2,3,4,5,BCE\n", "utf-8")
    (row,) = read_questions(tmp_path / "q.csv")
    assert (row["E"], row["answer"]) == ("5", "BCE")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,A,B\nx,1,2\n", "no field `answer`. Its fields: question, a, b"),
        ("question,A,B,answer\nx,1,2,F\n", r"row 2: answer `F` is not an option \(A, B\)"),
        ("question,A,B,answer\nx,1\n", "row 2 has 2 cells, expected 4"),
        ("", "the file has no questions"),
    ],
)
def test_bad_questions_are_reported(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "q.csv").write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        list(read_questions(tmp_path / "q.csv"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_task_file_loads_and_names_metrics_that_exist(file: Path) -> None:
    name, task = load_task(str(file))
    assert name == file.stem
    assert all(name in METRICS for name in task.metrics)


def test_a_users_own_task_needs_no_python(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "layout: jsonl\ndata: x.jsonl\nprompt: 'Say {q} {{q}}'\nmetrics: [chrf]\ngroups: {ipc: class}\n",
        "utf-8",
    )
    (tmp_path / "x.jsonl").write_text('{"q": "{answer}", "answer": "a", "class": "G"}\n', "utf-8")
    (request,) = requests(*load_task(str(tmp_path / "mine.yaml")), tmp_path)
    assert request.prompt == "Say {answer} {{answer}}"  # text from data is not a template
    assert (request.sample.reference, request.sample.groups, request.sample.id) == ("a", {"ipc": "G"}, "x-0")


def test_missing_fields_and_files_are_reported(tmp_path: Path) -> None:
    task = TaskConfig(layout="jsonl", data="x.jsonl", prompt="{q}", metrics=("chrf",))
    with pytest.raises(UserError, match="no file matches"):
        requests("t", task, tmp_path)
    (tmp_path / "x.jsonl").write_text('{"question": "q", "answer": "a"}\n', "utf-8")
    with pytest.raises(UserError, match=r"x.jsonl:1: no field `q`. Its fields: question, answer"):
        requests("t", task, tmp_path)
