"""Who is named when processes stop working: two small processes and the store between them."""

import os
import signal
import subprocess
import sys

import pytest
from torch._C._distributed_c10d import TCPStore

from core.launch import free_port
from tests.conftest import ROOT, run

PROCESS = """
import sys, time
from core.distributed.watchdog import Watch
rank, marks, then = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
watch = Watch(rank, 2, timeout_s=3.0)
watch.start()
for _ in range(marks):
    watch.mark()
    time.sleep(0.1)
print("ready", flush=True)
if then == "leave":
    watch.leave()
    assert not watch.is_alive()
    sys.exit(0)
while True:
    if then == "work":
        watch.mark()
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("first", "second", "number", "words"),
    [
        ((9, "wait"), (3, "wait"), None, "hangs"),  # both wait, the second has done less
        ((9, "work"), (9, "work"), signal.SIGKILL, "died"),
        ((9, "work"), (9, "work"), signal.SIGSTOP, "has not responded for"),
    ],
)
def test_the_second_of_two_processes_is_named(
    first: tuple[int, str], second: tuple[int, str], number: signal.Signals | None, words: str
) -> None:
    port = int(free_port())
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(marks), then], cwd=ROOT, env=environment,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank, (marks, then) in enumerate([first, second])
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    if number:
        processes[1].send_signal(number)
    told = [process.communicate(timeout=60)[1] for process in processes]
    assert processes[0].returncode == 3
    assert f"rank 1 (process {processes[1].pid} on" in told[0]
    assert words in told[0] + told[1], "one that still runs may find itself to be the one, and end first"
    assert processes[1].returncode == -signal.SIGKILL, "a process that hangs is ended"
    del store


def test_a_process_that_left_by_itself_is_not_taken_for_dead() -> None:
    port = int(free_port())
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", PROCESS]
    leaving = subprocess.Popen([*command, "1", "1", "leave"], cwd=ROOT, env=environment)
    staying = subprocess.Popen(
        [*command, "0", "1", "work"], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    )
    assert leaving.wait(timeout=60) == 0
    with pytest.raises(subprocess.TimeoutExpired):
        staying.wait(timeout=5)
    staying.kill()
    staying.communicate()
    del store


@pytest.mark.slow
@pytest.mark.parametrize("work", ["read", "child", "wait"])
def test_the_main_process_may_read_for_as_long_as_it_takes_but_not_hang(work: str) -> None:
    done = run("core.launch", "--processes", "2", "-m", "tests.core.distributed.slow_main", work)
    if work == "wait":
        assert done.returncode != 0
        assert "error: rank 0 " in done.stderr
        assert "hangs: no progress for" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_rank_may_exit_long_after_the_one_that_holds_the_store() -> None:
    place = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "core.launch", "--processes", "1", "--nnodes=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-id=1", place, "--local-addr=127.0.0.1", "-m", "tests.core.distributed.late_rank", "4"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    hosts = [
        subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        told = [host.communicate(timeout=120)[1] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0], told


def test_processes_do_not_outlive_a_launcher_that_was_killed() -> None:
    port = int(free_port())
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, "0", "1", "work"], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    del store
    _, told = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "the launcher" in told
