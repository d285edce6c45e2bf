"""What of a text is the answer: lenient scores do not depend on the form, strict ones do; both have names."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from eval.metrics.answers import title, without_thought
from eval.metrics.metrics import METRICS
from eval.metrics.patent import parse_extraction, parse_extraction_leniently
from eval.sample import EvalSample
from eval.tasks.task import load_task

STRICT = "解决问题:甲;技术手段:乙,丙;实施效果:丁;"
SAME = [
    STRICT,
    "以下是抽取结果：\n解决问题：甲；技术手段：乙，丙；实施效果：丁。",
    "解决问题：甲\n技术手段：乙、丙\n实施效果：丁",
    "好的，解决问题:甲;技术手段:乙,丙;实施效果:丁;以上就是答案。",
    f"{STRICT}\n请抽取出输入句子的解决问题，技术手段和实施效果实体\n本发明\n解决问题:戊;技术手段:己;实施效果:;",
    f"{STRICT}\n\n{STRICT.replace('甲', '戊')}",
    "- **解决问题**：甲\n- **技术手段**：乙、丙\n- **实施效果**：丁",
    '{"解决问题": ["甲"], "技术手段": ["乙", "丙"], "实施效果": ["丁"]}',
    '{\n "解决问题": [\n  "甲"\n ],\n "技术手段": [\n  "乙",\n  "丙"\n ],\n "实施效果": [\n  "丁"\n ]\n}',
    "以下是解决问题、技术手段、实施效果：\n解决问题：甲\n技术手段：\n- 乙\n- 丙\n实施效果：\n1. 丁\n\n请告知",
    "1. 解决问题：甲\n2. 技术手段：乙，丙\n3. 实施效果：丁",
    "解决的问题:甲，技术手段:乙，丙，实施效果:丁",
    "【解决问题】：甲；【技术手段】：乙,丙；【实施效果】：丁",
    "解决问题，技术手段，实施效果实体如下：\n解决问题:甲;技术手段:乙,丙;实施效果:丁",
    "实施效果:丁;技术手段:乙,丙;解决问题:甲",
    f"```\n{STRICT}\n```",
    "### 解决问题\n甲\n### 技术手段\n- 乙、丙\n### 实施效果\n丁",
    f"<think>解决问题:戊;技术手段:己</think>\n{STRICT}",
]
WITHOUT_EFFECT = [
    "解决问题:甲;技术手段:乙,丙;",
    "解决问题:甲;技术手段:乙,丙;实施效果:;",
    "解决问题:甲;技术手段:乙,丙;实施效果:无",
    "解决问题:甲;技术手段:乙,丙;\n请抽取出输入句子的解决问题，技术手段和实施效果实体\n本发明。解决问题:甲",
    "解决问题:甲;技术手段:乙,丙;实施效果:;\n本发明公开了\n解决问题:x",
    "解决问题：甲\n技术手段：乙，丙\n实施效果：\n\n请",
]


def scores(metric: str, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Scores of (prediction, reference) pairs."""
    samples = [EvalSample(task="t", id=str(i), prediction=p, reference=r) for i, (p, r) in enumerate(pairs)]
    return {m.name: float(m.combine(m.statistics.sum(axis=0))) for m in METRICS[metric](samples)}


@pytest.mark.parametrize("text", SAME)
def test_key_information_in_any_form_is_right_when_read_leniently(text: str) -> None:
    found = scores("extraction-lenient", [(text, STRICT)])
    assert (found["extraction-lenient-f1"], found["extraction-lenient-malformed"]) == (1, 0)
    assert scores("extraction", [(text, STRICT)])["extraction-f1"] == (
        parse_extraction(without_thought(text)) is not None
    )


@pytest.mark.parametrize("text", WITHOUT_EFFECT)
def test_a_missing_type_costs_its_phrases_and_no_others(text: str) -> None:
    found = scores("extraction-lenient", [(text, STRICT)])
    assert found["extraction-lenient-recall"] == pytest.approx(3 / 4)
    assert found["extraction-lenient-precision"] == 1
    assert found["extraction-lenient-实施效果-recall"] == 0


def test_an_answer_without_any_type_is_malformed_and_a_part_of_a_phrase_is_not_the_phrase() -> None:
    assert parse_extraction_leniently("不知道") is None
    found = scores("extraction-lenient", [("甲乙丙丁", STRICT), ("解决问题:甲壳;技术手段:丙;", STRICT)])
    assert found["extraction-lenient-malformed"] == 0.5
    assert found["extraction-lenient-f1"] == pytest.approx(2 * 1 / (2 + 8))


PHRASES = st.lists(
    st.text("甲乙ab(12)、。.[", min_size=1, max_size=5).map(str.strip).filter(bool), max_size=3
)


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.tuples(PHRASES, PHRASES)] * 3))
def test_a_lenient_score_is_never_below_the_strict_one(drawn: Sequence[tuple[list[str], list[str]]]) -> None:
    names = ("解决问题", "技术手段", "实施效果")
    texts = [
        "".join(f"{n}:{','.join(d[side])};" for n, d in zip(names, drawn, strict=True)) for side in (0, 1)
    ]
    strict, lenient = (scores(name, [(texts[0], texts[1])]) for name in ("extraction", "extraction-lenient"))
    for part in ("recall", "f1", "sample-macro-f1"):
        assert lenient[f"extraction-lenient-{part}"] >= strict[f"extraction-{part}"]
    assert scores("extraction-lenient", [(texts[1], texts[1])])["extraction-lenient-sample-macro-f1"] == 1


@pytest.mark.parametrize("metric", ["extraction", "extraction-lenient", "entities", "entities-lenient"])
def test_a_malformed_reference_is_an_error_of_the_data(metric: str) -> None:
    with pytest.raises(UserError, match="task t, sample 0: the reference"):
        scores(metric, [("x", "解决问题甲")])


TITLE = "一种酸奶冰淇淋的制作工艺"


@pytest.mark.parametrize(
    "text",
    [TITLE, f"{TITLE}。", f"标题：{TITLE}", f"**标题**：{TITLE}", f"《{TITLE}》", f"“{TITLE}”。",
        f"好的，以下是标题：\n{TITLE}",
     f"以下是为您生成的标题：\n\n《{TITLE}》\n\n说明：本标题", f"该摘要的标题是：“{TITLE}”。",
     f"根据摘要，标题可以为“{TITLE}”，因为它", f"该专利可命名为《{TITLE}》。",
     f"{TITLE}\n请生成下面摘要文本的标题\n本发明", f"Sure! Here is the title:\n\n**{TITLE}**",
        f"Title: {TITLE}",
     f"# {TITLE}", f"{TITLE}。本发明公开了", f"\n\n{TITLE}", f"好的。\n{TITLE}",
        f'The title could be: "{TITLE}"',
     f"标题:\n{TITLE}", f"好的\n标题：{TITLE}", f"<think>标题：x</think>{TITLE}"],
)  # fmt: skip
def test_a_title_in_any_form_is_right_when_read_leniently(text: str) -> None:
    assert scores("rouge-l-char|title", [(text, TITLE)])["rouge-l-char|title-f1"] == 1
    assert scores("bleu-zh|title", [(text, TITLE)])["bleu-zh|title"] == pytest.approx(100)
    strict = scores("bleu-zh", [(text, TITLE)])["bleu-zh"]
    assert (strict > 99.9) == (without_thought(text).strip() == TITLE)


@pytest.mark.parametrize(
    "text",
    ["一种标题生成方法", "《专利法》解析装置", "名称为X的装置", "A method, system and device",
        "标题识别方法和系统",
     "一种文档标题的提取方法及装置", "Title generation device", "一种5.5kV装置(10)"],
)  # fmt: skip
def test_a_plain_title_stays_as_it_is(text: str) -> None:
    assert title(text) == text
    assert title(title(f"标题：《{text}》")) == text


def test_entities_among_other_text_count_when_read_leniently() -> None:
    right = "人名:张三,李四;机构:台北地方法院;"
    texts = [right, f"以下是实体：\n{right}", "- 人名：张三、李四\n- 机构：台北地方法院\n\n如需帮助请告知",
        f"{right}\n原告王五\n人名:王五",
             '```json\n[{"type": "人名", "text": "张三"}, {"type": "人名", "text": "李四"}, '
             '{"type": "机构", "text": "台北地方法院"}]\n```']  # fmt: skip
    for text in texts:
        assert scores("entities-lenient", [(text, right)])["entities-lenient-f1"] == 1, text
    assert [round(scores("entities", [(text, right)])["entities-f1"], 2) for text in texts] == [1, 1, 0, 0, 0]
    assert scores("entities-lenient", [("没有", right)])["entities-lenient-malformed"] == 1


@pytest.mark.parametrize(
    ("filtered", "text", "expected"),
    [("exact-match|number=答案[:：]\\s*(\\d+)", "我想想。答案：12，理由是3", 1), ("exact-match|number=\\d+",
        "12", 1),
     ("exact-match|number=(?s).*?(\\d+)\\D*$", "先是3\n然后12", 1), ("exact-match|number=(a)|(\\d+)",
        "x 12", 1),
     ("exact-match|number=答案(\\d+)", "12", 0), ("exact-match|first-line", "\n12\n13", 1)],
)  # fmt: skip
def test_a_filter_finds_the_answer_that_a_metric_scores(filtered: str, text: str, expected: int) -> None:
    (name,) = (found := scores(filtered, [(text, "12")]))
    assert name == filtered.partition("=")[0]
    assert found[name] == expected
    (measure,) = METRICS[filtered]([EvalSample(task="t", id="0", prediction=text, reference="12")])
    assert measure.signature.endswith(filtered.partition("|")[2])


def test_a_filtered_score_has_a_name_of_its_own() -> None:
    for metric, names in (("token-f1", ["token-f1|title"]), ("rouge-l-char", ["rouge-l-char|title-f1"]),
                          ("statute", ["article-word-for-word|title"])):  # fmt: skip
        assert list(scores(f"{metric}|title", [("标题：甲", "甲")]))[-1:] == names
        assert not scores(f"{metric}|title", [("甲", "甲")]).keys() & scores(metric, [("甲", "甲")]).keys()


def test_unknown_metrics_and_filters_are_refused_with_those_that_exist() -> None:
    for name, words in (
        ("blue", "metric `blue` does not exist. Metrics: bleu-zh"),
        ("chrf|tittle", "filter `tittle` does not exist. Filters: title, first-line"),
        ("chrf|x=(", r"filter `x=\(`: not a regular expression"),
    ):
        with pytest.raises(UserError, match=words):
            METRICS[name]


@pytest.mark.parametrize("name", ["extraction", "title", "legal-entities"])
def test_the_tasks_score_the_answer_and_its_form_and_end_where_the_next_question_begins(name: str) -> None:
    _, task = load_task(name)
    (stop,) = task.stop
    assert task.prompt.startswith(stop.strip())
    assert "lenient" in task.metrics[0] or "|title" in task.metrics[0]


def test_claims_are_asked_for_in_the_published_words() -> None:
    assert "请将以下英文句子翻译成中文\n{en}" in load_task("claims-en-zh")[1].prompt
    assert "请将以下句子翻译成英文\n{zh}" in load_task("claims-zh-en")[1].prompt
