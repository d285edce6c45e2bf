"""Write the model card (README.md) of a run of `python -m sft` or `python -m sft dpo` again."""

from pathlib import Path

import yaml

from core.config.loader import load
from core.train.model_card import command
from core.train.trainer import Recipe


def main(arguments: list[str]) -> None:
    """Read the run's configuration and write RUN/model/README.md."""
    command("python -m sft card", arguments, recipe_of)


def recipe_of(file: Path) -> Recipe:
    """The recipe of a run's config.yaml, which is one of preference tuning if it has `beta`."""
    if "beta" in yaml.safe_load(file.read_text("utf-8")):
        from sft.dpo import DpoConfig, DpoRecipe

        return DpoRecipe(load(DpoConfig, file))
    from sft.config import SftConfig
    from sft.recipe import SftRecipe

    return SftRecipe(load(SftConfig, file))
