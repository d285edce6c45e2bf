"""Make a corpus out of raw patents.

    python -m data inspect /data/patents > mine.yaml       what is in a folder; prints a configuration
    python -m data run --config configs/data/tiny.yaml     every step, from raw files to the packed corpus
    python -m data run 'sources=[/data/uspto,/data/epo]' output_dir=corpora/mine
    python -m data run --until dedup                       … up to a step; a later run continues there
    python -m data run --keys                              every key of the configuration
    python -m data run --config mine.yaml --dry-run        check paths, keys and models; read nothing
    python -m data stats corpora/tiny                      documents and tokens by office, language and step
    python -m data show corpora/tiny                       what is in a finished corpus, step by step
    python -m data show corpora/tiny US-8930553-B2         a record before and after cleaning, rule by rule
    python -m data texts corpora/tiny --output texts/tiny  the held-out documents as text, for `eval run`
    python -m data tokenizer --vocabulary-size 8000 --output tokenizers/patents FILE_OR_FOLDER ...
    python -m data tokenizer extend --help                 add pieces to a LLaMA tokenizer and its model
    python -m data synthesize --inventions 1000 --output corpora/made-up
    python -m data everyday --stories 1000 --chats 500 --output corpora/everyday   synthetic general text
    python -m data chats --config mine.yaml --tokenizer models/base      instruction data to token ids
    python -m data build corpus=corpora/tiny/decontaminate output_dir=chats/patents   … made from a corpus
    python -m data generate --endpoint URL --config qa.yaml   … written by a model from documents
    python -m data preview chats/mine                      the first chats, trained tokens in colour

Finished steps are not repeated, and nothing is overwritten without --force.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from core.config.loader import add_arguments, from_arguments
from core.errors import UserError, run_command
from core.provenance import manifest


def main() -> None:
    """The command line; each command is a function below."""
    if sys.argv[1:3] == ["tokenizer", "extend"]:
        from data.packing.vocab_extension import main as extend

        run_command(lambda: extend(sys.argv[3:]))
    arguments = command_line().parse_args()
    run_command(lambda: arguments.call(arguments))


def command_line() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="every step, from raw files to the packed corpus")
    add_arguments(command, default="configs/data/tiny.yaml")
    command.add_argument("--force", action="store_true", help="repeat every step and overwrite the results")
    command.add_argument(
        "--until",
        choices=("ingest", "clean", "dedup", "decontaminate", "tokenizer", "pack"),
        default="pack",
        help="stop after this step; a later run continues there",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="check everything without reading a document, then exit"
    )
    command.set_defaults(call=run)

    command = commands.add_parser("stats", help="documents and tokens by office, language and step")
    command.add_argument("corpus", type=Path, metavar="DIR")
    command.set_defaults(call=stats)

    command = commands.add_parser("inspect", help="what is in a folder, and a configuration to start from")
    command.add_argument("folder", type=Path, metavar="FILE_OR_FOLDER")
    command.add_argument(
        "--documents", type=int, default=1000, metavar="N", help="read the first N documents of each file"
    )
    command.set_defaults(call=inspect)

    command = commands.add_parser("tokenizer", help="train a SentencePiece tokenizer on raw patents")
    command.add_argument("sources", nargs="+", metavar="FILE_OR_FOLDER")
    command.add_argument("--vocabulary-size", type=int, required=True, metavar="N")
    command.add_argument("--output", type=Path, required=True, metavar="DIR")
    command.set_defaults(call=train_tokenizer)

    command = commands.add_parser(
        "synthesize", help="write synthetic bilingual patents with their ground truth"
    )
    command.add_argument("--inventions", type=int, default=1000, metavar="N")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--fields", nargs="+", default=[], metavar="NAME", help="fields of data/synthetic/lexicon.yaml to use"
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR")
    command.set_defaults(call=write_synthetic)

    command = commands.add_parser("everyday", help="write synthetic bilingual stories and general chats")
    command.add_argument("--stories", type=int, default=1000, metavar="N")
    command.add_argument("--chats", type=int, default=1000, metavar="N")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--output", type=Path, required=True, metavar="DIR")
    command.set_defaults(call=write_everyday)

    command = commands.add_parser("show", help="what is in a finished corpus, step by step")
    command.add_argument("corpus", type=Path, metavar="DIR")
    command.add_argument("record", nargs="?", metavar="ID", help="this record before and after cleaning")
    command.set_defaults(call=show)

    command = commands.add_parser("texts", help="the held-out documents of a finished corpus as text")
    command.add_argument("corpus", type=Path, metavar="DIR")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="for validation.jsonl")
    command.add_argument("--number", type=int, metavar="N", help="N of them, drawn (default: all)")
    command.add_argument("--force", action="store_true", help="make it again and overwrite it")
    command.set_defaults(call=texts)
    add_chat_commands(commands)
    return parser


def add_chat_commands(commands: Any) -> None:
    """The commands for instruction data."""
    command = commands.add_parser("chats", help="convert instruction data to token ids before training")
    add_arguments(command, default=None)
    command.add_argument(
        "--tokenizer", required=True, metavar="DIR", help="the model's folder, or its hub id"
    )
    command.add_argument("--force", action="store_true", help="make it again and overwrite it")
    command.set_defaults(call=chats)

    command = commands.add_parser("build", help="make patent instruction data from a corpus's records")
    add_arguments(command, default=None)
    command.add_argument("--force", action="store_true", help="make it again and overwrite it")
    command.set_defaults(call=build)

    command = commands.add_parser("generate", help="have a model write instruction data from documents")
    add_arguments(command, default=None)
    command.add_argument(
        "--endpoint", metavar="URL", help="URL of an OpenAI-compatible endpoint (endpoint.url)"
    )
    command.add_argument("--force", action="store_true", help="make it again and overwrite it")
    command.set_defaults(call=generate)

    command = commands.add_parser("preview", help="the first prepared chats, trained tokens in colour")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--chats", type=int, default=3, metavar="N")
    command.set_defaults(call=preview)


def run(arguments: argparse.Namespace) -> None:
    """Run the pipeline."""
    from data import pipeline

    config = from_arguments(pipeline.DataConfig, arguments)
    if config is not None and arguments.dry_run:
        from core import dry_run
        from data.dry_run import looks

        dry_run.report(looks(config))
    elif config is not None:
        pipeline.run(config, force=arguments.force, until=arguments.until)


def stats(arguments: argparse.Namespace) -> None:
    """Print the tables of a corpus's report, from its manifests."""
    from core import html_report
    from data.corpus_report import finished_steps, removals, stages

    counts = finished_steps(arguments.corpus)
    print(html_report.text_table(*stages(counts)))
    if removed := removals(counts):
        print("\n" + html_report.text_table(("step", "rule", "number"), removed))


def inspect(arguments: argparse.Namespace) -> None:
    """Print a report on raw files."""
    from data.inspect_sources import inspect as report_on

    if arguments.documents < 1:
        raise UserError(f"--documents {arguments.documents}: must be 1 or more.")
    print(report_on(arguments.folder, arguments.documents), end="")


def train_tokenizer(arguments: argparse.Namespace) -> None:
    """Train a tokenizer on raw patents, without the rest of the pipeline."""
    import tempfile

    from core.config.loader import load
    from data.packing.tokenizer import TokenizerConfig, prepare_tokenizer, record_texts
    from data.readers.ingest import ingest
    from data.readers.source import Source
    from data.readers.source_files import input_hashes
    from data.record_store import read_records

    config = load(TokenizerConfig, None, [f"vocabulary_size={arguments.vocabulary_size}"])
    sources = [Source(path=path) for path in arguments.sources]
    settings = {"tokenizer": config.model_dump(mode="json")}
    inputs = input_hashes(sources)
    with (
        manifest.build(arguments.output, step="tokenizer", config=settings, inputs=inputs) as built,
        tempfile.TemporaryDirectory() as scratch,
    ):
        ingest(sources, Path(scratch), None)
        tokenizer = prepare_tokenizer(config, record_texts(read_records(Path(scratch))), built.path)
        built.counts["vocabulary"] = len(tokenizer)
    print(f"{len(tokenizer):,} tokens: {arguments.output}")


def write_synthetic(arguments: argparse.Namespace) -> None:
    """Write synthetic patents."""
    from data.synthetic.patents import synthesize

    if arguments.inventions < 1:
        raise UserError(f"--inventions {arguments.inventions}: must be 1 or more.")
    settings = {name: getattr(arguments, name) for name in ("inventions", "seed", "fields")}
    with manifest.build(arguments.output, step="synthetic", config=settings, inputs={}) as built:
        built.counts = synthesize(built.path, **settings)
    print(f"{arguments.inventions:,} inventions: {arguments.output}")


def write_everyday(arguments: argparse.Namespace) -> None:
    """Write synthetic everyday texts and chats."""
    from data.synthetic.general_text import synthesize

    settings = {name: getattr(arguments, name) for name in ("stories", "chats", "seed")}
    if min(settings.values()) < 0:
        raise UserError("--stories, --chats and --seed: must be 0 or more.")
    with manifest.build(arguments.output, step="everyday", config=settings, inputs={}) as built:
        built.counts = synthesize(built.path, **settings)
    print(f"{2 * arguments.stories:,} texts, {arguments.chats:,} chats: {arguments.output}")


def show(arguments: argparse.Namespace) -> None:
    """Print the counts of every step of a corpus, or what cleaning did to one of its records."""
    from data.corpus_report import describe, finished_steps

    if arguments.record:
        from data.show_record import describe_record

        print("\n".join(describe_record(arguments.corpus, arguments.record)))
        return
    for step, counts in finished_steps(arguments.corpus).items():
        print("\n".join([f"{step:<15}{arguments.corpus / step}", *describe(step, counts)]))


def texts(arguments: argparse.Namespace) -> None:
    """Write the held-out documents of a corpus."""
    from data.texts import write

    if arguments.number is not None and arguments.number < 1:
        raise UserError(f"--number {arguments.number}: must be 1 or more.")
    counts = write(arguments.corpus, arguments.output, arguments.number, force=arguments.force)
    print(
        f"{counts['documents']:,} of {counts['held_out']:,} held-out documents ({counts['bytes']:,} bytes),"
        f" of no invention that was trained on: {arguments.output}"
    )


def chats(arguments: argparse.Namespace) -> None:
    """Prepare a folder of tokenised chats."""
    from data.chat.config import ChatDataConfig
    from data.chat.prepare import prepare

    config = from_arguments(ChatDataConfig, arguments)
    if config is not None:
        prepare(config, arguments.tokenizer, force=arguments.force)


def build(arguments: argparse.Namespace) -> None:
    """Write instruction samples from records and print the counts by task."""
    from core import html_report
    from data.chat.from_patents import BuildConfig
    from data.chat.from_patents import build as make

    config = from_arguments(BuildConfig, arguments)
    if config is None:
        return
    counts = make(config, force=arguments.force)
    sides = counts["train"], counts["validation"]
    rows = [(task, *(f"{side.get(task, 0):,}" for side in sides)) for task in config.samples]
    print(html_report.text_table(("task", "train", "validation"), rows))
    removed, too_long = counts["near_duplicates_removed"], counts["too_long"]
    print(f"{removed:,} near-duplicates across the split removed, {too_long:,} too long: {config.output_dir}")
    for task, number in counts.get("pairs", {}).items():
        print(f"{number:,} preference pairs of {task}")


def generate(arguments: argparse.Namespace) -> None:
    """Write instruction samples by a model behind an endpoint; print what was dropped and what they cost."""
    from data.chat.generate_with_llm import GenerateConfig
    from data.chat.generate_with_llm import generate as make

    if arguments.endpoint:
        arguments.overrides.append(f"endpoint.url={arguments.endpoint}")
    config = from_arguments(GenerateConfig, arguments)
    if config is None:
        return
    counts = make(config, force=arguments.force)
    for name, value in counts.items():
        text = (
            ", ".join(f"{key} {n:,}" for key, n in value.items()) if isinstance(value, dict) else f"{value:,}"
        )
        print(f"{name:<18}{text or '0'}")


def preview(arguments: argparse.Namespace) -> None:
    """Print the first chats of a prepared folder, in colour on a terminal."""
    from core.model.loading import load_tokenizer
    from data.chat.prepare import ChatSet
    from data.chat.preview import preview

    made = ChatSet(arguments.folder)
    shown = preview(
        made, load_tokenizer(str(made.tokenizer)), chats=arguments.chats, colour=sys.stdout.isatty()
    )
    print(shown, end="")


if __name__ == "__main__":
    main()
