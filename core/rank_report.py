"""An error in a run of several processes is printed once: by rank 0 if it fails too, else by the first one.

The processes that a launcher started on one machine agree through a file next to the launcher's own: the one
that creates it prints. The others failed because of it, or in the same way, and exit silently.
"""

import json
import os
import signal
import tempfile
import time
import traceback
from pathlib import Path

WAIT_S = 5.0
"""How long other ranks wait for rank 0 to print, and a rank that crashed for the one that caused it."""

trace_folder: Path | None = None
"""Where a crashed rank writes its traceback: the run's folder, once it is known (core/train/logger.py)."""


def is_one_of_several() -> bool:
    """Whether a launcher started this process among others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def report(message: str) -> str | None:
    """The line that this process should print about an error, or None if another process of this machine has
    printed."""
    rank = os.environ.get("RANK", "0")
    if is_one_of_several() and not _may_print(wait=rank != "0"):
        return None
    _tell_torchrun(message)
    return message if rank == "0" else f"rank {rank}: {message}"


def report_crash(error: Exception) -> str | None:
    """As `report`, for an error that is not the user's: its traceback goes to a file, which the line names.

    Most often another rank died and the connection to it broke; that one, or the watchdog, is to print.
    """
    rank = os.environ.get("RANK", "0")
    folder = trace_folder or Path(tempfile.gettempdir())
    file = folder / f"traceback-rank-{rank}.txt"
    file.write_text("".join(traceback.format_exception(error)), "utf-8")
    if not _may_print(wait=True):
        return None
    first_line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"rank {rank}: {type(error).__name__}: {first_line[:300]}\nTraceback: {file}"


def _may_print(*, wait: bool) -> bool:
    """Whether this process is the first of its machine to ask; during the wait, SIGTERM ends it."""
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if wait:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    marker = Path(place).parents[1] / "printed" if place else None
    end = time.monotonic() + (WAIT_S if wait else 0)
    while time.monotonic() < end and not (marker and marker.exists()):
        time.sleep(0.05)
    if marker is None:
        return True
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # the launcher is already removing its files
        return True
    return True


def _tell_torchrun(message: str) -> None:
    """Put the message where torchrun, started without core/launch.py, looks for the reason of a failure."""
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not place or "PATENT_LLAMA_LAUNCH" in os.environ:
        return
    reason = {"message": f"error: {message}", "extraInfo": {"timestamp": str(int(time.time()))}}
    try:
        Path(place).write_text(json.dumps({"message": reason}), "utf-8")
    except OSError:
        return
