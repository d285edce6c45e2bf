"""The check of a machine: what it finds, and what to do about it."""

from pathlib import Path

from tests.conftest import run
from tools.doctor import ROOT, disk, packages


def test_this_machine_can_run_the_tests(tmp_path: Path) -> None:
    done = run("tools.doctor", "--processes", "2", "--folder", tmp_path)
    assert done.returncode == 0, done.stdout
    assert "ok  deepspeed" in done.stdout
    assert "summed over 2 processes by gloo" in done.stdout


def test_processes_that_do_not_start_fail_with_advice() -> None:
    done = run("tools.doctor", "--processes", "-1")
    assert done.returncode == 1
    assert "FAIL  launch        -1 processes: " in done.stdout
    assert "→ NCCL_DEBUG=INFO" in done.stdout


def test_another_version_than_the_tested_one_is_named(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    text = (ROOT / "constraints.txt").read_text()
    constraints.write_text(text.replace("jieba==", "jieba==9."))
    by_name = {finding.subject: finding for finding in packages(constraints)}
    assert by_name["jieba"].verdict == "note"
    assert "9.0" in by_name["jieba"].found
    assert by_name["sacrebleu"].verdict == "ok"


def test_a_version_older_than_needed_fails(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    text = (ROOT / "pyproject.toml").read_text()
    project.write_text(text.replace("torch>=2", "torch>=9").replace('"jieba"', '"jieba<0.1"'))
    by_name = {finding.subject: finding for finding in packages(project=project)}
    assert (by_name["torch"].verdict, by_name["jieba"].verdict) == ("FAIL", "FAIL")
    assert "torch>=9.11 is needed" in by_name["torch"].found
    assert by_name["deepspeed"].verdict == "ok"


def test_a_folder_that_does_not_exist_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    (finding,) = disk(tmp_path / "runs" / "patents")
    assert str(tmp_path) in finding.found
    assert finding.verdict in ("ok", "note")
