"""Metrics equal the reference libraries and published figures."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from eval.metrics.ceval import mean_over_subjects
from eval.metrics.measure import mean
from eval.metrics.metrics import METRICS
from eval.metrics.ngram_counts import chinese_tokens
from eval.metrics.overlap import characters
from eval.metrics.patent import parse_extraction
from eval.sample import EvalSample

ZH = "一种酸奶冰淇淋的制作工艺，其特征在于，首创性地对全部原料进行混料、美拉德反应并且进行发酵12小时"
EN = "A data processing system according to claim 1, characterized in that the batch date is 12 mm away"


def corpus(text: Sequence[str], joiner: str, n: int = 40, seed: int = 1) -> list[EvalSample]:
    """Predictions that differ from their references in some words; one is empty."""
    draw = random.Random(seed)
    samples = []
    for i in range(n):
        words = draw.sample(list(text), draw.randint(1, len(text)))
        changed = [w if draw.random() < 0.7 else draw.choice(text) for w in words] if i else []
        samples.append(
            EvalSample(task="t", id=str(i), prediction=joiner.join(changed), reference=joiner.join(words))
        )
    return samples


def value(name: str, samples: Sequence[EvalSample], measure: str | None = None) -> float:
    """A score from its sums."""
    found = {m.name: m for m in METRICS[name](samples)}
    chosen = found[measure or name]
    return float(chosen.combine(chosen.statistics.sum(axis=0)))


CHINESE, ENGLISH = corpus(list(ZH), ""), corpus(EN.split(), " ")
FAR = EvalSample(task="t", id="far", prediction="w x a y z v", reference="b c a d e f")
"""Equal in one word only: three orders of n-grams are smoothed."""
ORACLES = {
    "bleu-zh": BLEU(tokenize="zh"),
    "bleu-13a": BLEU(tokenize="13a"),
    "bleu-char": BLEU(tokenize="char"),
    "chrf": CHRF(),
    "ter": TER(normalized=True, asian_support=True),
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize(
    "samples", [CHINESE, ENGLISH, CHINESE[:1], CHINESE[1:2], ENGLISH[3:5], corpus(list("ab"), "", 4), [FAR]]
)
def test_sums_give_sacrebleus_score(name: str, samples: list[EvalSample]) -> None:
    expected = ORACLES[name].corpus_score([s.prediction for s in samples], [[s.reference for s in samples]])
    assert value(name, samples) == pytest.approx(expected.score, abs=1e-9)
    assert str(ORACLES[name].get_signature()) == METRICS[name](samples)[0].signature


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.one_of(st.sampled_from("一种。，\u3000\u2a6d ., -19a0\t'\"(:~"), st.characters()), max_size=40)
)
def test_chinese_tokens_are_sacrebleus(text: str) -> None:
    assert chinese_tokens(text.rstrip()) == TokenizerZh()(text.rstrip()).split()


def test_bleu_over_jiebas_words_and_over_characters() -> None:
    import jieba

    hypotheses = [" ".join(jieba.lcut(s.prediction)) for s in CHINESE]
    references = [" ".join(jieba.lcut(s.reference)) for s in CHINESE]
    expected = BLEU(tokenize="none", force=True).corpus_score(hypotheses, [references]).score
    assert value("bleu-jieba", CHINESE) == pytest.approx(expected, abs=1e-9)
    assert "tok:jieba-" in METRICS["bleu-jieba"](CHINESE)[0].signature
    same = [s.model_copy(update={"prediction": s.reference}) for s in CHINESE]
    assert value("sentence-bleu-char", same) == pytest.approx(1)


def test_rouge_l_equals_rouge_score_with_our_tokenizer() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Tokenizer:
        def tokenize(self, text: str) -> list[str]:
            return characters(text)

    scorer = RougeScorer(["rougeL"], tokenizer=Tokenizer())
    expected = [scorer.score(s.reference, s.prediction)["rougeL"] for s in CHINESE]
    for part, name in (("recall", "recall"), ("precision", "precision"), ("fmeasure", "f1")):
        mean = sum(getattr(e, part) for e in expected) / len(expected)
        assert value("rouge-l-char", CHINESE, f"rouge-l-char-{name}") == pytest.approx(mean, abs=1e-12)


def test_562_equal_titles_of_1000_give_patent_llamas_rouge() -> None:
    samples = [
        EvalSample(task="t", id=str(i), prediction=f"标题{i}", reference=f"标题{i}" if i < 562 else f"另{i}")
        for i in range(1000)
    ]
    got = [value("rouge-legacy", samples, f"rouge-legacy-{n}") for n in ("recall", "precision", "f1")]
    assert got[:2] == [0.562, 0.562]
    assert round(got[2], 9) == 0.561999997


def test_ceval_average_is_over_subjects_and_not_over_categories() -> None:
    published = {
        "STEM": (20, 30.4),
        "Social Sciences": (10, 35.4),
        "Humanities": (11, 31.2),
        "Other": (11, 31.6),
    }
    scores = {f"{name} {i}": score for name, (subjects, score) in published.items() for i in range(subjects)}
    asked = [
        EvalSample(task="c", id=name, prediction="", reference="", groups={"subject": name})
        for name in scores
    ]
    average = mean_over_subjects(mean("accuracy", list(scores.values()), ""), asked)
    assert len(asked) == 52
    assert round(float(average.combine(average.statistics.sum(0))), 3) == 31.785


def extraction(prediction: str, reference: str) -> EvalSample:
    return EvalSample(task="t", id=prediction, prediction=prediction, reference=reference)


def test_extraction_computed_manually() -> None:
    samples = [
        extraction(
            "解决问题：酸奶；技术手段：反应，发酵；实施效果：；",
            "解决问题:酸奶;技术手段:反应,混料;实施效果:;",
        ),
        extraction("no idea", "解决问题:甲;技术手段:;实施效果:;"),
        extraction("解决问题:;技术手段:;实施效果:;", "解决问题:;技术手段:;实施效果:;"),
    ]
    got = {m.name: float(m.combine(m.statistics.sum(axis=0))) for m in METRICS["extraction"](samples)}
    assert got["extraction-precision"] == pytest.approx(2 / 3)
    assert got["extraction-recall"] == pytest.approx(2 / 4)
    assert got["extraction-f1"] == pytest.approx(4 / 7)
    assert got["extraction-技术手段-f1"] == pytest.approx(1 / 2)
    assert got["extraction-解决问题-recall"] == pytest.approx(1 / 2)
    assert got["extraction-sample-macro-f1"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert got["extraction-malformed"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "text", ["", "解决问题:a", "解决问题:a;技术手段:b;实施效果:c;其他:d", "解决问题:a;解决问题:b;实施效果:c"]
)
def test_extraction_without_each_type_once_is_malformed(text: str) -> None:
    assert parse_extraction(text) is None


def test_multiple_answers_count_only_when_all_are_right_and_chance_is_a_fifteenth() -> None:
    samples = [
        EvalSample(task="t", id=str(i), prediction=p, reference="BCD", options=4)
        for i, p in enumerate(["BCD", "BC", "ABCD", "D、C、B"])
    ]
    measure = METRICS["accuracy"](samples)[0]
    assert measure.statistics[:, 0].tolist() == [1, 0, 0, 1]
    assert measure.chance is not None
    assert measure.chance.tolist() == [1 / 15] * 4
