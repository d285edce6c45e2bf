"""Instruction tuning: chats and a base model in, a model that answers (or a LoRA adapter for it) out.

    python -m sft --config configs/sft/tiny.yaml --prepare     tokenise the chats of all stages
    python -m sft --config configs/sft/tiny.yaml               train on one process (CPU or one GPU)
    python -m core.launch -m sft --config FILE                 train on every GPU of the machine
    python -m sft --config FILE --dry-run                      check everything but the weights
    python -m sft preview --config FILE                        the first chats, trained tokens coloured
    python -m sft dpo --config FILE                            preference tuning, as the step after
    python -m sft merge --adapter RUN/model --output FOLDER    the adapter added to its base, bf16 or --dtype
    python -m sft chat --model FOLDER [--adapter FOLDER]       talk to a model in the terminal
    python -m sft card --run RUN [--evaluation FOLDER]         the model card, from the run's records

`key.path=value` overrides any key, --keys lists them all. The result is RUN/model; the same command again
continues from RUN/checkpoints. Each stage has its own folder in RUN.
"""

import argparse
import importlib
import sys

from core.config.loader import from_arguments
from core.errors import run_command

COMMANDS = {"preview": "preview", "dpo": "dpo", "merge": "merge_adapter", "chat": "chat", "card": "card"}
"""Commands of this room besides training, and their modules."""


def main() -> int | None:
    """Read the configuration, then check, prepare or train; or run another command of this room."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        result: int | None = importlib.import_module(f"sft.{COMMANDS[sys.argv[1]]}").main(sys.argv[2:])
        return result
    from core.train import trainer
    from sft.config import SftConfig

    parser = argparse.ArgumentParser(
        prog="python -m sft", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    trainer.add_run_arguments(parser, default="configs/sft/tiny.yaml")
    arguments = parser.parse_intermixed_args()
    config = from_arguments(SftConfig, arguments)
    if config is None:
        return None
    from sft.recipe import recipes

    return trainer.run(recipes(config), arguments)


if __name__ == "__main__":
    run_command(main)
