"""The option letters of an answer, however a model words it, and none where it leaves it open."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics.letters import answer_letters, numbered
from eval.metrics.metrics import METRICS
from eval.sample import EvalSample

ONE = {
    "": ["A or B", "不知道", "", "Because", "BCD", "정답은 1번과 3번", "<think>A is it", "A或B",
        "答案是A或B",
        "The answer is A or B", "A和B都可能", "不是A", "3D打印", "The answer is a lawsuit", "b",
        "答案是B和C",
        "A and B", "答案：A、B", "A/B", "10번", "2.5", "答案：2.5", "第22条", "A4", "Not A.",
        "neither A nor B"],
    "A": ["정답은 A", "A正确。B、C、D错误", "A正确。选项B、C、D均错误。", "The answer is A because it is",
        "A", "A.",
        "Answer: A", "A or B? The answer is A", "本题选A，B、C、D项均不正确",
        "Answer: Let's think step by step. A characteristic of a ring is R. The answer is (A).",
        "The answer is A.", "Answer is A\nExplanation: B is wrong", "A. Apple\nB. Banana",
        "A is the correct answer", "A is correct", "答案选A。", "答案A", "A答案"],
    "B": ["정답은 2번", "정답은 ②입니다.", "可能是A……</think>\nB", "B", " Ｂ。", "The answer is (B).",
        "정답: 2", "2",
        "2번", "A is not correct; B is.", "A banana is a fruit. The answer is B", "answer: b",
        "B. 因为A是错误的", "B because A is wrong", "**答案：B**", "【答案】B", "故选：B", "应选择B", "选B",
        "选项B",
        "Option B", "정답: (B)", "The correct option is B", "正确的是B", "the answer to the question is: B",
        "答案是B。如果选A则矛盾", "如果答案是A，则矛盾。答案是B", "B\n\n题目：x\nA. 1\n答案：A",
        "答案是B\n\n题目：下列\nA. 1\n答案：A",
        "B. 专利权", "B、专利权", "(B) yes", "Ⓑ", "❷", "第二项", "第2个选项", "I choose B", "我认为是B",
        "因此，B是正确答案",
        "B是正确答案，A不正确", "答え：B", "正解はBです", "B) 5 mm", "B，而不是A", "不正确的是B",
        "错误的是B", "答案：B（不是A）", "答案 B 正确",
        "[/THINK]B", "B</s>", "答：B", "B選項", "(2)", "2)", "2."],
    "C": ["答案不是A，而是C", "答案是 C", "③", "(3)", "정답은 3번입니다. 1번은 틀렸습니다.",
        "<think>maybe A or B</think>The answer is C", "排除A和B，选C", "选C，不选A",
        "The answer is not A but C",
        "The answer isn't A, it's C.", "A good choice would be C", "\\boxed{C}",
        "The answer is $\\boxed{\\text{C}}$.", "답은 C입니다", "答案应该是C", "正确答案是：\n\nC",
        "Among A, B, C, D the correct answer is C", "A가 아니라 C입니다", "只有选项C是对的",
        "C，理由：A不符合第22条",
        "The correct answer is option C, as A and B are wrong", "정답은 2번이 아니라 3번",
        "정답은 2번이 아니라 3번입니다.",
        "选择C选项", "正确选项：C", "正确选项为C", "C++", "A也不对，B也不对，C对", "不选A、B，选C"],
    "D": ["A选项不对，答案：D", "답: ④", "答案：4", "<think>\nA\n</think>\n\n**D**",
        "It is not B, the answer is D",
        "rules out C, leaving D", "Answer: D, not B", "D\nA. 错\nB. 错", "并非A，应为D", "应排除A，故选D",
        "答案为【D】",
        "A、B、C均错误，D正确", "既不是A也不是B，是D"],
}  # fmt: skip
"""Answers to questions with one right option, by the letter that they mean."""
MORE = {  # more of the same
    "": ["정답은 없다", "2번과 3번 중 2번입니다", "Both A and C", "None of the above", "①, ③",
        "정답은 ①과 ③", "A 或者 B", "可能是A，也可能是B", "不是A", "非A即B", "答案并不是A", "第二个",
        "选第2个", "选2", "答案：2个", "答案：2008年", "5", "０", "选项 2", "  b ", "A、B、C、D", "ABCD",
        "AB", "答案是A B", "E", "答案：E", "The answer is either A or B", "是A吗？不，是B", "A or B, but A",
        "选A、B错误", "It is not A, B or C."],
    "A": ["①", "1", "The answer is A and not B", "选A，B、C错误"],
    "B": ["1번이 아니라 2번이 정답입니다", "选项A：错误。选项B：正确。", "[正确答案]B<eoa> 因为A不对",
        "[正确答案]B<eoa>", "Ans: B", "Answer - B", "Answer—B", "答案——B", "正解は②",
        "B\n\n正确答案是：A\n", "答案：B\n解析：A、C、D说法正确", "应该是B", "B吧",
        "我选B，因为A和C都不符合规定", "A(错误) B(正确)", "<think>\n选A\n</think>\n\n答案：B",
        "<thinking>A</thinking>B", "◁think▷A◁/think▷B", "选择B，不选择A", "It can't be A. It's B.",
        "A isn't right; B is", "2번 (정답)", "정답: 2번. 이유: 1번은 아니다", "选第二个选项", "答案: (2)",
        "答案是2", "答案：2。", "２", "**2**", "B\n", "`B`", "“B”", "B, because", "B - 5 mm",
        "A: 5 mm\nB: 6 mm\nAnswer: B", "选A还是B？选B", "It is not a law, so B"],
    "C": ["The answer is definitely C.", "The answer is definitely C, because A and B are wrong.",
        "【解析】A错。【答案】C", "因此选择(C)", "答案选项为C", "本题答案为:C", "正确答案：**C**",
        "My answer is: C", "C is the right choice", "Option C is correct", "the best answer is C", "답: 3",
        "정답은 '③'", "정답은 ③번입니다", "I would eliminate A and B. Final answer: C",
        "答案不应该是A，应该是C", "B is not a correct answer; C is.", "答案不是A、B，是C"],
    "D": ["由于A不正确，B、C也不正确，所以只能选D", "D选项正确", "D项符合题意", "D。解析：A选项……B选项……",
        "排除法：A、B、C都不对，只剩D"],
}  # fmt: skip
SEVERAL = {
    "": ["A或B"],
    "A": ["A"],
    "AB": ["</think>AB", "Answers: A, B", "The answers are A and B."],
    "ABCD": ["A,B,C,D"],
    "ABD": ["答案：ABD。C不符合", "ABD\nA：正确\nB：正确\nC：错误\nD：正确", "正确答案：A、B、D。"],
    "AC": ["答案：A、C", "答案是A和C，不选B", "A. 正确\nC. 正确", "选A和C", "A；C", "A项和C项", "①③",
        "1, 3", "1번, 3번",
        "정답: 1번과 3번", "A和C都正确，B错误", "A正确；C正确；B不正确", "答案：A C", "选项A、选项C",
        "정답은 A와 C", "答案: 1,3"],
    "ACD": ["A, C and D", "A C D", "答案是ACD（B错误）"],
    "BCD": ["BCD", "D、C、B"],
    "CD": ["答案不是AB，而是CD"],
}  # fmt: skip
"""Answers to questions that may have several right options."""


def letters(text: str, several: bool) -> str:
    return "".join(sorted(answer_letters(text, "ABCD", several)))


@pytest.mark.parametrize("several", [False, True])
def test_the_letters_that_an_answer_means(several: bool) -> None:
    tables = [SEVERAL] if several else [ONE, MORE]
    found = {
        text: (letters(text, several), meant)
        for table in tables for meant, texts in table.items() for text in texts
    }  # fmt: skip
    assert {text: both for text, both in found.items() if both[0] != both[1]} == {}


SAYS = ("{}", "（{}）", "**{}**", "{}。", "{}. 专利权", "答案是{}", "答案：\n\n{}", "The answer is {}.",
        "Answer: {}", "정답은 {}입니다.", "정답: {}", "故选{}", "我选{}选项", "不是{other}，而是{}",
        "It is not {other} but {}.",
        "排除{other}，选{}", "{}，因为{other}是错误的", "{other}不符合第22条，因此{}正确")  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SAYS),
    st.permutations("ABCD"),
    st.sampled_from(["", "<think>A, B, C\n</think>\n", "A?</think>"]),
)
def test_every_wording_gives_the_option_that_is_meant(says: str, options: list[str], thought: str) -> None:
    right, other = options[:2]
    assert letters(thought + says.format(right, other=other), False) == right
    assert letters(thought + says.format(right, other=other), True) == right


@pytest.mark.parametrize(
    "text", ["选", "答案是", "A ", "AB", "\n", "A\n", "1, ", "不是A", "A is ", "项", " "]
)
def test_an_endless_answer_is_read_in_no_time(text: str) -> None:
    began = time.process_time()
    letters(text * 30_000, True)
    assert time.process_time() - began < 5


def test_a_bare_number_is_a_position_only_where_no_option_is_a_number() -> None:
    words, numbers = ("问\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n정답: ", "1+1\nA. 2\nB. 3\nC. 1\nD. 5\n答案：")
    assert (numbered(words, "ABCD"), numbered(numbers, "ABCD"), numbered(numbers + words, "ABCD")) == (
        False, True, False
    )  # fmt: skip
    samples = [
        EvalSample(task="t", id=prompt, prediction="2", reference="B", options=4, prompt=prompt)
        for prompt in (words, numbers)
    ]
    (measure,) = METRICS["accuracy"](samples)
    assert measure.statistics[:, 0].tolist() == [1, 0]
