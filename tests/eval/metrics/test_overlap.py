"""Exact match, token F1, ROUGE and classification equal the reference libraries and counts by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from sacrebleu.metrics.bleu import BLEU

from core.errors import UserError
from eval.analysis.scoring import compare, score
from eval.metrics import metrics
from eval.metrics.classification import ipc_section, ipc_subclass
from eval.metrics.metrics import METRICS
from eval.metrics.overlap import characters, tokens
from eval.sample import EvalSample
from eval.tasks.task import load_task
from tests.eval.metrics.test_metrics import CHINESE, ENGLISH


def samples(*pairs: tuple[str, str]) -> list[EvalSample]:
    """Samples of (prediction, reference) pairs."""
    return [EvalSample(task="t", id=str(i), prediction=p, reference=r) for i, (p, r) in enumerate(pairs)]


def values(metric: str, members: Sequence[EvalSample]) -> dict[str, float]:
    return {m.name: float(m.combine(m.statistics.sum(axis=0))) for m in METRICS[metric](members)}


@pytest.mark.parametrize(("n", "unit"), [("1", "char"), ("2", "char"), ("1", "en"), ("2", "en"), ("l", "en")])
def test_rouge_equals_rouge_score(n: str, unit: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Characters:
        def tokenize(self, text: str) -> list[str]:
            return characters(text)

    name = f"rouge{n.upper()}"
    scorer = (
        RougeScorer([name], use_stemmer=True) if unit == "en" else RougeScorer([name], tokenizer=Characters())
    )
    members = ENGLISH if unit == "en" else CHINESE
    expected = [scorer.score(s.reference, s.prediction)[name] for s in members]
    found = values(f"rouge-{n}-{unit}", members)
    for part, ours in (("recall", "recall"), ("precision", "precision"), ("fmeasure", "f1")):
        mean = sum(getattr(each, part) for each in expected) / len(expected)
        assert found[f"rouge-{n}-{unit}-{ours}"] == pytest.approx(mean, abs=1e-12)


def test_exact_match_is_strict_about_all_but_the_spaces_around_and_has_a_lenient_form() -> None:
    pairs = samples(
        (" yes\n", "yes"), ("Yes.", "yes"), ("The answer", "an answer"), ("５ mm", "5 mm"), ("no", "yes")
    )
    assert values("exact-match", pairs) == {"exact-match": 1 / 5}
    assert values("exact-match-lenient", pairs) == {"exact-match-lenient": 4 / 5}
    assert METRICS["exact-match"](pairs)[0].binary


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5.5", "55"),
        ("5%", "5"),
        ("-5", "5"),
        ("3-5", "35"),
        ("1.000", "1000"),
        ("10°", "10"),
        ("甲乙", "乙甲"),
    ],
)
def test_a_lenient_match_tells_numbers_apart(one: str, other: str) -> None:
    assert values("exact-match-lenient", samples((one, other)))["exact-match-lenient"] == 0


def test_token_f1_computed_by_hand() -> None:
    assert tokens("The well-known A61K、装置，1,000 mm!") == ["wellknown", "a61k", "装", "置", "1000", "mm"]
    pairs = samples(
        ("the cat sat", "a cat slept here"),  # 1 of 2 and 3: 2/5
        ("控制装置", "装置"),  # 2 of 4 and 2: 2/3
        ("", ""), ("x", ""), ("same same", "same"),  # 1, 0, 2/3
    )  # fmt: skip
    assert values("token-f1", pairs)["token-f1"] == pytest.approx((2 / 5 + 2 / 3 + 1 + 0 + 2 / 3) / 5)


@pytest.mark.parametrize(
    ("text", "section", "subclass"),
    [
        ("G06F 17/30", "G", "G06F"), ("主分类号：H04L9/00；G06F", "H", "H04L"),
        ("['A61K 31/00', 'C07D']", "A", "A61K"),
        ("The main class is B 60 R.", "B", "B60R"), ("Section G (physics)", "G",
        ""), ("A device: section F", "F", ""),
        ("g06f", "G", "G06F"), ("物理", "", ""), ("", "", ""),
        ("Ｇ０６Ｆ", "G", "G06F"), ("C", "C",
        ""), ("Y02E", "Y", "Y02E"),
        ("PATENT US1234567", "", ""),
    ],
)  # fmt: skip
def test_the_section_and_subclass_of_the_first_ipc_symbol(text: str, section: str, subclass: str) -> None:
    assert (ipc_section(text), ipc_subclass(text)) == (section, subclass)


def test_accuracy_and_macro_f1_of_ipc_symbols_by_hand() -> None:
    """G: 2 of 3 found, 3 predicted: F1 4/6. H: 1 of 2, 1 predicted: 2/3. A: never found: 0."""
    pairs = samples(
        ("G06F 1/00", "G06F 3/00"), ("G01N", "G06F"), ("H04L", "G06N 3/08"), ("G", "H04L"),
        ("H04L", "H04L 9/00"), ("无", "A61K"),
    )  # fmt: skip
    found = values("ipc-section", pairs)
    assert found["ipc-section-accuracy"] == 3 / 6
    assert found["ipc-section-macro-f1"] == pytest.approx((2 * 2 / (3 + 3) + 2 * 1 / (2 + 2) + 0) / 3)
    found = values("ipc-subclass", pairs)
    assert found["ipc-subclass-accuracy"] == 2 / 6
    assert found["ipc-subclass-macro-f1"] == pytest.approx((2 / 3 + 0 + 2 / 4 + 0) / 4)


def test_macro_f1_is_scikit_learns_over_the_labels_of_the_references() -> None:
    learn = pytest.importorskip("sklearn.metrics")
    names = ["盗窃", "抢劫", "诈骗", "伤害"]
    pairs = samples(*((names[i * i % 4], names[i % 3]) for i in range(50)))
    expected = learn.f1_score(
        [s.reference for s in pairs], [s.prediction for s in pairs], labels=names[:3], average="macro"
    )
    assert values("classification", pairs)["classification-macro-f1"] == pytest.approx(expected)
    (tree,) = score(pairs, ["classification"]).values()
    assert [s["interval"].split(",")[0] for s in tree["scores"]] == ["Wilson", "jackknife"]
    assert all(s["low"] <= s["value"] <= s["high"] for s in tree["scores"])
    right = [s.model_copy(update={"prediction": s.reference}) for s in pairs]
    assert {row["verdict"] for row in compare(pairs, right, ["classification"])} == {
        "better", "better, unadjusted"
    }  # fmt: skip


def test_a_label_counts_within_a_sentence_if_it_is_the_only_one() -> None:
    references = [("", "theft"), ("", "robbery"), ("", "armed robbery")]
    answers = samples(
        ("Theft.", "theft"), ("The charge is theft", "theft"), ("theft or robbery", "theft"),
        ("it is armed robbery", "armed robbery"), ("thefts", "theft"), ("none", "robbery"),
    )  # fmt: skip
    found = values("classification", [*answers, *samples(*references)[1:]])
    assert found["classification-accuracy"] == 3 / 8


def test_several_labels_are_compared_as_sets() -> None:
    pairs = samples(
        ("罪名:盗窃;抢劫", "罪名:抢劫;盗窃"), ("盗窃、抢劫", "盗窃"), ("是盗窃罪", "盗窃"), ("无", "盗窃"),
        ("盗窃、抢夺枪支", "罪名:盗窃、抢夺枪支"),
    )  # fmt: skip
    found = values("label-sets", pairs)
    assert found["label-set-exact"] == 3 / 5
    assert found["label-set-f1"] == pytest.approx((1 + 2 / 3 + 1 + 0 + 1) / 5)
    listed = samples(("类别:甲、乙。", "甲和乙"), ("Theft, robbery", "robbery,theft"), ("thefts", "theft"))
    assert values("label-sets", listed)["label-set-exact"] == pytest.approx(2 / 3)


def test_a_reference_without_a_label_is_an_error_of_the_data() -> None:
    with pytest.raises(UserError, match="task t, sample 0: the reference '物理' has no label"):
        METRICS["ipc-section"](samples(("G", "物理")))


@pytest.mark.parametrize("name", ["ja-mecab", "ko-mecab"])
def test_bleu_over_mecabs_words_needs_its_package_before_the_model_runs(name: str, tmp_path: Path) -> None:
    task = tmp_path / "t.yaml"
    task.write_text(f"layout: jsonl\ndata: x\nprompt: x\nmetrics: [bleu-{name}]\n")
    pairs = samples(("本発明は装置である。", "本発明は方法である。"))
    try:
        expected = BLEU(tokenize=name).corpus_score([pairs[0].prediction], [[pairs[0].reference]])
    except RuntimeError:
        words = rf"`bleu-{name}` needs the package .*: pip install 'sacrebleu\["
        with pytest.raises(UserError, match=words):
            METRICS[f"bleu-{name}"](pairs)
        with pytest.raises(UserError, match=words):
            load_task(str(task))
        return
    assert values(f"bleu-{name}", pairs)[f"bleu-{name}"] == pytest.approx(expected.score)


@pytest.mark.parametrize(
    ("names", "words"),
    [(["blue"], "metric `blue` does not exist"), (["chrf|x=("], "not a regular expression"),
     (["chrf", "chrf"], "names `chrf` twice"), (["chrf|x=a", "chrf|x=b"], "give its filter another name")],
)  # fmt: skip
def test_metrics_are_checked_when_the_task_is_read(tmp_path: Path, names: list[str], words: str) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(f"layout: jsonl\ndata: x\nprompt: x\nmetrics: {json.dumps(names)}\n")
    with pytest.raises(UserError, match=words):
        load_task(str(file))
    metrics.check(["chrf", "chrf|title", "chrf|x=a", "exact-match|x=a"])


def test_the_label_a_is_no_article() -> None:
    answers = [("A", "A"), ("The label is A.", "A"), ("a patent of section B", "B"), ("a", "A"), ("", "A")]
    found = values("classification", samples(*answers))
    assert found["classification-accuracy"] == 4 / 5
    assert values("exact-match-lenient", samples(("", "A"), ("B", "A"), ("a", "A"))) == {
        "exact-match-lenient": pytest.approx(1 / 3)
    }
    assert values("token-f1", samples(("", "A"), ("A", "A"))) == {"token-f1": pytest.approx(1 / 2)}
