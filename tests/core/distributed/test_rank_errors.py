"""What a user sees of an error in a run of several processes: one line, whoever fails, and no traceback."""

from pathlib import Path

import pytest

from tests.conftest import run

FAILS = "tests.core.distributed.one_rank_fails"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_users_mistake_on_one_rank_is_one_line_and_exit_code_2(rank: int, tmp_path: Path) -> None:
    done = run("core.launch", "--processes", "2", "-m", FAILS, str(rank), "user", tmp_path)
    assert done.returncode == 2, done.stderr
    prefix = "" if rank == 0 else "rank 1: "
    assert done.stderr == f"error: {prefix}/data/patents.bin: no such file\n"
    assert done.stdout == ""


def test_a_bug_on_one_rank_names_the_files_of_its_traceback_and_of_the_launchers_log(tmp_path: Path) -> None:
    done = run("core.launch", "--processes", "2", "-m", FAILS, "1", "bug", tmp_path)
    assert done.returncode == 1, done.stderr
    file = tmp_path / "traceback-rank-1.txt"
    lines = done.stderr.splitlines()
    assert lines[:2] == ["error: rank 1: RuntimeError: a bug", f"Traceback: {file}"]
    assert lines[2].startswith("error: rank 1 ended: exit code 1. torchrun's log: ")
    assert len(lines) == 3
    assert 'raise RuntimeError("a bug")' in file.read_text()
    log = Path(lines[2].rpartition(" ")[2])
    assert "exitcode  : 1" in log.read_text()
    log.unlink()


def test_a_mistake_that_all_ranks_find_is_printed_once(tmp_path: Path) -> None:
    done = run("core.launch", "--processes", "2", "-m", "pretrain", "optimizer.rate=1", f"run_dir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count("error") == 2, "error: the configuration has 1 error: …"
    assert len(done.stderr.splitlines()) == 2


def test_torchrun_alone_repeats_the_message_as_the_last_reason(tmp_path: Path) -> None:
    done = run(
        "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", FAILS, "0", "user", tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: /data/patents.bin: no such file\n")
    assert "traceback : error: /data/patents.bin: no such file" in done.stderr
