"""DeepSpeed's checkpoints in its universal form, which any number of processes can load.

step-N/state ──deepspeed.checkpoint.ds_to_universal, in a process of its own──▶ .step-N.universal/state
"""

import os
import subprocess
import sys
from pathlib import Path


def to_universal(folder: Path, target: Path) -> str | None:
    """Convert `folder`/state to `target`/state, which any number of processes can load; both folders have one
    parent. Returns DeepSpeed's error if it fails."""
    command = [sys.executable, "-P", "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    # It uses the paths as regular expressions: keep them short and relative.
    paths = ["--input_folder", f"{folder.name}/state", "--output_folder", f"{target.name}/state"]
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [*command, *paths], cwd=folder.parent, env=alone, capture_output=True, text=True, check=False
    )
    if not done.returncode:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
