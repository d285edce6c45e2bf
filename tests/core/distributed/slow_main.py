"""A run whose rank 0 does something alone for longer than processes may be without progress (6 s) and than
collective operations may take (12 s): `python -m core.launch --processes 2 -m
tests.core.distributed.slow_main read|child|wait`. 14 s of reading, by itself or by a child, or of nothing."""

import subprocess
import sys
import time
from pathlib import Path

from core.errors import run_command


def main() -> None:
    """Join the others; rank 0 works, the others wait for it."""
    from core.distributed import process_group

    world = process_group.setup(0.1)
    for _ in range(world.rank):
        world.mark()
    process_group.on_main(world, {"read": read, "child": child, "wait": wait}[sys.argv[1]])
    process_group.teardown(world)


def read() -> None:
    """As one who hashes a large file on a slow disk."""
    end = time.monotonic() + 14
    with Path("/dev/zero").open("rb", buffering=0) as file:
        while time.monotonic() < end:
            file.read(2**21)
            time.sleep(0.1)


def child() -> None:
    """As the conversion of a checkpoint, which is a process."""
    code = "from tests.core.distributed.slow_main import read; read()"
    subprocess.run([sys.executable, "-c", code], check=True)


def wait() -> None:
    """As one who hangs."""
    time.sleep(60)


if __name__ == "__main__":
    run_command(main)
