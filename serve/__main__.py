"""Serve a model as an assistant that cites what it found in your documents.

    python -m serve index  --corpus corpora/mine --output indexes/mine       passages of patents, to be searched
    python -m serve index  --corpus corpora/february --extends indexes/mine --output indexes/february
    python -m serve search indexes/mine "heat pump with two evaporators" --before 2015-01-06 --ipc F25B
    python -m serve search indexes/mine --queries questions.jsonl > found.jsonl
    python -m serve gate   --domain chats/domain.jsonl --general chats/general.jsonl --output gates/mine
"""

import argparse
from pathlib import Path

from core.errors import UserError, run_command


def main() -> None:
    """The command line; each command is a function below."""
    parser = argparse.ArgumentParser(
        prog="python -m serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    arguments = parser.parse_args()
    run_command(lambda: arguments.call(arguments))


if __name__ == "__main__":
    main()
