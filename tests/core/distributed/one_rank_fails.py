"""A run in which one rank fails while the others wait for it in a collective operation:
`python -m core.launch --processes 2 -m tests.core.distributed.one_rank_fails RANK user|bug FOLDER`."""

import sys
from pathlib import Path

import torch

from core import rank_report
from core.errors import UserError, run_command


def main() -> None:
    """Join the others; then the given rank fails."""
    from core.distributed import process_group
    from core.train.logger import quiet_libraries

    quiet_libraries()
    rank, kind, folder = sys.argv[1:4]
    rank_report.trace_folder = Path(folder)
    world = process_group.setup(2)
    if world.rank == int(rank) and kind == "user":
        raise UserError("/data/patents.bin: no such file")
    if world.rank == int(rank):
        raise RuntimeError("a bug")
    for _ in range(2):
        world.sum(torch.ones(()))


if __name__ == "__main__":
    run_command(main)
