"""A rank that writes its environment to FOLDER/environment.json, and each signal it gets to FOLDER/signals;
SIGUSR1 ends it: `python -m core.launch --hostfile HOSTS -m tests.core.distributed.noting_rank FOLDER`."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from core.errors import run_command
from core.provenance import atomic_io


def main() -> int:
    """Note what comes."""
    folder = Path(sys.argv[1])
    received: list[int] = []
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, _: received.append(number))
    atomic_io.write_text(folder / "environment.json", json.dumps(dict(os.environ)))
    while not received:
        time.sleep(0.05)
    atomic_io.write_text(folder / "signals", " ".join(signal.Signals(each).name for each in received))
    return 7


if __name__ == "__main__":
    run_command(main)
