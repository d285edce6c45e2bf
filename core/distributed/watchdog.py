"""Ends the run within a set time when one of its processes dies or hangs, and reports which one.

Without it the others would wait in a collective operation until a timeout that does not name the culprit.
Here a thread of each process writes a heartbeat, with the progress of its training thread, to the launcher's
store. A process without a new heartbeat for too long hangs, or its machine does. If all have heartbeats and
none makes progress, the one that is furthest behind hangs and the others wait for it. A process that reads or
writes (hashes a checkpoint, converts it in a child) makes progress, whatever its training thread waits for.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistError

from core.provenance.atomic_io import this_host

LEFT = "left"
Since = dict[int, tuple[str, float]]
"""The last heartbeat of each process, and when (by this process's clock) it arrived."""
GRACE_S = 60.0
"""A process that exits on its own reports why. If no launcher ends the others, they end after this time."""
EXIT_CODE = 3
RESUME = "Its checkpoints are complete: run the same command to resume from the newest."
BUSY_BYTES = 2**20
"""A process that has read or written as much since its last heartbeat is at work."""


class Watch(threading.Thread):
    """Sends this process's heartbeat, and ends this process, naming the culprit, if another one is lost."""

    def __init__(self, rank: int, size: int, timeout_s: float) -> None:
        """Watch all `size` processes; `mark` must be called at least once in every `timeout_s`."""
        super().__init__(daemon=True, name="watch")
        self.rank, self.size, self.timeout_s = rank, size, timeout_s
        self._marks, self._met, self._beats, self._left = 0, 0, 0, threading.Event()
        self._pause = min(5.0, timeout_s / 10)
        self._host, patience = this_host(), timedelta(seconds=timeout_s)
        self._store = TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=patience
        )
        self._store.set(self._key("process", rank), f"{os.getpid()} {self._host}")

    def mark(self) -> None:
        """Record that the training thread has reached its next piece of work."""
        self._marks += 1

    def meet(self) -> None:
        """Wait for all processes, without a time limit: this watch judges whether one of them hangs."""
        self._met += 1
        key, pause = self._key("met", self._met), 0.001
        arrived = self._store.add(key, 1)
        while arrived < self.size:
            time.sleep(pause)
            pause = min(2 * pause, 0.2)
            arrived = self._store.add(key, 0)

    def leave(self) -> None:
        """Report that this process exits on its own. The thread is joined first: returning from the store
        while the interpreter shuts down would abort the process."""
        if not self._left.is_set():
            self._left.set()
            with suppress(DistError):  # the store may be gone already
                self._store.set(self._key("beat", self.rank), LEFT)
            self.join(min(10.0, self.timeout_s))

    def run(self) -> None:
        """Send heartbeats, read those of the others, and end this process when one of them is lost."""
        seen = dict.fromkeys(range(self.size), ("", time.monotonic()))
        worked = dict.fromkeys(range(self.size), ("", time.monotonic()))
        marks, busy, before = -1, 0, 0
        threading.Thread(target=self._guard, daemon=True, name="guard").start()
        try:
            while not self._left.wait(self._pause):
                self._beats += 1
                if self._marks == marks:
                    moved = _bytes_moved()
                    busy, before = busy + (abs(moved - before) >= BUSY_BYTES), moved
                marks = self._marks
                self._store.set(self._key("beat", self.rank), f"{self._beats} {self._marks} {busy}")
                for rank in range(self.size):
                    now = self._beat(rank)
                    if now != seen[rank][0]:
                        seen[rank] = (now, time.monotonic())
                    if now.partition(" ")[2] != worked[rank][0]:
                        worked[rank] = (now.partition(" ")[2], time.monotonic())
                if lost := self._lost(seen, worked):
                    self._end(*lost)
        except DistError:
            # The ranks of a killed launcher must not keep working next to those of the next run.
            if not self._left.is_set():
                self._end_without_store()

    def _guard(self) -> None:
        """End this process if a call to the store does not return for too long: TCP takes a quarter of an
        hour to notice that a cable is cut."""
        before, waits = -1, 0
        while waits * self._pause <= self.timeout_s:
            if self._left.wait(self._pause):
                return
            waits = waits + 1 if self._beats == before else 0
            before = self._beats
        self._end_without_store()

    def _end_without_store(self) -> None:
        _say(f"rank {self.rank}: the launcher's store does not respond; this process exits.")
        os._exit(EXIT_CODE)

    def _beat(self, rank: int) -> str:
        key = self._key("beat", rank)
        return self._store.get(key).decode() if self._store.check([key]) else ""

    def _lost(self, seen: Since, worked: Since) -> tuple[int, str] | None:
        """A process that exited, does not respond, or keeps the others waiting, and the reason to report."""
        now = time.monotonic()
        for rank, (beat, since) in seen.items():
            if beat == LEFT:
                if now - since > GRACE_S:
                    return rank, "left the run"
            elif beat and not self._is_running(rank):
                return rank, "died"
            elif now - since > self.timeout_s:
                return rank, f"has not responded for {now - since:.0f} s"
        if all(now - since > self.timeout_s for _, since in worked.values()):
            behind = min(worked, key=lambda rank: int(worked[rank][0].partition(" ")[0] or 0))
            return (
                behind,
                f"hangs: no progress for {now - worked[behind][1]:.0f} s, and the others wait for it",
            )
        return None

    def _is_running(self, rank: int) -> bool:
        """False if a process of this machine does not exist any more or is a zombie."""
        pid, _, host = self._store.get(self._key("process", rank)).decode().partition(" ")
        if host != self._host:
            return True
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return not Path("/proc/self").exists()

    def _end(self, culprit: int, reason: str) -> None:
        pid, _, host = self._store.get(self._key("process", culprit)).decode().partition(" ")
        name = host.partition("@")[0]
        _say(f"rank {culprit} (process {pid} on {name}) {reason}; the run ends. {RESUME}")
        if host == self._host and "died" not in reason and "left" not in reason:
            os.kill(int(pid), signal.SIGKILL)
        os._exit(EXIT_CODE)

    @staticmethod
    def _key(kind: str, rank: int) -> str:
        return f"watch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{kind}/{rank}"


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


def _bytes_moved() -> int:
    """Bytes that this process and those that it started have read and written so far, of mapped files too."""
    me, moved = psutil.Process(), 0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error, OSError):  # it has ended, or the system does not tell
            counts = process.io_counters()
            moved += counts.read_chars + counts.write_chars + counts.read_bytes + counts.write_bytes
    return moved
