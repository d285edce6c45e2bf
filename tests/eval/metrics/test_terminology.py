"""What a patent translation must keep: terms, numerals, numbers with units, the structure of claims."""

import json
from pathlib import Path

import pytest

from core.errors import UserError
from eval.analysis.scoring import compare, score
from eval.metrics.metrics import METRICS
from eval.metrics.patent import claim_references, split_claims
from eval.metrics.quantities import quantities
from eval.metrics.terminology import numerals, occurrences
from eval.sample import EvalSample
from eval.tasks.resources import read_glossary
from eval.tasks.task import TaskConfig, requests


def sample(source: str, prediction: str, number: int = 0, **more: object) -> EvalSample:
    fields = {"task": "t", "id": str(number), "source": source, "prediction": prediction, "reference": "-"}
    return EvalSample.model_validate(fields | more)


def values(
    *samples: EvalSample, metrics: tuple[str, ...] = ("terminology", "claim-structure")
) -> dict[str, float]:
    measures = [m for name in metrics for m in METRICS[name](samples)]
    return {m.name: float(m.combine(m.statistics.sum(axis=0))) for m in measures}


def test_a_claim_computed_manually() -> None:
    source = "根据权利要求1至3中任一项所述的装置(10)，其特征在于，所述装置的齿轮(12)长5 mm、宽30%。"
    prediction = (
        "The device (10) of claims 1 to 3, characterized in that the gear of the device is 5 mm long."
    )
    got = values(
        sample(source, prediction, glossary={"装置": ["device", "apparatus"], "齿轮": ["toothed wheel"]})
    )
    assert got["glossary-hit-rate"] == 0.5
    assert got["glossary-consistency"] == 1
    assert got["numerals-kept"] == 0.5
    assert got["numbers-kept"] == pytest.approx(4 / 6)  # 1, 3, 10 and 5 mm; not 12, 30%
    assert got["claim-references-kept"] == 1
    assert got["characterized-kept"] == 1


@pytest.mark.parametrize(
    ("chinese", "english"),
    [
        ("长5毫米的", "5 mm long"), ("宽30％", "30 percent wide"), ("百分之30", "30%"), ("25℃", "25 °C"),
        ("1,000伏", "1000 V"), ("50微米", "50 µm"), ("20分钟", "20 minutes"), ("３千克", "3 kg"),
        ("3至5兆帕", "3 to 5 MPa"), ("50摄氏度", "50 degrees Celsius"), ("30度", "30 degrees"),
        ("步骤3升高温度", "step 3 raises it"), ("根据权利要求5所述的", "claim 5 a device"),
        ("10千欧", "10 kΩ"), ("300转/分", "300 rpm"), ("2.5吉赫", "2.5 GHz"),
    ],
)  # fmt: skip
def test_quantities_are_the_same_in_both_languages(chinese: str, english: str) -> None:
    assert quantities(chinese) == quantities(english) != []


@pytest.mark.parametrize(
    ("one", "other"), [("5 mm", "5 cm"), ("5", "5%"), ("5 V", "5 kV"), ("50 mg", "50 g")]
)
def test_another_unit_is_another_quantity(one: str, other: str) -> None:
    assert quantities(one) != quantities(other)


def test_numerals_in_parentheses_of_either_width_and_in_lists() -> None:
    assert numerals("壳体（10）、齿轮(12a、12b)，图1(见说明)") == ["10", "12a", "12b"]
    assert numerals("gears (12a, 12b) and (14')") == ["12a", "12b", "14'"]


def test_terms_match_whole_words_and_the_longest_term() -> None:
    terms = ["gear", "device", "control device", "齿轮", "锥齿轮"]
    text = "Control devices and a device with gearing, gears; 锥齿轮"
    assert occurrences(text, terms) == {"control device": 1, "device": 1, "gear": 1, "锥齿轮": 1}
    assert occurrences("齿轮箱", ["齿轮", "齿轮箱"]) == {"齿轮箱": 1}
    assert occurrences("anything", [" "]) == {}


def test_consistency_is_counted_over_a_whole_document() -> None:
    glossary = {"装置": ["device", "apparatus"], "齿轮": ["gear"]}
    parts = [("一种装置", "A device"), ("所述装置", "the apparatus"), ("齿轮", "a gear")]
    together = [
        sample(source, translation, i, glossary=glossary, groups={"document": "d"})
        for i, (source, translation) in enumerate([*parts, ("所述齿轮", "the gear")])
    ]
    assert values(*together)["glossary-consistency"] == 0.5  # the gear is; the device is not
    alone = [sample(s.source, s.prediction, i, glossary=glossary) for i, s in enumerate(together)]
    tree = score([s.model_copy(update={"metrics": ("terminology",)}) for s in alone])["t"]
    assert "glossary-consistency" not in {s["metric"] for s in tree["scores"]}  # nothing to count: no number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("根据权利要求1、2或4所述的装置", ["1", "2", "4"]), ("如請求項1至3中任一項", ["1", "2", "3"]),
        ("The system of claim 7", ["7"]), ("according to any one of claims 1 to 3", ["1", "2", "3"]),
        ("1. 一种装置。\n2. 根据权利要求1所述的装置。\n3．如权利要求1或2", ["2:1", "3:1", "3:2"]),
        ("1. A device.\n2. The device of claim 1.\n3. As in claim 1 or 2", ["2:1", "3:1", "3:2"]),
        ("一种装置，长3.5 mm", []),
    ],
)  # fmt: skip
def test_references_of_claims(text: str, expected: list[str]) -> None:
    assert claim_references(text) == expected


def test_wrong_claim_references_and_lost_claim_numbers_are_counted() -> None:
    source = (
        "1. 一种装置，其特征在于。\n2. 根据权利要求1所述的装置，其特征在于。\n3. 根据权利要求2所述的装置。"
    )
    good = "1. A device, characterized in that.\n2. Claim 1's, characterised by.\n3. Of claim 2."
    assert values(sample(source, good), metrics=("claim-structure",)) == {
        "claim-references-kept": 1, "characterized-kept": 1, "claim-numbers-kept": 1
    }  # fmt: skip
    bad = "1. A device, wherein.\n2. Of claim 1, characterized in that.\nOf claim 1."
    assert values(sample(source, bad), metrics=("claim-structure",)) == {
        "claim-references-kept": 0.5, "characterized-kept": 0.5, "claim-numbers-kept": pytest.approx(2 / 3)
    }  # fmt: skip
    assert [number for number, _ in split_claims("前言\n1. 甲\n2、乙 3.5 mm")] == ["", "1", "2"]


def test_ipc_breakdown_is_by_section_and_metrics_without_counts_have_no_score() -> None:
    symbols = ['["G06F 17/30", "H04L 9/00"]', "G01N", "G", "A61K 31/00", "none"]
    samples = [
        sample("一种装置（3）" if i % 5 < 3 else "一种装置", "device (3)", i, metrics=("terminology",),
               groups={"ipc": symbols[i % 5]})
        for i in range(150)
    ]  # fmt: skip
    parts = score(samples)["t"]["groups"]["ipc"]
    assert {name: part["n"] for name, part in parts.items()} == {"A": 30, "G": 90, "none": 30}
    assert [s["metric"] for s in parts["G"]["scores"]] == ["numerals-kept", "numbers-kept"]
    assert parts["A"]["scores"] == []
    assert [row["metric"] for row in compare(samples, samples)] == ["numerals-kept", "numbers-kept"]


def test_a_task_takes_its_glossary_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("装置,device,apparatus\n齿轮,gear\n", "utf-8")
    (tmp_path / "d.jsonl").write_text(json.dumps({"zh": "一种装置", "answer": "a device"}) + "\n", "utf-8")
    task = TaskConfig(
        layout="jsonl", data="d.jsonl", prompt="{zh}", source="zh", glossary="g.csv", metrics=("terminology",)
    )
    (made,) = requests("t", task, tmp_path)
    assert made.sample.glossary == {"装置": ["device", "apparatus"]}
    (tmp_path / "g.csv").write_text("装置,device\n齿轮,\n", "utf-8")
    with pytest.raises(UserError, match=r"g\.csv: row 2: `齿轮` has no translation"):
        read_glossary(tmp_path / "g.csv")
