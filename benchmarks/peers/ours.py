"""`python -m pretrain` or `python -m sft`, step by step: our side of a comparison in turns.

python -m benchmarks.peers.ours     then {"command": "pretrain", "config": FILE} on standard input
"""

import importlib
import sys
from collections import deque
from typing import Any

from benchmarks.peers.turns import Turns
from core.errors import run_command


def main() -> int | None:
    """Train as the command does, one turn after the other."""
    turns = Turns()
    import deepspeed  # noqa: F401  imported before memory is measured
    import transformers.modeling_utils  # noqa: F401

    from core.model.loss_head import IGNORED
    from core.train import dataloader, loop
    from core.train.logger import Log

    asked = turns.settings()
    padding, collate, start, advance = asked["padding"], dataloader.collate, Log.start, Log.advance
    ahead: deque[tuple[int, int, int]] = deque()  # of batches that are read and not trained on

    def counted(*arguments: Any) -> Any:
        batch = collate(*arguments)
        trained = int((batch["labels"] != IGNORED).sum())
        filled = trained if padding is None else int((batch["input_ids"] != padding).sum())
        ahead.append((batch["input_ids"].numel(), filled, trained))
        return batch

    def started(log: Any, *steps: int) -> None:
        start(log, *steps)
        turns.begin()

    def advanced(log: Any) -> None:
        advance(log)
        turns.count(*ahead.popleft())  # the step's only one
        turns.step()

    changed: Any = loop
    changed.collate = counted
    changed = Log
    changed.start, changed.advance = started, advanced
    sys.argv[1:] = ["--config", asked["config"]]
    code: int | None = importlib.import_module(f"{asked['command']}.__main__").main()
    turns.end()
    return code


if __name__ == "__main__":
    run_command(main)
