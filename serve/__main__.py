"""Serve a model as an assistant that cites what it found in your documents.

    python -m serve index  --corpus corpora/mine --output indexes/mine       passages of patents, to be searched
    python -m serve index  --corpus corpora/february --extends indexes/mine --output indexes/february
    python -m serve search indexes/mine "heat pump with two evaporators" --before 2015-01-06 --ipc F25B
    python -m serve search indexes/mine --queries questions.jsonl > found.jsonl
    python -m serve gate   --domain chats/domain.jsonl --general chats/general.jsonl --output gates/mine
"""

import argparse
from pathlib import Path
from typing import Any

from core.errors import UserError, run_command


def main() -> None:
    """The command line; each command is a function below."""
    parser = argparse.ArgumentParser(
        prog="python -m serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _gate(commands)
    arguments = parser.parse_args()
    run_command(lambda: arguments.call(arguments))


def _gate(commands: Any) -> None:
    """`gate`: make a classifier that lets only questions of the domain through, or try one."""
    command = commands.add_parser(
        "gate",
        help="make a gate that lets only questions of the domain through, or try one",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""Make a gate that lets only questions of the domain through, or try one.

    python -m serve gate --domain chats/patents.jsonl chats/law.jsonl \\
                         --general chats/alpaca.jsonl chats/sharegpt.jsonl --output gates/mine
    python -m serve gate --check gates/mine "What does claim 1 cover?" "How do I bake bread?"

Each side needs two sources with enough questions: the threshold is measured on sources that were held out.
The source of a chat is its `source`, or else its file.""",
    )
    chats = {"type": Path, "nargs": "+", "default": [], "metavar": "FILE_OR_FOLDER"}
    command.add_argument("--domain", **chats, help="chats about the domain: their first questions pass")
    command.add_argument("--general", **chats, help="chats about anything else")
    command.add_argument("--output", type=Path, metavar="DIR", help="the gate's folder")
    command.add_argument(
        "--refusals", type=float, default=0.01, metavar="SHARE",
        help="of each held-out source of the domain, at most this share is refused (default: 0.01)",
    )  # fmt: skip
    command.add_argument(
        "--seed", type=int, default=0, help="draws the sources to hold out, if there are more than 20"
    )
    command.add_argument("--force", action="store_true", help="replace an existing gate")
    command.add_argument("--check", nargs="+", metavar=("DIR", "QUESTION"), help="try a gate on questions")

    def call(given: argparse.Namespace) -> None:
        if given.check:
            from serve.gate import check

            check(Path(given.check[0]), given.check[1:])
            return
        if absent := [f"--{key}" for key in ("domain", "general", "output") if not getattr(given, key)]:
            raise UserError(f"{', '.join(absent)} missing. `python -m serve gate --help` has an example.")
        from serve.gate_training import build

        options = {"refusals": given.refusals, "seed": given.seed, "force": given.force}
        build(given.domain, given.general, given.output, **options)

    command.set_defaults(call=call)


if __name__ == "__main__":
    main()
