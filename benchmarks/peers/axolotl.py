"""axolotl's training command, step by step, in an environment of its own."""

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.peers.turns import Turns, follow_trainer


def main() -> None:
    """Train with the settings of the first line, one turn after the other."""
    turns = Turns()
    os.environ |= {"AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    import axolotl.train  # noqa: F401  imported before memory is measured
    from axolotl.cli.train import do_cli

    follow_trainer(turns)
    settings = turns.settings()
    sys.argv[1:] = []
    file = Path(f"{settings['output_dir']}.yaml")
    file.write_text(json.dumps(settings), "utf-8")
    do_cli(str(file))
    turns.end()


if __name__ == "__main__":
    main()
