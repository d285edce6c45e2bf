"""The page of a study: its numbers are those of the statistics, whatever the order of what it is given; a
browser shows it on a desktop and on a phone."""

import html
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from core.errors import UserError
from core.html_report import Curve, Estimate, chart, drawn_chart, links
from core.provenance import manifest
from eval.analysis.trainings import compare_trainings, over_trainings
from eval.sample import read_predictions
from tests.eval.browser import browse
from tests.eval.models.tiny import write_jsonl
from tests.tools.study_runs import QUESTIONS, replay_study, worth_study, write_run
from tools.study.page import write
from tools.study.results import Arm, Axis, Study, Training, axis_numbers

GAIN = 2.0
TASKS = ("title", "text-domain")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return worth_study(tmp_path_factory.mktemp("labels") / "runs", gain=GAIN)


@pytest.fixture(scope="module")
def shown(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("shown")
    text = write(study, folder)
    return folder / "report.html", text, json.loads((folder / "results.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("replay")
    losses = {
        "text-domain": lambda r: 0.7 + 0.05 / (1 - r + 0.2),
        "text-general": lambda r: 0.9 + 0.02 / (r + 0.08),
    }
    made = replay_study(folder / "runs", ("0%", "5%", "10%", "25%", "50%"), losses)
    text = write(made, folder)
    return folder / "report.html", text, json.loads((folder / "results.json").read_text("utf-8"))


def of_arm(study: Study, **levels: str) -> list[Any]:
    """The predictions of each training of an arm."""
    (arm,) = (arm for arm in study.arms if arm.levels == levels)
    return [read_predictions(training.runs[0]) for training in arm.trainings]


def numbers(tree: dict[str, Any]) -> dict[str, list[str]]:
    """Each table as a sorted list of its rows."""
    tables = {name: tree[name] for name in ("scores", "worth", "replay", "cost", "runs", "tasks")}
    tables |= {table["axis"]: table["rows"] for table in tree["differences"]}
    return {name: sorted(json.dumps(row, sort_keys=True) for row in rows) for name, rows in tables.items()}


def test_scores_and_differences_are_those_of_the_statistics(
    study: Study, shown: tuple[Path, str, dict[str, Any]]
) -> None:
    tree = shown[2]
    a, b = (of_arm(study, pretraining=of, examples="200") for of in ("without", "with"))
    for expected in over_trainings(a):
        (row,) = (
            row for row in tree["scores"]
            if row["arm"] == {"pretraining": "without", "examples": "200"} and row["task"] == expected["task"]
        )  # fmt: skip
        assert (row["seeds"], row["trainings"], row["n"]) == ([0, 1, 2], 3, QUESTIONS)
        same = ("value", "low", "high", "share_of_trainings")
        assert [row[key] for key in same] == pytest.approx([expected[key] for key in same])
    for expected in compare_trainings(a, b):
        (row,) = (
            row for row in tree["differences"][0]["rows"]
            if row["at"] == {"examples": "200"} and row["task"] == expected["task"]
        )  # fmt: skip
        for key in ("a", "b", "difference", "low", "high", "p", "smallest_effect"):
            assert row[key] == pytest.approx(expected[key]), key
        assert (row["needed"], row["against"], row["level"]) == (expected["needed"], "without", "with")
        assert row["p_holm"] >= row["p"]


def test_less_is_better_of_losses(shown: tuple[Path, str, dict[str, Any]]) -> None:
    page, text, tree = shown
    rows = [row for table in tree["differences"] for row in table["rows"]]
    losses = [row for row in rows if row["task"] == "text-domain"]
    assert len(losses) == 5 + 2 * 4
    assert all(row["difference"] < 0 and row["verdict"] == "better" for row in losses)
    assert all(row["difference"] > 0 and row["verdict"] != "worse" for row in rows if row["task"] == "title")
    assert "bits-per-byte against examples; lower is better; logarithmic axis" in page.read_text("utf-8")
    assert re.search(r"200 +with +text-domain +bits-per-byte .* better ", text)


def test_continued_pretraining_is_worth_what_it_is(shown: tuple[Path, str, dict[str, Any]]) -> None:
    page, text, tree = shown
    assert {row["task"] for row in tree["worth"]} == set(TASKS)
    for row in tree["worth"]:
        truth = (GAIN - 1) * row["number"]
        if row["number"] < 800 / GAIN:
            assert row["low"] is None or row["low"] <= truth
            assert row["high"] is None or truth <= row["high"]
        if row["task"] == "text-domain" and row["number"] <= 200:
            assert row["value"] == pytest.approx(truth, rel=0.15)
        assert row["said"] in text
        assert html.escape(row["said"]) in page.read_text("utf-8")
    assert not any(row["task"] == "text-domain" and row["number"] == 800 for row in tree["worth"]), (
        "the baseline has no more than 800"
    )


def test_the_order_of_arms_levels_and_seeds_changes_no_number(
    study: Study, shown: tuple[Path, str, dict[str, Any]], tmp_path: Path
) -> None:
    first, second = study.axes
    places = [0, 3, 1, 4, 2]
    levels = tuple(second.levels[i] for i in places)
    shuffled = study._replace(
        axes=(
            second._replace(levels=levels, numbers=tuple((second.numbers or ())[i] for i in places)),
            first,
        ),
        arms=tuple(
            Arm(dict(reversed(arm.levels.items())), arm.trainings[::-1]) for arm in reversed(study.arms)
        ),
    )
    write(shuffled, tmp_path)
    found = numbers(json.loads((tmp_path / "results.json").read_text("utf-8")))
    for name, rows in numbers(shown[2]).items():
        for row, other in zip(rows, found[name], strict=True):
            assert json.loads(row) == approximately(json.loads(other)), name


def approximately(tree: Any) -> Any:
    """The tree with numbers that may differ by their rounding: sums of the same numbers in another order."""
    match tree:
        case float():
            return pytest.approx(tree, rel=1e-9, abs=1e-12)
        case dict():
            return {key: approximately(value) for key, value in tree.items()}
        case list():
            return [approximately(value) for value in tree]
    return tree


def test_few_seeds_are_said_on_the_page_and_in_the_text(study: Study, tmp_path: Path) -> None:
    few = tuple(arm._replace(trainings=arm.trainings[:2]) for arm in study.arms)
    text = write(study._replace(arms=few), tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    for where in (text, page):
        assert "over questions only: with 3 seeds or more they are over both" in where
        assert "95% interval" in where
        assert re.search(r"with 200 examples, .* is worth .*, over questions only\)", where)
    tree = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert all(row["share_of_trainings"] is None for row in tree["scores"])
    assert all(row["over_questions_only"] for row in tree["worth"])


def test_headlines_choose_tasks_and_scores(study: Study, tmp_path: Path) -> None:
    write(study._replace(headlines={"text-domain": "token-perplexity"}), tmp_path)
    tree = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [(task["task"], task["metric"]) for task in tree["tasks"]] == [("text-domain", "token-perplexity")]
    assert all(row["verdict"] == "better" for row in tree["differences"][0]["rows"])
    with pytest.raises(UserError, match=r"no score `chrf`. Its scores: bits-per-byte, token-perplexity"):
        write(study._replace(headlines={"text-domain": "chrf"}), tmp_path)
    with pytest.raises(UserError, match=r"no run has the task other. Tasks: title, text-domain"):
        write(study._replace(headlines={"other": "chrf"}), tmp_path)


def test_seeds_are_paired_where_arms_share_them_and_questions_where_all_have_them(
    study: Study, tmp_path: Path
) -> None:
    (own, other) = (arm for arm in study.arms if arm.levels["examples"] == "100")
    moved = tuple(t._replace(seed=t.seed + 1) for t in other.trainings)
    apart = tuple(t._replace(seed=t.seed + 10) for t in other.trainings)
    short = tmp_path / "short"
    lines = [json.loads(line) for line in (own.trainings[0].runs[0] / "predictions.jsonl").open()]
    write_jsonl(short / "predictions.jsonl", *(line for line in lines if line["id"] != "q7"))
    first = own.trainings[0]._replace(runs=(short,))
    for trainings, expected in ((moved, (2, True)), (apart, (3, False))):
        arms = (own._replace(trainings=(first, *own.trainings[1:])), other._replace(trainings=trainings))
        axes = (study.axes[0], Axis("examples", ("100",)))
        text = write(study._replace(axes=axes, arms=arms), tmp_path / "out")
        tree = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
        rows = tree["differences"][0]["rows"]
        assert {(row["trainings"], row["paired"]) for row in rows} == {expected}
        assert {task["task"]: task["left_out"] for task in tree["tasks"]} == {"title": 1, "text-domain": 0}
        assert ("not paired" in text) == (not expected[1])
    assert "title: 1 questions are left out" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_the_replay_law_is_on_the_page(replayed: tuple[Path, str, dict[str, Any]]) -> None:
    page, text, tree = replayed
    (law,) = tree["replay"]
    assert law["shares"] == [0, 0.05, 0.1, 0.25, 0.5]
    assert law["trainings"] == 4
    general = law["laws"]["general"]
    assert general["fits"] is True
    assert law["recommended"]["share"] == pytest.approx(0.376, abs=0.05)
    for said in (general["said"], law["recommended"]["said"]):
        assert said in text
        assert html.escape(said, quote=False).replace("'", "&#39;") in page.read_text("utf-8")
    assert "predicted without it" in page.read_text("utf-8")
    verdicts = {(row["task"], row["level"]): row["verdict"] for row in tree["differences"][0]["rows"]}
    assert verdicts["text-domain", "50%"] == "worse"
    assert verdicts["text-general", "50%"] == "better"
    assert tree["worth"] == []


def test_a_law_needs_losses(tmp_path: Path) -> None:
    losses = {"text-domain": lambda r: 0.7 + r, "text-general": lambda r: 0.9 - r}
    made = replay_study(tmp_path / "runs", ("0%", "50%"), losses)
    text = write(made, tmp_path)
    assert "2 shares are too few for a law" in text
    for wrong in ({"domain": "text-domain"}, {"domain": "text-domain", "general": "none"}):
        with pytest.raises(UserError, match="general must name a task of the study whose score is a loss"):
            write(made._replace(replay_law=wrong), tmp_path)
    renamed = Axis("replay", made.axes[0].levels, (0, 50))
    with pytest.raises(UserError, match="needs shares from 0 to 1"):
        write(made._replace(axes=(renamed,)), tmp_path)


def test_cost_counts_the_gpus_of_all_runs_that_not_every_training_shares(tmp_path: Path) -> None:
    def trained(name: str, device: str, seconds: float, inputs: dict[str, str]) -> dict[str, str]:
        run = tmp_path / name
        (run / "model").mkdir(parents=True)
        (run / "model" / "weights").write_text(name)
        manifest.write(run / "model", step="train", config={}, inputs=inputs, counts={})
        record = {"device": device, "processes": 4, "seconds": seconds, "flops": 1.0}
        (run / "hardware.json").write_text(json.dumps(record))
        return manifest.outputs_of(run / "model")

    base = trained("base", "NVIDIA H200", 9e5, {})
    continued = trained("continued", "NVIDIA H200", 3600, base)  # by two arms of three
    arms = []
    for level, device, start in (
        ("without", "NVIDIA H200", base), ("few", "NVIDIA H200", continued), ("more", "CPU", continued)
    ):  # fmt: skip
        inputs = trained(level, device, 1800, start)
        run = write_run(tmp_path / f"scores-{level}", [True, False, True], {})
        config = manifest.read(run)["config"]
        manifest.write(run, step="eval", config=config, inputs=inputs, counts={})
        arms.append(Arm({"recipe": level}, (Training(0, (run,), 1800.0, 7200.0, None),)))
    made = Study("cost", "Cost", (Axis("recipe", ("without", "few", "more")),), tuple(arms), {}, {})
    text = write(made, tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert [row["gpu_hours"] for row in tree["cost"]] == [2.0, 4.0 + 2.0, 4.0]
    assert [row["cpu_hours"] for row in tree["cost"]] == [2.0, 2.0, 2.0]
    assert re.search(r"recipe without +1 +1,800 +7,200 +– +2\n", text)


def test_runs_are_linked_with_their_manifests_and_how_to_trace_them(
    shown: tuple[Path, str, dict[str, Any]],
) -> None:
    page, _, tree = shown
    text = page.read_text("utf-8")
    addresses = re.findall(r'<a href="([^"]+)"', text)
    assert len(addresses) == len(tree["runs"]) == 30
    for address, row in zip(addresses, tree["runs"], strict=True):
        assert not address.startswith("/")
        assert (page.parent / unquote(html.unescape(address))).resolve() == Path(row["run"]).resolve()
        file = Path(row["run"]) / manifest.NAME
        assert row["manifest"] == manifest.hash_files([file])[file.as_posix()]
        assert row["lineage"] == f"make lineage RUN={row['run']}"
        assert row["lineage"] in text
    assert "learning rate 1e-4" in text


@pytest.mark.parametrize(
    ("levels", "given", "expected"),
    [(("0%", "10%", "50%"), None, (0, 0.1, 0.5)), (("1e-4", "3e-4"), None, (1e-4, 3e-4)),
     (("50", "all"), None, None), (("50", "all"), (50, 800), (50, 800)), (("without", "with"), None, None),
     (("1", "1.0"), None, None), (("nan", "1"), None, None)],
)  # fmt: skip
def test_levels_that_are_numbers_are_read(levels: Any, given: Any, expected: Any) -> None:
    assert axis_numbers(Axis("a", levels, given)) == (None if expected is None else pytest.approx(expected))


def test_arms_that_do_not_fit_are_refused(study: Study, tmp_path: Path) -> None:
    one = study.arms[0]
    twice = one.trainings[0]._replace(runs=one.trainings[0].runs * 2)
    wrong = [
        ((one, one), "it is there twice"),
        ((one._replace(levels={"pretraining": "with"}),), "not one level of each axis"),
        ((one._replace(levels=one.levels | {"examples": "7"}),), "axis examples has no level `7`"),
        ((one._replace(trainings=()),), "no arm has a training"),
        ((one._replace(trainings=(twice,)),), "is also in another run of the same training"),
    ]
    for arms, message in wrong:
        with pytest.raises(UserError, match=message):
            write(study._replace(arms=arms), tmp_path)
    short = study.axes[1]._replace(numbers=(1, 2))
    with pytest.raises(UserError, match="2 numbers for 5 levels"):
        write(study._replace(axes=(study.axes[0], short)), tmp_path)


def test_a_chart_puts_numbers_where_its_axes_say() -> None:
    points = {number: Estimate(number / 100, number / 100, number / 100) for number in (10.0, 20.0, 40.0)}
    drawn = drawn_chart("c", [Curve("a", points)], {10: "10", 20: "20", 40: "40"})
    assert drawn.scale == ""
    xs = [float(point[0][:-1]) for point in drawn.curves[0][2]]
    assert xs == pytest.approx([17, 17 + 78 / 3, 95])
    assert [name for name, _ in drawn.rows] == ["0.1", "0.2", "0.3", "0.4"]
    assert drawn.curves[0][2][0][1] == "86.00%"
    assert drawn.curves[0][2][-1][1] == "4.00%"
    wide = drawn_chart("c", [Curve("a", {})] * 2 + [Curve("b", points)], {10: "10", 20: "20", 80: "all"})
    assert wide.scale == "logarithmic"
    assert [float(x[:-1]) for _, x in wide.columns] == pytest.approx([17, 43, 95])
    close = drawn_chart("c", [Curve("a", points)], {10: "10,000", 11: "11,000", 20: "", 40: "40,000"})
    assert [name for name, _ in close.columns] == ["10,000", "", "", "40,000"]
    hostile = "<script>alert(1)</script>"
    text = chart(hostile, [Curve(hostile, points)], {10: hostile, 20: "", 40: ""}) + links({hostile: hostile})
    assert "<script" not in text


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_the_page_without_errors_or_overflow(
    shown: tuple[Path, str, dict[str, Any]],
    replayed: tuple[Path, str, dict[str, Any]],
    width: int,
    scheme: str,
) -> None:
    for page in (shown[0], replayed[0]):
        with browse() as opened:
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            opened.call("Emulation.setEmulatedMedia", features=features)
            opened.open(page, width)
            opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
            boxes = opened.evaluate(
                "[...document.querySelectorAll('.chart > svg, .chart text, .chart circle, h2, .links a')]"
                ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.right])"
            )
            assert len(boxes) > 30
            assert all(left >= 0 and right <= width for left, right in boxes)
            # No two numbers of an axis touch.
            overlaps = opened.evaluate(
                "[...document.querySelectorAll('.chart > svg')].flatMap(svg => {"
                "const t = [...svg.querySelectorAll('text.below')].filter(e => e.textContent)"
                ".map(e => e.getBoundingClientRect());"
                "return t.slice(1).filter((r, i) => r.left < t[i].right)}).length"
            )
            assert overlaps == 0
            colours = "(e => [getComputedStyle(e).fill, getComputedStyle(document.body).color])"
            fill, text = opened.evaluate(f"{colours}(document.querySelector('.chart text'))")
            assert fill == text
            assert (text == "rgb(255, 255, 255)") == (scheme == "dark")
            assert opened.console == []
            assert opened.asked == [page.as_uri()]
