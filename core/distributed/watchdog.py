"""A process of the run that died or hangs ends the run within a set time, and is named.

Alone, the others would wait for it in a collective operation, which at best ends with a timeout that names
nobody. Here a thread of each process tells all others, through the store that the launcher keeps, that it
lives and how far its training thread is. Who is silent too long hangs, be it the machine or the process;
where all are silent in their work, those hang that are furthest behind, for whom the others wait.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistError

LEFT = "left"
Since = dict[int, tuple[str, float]]
"""What each process said last, and when (by this process's clock) that was new."""
GRACE_S = 60.0
"""A process that left by itself has told why; where no launcher ends the others, they end after this."""
EXIT_CODE = 3


class Watch(threading.Thread):
    """Tells that this process lives, and ends it, with the name of the culprit, when another one does not."""

    def __init__(self, rank: int, size: int, timeout_s: float) -> None:
        """Watch all `size` processes from now on; `mark` must be called more often than every `timeout_s`."""
        super().__init__(daemon=True, name="watch")
        self.rank, self.size, self.timeout_s = rank, size, timeout_s
        self._marks, self._over = 0, threading.Event()
        self._host, patience = os.uname().nodename, timedelta(seconds=timeout_s)
        self._store = TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=patience
        )
        self._store.set(self._key("place", rank), f"{os.getpid()} {self._host}")

    def mark(self) -> None:
        """The training thread goes on to its next piece of work."""
        self._marks += 1

    def leave(self) -> None:
        """This process ends by itself. The thread ends first: one that comes back from the store while the
        interpreter is taken down aborts the process."""
        if not self._over.is_set():
            self._over.set()
            with suppress(DistError):  # the store may have left first
                self._store.set(self._key("beat", self.rank), LEFT)
            self.join(min(10.0, self.timeout_s))

    def run(self) -> None:
        """Beat, look at the others, and end this process when one of them is lost."""
        seen = dict.fromkeys(range(self.size), ("", time.monotonic()))
        worked = dict.fromkeys(range(self.size), ("", time.monotonic()))
        beats = 0
        try:
            while not self._over.wait(min(5.0, self.timeout_s / 10)):
                beats += 1
                self._store.set(self._key("beat", self.rank), f"{beats} {self._marks}")
                for rank in range(self.size):
                    now = self._beat(rank)
                    if now != seen[rank][0]:
                        seen[rank] = (now, time.monotonic())
                    if now.partition(" ")[2] != worked[rank][0]:
                        worked[rank] = (now.partition(" ")[2], time.monotonic())
                if lost := self._lost(seen, worked):
                    self._end(*lost)
        except DistError:
            # A launcher that was killed ends nobody, and its processes must not work beside the next run's.
            if not self._over.is_set():
                print(
                    f"error: rank {self.rank}: the launcher, which keeps the store, does not answer; the"
                    " run ends.",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
                os._exit(EXIT_CODE)

    def _beat(self, rank: int) -> str:
        key = self._key("beat", rank)
        return self._store.get(key).decode() if self._store.check([key]) else ""

    def _lost(self, seen: Since, worked: Since) -> tuple[int, str] | None:
        """A process that died, is silent, or keeps the others waiting, and what to say of it."""
        now = time.monotonic()
        for rank, (beat, since) in seen.items():
            if beat == LEFT:
                if now - since > GRACE_S:
                    return rank, "left the run"
            elif beat and not self._runs(rank):
                return rank, "died"
            elif now - since > self.timeout_s:
                return rank, f"gave no sign for {now - since:.0f} s"
        if all(now - since > self.timeout_s for _, since in worked.values()):
            behind = min(worked, key=lambda rank: int(worked[rank][0] or 0))
            return behind, f"hangs: no work for {now - worked[behind][1]:.0f} s, and the others wait for it"
        return None

    def _runs(self, rank: int) -> bool:
        """False where a process of this machine is gone, or ended and its parent has not looked at it yet."""
        pid, _, host = self._store.get(self._key("place", rank)).decode().partition(" ")
        if host != self._host:
            return True
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return not Path("/proc/self").exists()

    def _end(self, culprit: int, words: str) -> None:
        pid, _, host = self._store.get(self._key("place", culprit)).decode().partition(" ")
        print(
            f"error: rank {culprit} (process {pid} on {host}) {words}; the run ends. Its"
            " checkpoints are good: the same command goes on from the newest.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        if host == self._host and "died" not in words and "left" not in words:
            os.kill(int(pid), signal.SIGKILL)
        os._exit(EXIT_CODE)

    @staticmethod
    def _key(kind: str, rank: int) -> str:
        return f"watch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{kind}/{rank}"
