"""The task file of each exam, on data in its layout: planted answers give the planted accuracy; empty answers
and truncated prompts are counted."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from eval.analysis.scoring import score
from eval.metrics.ceval import HARD
from eval.models import hf, loglikelihood
from eval.models.base import Backend, Likelihood
from eval.models.fit import fit
from eval.runner import run
from eval.sample import EvalSample, read_predictions
from eval.tasks.subjects import read_subjects, subjects_file
from eval.tasks.task import Request, data_files, load_task, load_tasks, requests
from tests.eval.models.tiny import write_model, write_task

HEADERS = {
    "cmmlu": ",Question,A,B,C,D,Answer\n",
    "mmlu": "",
    "kmmlu": "question,A,B,C,D,answer\n",
    "tw-legal": "question,A,B,C,D,answer\n",
    "patent-agent": "question,A,B,C,D,answer\n",
}
SUBJECTS = {"cmmlu": "college_law", "mmlu": "professional_law", "kmmlu": "Criminal-Law"}
QUESTIONS, RIGHT = 40, 27


def answers(task: str, i: int) -> tuple[str, str]:
    """What is right for a question, in letters and as its file writes it."""
    letters = ("BCD", "A", "AC", "ABCD")[i % 4] if task == "patent-agent" else "ABCD"[i % 4]
    return letters, str("ABCD".index(letters) + 1) if task == "kmmlu" else letters


def write_exam(folder: Path, task: str) -> None:
    def rows(n: int) -> str:
        first = (f"{i}," if task == "cmmlu" else "" for i in range(n))
        return "".join(f"{x}q{i}?,NA,乙,丙,丁,{answers(task, i)[1]}\n" for i, x in enumerate(first))

    for split, n in (("test", QUESTIONS), ("dev", 5)):
        file = folder / task / split / f"{SUBJECTS.get(task)}_{split}.csv"
        if task in ("tw-legal", "patent-agent"):
            file = folder / task / "law.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not (file.name == "law.csv" and split == "dev"):
            file.write_text(HEADERS[task] + rows(n), "utf-8")


def planted(requests: Sequence[Request]) -> Iterator[tuple[int, str | Exception]]:
    for i, request in enumerate(requests):
        wrong = "AB" if len(request.sample.reference) > 1 else "BCDA"["ABCD".index(request.sample.reference)]
        number = int(request.sample.id.rpartition("-")[2])
        yield i, f"答案：{request.sample.reference if number < RIGHT else wrong}。"


@pytest.mark.parametrize("task", HEADERS)
def test_planted_answers_give_the_planted_accuracy(tmp_path: Path, task: str) -> None:
    write_exam(tmp_path, task)
    asked = requests(*load_task(task), tmp_path)
    assert len(asked) == QUESTIONS
    assert {request.kind for request in asked} == {"generation" if task == "patent-agent" else "options"}
    assert {request.options[0] for request in asked} == {" A" if "mmlu" in task and task != "cmmlu" else "A"}
    assert all("A. NA" in request.prompt for request in asked)
    run(asked, Backend({"backend": "planted"}, planted), tmp_path / "out", {})
    tree = json.loads((tmp_path / "out/scores.json").read_text())[task]
    found = {score["metric"]: score for score in tree["scores"]}
    assert found["accuracy"]["value"] == RIGHT / QUESTIONS
    assert found["accuracy"]["chance"] == pytest.approx(1 / 15 if task == "patent-agent" else 1 / 4)


def test_shots_come_before_the_question_with_their_answers(tmp_path: Path) -> None:
    write_exam(tmp_path, "mmlu")
    prompt = requests(*load_task("mmlu"), tmp_path)[7].prompt
    assert prompt.startswith(
        "The following are multiple choice questions (with answers) about professional law.\n\nq0?\nA. NA\n"
    )
    assert prompt.count("Answer: ") == 5
    assert "Answer: B\n\nq2?" in prompt
    assert prompt.endswith("q7?\nA. NA\nB. 乙\nC. 丙\nD. 丁\nAnswer:")


def test_shots_of_objects_are_filled_prompts_with_their_references(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text('{"zh": "甲", "en": "A"}\n{"zh": "乙", "en": "B"}\n' * 2, "utf-8")
    (tmp_path / "x.jsonl").write_text('{"zh": "{shots}", "en": "C"}\n', "utf-8")
    file = write_task(
        tmp_path, "t", "layout: jsonl\ndata: x.jsonl\nshots: dev.jsonl\nshots_n: 2\nreference: en\n"
        "prompt: '{shots}译：{zh}='\nmetrics: [chrf]\n",
    )  # fmt: skip
    (request,) = requests(*load_task(str(file)), tmp_path)
    assert request.prompt == "译：甲=A\n\n译：乙=B\n\n译：{shots}="


def test_groups_of_tasks_and_unknown_names() -> None:
    assert [name for name, _, _ in load_tasks("patent,ceval,title")] == [
        "claims-zh-en", "claims-en-zh", "title", "extraction", "ceval",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"task file not found. Tasks and groups: .*ceval.*patent"):
        load_tasks("cevaal")


def test_several_answers_are_not_asked_by_likelihood(tmp_path: Path) -> None:
    write_exam(tmp_path, "patent-agent")
    name, task = load_task("patent-agent")
    with pytest.raises(UserError, match="`by: log-likelihood` is not supported"):
        requests(name, task.model_copy(update={"by": "log-likelihood"}), tmp_path)


def asked(prompt: str, kind: Any = "generation") -> Request:
    sample = EvalSample(task="t", id=prompt[:9], prediction="", reference="yes", metrics=("chrf",))
    return Request(prompt, sample, 8, (), kind)


def test_empty_and_endless_answers_are_scored_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["", " \n", "yes" * 100_000, "yes"]
    backend = Backend({}, lambda requests: iter(list(enumerate(output[: len(requests)]))))
    run([asked(str(i)) for i in range(4)], backend, tmp_path / "out", {})
    counts = json.loads((tmp_path / "out/manifest.json").read_text())["counts"]
    assert counts["empty"] == 2
    assert "2 answers are empty" in capsys.readouterr().out


def test_prompts_longer_than_the_context_are_counted_also_after_a_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = hf.open_model(str(write_model(tmp_path / "model")))
    backend = Backend(
        {}, lambda each: hf.generate(local, each), fit=lambda each: fit(local, each),
        answer_likelihood=lambda pairs: loglikelihood.answer_likelihood(local, pairs),
    )  # fmt: skip
    requests = [asked("a" * 200), asked("b" * 10), asked("c" * 126, "answer")]
    run(requests, backend, tmp_path / "out", {})
    run(requests, backend, tmp_path / "out", {})
    cut = {s.prompt[0]: s.cut for s in read_predictions(tmp_path / "out")}
    assert cut == {"a": 200 - (128 - 8), "b": 0, "c": 1}
    assert "2 prompts were longer than the context, and their middle was cut out" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/manifest.json").read_text())["counts"]["cut_to_context"] == 2


def test_a_question_is_reported_once_if_several_options_fail(tmp_path: Path) -> None:
    def shaky(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Likelihood | Exception]]:
        for i, (prompt, option) in enumerate(pairs):
            fails = prompt == "1" and option in "AC"
            yield i, OSError("gone") if fails else Likelihood(-float(ord(option)), 1)

    requests = [asked(str(i), "options")._replace(options=tuple("ABCD")) for i in range(3)]
    with pytest.raises(UserError, match=r"1 of 3 requests failed \(first: t 1: gone\)"):
        run(requests, Backend({}, planted, shaky), tmp_path / "out", {})
    assert [s.prediction for s in read_predictions(tmp_path / "out")] == ["A", "A"]


def test_tasks_that_need_likelihoods_are_refused_without_them(tmp_path: Path) -> None:
    for kind in ("answer", "text"):
        with pytest.raises(UserError, match="task t needs log-probabilities"):
            run([asked("x", kind)], Backend({}, planted), tmp_path / kind, {})


@pytest.mark.parametrize(
    ("task", "lead", "category"),
    [("cmmlu", "以下是关于大学法律的单项选择题", "Humanities"), ("mmlu",
        "questions (with answers) about professional law", "Humanities"),
     ("kmmlu", "다음은 Criminal Law에 관한 객관식", "HUMSS")],
)  # fmt: skip
def test_subjects_have_their_official_names_and_categories(
    tmp_path: Path, task: str, lead: str, category: str
) -> None:
    write_exam(tmp_path, task)
    (name, config), root = load_task(task), tmp_path
    first = requests(name, config, root)[0]
    assert lead in first.prompt
    assert first.sample.groups == {"subject": SUBJECTS[task], "category": category}
    assert any(file.name == f"{task}.json" for file in data_files(name, config, root))
    for file in (root / task).rglob("*.csv"):
        file.rename(file.with_name(file.name.replace(SUBJECTS[task], "lawe")))
    with pytest.raises(UserError, match=f"{task}.json: no subject `lawe`, which a data file is named after"):
        requests(name, config, root)


def test_the_categories_of_the_exams_are_complete_and_only_ceval_has_hard_subjects(tmp_path: Path) -> None:
    counts = {}
    for exam in ("mmlu", "cmmlu", "kmmlu"):
        known = read_subjects(subjects_file(f"subjects/{exam}.json", tmp_path, exam))
        groups = [known.of(subject)[1] for subject in known.entries]
        counts[exam] = dict(Counter(each["category"] for each in groups))
        assert not any("hard" in each for each in groups)
        if exam == "cmmlu":
            assert Counter(each.get("subset") for each in groups)["China specific"] == 15
    assert counts == {
        "mmlu": {"STEM": 19, "Humanities": 13, "Social Sciences": 12, "Other": 13},
        "cmmlu": {"STEM": 17, "Humanities": 13, "Social Science": 22, "Other": 15},
        "kmmlu": {"STEM": 11, "Applied Science": 12, "HUMSS": 11, "Other": 11},
    }
    sample = EvalSample(task="mmlu", id="1", prediction="A", reference="A",
        options=4, metrics=("accuracy",),
                        groups={"subject": "college_physics", "category": "STEM"})  # fmt: skip
    assert "hard" not in score([sample])["mmlu"]["groups"]
    ceval = sample.model_copy(update={"task": "ceval-generation"})
    assert "hard" in score([ceval])["ceval-generation"]["groups"]
    entries = {subject: ["", "", "STEM"] for subject in (*HARD, "law")}
    (tmp_path / "all.json").write_text(json.dumps(entries))
    mine = read_subjects(tmp_path / "all.json")
    assert [mine.of(subject)[1].get("hard") for subject in ("college_physics", "law")] == ["Hard", None]
    assert "hard" not in read_subjects(tmp_path / "all.json", "ceval").of("college_physics")[1]


@pytest.mark.parametrize("text", ['{"law": ["", ""]}', '{"law": "STEM"}', "[1]", "{"])
def test_malformed_subjects_are_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(UserError, match=r"s\.json: (`\w*` must be \[English name|not valid JSON)"):
        read_subjects(tmp_path / "s.json")
