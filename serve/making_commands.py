"""The commands that make what an assistant is trained and measured with: gate, grounded chats, questions."""

import argparse
from pathlib import Path
from typing import Any

from core.errors import UserError


def add(commands: Any) -> None:
    """Add the commands to the room's."""
    _gate_options(commands)
    _ground_options(commands)
    _queries_options(commands)


def _gate_options(commands: Any) -> None:
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
            from serve.gate.classifier import check

            check(Path(given.check[0]), given.check[1:])
            return
        if absent := [f"--{key}" for key in ("domain", "general", "output") if not getattr(given, key)]:
            raise UserError(f"{', '.join(absent)} missing. `python -m serve gate --help` has an example.")
        from serve.gate.training import build

        options = {"refusals": given.refusals, "seed": given.seed, "force": given.force}
        build(given.domain, given.general, given.output, **options)

    command.set_defaults(call=call)


def _ground_options(commands: Any) -> None:
    """`ground`: chats with sources, to train and to evaluate answers that cite."""
    command = commands.add_parser("ground", help="make chats with sources from a corpus, to learn to cite")
    command.add_argument(
        "--corpus", type=Path, nargs="+", required=True, metavar="DIR", help="as for `index`"
    )
    command.add_argument("--index", type=Path, required=True, metavar="DIR", help="its index")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="the chats' folder")
    command.add_argument("--number", type=int, default=2000, metavar="N", help="chats a file at most (2000)")
    command.add_argument(
        "--unanswerable",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="of chats without the right source (0.15)",
    )
    command.add_argument("--sources", type=int, default=5, metavar="N", help="sources of a chat at most (5)")
    command.add_argument(
        "--validation-share", type=float, default=0.01, metavar="SHARE",
        help="of inventions that are held out, as by `python -m data build` with the same seed (0.01)",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the split and all draws (0)")
    command.add_argument("--force", action="store_true", help="replace existing chats")

    def call(given: argparse.Namespace) -> None:
        from serve.ground import Settings, ground

        names = ("number", "unanswerable", "sources", "validation_share", "seed")
        settings = Settings(**{name: getattr(given, name) for name in names})
        counts = ground(given.corpus, given.index, given.output, settings, force=given.force)
        totals = {side: sum(counts[side].values()) for side in ("train", "validation")}
        print(
            f"{given.output}: {totals['train']:,} chats and {totals['validation']:,} of held-out inventions;"
            f" the index found the right one for {counts['found']:,} of {counts['searched']:,} questions"
        )

    command.set_defaults(call=call)


def _queries_options(commands: Any) -> None:
    """`queries`: prior-art questions whose answers the corpus itself cites."""
    command = commands.add_parser("queries", help="make prior-art questions from a corpus's own citations")
    command.add_argument(
        "--corpus", type=Path, nargs="+", required=True, metavar="DIR", help="as for `index`"
    )
    command.add_argument("--index", type=Path, required=True, metavar="DIR", help="what is evaluated")
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="for search --queries")
    command.add_argument(
        "--kind",
        choices=("citations", "families"),
        default="citations",
        help="what is to be found: what a record cites, or its invention in another language (citations)",
    )
    command.add_argument("--number", type=int, metavar="N", help="questions at most; default: all")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the questions' draw (0)")
    command.add_argument("--force", action="store_true", help="replace an existing file")

    def call(given: argparse.Namespace) -> None:
        from serve.queries import write_queries

        options = {"kind": given.kind, "force": given.force}
        counts = write_queries(given.corpus, given.index, given.output, given.number, given.seed, **options)
        of = {
            "citations": ("with_cites", "with citations"),
            "families": ("in_several_languages", "of families"),
        }
        name, words = of[given.kind]
        print(
            f"{given.output}: {counts['questions']:,} questions with {counts['relevant']:,} relevant"
            f" documents, from {counts[name]:,} records {words}"
        )

    command.set_defaults(call=call)
