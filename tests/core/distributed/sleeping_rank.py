"""A rank that waits for long, and leaves its process id as the name of a file in FOLDER:
`python -m core.launch --processes 2 -m tests.core.distributed.sleeping_rank FOLDER`."""

import os
import sys
import time
from pathlib import Path

from core.errors import run_command


def main() -> None:
    """Wait."""
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(300)


if __name__ == "__main__":
    run_command(main)
