"""LawBench's and LexEval's tasks read files in their layouts and score as the benchmarks do."""

import json
from pathlib import Path

import pytest

from eval.metrics.judgment import amounts, months
from eval.metrics.metrics import METRICS
from eval.sample import EvalSample
from eval.tasks.task import load_tasks, requests

LAWBENCH: dict[str, tuple[str, list[tuple[str, float]]]] = {  # reference, answers and their scores
    "1-1": ("第一条 为了惩治犯罪", [("第一条 为了惩治犯罪", 1), ("不知道", 0)]),
    "1-2": ("正确答案：B。", [("[正确答案]B<eoa>", 1), ("B", 1), ("[正确答案]C<eoa>", 0), ("正确答案：A或B",
        0)]),
    "2-1": ("被告人到案", [("被告人到案", 100)]),
    "2-2": ("争议焦点类别：诉讼主体。", [("诉讼主体", 1), ("[争议焦点]诉讼主体<eoa>", 1), ("利息",
        0), ("诉讼主体、利息", 0)]),
    "2-3": ("类别:准予离婚、支付抚养费。", [("类别:支付抚养费、准予离婚。", 1), ("准予离婚",
        2 / 3), ("不知道", 0)]),
    "2-4": ("婚姻家庭", [("类别：婚姻家庭", 1), ("婚姻家庭<eoa>", 1)]),
    "2-5": ("回答:一万元", [("一万元", 1), ("回答:一万元。", 1), ("万元", 0.8)]),
    "2-6": ("犯罪嫌疑人:张三;地点:超市", [("犯罪嫌疑人:张三\n地点:超市",
        1), ("以下是实体：\n犯罪嫌疑人：张三", 2 / 3)]),
    "2-7": ("法院驳回起诉", [("法院驳回起诉", 1)]),
    "2-8": ("[正确答案]E", [("[正确答案]E<eoa>", 1), ("E", 1), ("D", 0)]),
    "2-9": ("支付/给付;卖出", [("支付/给付；卖出", 1), ("卖出", 2 / 3)]),
    "2-10": ("查扣;退给", [("查扣;退给", 1)]),
    "3-1": ("法条:刑法第264、272条", [("刑法第二百六十四条、第二百七十二条", 1), ("第264条",
        2 / 3), ("民法第264条、刑法第272条", 0.5)]),
    "3-2": ("根据《专利法》第二条", [("根据《专利法》第二条", 1)]),
    "3-3": ("罪名:盗窃;伪造、变造居民身份证", [("[罪名]伪造、变造居民身份证;盗窃<eoa>", 1), ("盗窃罪",
        2 / 3)]),
    "3-4": ("刑期:12个月", [("一年", 0), ("[刑期]12个月<eoa>", 0)]),
    "3-5": ("刑期:12个月", [("有期徒刑十二个月", 0)]),
    "3-6": ("正确答案：D。", [("答案是D，不是A", 1)]),
    "3-7": ("上文涉及到的犯罪金额:2500.0元。", [("2,500元", 1), ("0.25万元", 1), ("250元", 0)]),
    "3-8": ("可以起诉", [("可以起诉", 1)]),
}  # fmt: skip


def first(name: str, members: list[EvalSample]) -> list[float]:
    """The value of a metric's F1, or of its first score, for each sample."""
    measures = METRICS[name](members)
    measure = next((m for m in measures if m.name.endswith("-f1") and "macro" not in m.name), measures[0])
    return [float(value) for value in measure.combine(measure.statistics)]


def test_lawbench_from_its_files_to_its_scores(tmp_path: Path) -> None:
    (tmp_path / "lawbench/zero_shot").mkdir(parents=True)
    for name, (reference, _) in LAWBENCH.items():
        question = {
            "instruction": "请回答。",
            "question": "问?A:甲;B:乙;C:丙;D:丁;E:戊。",
            "answer": reference,
        }
        (tmp_path / f"lawbench/zero_shot/{name}.json").write_text(json.dumps([question]), "utf-8")
    tasks = load_tasks("lawbench")
    assert [name for name, _, _ in tasks] == [f"lawbench-{name}" for name in LAWBENCH]
    for name, task, _ in tasks:
        (request,) = requests(name, task, tmp_path)
        assert request.prompt == "请回答。\n问?A:甲;B:乙;C:丙;D:丁;E:戊。\n"
        assert request.sample.options == (5 if "accuracy" in task.metrics else None)
        for answer, score in LAWBENCH[name.removeprefix("lawbench-")][1]:
            other = request.sample.model_copy(update={"id": "2", "reference": "利息", "prediction": ""})
            extra = [other] if task.metrics[0] == "classification" else []
            members = [request.sample.model_copy(update={"prediction": answer}), *extra]
            assert first(task.metrics[0], members)[0] == pytest.approx(score), (name, answer)


def test_lexeval_reads_json_lines_and_counts_the_options_of_each_question(tmp_path: Path) -> None:
    (tmp_path / "lexeval").mkdir()
    lines = [
        {"instruction": "请选择。\n", "input": f"问？\nA: 甲\nB: 乙\nC: 丙{more}", "answer": "AC"}
        for more in ("", "\nD：丁")
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for name, task, _ in (tasks := load_tasks("lexeval")):
        (tmp_path / task.data).write_text(text, "utf-8")
        two = requests(name, task, tmp_path)
        assert two[0].prompt.startswith("请选择。\n问？\nA: 甲")
        assert two[0].prompt.endswith(":")
        if task.metrics == ("accuracy",):
            assert [each.sample.options for each in two] == [3, 4]
            said = [each.sample.model_copy(update={"prediction": "选A和C，不选B"}) for each in two]
            (accuracy,) = METRICS["accuracy"](said)
            assert accuracy.statistics[:, 0].tolist() == [1, 1]
            assert accuracy.chance is not None
            assert accuracy.chance.tolist() == [1 / 7, 1 / 15]
    assert len(tasks) == 23


@pytest.mark.parametrize(
    ("text", "term"),
    [("刑期:12个月", 12), ("一年六个月", 18), ("有期徒刑三年", 36), ("三年半", 42), ("1年零6个月",
        18), ("拘役五个月", 5),
     ("2016年5月起，判处有期徒刑两年", 24), ("[刑期]10月<eoa>", 10), ("不知道", None), ("二十年",
        240), ("一年又三个月", 15)],
)  # fmt: skip
def test_prison_terms_in_months(text: str, term: float | None) -> None:
    assert months(text) == term


def test_prison_terms_are_compared_by_logarithms_and_life_is_left_out() -> None:
    pairs = [("一年六个月", "刑期:12个月"), ("无法判断", "刑期:6个月"), ("死刑", "刑期:无期徒刑")]
    samples = [EvalSample(task="t", id=str(i), prediction=p, reference=r) for i, (p, r) in enumerate(pairs)]
    distance, missing = METRICS["prison-term"](samples)
    assert float(distance.combine(distance.statistics.sum(axis=0))) == pytest.approx(
        (0.3794896 + 5.3752784) / 2
    )
    assert float(missing.combine(missing.statistics.sum(axis=0))) == 0.5
    assert not distance.higher_is_better
    assert amounts("2.5万元，3,000元，1亿") == [25_000, 3_000, 100_000_000]
