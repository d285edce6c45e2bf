"""Continued pretraining: a packed corpus and a base model in, a model that transformers opens out.

    python -m pretrain --config configs/pretrain/tiny.yaml --prepare   make corpus and base, in one process
    python -m pretrain --config configs/pretrain/tiny.yaml             train on one process (CPU or one GPU)
    python -m core.launch -m pretrain --config FILE                    train on every GPU of the machine
    python -m pretrain --config FILE optimizer.learning_rate=1e-5      override any key; --keys lists them all
    python -m pretrain estimate --config FILE --gpus 8                 memory and time, before anything starts
    python -m pretrain --config FILE --dry-run                         check everything but the weights
    python -m pretrain smoke --processes 8                             try the node before a long run
    python -m pretrain lengthen --base MODEL --output DIR --rope yarn --max-position-embeddings 32768
    python -m pretrain card --run RUN [--evaluation FOLDER]            the model card, from the run's records

The result is RUN/model; the same command again continues from RUN/checkpoints. RUN also holds config.yaml,
metrics.jsonl, log.txt and loss.png.
"""

import argparse
import importlib
import sys

from core.config.loader import from_arguments
from core.errors import run_command

COMMANDS = {"estimate": "estimate", "smoke": "smoke_test", "card": "card", "lengthen": "lengthen"}
"""Commands of this room besides training, and their modules."""


def main() -> int | None:
    """Read the configuration, then check, prepare or train; or run another command of this room."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        result: int | None = importlib.import_module(f"pretrain.{COMMANDS[sys.argv[1]]}").main(sys.argv[2:])
        return result
    from core.train import trainer

    parser = argparse.ArgumentParser(
        prog="python -m pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    trainer.add_run_arguments(parser, default="configs/pretrain/tiny.yaml")
    arguments = parser.parse_intermixed_args()
    from pretrain.config import PretrainConfig
    from pretrain.recipe import PretrainRecipe

    config = from_arguments(PretrainConfig, arguments)
    return None if config is None else trainer.run([PretrainRecipe(config)], arguments)


if __name__ == "__main__":
    run_command(main)
