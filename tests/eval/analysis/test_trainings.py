"""Intervals over trainings and questions hold as often as they say, and say what a recipe gave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from core.errors import UserError
from eval.analysis.scoring import score
from eval.analysis.significance import compare_scores
from eval.analysis.trainings import (
    Mean,
    compare_trainings,
    crossed,
    needed,
    over_trainings,
    pseudo_values,
    unpaired,
)
from eval.metrics.measure import Floats, mean
from eval.sample import EvalSample
from tests.conftest import run

STUDIES = 2000
METRIC = ("exact-match",)


def made(
    draw: np.random.Generator, trainings: int, questions: int, parts: tuple[float, float, float]
) -> Floats:
    """Scores of one study whose true mean is 0, from the standard deviations of its parts."""
    of_trainings, of_questions, rest = parts
    return np.asarray(
        of_trainings * draw.standard_normal((trainings, 1))
        + of_questions * draw.standard_normal((1, questions))
        + rest * draw.standard_normal((trainings, questions))
    )


def covered(found: list[Mean], truth: float = 0.0) -> float:
    """The share of intervals that hold the truth."""
    return sum(abs(each.value - truth) <= each.half() for each in found) / len(found)


# Standard deviations of trainings, questions, rest: no training variance to nothing else but it.
PARTS = [(0.0, 1.0, 1.0), (0.05, 1.0, 1.0), (0.2, 1.0, 1.0), (1.0, 0.5, 1.0), (0.3, 0.2, 1.0)]


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize(("trainings", "questions"), [(3, 50), (3, 500), (5, 200), (10, 50)])
def test_intervals_over_both_cover_what_they_say(
    trainings: int, questions: int, parts: tuple[float, float, float]
) -> None:
    draw = np.random.default_rng(0)
    share = covered([crossed(made(draw, trainings, questions, parts)) for _ in range(STUDIES)])
    assert 0.93 <= share <= 0.97


@pytest.mark.parametrize("trainings", [3, 5, 10])
def test_intervals_cover_right_and_wrong_answers(trainings: int) -> None:
    """Questions differ in difficulty, trainings in skill; the truth is the share over very many of both."""
    draw = np.random.default_rng(0)

    def answers(trainings: int, questions: int) -> Floats:
        logits = 0.3 * draw.standard_normal((trainings, 1)) + draw.standard_normal((1, questions)) + 0.5
        return np.asarray(draw.random((trainings, questions)) < 1 / (1 + np.exp(-logits)), np.float64)

    truth = float(np.mean([answers(500, 500).mean() for _ in range(40)]))
    assert 0.93 <= covered([crossed(answers(trainings, 120)) for _ in range(STUDIES)], truth) <= 0.97


@pytest.mark.parametrize("parts", PARTS)
def test_unpaired_differences_cover_what_they_say(parts: tuple[float, float, float]) -> None:
    """The arms share the questions, and a part of each question's difficulty."""
    draw, found = np.random.default_rng(0), []
    for _ in range(STUDIES):
        a, b = (made(draw, 4, 150, (parts[0], 0.3, parts[2])) for _ in range(2))
        asked = parts[1] * draw.standard_normal((1, 150))
        found.append(unpaired(a + asked, b + asked))
    assert 0.93 <= covered(found) <= 0.975


def test_paired_trainings_show_more_than_unpaired_ones() -> None:
    draw = np.random.default_rng(0)
    a = made(draw, 5, 100, (0.5, 1.0, 0.3))
    b = a + 0.2 + 0.1 * draw.standard_normal(a.shape)
    assert crossed(b - a).half() < unpaired(a, b).half() / 3


def test_fewer_than_three_trainings_are_over_questions_only() -> None:
    draw = np.random.default_rng(0)
    one = made(draw, 1, 80, (1.0, 1.0, 0.0))
    found = crossed(one)
    assert found.error == pytest.approx(one.std(ddof=1) / np.sqrt(80))
    assert found.freedom == 79
    assert np.isnan(found.components[0])
    assert needed(found) is None


def test_the_trainings_that_are_needed_show_the_difference_in_four_of_five_studies() -> None:
    draw = np.random.default_rng(0)
    parts, effect = (0.25, 0.3, 1.0), 0.3
    shape = (5, 300)
    pilot = Mean(effect, 0.1, 4, (parts[0] ** 2, parts[1] ** 2, parts[2] ** 2), shape)
    trainings = needed(pilot)
    assert trainings is not None
    assert 5 <= trainings <= 15
    shown = []
    for _ in range(500):
        found = crossed(effect + made(draw, trainings, 300, parts))
        shown.append(abs(found.value) > found.half())
    assert 0.72 <= np.mean(shown) <= 0.9
    assert needed(pilot._replace(value=0.01)) is None, "no number of trainings: the questions vary too much"


def test_the_share_of_training_is_what_was_put_in() -> None:
    draw = np.random.default_rng(0)
    found = crossed(made(draw, 200, 400, (0.5, 2.0, 1.0)))
    assert found.components == pytest.approx((0.25, 4.0, 1.0), rel=0.2)


def test_pseudo_values_of_a_mean_are_its_values() -> None:
    values = np.random.default_rng(0).random(30)
    np.testing.assert_allclose(pseudo_values(mean("m", values, "s")), values)


def samples(scores: npt.ArrayLike, task: str = "t", wrong: str = "no") -> list[EvalSample]:
    """Exact-match predictions with these scores."""
    return [
        EvalSample(
            task=task, id=str(n), prediction="yes" if value else wrong, reference="yes", metrics=METRIC
        )
        for n, value in enumerate(np.asarray(scores))
    ]


def test_one_training_is_compared_as_runs_are() -> None:
    draw = np.random.default_rng(0)
    a, b = (draw.random(200) < share for share in (0.5, 0.65))
    (row,) = compare_trainings([samples(a)], [samples(b)])
    ours = (row["difference"], row["low"], row["high"])
    expected = compare_scores(*(mean("m", scores.astype(float), "s") for scores in (a, b)))
    assert ours == pytest.approx((expected.difference, *expected.interval), rel=0.05)
    assert row["share_of_trainings"] is None
    assert row["needed"] is None


def test_recipes_are_compared_by_the_command(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    skill = 0.4 * draw.standard_normal((4, 1))
    files: dict[str, list[Path]] = {"a": [], "b": []}
    for arm, gain in (("a", 0.0), ("b", 1.0)):
        logits = skill + gain + draw.standard_normal((1, 150))
        for seed, scores in enumerate(draw.random((4, 150)) < 1 / (1 + np.exp(-logits))):
            file = tmp_path / f"{arm}{seed}.jsonl"
            common = {"task": "t", "reference": "yes", "metrics": ["exact-match"]}
            lines = [
                {**common, "id": str(n), "prediction": "yes" if right else "no"}
                for n, right in enumerate(scores)
            ]
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
            files[arm].append(file)
    done = run("eval", "trainings", "--a", *files["a"], "--b", *files["b"], "--output", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    assert "better" in done.stdout
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["verdict"] == "better"
    assert row["low"] > 0
    assert 0 < row["share_of_trainings"] < 1
    done = run("eval", "trainings", "--a", *files["a"])
    assert "over questions only" not in done.stdout
    assert "training's" in done.stdout
    done = run("eval", "trainings", "--a", *files["a"][:2], "--b", *files["b"][:2])
    assert "over questions only: with 3 trainings or more" in done.stdout
    done = run("eval", "trainings", "--a", *files["a"], "--b", *files["b"][:2])
    assert (done.returncode, "A has 4 trainings and B 2" in done.stderr) == (2, True)
    done = run("eval", "trainings", "--a", *files["a"], "--b", *files["b"][:3], "--unpaired")
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_compared_is_refused() -> None:
    draw = np.random.default_rng(0)
    own = [samples(draw.random(30) < 0.5) for _ in range(3)]
    cases: list[tuple[Any, Any, str]] = [
        (own, [samples(draw.random(30) < 0.5, task="u") for _ in range(3)], "not the same questions"),
        (own, [samples(draw.random(20) < 0.5) for _ in range(3)], "not the same questions"),
        ([*own[:2], samples(draw.random(1) < 0.5)], own, "1 questions in common"),
        ([*own[:2], samples(draw.random(30) < 0.5, task="u")], own, "no task in common"),
    ]
    for a, b, message in cases:
        with pytest.raises(UserError, match=message):
            compare_trainings(a, b)


def test_the_mean_is_that_of_the_scores() -> None:
    draw = np.random.default_rng(0)
    arm = [samples(draw.random(40) < 0.5) for _ in range(3)]
    (row,) = over_trainings(arm)
    scores = [score(each)["t"]["scores"][0]["value"] for each in arm]
    assert row["value"] == pytest.approx(np.mean(scores))
