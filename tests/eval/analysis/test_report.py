"""The HTML page of a run: its content, and that a browser shows it without errors."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from core.html_report import Estimate, Line, estimates
from core.provenance import manifest
from eval.analysis import explanations, notices
from eval.analysis.report import SHOWN, write_report
from eval.metrics.metrics import MECAB, METRICS
from eval.metrics.perplexity import POSITIONS
from eval.sample import EvalSample
from tests.conftest import run
from tests.eval.browser import Page, browse
from tests.eval.models.tiny import write_jsonl

CLAIM = "一种{}装置，其特征在于，包括第{}部件和外壳。"
EVIL = (
    '</pre><script src="http://example.com/x.js">console.error("in")</script><img src="http://example.com/i">'
)


def predictions(folder: Path, good: int) -> Path:
    """A run of 40 translations, 30 of section G and 10 of A, and 60 questions; `good` of each are right."""
    lines: list[dict[str, Any]] = []
    for i in range(40):
        reference = CLAIM.format("测量" * (1 + i % 3), i)
        lines.append(
            {"task": "claims", "id": f"c{i}", "prediction": reference if i < good else f"另一个{EVIL}",
             "reference": reference, "metrics": ["bleu-zh", "chrf"], "source": f"claim {i}",
             "groups": {"ipc": "G" if i < 30 else "A"}}
        )  # fmt: skip
    for i in range(60):
        subject, category = (("law", "Humanities"), ("college_physics", "STEM"))[i % 2]
        lines.append(
            {"task": "ceval", "id": f"{subject}-{i}", "prediction": "A" if i < good else "B",
             "reference": "A", "options": 4, "metrics": ["accuracy"],
             "groups": {"subject": subject, "category": category}}
        )  # fmt: skip
    folder.mkdir()
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "predictions.jsonl").write_text(text, "utf-8")
    manifest.write(
        folder,
        step="eval",
        config={"model": "runs/mine", "backend": {"dtype": "bfloat16", "chat": True}, "note": "planted"},
        inputs={},
        counts={"claims": 40},
    )
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    mine, base = predictions(root / "mine", 35), predictions(root / "base", 10)
    done = run("eval", "report", mine, "--base", base)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(mine / "report.html")
    return mine / "report.html"


def test_the_page_has_scores_verdicts_breakdowns_samples_and_provenance(page: Path) -> None:
    text = page.read_text("utf-8")
    for title in (
        "Scores", "Change from the base", "ceval: categories", "claims: breakdowns",
        "claims: worst and best changes, and random ones", "Provenance",
    ):  # fmt: skip
        assert f"<h2>{title}</h2>" in text, title
    assert "this run 0.5833 (0.4573 – 0.6994)" in text  # Wilson's for 35 of 60
    assert "base 0.1667 (0.09313 – 0.2803)" in text
    assert re.search(r"better \(p [\d.e-]+, n 60\)", text)
    assert "planted" in text  # the manifest


def test_small_groups_show_their_size_and_no_score(page: Path) -> None:
    table = re.search(r"<h3>By ipc</h3>(.*?)</table>", page.read_text("utf-8"), re.DOTALL)
    assert table is not None
    small, large = re.findall(r"<tr><td>([AG])</td>(.*?)</tr>", table[1])
    assert small == ("A", '<td class="number">10</td>' + "<td>–</td>" * 4)
    assert large[0] == "G"
    assert large[1].count("–") == 4  # each between two ends


def test_length_classes_are_in_order(tmp_path: Path) -> None:
    lengths = {"up to 50": 9, "up to 200": 150, "up to 800": 700, "over 800": 900}
    lines = [
        json.dumps({"task": "t", "id": f"{n}", "prediction": "a", "reference": "a" * n, "metrics": ["chrf"]})
        for n in lengths.values()
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    text = write_report(tmp_path / "p.jsonl").read_text("utf-8").partition("<h3>By characters</h3>")[2]
    assert re.findall(r"<tr><td>((?:up|over)[^<]*)</td>", text) == list(lengths)


def test_changes_are_sorted_and_their_differences_marked(page: Path) -> None:
    text = page.read_text("utf-8").partition("claims: worst and best changes")[2]
    worst, _, best = text.partition("<h3>Best</h3>")
    assert "None." in worst  # no sample became worse
    first = re.search(r"<details><summary>(c\d+): \+[\d.]+</summary>(.*?)</details>", best, re.DOTALL)
    assert first is not None
    assert 10 <= int(first[1][1:]) < 35
    assert "<del>" in first[2]
    assert "<ins>" in first[2]
    assert f"claim {first[1][1:]}" in first[2]  # its source


def test_a_predictions_file_without_base_gets_a_page_too(page: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes((page.parent / "predictions.jsonl").read_bytes())
    text = write_report(file).read_text("utf-8")
    assert "claims: worst and best samples" in text
    assert "no manifest" in text
    assert "Change from the base" not in text


def test_metrics_can_be_chosen_and_contaminated_samples_are_separate(page: Path, tmp_path: Path) -> None:
    file = tmp_path / "contaminated.jsonl"
    lines = [{"task": "claims", "id": f"c{i}", "found": ["30 characters"] * (i < 31)} for i in range(40)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    claims = tmp_path / "claims.jsonl"
    kept = [x for x in (page.parent / "predictions.jsonl").read_text("utf-8").splitlines() if '"claims"' in x]
    claims.write_text("\n".join(kept) + "\n", "utf-8")
    done = run("eval", "report", claims, "--metrics", "rouge-l-char", "--contaminated", file)
    assert done.returncode == 0, done.stderr
    text = claims.with_suffix(".html").read_text("utf-8")
    assert "rouge-l-char-f1" in text
    assert "bleu-zh" not in text.partition("worst and best")[0]
    apart = re.search(r"<h3>By corpus</h3>(.*?)</table>", text, re.DOTALL)
    assert apart is not None
    assert re.findall(r"<tr><td>(\w+)</td><td class=\"number\">(\d+)<", apart[1]) == [
        ("clean", "9"), ("dirty", "31")
    ]  # fmt: skip


def test_a_missing_base_is_reported(page: Path, tmp_path: Path) -> None:
    done = run("eval", "report", page.parent, "--base", tmp_path / "none")
    assert done.returncode == 2
    assert "file not found" in done.stderr


def test_the_page_names_its_models_and_explains_its_scores_lines_and_colours(page: Path) -> None:
    text = html.unescape(page.read_text("utf-8"))
    for said in (*explanations.READING, *explanations.COMPARING, explanations.SECONDARY, explanations.PAIRS):
        assert said in text
    for score in ("bleu-zh", "chrf", "accuracy", "accuracy-mean-of-subjects"):
        assert f"{score}: {explanations.explain(score)}." in text
    assert "bleu-zh (primary)" in text
    assert "chrf (primary)" not in text
    assert "<td>runs/mine (bfloat16, chat template)</td>" in text
    assert "<h1>Evaluation of runs/mine (bfloat16, chat template)</h1>" in text


REFERENCES = {
    "extraction": "解决问题:防滑;技术手段:胶垫;实施效果:稳", "entities": "人名:张三",
    "statute": "民法第一条 甲",
    "ranking": '{"US8930553": 1}', "ranking-exponential": '{"US8930553": 1}',
    "ipc-section": "G06F", "ipc-subclass": "G06F", "prison-term": "12个月", "amount": "5000元",
}  # fmt: skip
"""What metrics that parse their references can read."""


@pytest.mark.parametrize("name", METRICS)
def test_every_score_is_explained(name: str) -> None:
    if name.removeprefix("bleu-") in MECAB:  # its packages may be missing; the name is like that of others
        assert explanations.explain(name)
        return
    sums = ("nats", "tokens", "correct", "entropy")
    kinds = [f"{of}_{each}" for of in ("answer", "all", "text") for each in sums]
    kinds += [f"text_{each}_to_{end}" for each in ("nats", "bytes") for end in POSITIONS]
    measured = dict.fromkeys([*kinds, "comet|model@1"], 1.0)
    text = REFERENCES.get(name.removesuffix("-lenient"), "A")
    both = [
        EvalSample(
            task="t", id=str(i), prediction='["US8930553"]' if "ranking" in name else text, reference=text,
            source="装置(10)", options=4,
            measured=measured, glossary={"装置": ["device"]}, laws={"民法": "1..9"}, groups={"labels": "A;B"},
            sources=2, relevant_sources=(1,),
        )
        for i in range(2)
    ]  # fmt: skip
    assert [score.name for score in METRICS[name](both) if not explanations.explain(score.name)] == []


def test_explanations_tell_scores_with_similar_names_apart() -> None:
    assert explanations.explain("rouge-legacy-f1") != explanations.explain("rouge-l-char-f1")
    assert explanations.explain("terrible") == ""


def test_random_samples_are_the_same_ones_for_every_model(page: Path, tmp_path: Path) -> None:
    def drawn(run: Path, seed: int) -> list[str]:
        text = write_report(run, output=tmp_path / "r.html", seed=seed).read_text("utf-8")
        part = text.partition(f"<h3>Random, seed {seed}</h3>")[2].partition("<h2>")[0]
        return re.findall(r"<summary>(c\d+): ", part)

    mine, base = page.parent, page.parent.parent / "base"
    assert len(drawn(mine, 0)) == SHOWN
    assert drawn(mine, 0) == drawn(base, 0) != drawn(base, 1)


def test_what_to_know_about_the_answers_is_on_the_page(tmp_path: Path) -> None:
    lines = [
        {"task": task, "id": str(i), "prediction": "", "reference": "x", "metrics": ["chrf"],
         "by": "generation", "cut": 9 * (i < 2), "shots_left_out": i % 2}
        for task in "ab" for i in range(4)
    ]  # fmt: skip
    folder = tmp_path / "run"
    write_jsonl(folder / "predictions.jsonl", *lines)
    config = {"model": "m", "limits": {"a": 4}}
    manifest.write(folder, step="eval", config=config, inputs={}, counts={})
    text = html.unescape(write_report(folder).read_text("utf-8")).partition("<h2>Provenance")[0]
    for said in (
        "8 answers are empty (a: 4, b: 4).", "4 prompts were longer than the context",
        "4 prompts did not fit",
        "Only the first samples were asked (--limit; a: 4)",
    ):  # fmt: skip
        assert said in text


def test_options_that_are_likeliest_together_are_counted() -> None:
    def answered(**nats: float) -> EvalSample:
        return EvalSample(task="t", id="1", prediction="A", reference="A", options=len(nats), measured=nats)

    assert not notices.sentences([answered(A=-1.0, B=-2.0)])
    (said,) = notices.sentences([answered(A=-1.0, B=-1.0), answered(A=-1.0, B=-2.0)])
    assert said.startswith("1 questions have options that are likeliest together")


@pytest.mark.parametrize(
    ("values", "axis", "places"),
    [((0.5, 0.25, 0.75), "axis 0 to 1", ("50.00%", "25.00%", "75.00%")),
     ((31.0, 20.0, 50.0), "axis 0 to 50", ("62.00%", "40.00%", "100.00%")),
     ((-0.01, -0.02, 0.005), "axis -0.02 to 0.02", ("25.00%", "0.00%", "62.50%")),
     ((float("inf"), 1.0, float("inf")), "axis 0 to 1", ("100.00%", "100.00%", "100.00%"))],
)  # fmt: skip
def test_a_plot_puts_numbers_where_its_axis_says(
    values: tuple[float, float, float], axis: str, places: tuple[str, str, str]
) -> None:
    text = estimates([Line("m", Estimate(*values))])
    value, low, high = places
    assert axis in text
    assert f'<line class="own" x1="{low}" y1="30%" x2="{high}"' in text
    assert f'<circle class="own" cx="{value}"' in text


def test_lines_that_share_an_axis_can_be_compared() -> None:
    text = estimates([Line("a", Estimate(0.1, 0.1, 0.1)), Line("b", Estimate(0.8, 0.8, 0.8))], shared=True)
    assert text.count("axis 0 to 1<") == 2


@pytest.fixture(scope="module", params=[1280, 390], ids=["desktop", "phone"])
def shown(request: pytest.FixtureRequest, page: Path) -> Any:
    with browse() as opened:
        opened.open(page, request.param)
        yield opened


def test_a_browser_shows_the_whole_page_without_errors_or_requests(shown: Page, page: Path) -> None:
    shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    width = shown.evaluate("window.innerWidth")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width  # no horizontal overflow
    assert shown.evaluate("document.querySelectorAll('script, img').length") == 0
    boxes = shown.evaluate(
        "[...document.querySelectorAll('.estimates svg, .estimates .figure, h2, .pair pre')]"
        ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.right, r.height])"
    )
    assert len(boxes) > 20
    assert all(left >= 0 and right <= width and height > 10 for left, right, height in boxes)
    plot = shown.evaluate("document.querySelector('.estimates svg').getBoundingClientRect().width")
    assert plot > (300 if width > 700 else 250)
    side_by_side = shown.evaluate(
        "(([a, b]) => a.getBoundingClientRect().top == b.getBoundingClientRect().top)"
        "([...document.querySelector('.pair').children])"
    )
    assert side_by_side == (width > 700)
    assert shown.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 14
    assert shown.console == []
    assert shown.asked == [page.as_uri()]  # no network


def test_the_browser_check_detects_errors_and_requests(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<script>console.error('boo')</script><img src='none.png'>")
    with browse() as opened:
        opened.open(tmp_path / "bad.html", 1280)
        assert any("boo" in line for line in opened.console)
        assert len(opened.asked) == 2
