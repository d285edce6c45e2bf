"""The launcher, to which SIGUSR1 comes just behind the taking of the lock with which it polls a rank.

python -m tests.core.distributed.signalled_poll --processes 2 -m tests.core.distributed.sleeping_rank FOLDER
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from core.launch import main

Popen: Any = subprocess.Popen
poll = Popen._internal_poll


def interrupted(process: Any, *arguments: Any, **more: Any) -> Any:
    """Poll; once all ranks are there, the signal's handler raises with the lock taken."""
    if len(list(Path(sys.argv[-1]).iterdir())) == 2:
        Popen._internal_poll = poll
        process._waitpid_lock.acquire()
        os.kill(os.getpid(), signal.SIGUSR1)
    return poll(process, *arguments, **more)


if __name__ == "__main__":
    Popen._internal_poll = interrupted
    sys.exit(main(sys.argv[1:]))
