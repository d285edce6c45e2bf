"""A run whose rank 1 exits SECONDS after rank 0, when all work is done:
`python -m core.launch --processes 2 -m tests.core.distributed.late_rank SECONDS`."""

import sys
import time

from core.errors import run_command


def main() -> None:
    """Join the others, leave them, and take long to exit."""
    from core.distributed import process_group

    world = process_group.setup(0.1)  # its watchdog looks every 0.6 s
    process_group.teardown(world)
    time.sleep(float(sys.argv[1]) * world.rank)


if __name__ == "__main__":
    run_command(main)
