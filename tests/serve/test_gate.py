"""The gate: its numbers against other computations, its promise on sources that it has not seen, and what it
refuses."""

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from core.provenance import manifest
from serve.gate import training
from serve.gate.card import auc, calibrate, lowest_accepted, wilson
from serve.gate.classifier import BUCKETS, MAX_CHARACTERS, Gate, features, fold
from serve.gate.questions import Questions, read
from serve.gate.training import PENALTY, build, fit, held_out, matrix, score
from tests.conftest import ROOT, run

TOPICS = {
    True: "patent claim invention infringement novelty licence trademark court plaintiff statute appeal"
    " examiner 专利 权利要求 侵权 商标 法院 专利法 특허 청구항 침해 상표 법원",
    False: "bread travel football poem weather python guitar garden birthday movie bicycle holiday 面包 旅行"
    " 足球 天气 诗歌 电影 빵 여행 축구 날씨 영화",
}
MADE = {
    "domain": ("forum", "exams", "letters", "office"),
    "general": ("alpaca", "shared", "kitchen", "talk"),
}


def questions(source: str, domain: bool, number: int = 150) -> Iterator[str]:
    """Questions with two words of their topic among eight of a vocabulary that only their source has."""
    draw = random.Random(f"{source} {domain}")
    own = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(60)]
    for _ in range(number):
        words = draw.sample(own, 8) + draw.sample(TOPICS[domain].split(), 2)
        draw.shuffle(words)
        yield " ".join(words)


def write(file: Path, texts: Iterator[str] | list[str], source: str | None = None) -> Path:
    with file.open("w", encoding="utf-8") as opened:
        for text in texts:
            messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
            row = {"messages": messages, "task": "qa"} | ({"source": source} if source else {})
            opened.write(json.dumps(row, ensure_ascii=False) + "\n")
    return file


def chats(folder: Path) -> dict[str, list[Path]]:
    """A file for each source of MADE."""
    return {
        side: [write(folder / f"{name}.jsonl", questions(name, side == "domain")) for name in names]
        for side, names in MADE.items()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gate from four sources on each side."""
    folder = tmp_path_factory.mktemp("made")
    files = chats(folder)
    build(files["domain"], files["general"], folder / "gate")
    return folder / "gate"


def test_training_minimises_the_objective_as_scipy_does() -> None:
    from scipy.optimize import minimize

    texts = [text for side in (True, False) for text in questions("oracle", side, 30)]
    label = np.arange(60) < 30
    used = np.arange(60) % 5 != 0
    used[40:] = False  # classes of different size
    x, transposed = matrix(features(fold(text)) for text in texts)
    ours = score(x, fit(x, transposed, label, used))
    dense = x.to_dense().numpy()[:, :BUCKETS]
    dense = dense[:, dense.any(0)]
    sign = np.where(label, 1.0, -1.0)
    weight = np.where(label, 0.5 / (used & label).sum(), 0.5 / (used & ~label).sum()) * used

    def loss(at: Any) -> tuple[float, Any]:
        margin = sign * (dense @ at[:-1] + at[-1])
        slope = -weight * sign / (1 + np.exp(margin))
        gradient = np.append(dense.T @ slope + PENALTY * at[:-1], slope.sum())
        return float(weight @ np.logaddexp(0, -margin) + PENALTY / 2 * at[:-1] @ at[:-1]), gradient

    start = np.zeros(dense.shape[1] + 1)
    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    assert ours == pytest.approx(dense @ best[:-1] + best[-1], abs=5e-3)
    assert np.abs(ours).max() > 2


def test_features_are_the_counted_ngrams_in_one_bucket_each() -> None:
    text = fold("abab")
    padded = f" {text} "
    grams = {padded[i : i + n] for n in (2, 3, 4) for i in range(len(padded) - n + 1)}
    buckets, values = features(text)
    assert len(buckets) == len(grams)  # no two of these share a bucket
    assert len(set(values.tolist())) == 2  # `ab` twice, the others once
    assert values.max() / values.min() == pytest.approx(1 + np.log(2))
    assert values @ values == pytest.approx(1)
    every = [" ".join(pair) for pair in itertools.permutations("abcdefghijklmnopqrstuvwxyz", 2)]
    used = np.concatenate([features(each)[0] for each in every])
    assert np.bincount(used // (BUCKETS // 8), minlength=8).min() > len(used) / 16  # spread over all


def test_equal_questions_in_other_characters_have_one_probability(made: Path) -> None:
    gate = Gate.open(made)
    assert gate.probability("專利申請權人") == gate.probability("专利申请权人")
    assert gate.probability("ＰＡＴＥＮＴ  claim\n") == gate.probability("patent claim")


def test_the_area_is_that_of_all_pairs_and_the_intervals_are_known_ones() -> None:
    from scipy.stats import binomtest

    draw = np.random.default_rng(0)
    positive, negative = draw.integers(2, 9, 40).astype(float), draw.integers(0, 6, 70).astype(float)
    pairs = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    value, low, high = auc(positive, negative)
    assert value == pytest.approx(pairs.mean())
    variance = pairs.mean(1).var(ddof=1) / 40 + pairs.mean(0).var(ddof=1) / 70  # DeLong's
    assert (high - low) / 2 == pytest.approx(1.96 * variance**0.5, rel=0.1)
    assert low < value < high
    known = binomtest(3, 50).proportion_ci(method="wilson")
    assert wilson(3 / 50, 50) == pytest.approx((known.low, known.high))
    perfect = auc(np.arange(50.0) + 100, np.arange(60.0))
    assert perfect[0] == perfect[2] == 1
    assert 0.9 < perfect[1] < 0.97  # not sure because 50 questions went well


@pytest.mark.parametrize("distance", [0.5, 2.5])
def test_the_interval_of_the_area_holds_the_truth_as_often_as_it_says(distance: float) -> None:
    from scipy.stats import norm

    draw, truth, inside = np.random.default_rng(1), norm.cdf(distance / 2**0.5), 0
    for _ in range(400):
        _, low, high = auc(draw.normal(distance, 1, 50), draw.normal(0, 1, 80))
        inside += low <= truth <= high
    assert inside >= 0.92 * 400


def test_calibration_finds_the_odds_that_scores_were_drawn_from() -> None:
    draw = np.random.default_rng(2)
    scores = draw.normal(0, 3, 20_000)
    label = draw.random(20_000) < 1 / (1 + np.exp(-(0.5 * scores + 0.0)))
    slope, intercept = calibrate(scores, label)
    assert slope == pytest.approx(0.5, abs=0.03)
    assert intercept == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize(("refusals", "refused"), [(0.01, 1), (0.05, 7), (0.005, 0), (0.5, 75)])
def test_the_threshold_refuses_the_share_and_not_one_more(refusals: float, refused: int) -> None:
    values = np.random.default_rng(3).random(150)
    assert (values < lowest_accepted(values, refusals)).sum() == refused


def test_a_threshold_from_seen_sources_refuses_a_new_one_and_ours_lets_it_through(made: Path) -> None:
    texts, source, label = [], [], []
    for side, names in MADE.items():
        for name in names:
            mine = list(questions(name, side == "domain"))
            texts += mine
            source += [name] * len(mine)
            label += [side == "domain"] * len(mine)
    new = {domain: list(questions("new", domain, 400)) for domain in (True, False)}
    half = np.random.default_rng(4).random(len(texts)) < 0.5
    x, transposed = matrix(features(fold(text)) for text in [*texts, *new[True]])
    labels = np.array([*label, *[True] * 400])
    used = np.append(half, np.zeros(400, bool))
    scores = score(x, fit(x, transposed, labels, used))
    seen = lowest_accepted(scores[: len(texts)][~half & np.array(label)], 0.01)
    refused_by_seen = (scores[len(texts) :] < seen).mean()
    gate = Gate.open(made)
    refused = np.mean([not gate.accepts(text) for text in new[True]])
    accepted = np.mean([gate.accepts(text) for text in new[False]])
    assert refused_by_seen > 0.1
    assert refused < 0.02
    assert accepted < 0.3


def test_each_number_is_of_a_model_that_has_not_seen_the_source(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = chats(tmp_path)
    without: list[frozenset[str]] = []
    real = training.fit

    def watched(x: Any, transposed: Any, label: Any, used: Any) -> Any:
        names = np.array([name for name, _ in found.places], object)
        without.append(frozenset(names[~used]))
        assert all(not used[names == name].any() for name in without[-1])
        return real(x, transposed, label, used)

    found = read(files["domain"], files["general"])
    monkeypatch.setattr(training, "fit", watched)
    numbers = build(files["domain"], files["general"], tmp_path / "gate")
    names = [f"{name}.jsonl" for names in MADE.values() for name in names]
    assert sorted(without, key=sorted) == sorted([frozenset(), *({name} for name in names)], key=sorted)
    assert all(each["refused"][0] <= 0.01 for each in numbers["domain"].values())
    strictest = numbers["domain"][numbers["threshold_set_by"]]
    assert strictest["refused_when_new"][0] >= strictest["refused"][0]
    for name in ("gate.json", "gate.safetensors", "README.md"):  # made twice: the same bytes
        assert (tmp_path / "gate" / name).read_bytes() == (made / name).read_bytes()


def test_a_source_on_both_sides_is_left_out_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = chats(tmp_path)
    files["domain"].append(write(tmp_path / "a.jsonl", questions("both", True), "both"))
    files["general"].append(write(tmp_path / "b.jsonl", questions("both", False), "both"))
    left_out: list[int] = []
    real = training.fit

    def watched(x: Any, transposed: Any, label: Any, used: Any) -> Any:
        left_out.append(int((~used).sum()))
        return real(x, transposed, label, used)

    monkeypatch.setattr(training, "fit", watched)
    build(files["domain"], files["general"], tmp_path / "gate")
    assert sorted(left_out) == [0, *[150] * 8, 300]


def test_a_gate_knows_three_languages_and_takes_any_text(made: Path) -> None:
    gate = Gate.open(made)
    for text in ("patent infringement claim court", "专利侵权 权利要求 法院", "특허 청구항 침해 법원"):
        assert gate.accepts(text), text
    for text in ("football travel weather bread", "足球 旅行 天气 面包", "축구 여행 날씨 빵"):
        assert gate.probability(text) < 0.5, text
    for empty in ("", " \n\u3000"):
        assert gate.probability(empty) == 0
        assert not gate.accepts(empty)
    long = "patent claim " * 1_000_000
    assert gate.probability(long) == gate.probability(long[:MAX_CHARACTERS])
    assert not gate.accepts("\0足球 天气 电影")
    for odd in ("a", "\ud800", "\0", "专\ud800", "𠮷野家", "ﷺ" * 5000):
        assert 0 <= gate.probability(odd) <= 1


def test_scoring_loads_no_torch(made: Path) -> None:
    program = (
        "import sys; from serve.gate.classifier import Gate; Gate.open(sys.argv[1]).accepts('專利 patent');"
        "print({'torch', 'scipy', 'transformers', 'pyarrow', 'numba'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", program, str(made)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


def test_a_user_makes_a_gate_and_tries_it(tmp_path: Path) -> None:
    files = chats(tmp_path)
    make: list[str | Path] = ["serve", "gate", "--domain", *files["domain"], "--general", *files["general"]]
    make += ["--output", tmp_path / "gate"]
    done = run(*make)
    assert done.returncode == 0, done.stderr
    assert "forum.jsonl" in done.stdout
    assert "threshold" in done.stdout
    page = (tmp_path / "gate/README.md").read_text("utf-8")
    assert "forum.jsonl | 150 |" in page
    assert str(tmp_path) not in page
    manifest.verify(tmp_path / "gate")
    tried = run("serve", "gate", "--check", tmp_path / "gate", "patent claim court", "bread travel")
    assert [line.split()[1] for line in tried.stdout.splitlines()[1:]] == ["accepted", "refused"]
    assert "no question" in run("serve", "gate", "--check", tmp_path / "gate").stderr
    again = run(*make)
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    assert "--general, --output missing" in run("serve", "gate", "--domain", files["domain"][0]).stderr


def test_a_killed_build_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    files = chats(tmp_path)
    command = [sys.executable, "-m", "serve", "gate", "--domain", *map(str, files["domain"])]
    command += ["--general", *map(str, files["general"]), "--output", str(tmp_path / "gates/mine")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("gates/.mine.partial-*")) and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "gates/mine").exists()
    build(files["domain"], files["general"], tmp_path / "gates/mine")
    assert [path.name for path in (tmp_path / "gates").iterdir()] == ["mine"]


def test_repeated_empty_and_shared_questions_are_counted(tmp_path: Path) -> None:
    files = chats(tmp_path)
    files["domain"].append(write(tmp_path / "more.jsonl", ["", "Same", "ＳＡＭＥ ", "both"]))
    files["general"].append(write(tmp_path / "other.jsonl", ["BOTH"], "a.jsonl#12"))
    found = read(files["domain"], files["general"])
    domain = {"chats": 604, "empty": 1, "files": 5, "on_both_sides": 1, "questions": 601, "repeated": 1}
    assert found.counts["domain"] == domain
    assert found.counts["general"] == {"chats": 601, "files": 5, "on_both_sides": 1, "questions": 600}
    assert "both" not in found.texts


def test_the_line_of_a_row_is_no_part_of_its_source(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", ["one"], "law.jsonl#12")
    other = write(tmp_path / "b.jsonl", ["two"])
    assert read([file], [other]).places == [("law.jsonl", True), ("b.jsonl", False)]


def test_one_source_or_few_questions_are_refused(tmp_path: Path) -> None:
    files = chats(tmp_path)
    with pytest.raises(UserError, match=r"--domain: 1 of 1 sources .* Found: forum.jsonl \(150\)"):
        build(files["domain"][:1], files["general"], tmp_path / "gate")
    with pytest.raises(UserError, match="--general: 1 of 1 sources"):
        build(files["domain"], files["general"][:1], tmp_path / "gate")
    with pytest.raises(UserError, match="--domain: 0 of 4 sources with at least 1000"):
        build(files["domain"], files["general"], tmp_path / "gate", refusals=0.001)
    with pytest.raises(UserError, match="--refusals 0 must be above 0"):
        build(files["domain"], files["general"], tmp_path / "gate", refusals=0)
    assert not list(tmp_path.glob("*gate*"))


def test_of_many_sources_the_seed_draws_those_that_are_held_out() -> None:
    places = [(f"{number:02}", True) for number in range(30) for _ in range(50)] + [("small", True)] * 49
    many = Questions([""] * len(places), places, [], {})
    drawn = held_out(many, "domain", 50, seed=0)
    assert len(set(drawn)) == training.MAX_HELD
    assert "small" not in drawn
    assert drawn == held_out(many, "domain", 50, seed=0) != held_out(many, "domain", 50, seed=1)


def test_sides_that_do_not_differ_are_refused(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    files = [write(tmp_path / f"{name}.jsonl", questions(name, True)) for name in names]
    other = [write(tmp_path / f"{name}2.jsonl", questions(f"{name}2", True)) for name in names]
    with pytest.raises(UserError, match="learns is the source, not the domain"):
        build(files, other, tmp_path / "gate")
    assert not (tmp_path / "gate").exists()


GOOD = '{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.jsonl: empty-file"),
        (GOOD + '{"messages": [\n', "bad.jsonl#2"),
        (
            GOOD + '{"messages": [{"role": "assistant", "content": "A"}]}\n',
            "bad.jsonl#2: no message of the role",
        ),
        (GOOD + '{"messages": [{"role": "user", "content": 3}]}\n', "bad.jsonl#2: the user's message is int"),
        (GOOD + '{"other": 3}\n', "bad.jsonl#2: not a chat"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    files = chats(tmp_path)
    (tmp_path / "bad.jsonl").write_text(text, "utf-8")
    with pytest.raises(UserError) as error:
        build([*files["domain"], tmp_path / "bad.jsonl"], files["general"], tmp_path / "gate")
    assert message in str(error.value)
    assert not (tmp_path / "gate").exists()


def test_a_gate_that_is_damaged_or_of_another_rule_is_refused_by_name(made: Path, tmp_path: Path) -> None:
    import shutil

    def copy(name: str) -> Path:
        shutil.copytree(made, tmp_path / name)
        return tmp_path / name

    with pytest.raises(UserError, match="no such gate"):
        Gate.open(tmp_path / "absent")
    for name in ("gate.json", "gate.safetensors"):
        folder = copy(f"cut-{name}")
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
        with pytest.raises(UserError, match=f"is damaged: {name} has changed"):
            Gate.open(folder)
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"missing {name}"):
            Gate.open(folder)
    folder = copy("no-manifest")
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="not a complete folder"):
        Gate.open(folder)
    folder = copy("other-rule")
    numbers = json.loads((folder / "gate.json").read_text("utf-8"))
    (folder / "gate.json").write_text(json.dumps(numbers | {"rule": "words-9"}), "utf-8")
    manifest.write(folder, step="gate", config={}, inputs={}, counts={})
    with pytest.raises(UserError, match=r"gate.json: rule 'words-9'"):
        Gate.open(folder)
    folder = copy("card-edited")
    (folder / "README.md").write_text("mine", "utf-8")  # the card is for people: no check depends on it
    assert Gate.open(folder).accepts("patent claim court")
