"""`python -m pretrain` with parameter groups of at most N elements, so that a tiny model has several:
`python -m tests.pretrain.small_groups N [key=value …]`."""

import sys

from core.errors import run_command
from core.model import parameter_groups
from pretrain.__main__ import main

if __name__ == "__main__":
    parameter_groups.LARGEST_GROUP = parameter_groups.LARGEST_PIECE = int(sys.argv.pop(1))
    run_command(main)
