"""A command that dies while it saves its second checkpoint, or saves slowly.

    python -m tests.pretrain.dying HOW pretrain run_dir=RUN training.save_every_steps=2 …

HOW is when it gets SIGKILL: in `write`, `hash`, `manifest`, before the `rename`, once `renamed`, at the
`remove` of the checkpoint before. Or `slow`: a checkpoint is renamed three seconds late.
"""

import os
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from core.checkpoint.async_writer import Background
from core.provenance import atomic_io, manifest

PLACES: dict[str, tuple[Any, str]] = {
    "write": (Background, "hash"),  # a first file is written
    "hash": (manifest, "hash_file"),
    "manifest": (manifest, "write"),
    "rename": (atomic_io, "replace"),
    "renamed": (atomic_io, "sync_folder"),
    "remove": (shutil, "rmtree"),
    "slow": (atomic_io, "replace"),
}
FIRST, SECOND = "step-00000002", "step-00000004"


def main(how: str) -> None:
    """Change the function that `how` names, and run the command."""
    (run,) = (word.removeprefix("run_dir=") for word in sys.argv if word.startswith("run_dir="))
    owner, name = PLACES[how]
    call = getattr(owner, name)

    def changed(*given: Any, **named: Any) -> Any:
        if how == "slow":
            time.sleep(3)
        elif any(Path(run).glob(f"checkpoints/*{SECOND}*")) and (how != "remove" or given[0].name == FIRST):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)

    setattr(owner, name, changed)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    main(sys.argv.pop(0))
