"""Write the model card (README.md) of a pretraining run again: `python -m pretrain card --run RUN`."""

from core.config.loader import load
from core.train.model_card import command
from pretrain.config import PretrainConfig
from pretrain.recipe import PretrainRecipe


def main(arguments: list[str]) -> None:
    """Read the run's configuration and write RUN/model/README.md."""
    command("python -m pretrain card", arguments, lambda file: PretrainRecipe(load(PretrainConfig, file)))
