"""The first chats of every stage as the model sees them, trained tokens in green.

python -m sft preview --config FILE [--chats 3] [key=value]
"""

import argparse
import os
import sys

from core.config.loader import add_arguments, from_arguments
from sft.config import SftConfig


def main(arguments: list[str]) -> None:
    """Print the first chats of every stage; its data must have been made."""
    parser = argparse.ArgumentParser(
        prog="python -m sft preview",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, default="configs/sft/tiny.yaml")
    parser.add_argument("--chats", type=int, default=3, help="how many of each stage")
    given = parser.parse_intermixed_args(arguments)
    config = from_arguments(SftConfig, given)
    if config is None:
        return
    from core.model.loading import load_tokenizer
    from data.chat.preview import preview
    from sft.recipe import recipes

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for recipe in recipes(config):
        chats = recipe.chats()
        print(f"--- {chats.folder}")
        print(preview(chats, load_tokenizer(str(chats.tokenizer)), chats=given.chats, colour=colour))
