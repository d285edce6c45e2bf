"""Benchmarks run to their end, and what documentation rests on is what they measure."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import peer
from benchmarks.labelled_pairs import labelled
from benchmarks.near_threshold import THRESHOLDS, compare, judge, made_records
from benchmarks.trainers import difference, of_all, ratio
from data.dedup.near_duplicates import SHORT_NGRAMS, NearConfig
from tests.conftest import ROOT, run


@pytest.mark.slow
def test_training_is_measured_beside_both_peers_as_on_a_gpu() -> None:
    ways = ("ours-equal", "ours-packed", "trainer-equal", "trl-packed")
    batches = ("--accumulation", "2", "--micro-batch", "2", "--checkpointing", "selective", "--bf16")
    done = run("benchmarks.train", "--quick", "--shape", "tiny", *batches, "--ways", *ways)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.strip().splitlines()
    assert [line.split()[0] for line in table[-len(ways) :]] == list(ways)
    results = json.loads(last)["results"]
    assert set(results) == {
        "tokens_per_s_vs_hf_trainer_ratio",
        "tokens_per_s_vs_trl_ratio",
        "peak_memory_vs_hf_trainer_ratio",
    }
    assert all(value > 0 for value in results.values())


@pytest.mark.slow
def test_our_training_commands_take_their_steps_in_turns() -> None:
    done = run("benchmarks.trainers", "--rounds", "1", "--seeds", "1", "--loss-steps", "2", "--without-peers")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.strip().splitlines()[-1])["results"]
    for stage in ("pretrain", "sft"):
        assert results[f"{stage}_tokens_per_cpu_s"] > 0
        assert 0.9 < results[f"{stage}_fill"] <= 1
        assert 0 < results[f"{stage}_loss"] < 9.5  # of 8,000 tokens at random: 9


def test_a_ratio_is_of_rounds_and_its_interval_holds_it() -> None:
    assert ratio([1.0] * 5, [3.0] * 5, tokens=0.5) == (1.5, 1.5, 1.5)
    slow = [1.0, 4.0, 1.0, 2.0, 1.0]  # other work slows both sides of a round
    assert ratio(slow, [2 * each for each in slow], tokens=1) == (2, 2, 2)
    found = ratio([1.0] * 40, [1.5 + 0.01 * (number % 7) for number in range(40)], tokens=1)
    assert 1.5 < found.low < found.middle < found.high < 1.57
    rows = [1.0] * 8 + [3.0] * 2  # few of ours take long
    assert ratio(rows, [2.0] * 10, tokens=1).middle == 2
    assert ratio(rows, [2.0] * 10, tokens=1, of=of_all).middle == pytest.approx(20 / 14)


def test_a_difference_has_welchs_interval() -> None:
    found = difference([6.0, 6.2, 6.1, 6.3], [6.5, 6.9, 6.6])
    assert found.middle == pytest.approx(-0.51667, abs=1e-5)
    assert (found.low, found.high) == pytest.approx(
        (-0.93966, -0.09367), abs=1e-5
    )  # 3.146 degrees of freedom


def test_the_table_of_thresholds_is_that_of_the_labelled_pairs() -> None:
    """Its columns for synthetic texts, which `--quick` measures."""
    texts = labelled(made_records(20))
    pairs = compare(texts)
    long, short = (
        [pair for pair in pairs if (pair.least < SHORT_NGRAMS) is small] for small in (False, True)
    )
    page = (ROOT / "docs/data.md").read_text("utf-8")
    assert f"{len(texts)} synthetic texts" in page
    for threshold in THRESHOLDS:
        found = judge(long, threshold), judge(short, threshold), judge(short, threshold, same_title=True)
        cells = [f"{each.recall:.2f}, {each.precision:.2f}" for each in found]
        [row] = [line for line in page.splitlines() if line.startswith(f"| {threshold:.2f} |")]
        assert row.strip("| ").split(" | ")[4:] == cells


def test_the_default_threshold_is_precise_for_long_texts_and_titles_are_needed_for_short_ones() -> None:
    pairs, config = compare(labelled(made_records(20))), NearConfig()
    long, short = (
        [pair for pair in pairs if (pair.least < SHORT_NGRAMS) is small] for small in (False, True)
    )
    assert judge(long, config.threshold).precision >= 0.99
    assert judge(long, config.threshold).recall >= 0.95
    assert judge(short, config.threshold).precision < 0.7
    assert judge(short, config.threshold, same_title=True).precision >= 0.99


def test_a_peer_that_cannot_be_installed_ends_a_benchmark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peer, "ENVIRONMENTS", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        peer.environment("datatrove")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "cannot be installed: ERROR: " in said
    assert peer.WITHOUT in said
    with pytest.raises(SystemExit) as ended:
        peer.require("numpy", "no-such-package")
    assert ended.value.code == 2
    assert "no-such-package" in capsys.readouterr().err


def test_a_peer_answers_line_by_line_or_says_why_it_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peer, "environment", lambda _: Path(sys.executable))
    script = tmp_path / "twice.py"
    script.write_text("import json\nwhile True: print(2 * json.loads(input())['n'], flush=True)", "utf-8")
    asked = peer.Peer("twice", str(script))
    assert [asked.ask({"n": n}) for n in (1, 4)] == [2, 8]
    with pytest.raises(SystemExit) as ended:
        asked.ask({})
    assert ended.value.code == 2
    assert "KeyError" in capsys.readouterr().err
    asked.close()


@pytest.mark.slow
def test_deduplication_is_measured_without_peers() -> None:
    done = run("benchmarks.corpus", "--quick", "--only", "deduplication", "--without-peers")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.strip().splitlines()[-1])["results"]
    assert results["dedup_recall_j60"] >= 0.98
    assert results["dedup_precision"] >= 0.99
