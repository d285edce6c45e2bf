"""Work for the engine's tests, in a module of its own so that worker processes can import it."""

import os
import random
import time
from pathlib import Path
from typing import Any


def count_letters(shard: str, scratch: Path) -> dict[str, Any]:
    """Write the text's letters in order, slowly, and count them."""
    time.sleep(random.random() / 50)
    (scratch / "txt").write_text("".join(sorted(shard)))
    return {"letters": len(shard)}


def die_once(shard: str, scratch: Path) -> dict[str, Any]:
    """As `count_letters`, but the first process that meets the shard `c` is killed in the middle of it."""
    witness = scratch.parent.parent / "died"
    if shard == "c" and not witness.exists():
        witness.write_text(str(os.getpid()))
        (scratch / "txt").write_text("half")
        os._exit(9)
    return count_letters(shard, scratch)


def fail_at_c(shard: str, scratch: Path) -> dict[str, Any]:
    """As `count_letters`, but raises at the shard `c`."""
    if shard == "c":
        raise ValueError("no c")
    return count_letters(shard, scratch)
