"""Serve a model as an assistant that cites what it found in your documents.

    python -m serve index  --corpus corpora/mine --output indexes/mine       passages, to be searched
    python -m serve index  --corpus corpora/february --extends indexes/mine --output indexes/february
    python -m serve embed  --corpus corpora/mine --output embeddings/mine    to find across languages, then
    python -m serve index  --corpus corpora/mine --output indexes/both --embedding embeddings/mine
    python -m serve search indexes/mine "heat pump with two evaporators" --before 2015-01-06 --ipc F25B
    python -m serve search indexes/mine --queries questions.jsonl > found.jsonl
    python -m serve gate   --domain patents.jsonl law.jsonl --general a.jsonl b.jsonl --output gates/mine
    python -m serve run    --model runs/mine/model --index indexes/mine      an engine, the API, the page
    python -m serve run    --endpoint http://gpu:8000/v1 --model NAME --index indexes/mine --gate gates/mine
    python -m serve pairs  runs/assistant --output pairs.jsonl               what users preferred, for sft dpo
    python -m serve ground --corpus corpora/mine --index indexes/mine --output chats/grounded  to learn citing
    python -m serve queries --corpus corpora/mine --index indexes/mine --output q.jsonl        to evaluate it

Nothing is overwritten without --force. The service listens on this machine only, unless it has a key.
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
    for name, (text, add_options, call) in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.set_defaults(call=call, least={})
        add_options(command)
    arguments = parser.parse_args()
    run_command(lambda: _call(arguments))


def _call(arguments: argparse.Namespace) -> int | None:
    """Call the command; UserError for a number that is too small."""
    for name, least in arguments.least.items():
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: at least {least}.")
    status: int | None = arguments.call(arguments)
    return status


def _number(
    command: argparse.ArgumentParser, option: str, default: float | None, text: str, least: int = 0
) -> None:
    """A share if the default is one, else a whole number that may not be less than `least`."""
    shown = text if default is None else f"{text} ({default})"
    if isinstance(default, float):
        command.add_argument(option, type=float, default=default, metavar="SHARE", help=shown)
        return
    action = command.add_argument(option, type=int, default=default, metavar="N", help=shown)
    command.set_defaults(least=command.get_default("least") | {action.dest: least})


def _path(command: argparse.ArgumentParser, option: str, text: str, metavar: str = "DIR") -> None:
    command.add_argument(option, type=Path, metavar=metavar, help=text)


def _corpus(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="corpora (`python -m data run`), or folders with the records of one of their steps",
    )


def _output(command: argparse.ArgumentParser, text: str, metavar: str = "DIR", kind: Any = Path) -> None:
    command.add_argument("--output", type=kind, required=True, metavar=metavar, help=text)
    command.add_argument(
        "--force", action="store_true", help="replace what is there once the new one is complete"
    )


def _index_options(command: argparse.ArgumentParser) -> None:
    _corpus(command)
    _output(command, "the new index, or one of an OpenSearch server (http://…)", kind=str)
    _path(command, "--extends", "an index whose passages the new one has too; it is not changed")
    _path(command, "--embedding", "rank by vectors, too: those of `python -m serve embed`")
    command.add_argument(
        "--embeddings",
        metavar="URL",
        help="… or an endpoint with /v1/embeddings; OPENAI_API_KEY holds its key",
    )
    command.add_argument("--embedding-model", metavar="NAME", help="the endpoint's model")


def index(arguments: argparse.Namespace) -> None:
    """Make an index."""
    from core.openai_client import OpenAIEndpointConfig, from_options
    from serve.retrieval.index import build

    if arguments.output.startswith(("http://", "https://")):
        upload(arguments)
        return
    if bool(arguments.embeddings) != bool(arguments.embedding_model):
        raise UserError("--embeddings URL and --embedding-model NAME go together.")
    if arguments.embeddings and arguments.embedding:
        raise UserError("--embedding and --embeddings: give one of them.")
    endpoint = None
    if arguments.embeddings:
        given = {"url": arguments.embeddings, "model": arguments.embedding_model}
        endpoint = from_options(OpenAIEndpointConfig, {"url": "--embeddings"}, **given)
    counts = build(
        arguments.corpus,
        Path(arguments.output),
        arguments.extends,
        embedding=arguments.embedding,
        endpoint=endpoint,
        force=arguments.force,
    )
    added = f" ({counts['new']:,} new, {counts['changed']:,} changed)" if arguments.extends else ""
    print(f"{arguments.output}: {counts['passages']:,} passages of {counts['records']:,} records{added}")


def upload(arguments: argparse.Namespace) -> None:
    """Index on a server."""
    from serve.retrieval.opensearch import upload

    for name in ("extends", "embedding", "embeddings", "force"):
        if getattr(arguments, name):
            raise UserError(f"--{name} does not go with an index on a server, which grows by itself.")
    counts = upload(arguments.corpus, arguments.output)
    print(
        f"{arguments.output}: {counts['records']:,} records read; {counts['passages']:,} passages there now"
    )


def _embed_options(command: argparse.ArgumentParser) -> None:
    _corpus(command)
    _output(command, "the embedding")
    _number(command, "--epochs", 20, "passes over the families", least=1)
    _number(command, "--seed", 0, "of the weights and batches")


def embed(arguments: argparse.Namespace) -> None:
    """Train an embedding."""
    from serve.retrieval.embedding import train
    from serve.retrieval.index import records_folder

    folders = [records_folder(corpus) for corpus in arguments.corpus]
    given = {name: getattr(arguments, name) for name in ("epochs", "seed", "force")}
    counts = train(folders, arguments.output, **given)
    print(f"{arguments.output}: trained on {counts['pairs']:,} pairs of texts, loss {counts['loss']}")


def _search_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("index", metavar="DIR", help="or that of an OpenSearch server (http://…)")
    command.add_argument("question", nargs="?", help="words, a sentence or a whole claim")
    command.add_argument(
        "--queries",
        type=Path,
        metavar="FILE",
        help='JSON lines of {"question": "…"} and, if wanted, "id", "before", "office", "language", "ipc";'
        ' prints each with its "hits"',
    )
    _number(command, "--hits", 10, "inventions that are shown", least=1)
    command.add_argument(
        "--before",
        metavar="DATE",
        help="published before this day (2015-01-06), or a publication's priority date (CN-104223352-A)",
    )
    command.add_argument("--office", default="", metavar="CN,US", help="offices (WIPO ST.3)")
    command.add_argument("--language", default="", metavar="zh,en", help="languages (ISO 639-1)")
    command.add_argument("--ipc", default="", metavar="H01L", help="IPC or CPC symbols, at any level")
    command.add_argument("--json", action="store_true", help="print the hits as a line of JSON")
    _path(command, "--output", "write the answers to --queries here", "FILE")


def search(arguments: argparse.Namespace) -> None:
    """Search an index for one question or for a file of them."""
    from serve.search_command import search

    search(arguments)


def _run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help="a model's folder; with --endpoint, the name it is served by",
    )
    command.add_argument(
        "--endpoint",
        nargs="+",
        default=(),
        metavar="URL",
        help="engines that serve the model over the OpenAI API (vLLM, SGLang, llama.cpp, transformers serve);"
        " without one, an engine is started. OPENAI_API_KEY holds their key, if they need one",
    )
    command.add_argument(
        "--engine",
        choices=("auto", "vllm", "transformers"),
        default="auto",
        help="the engine that is started",
    )
    command.add_argument("--index", metavar="DIR", help="where sources are found")
    _path(command, "--gate", "a gate (`python -m serve gate`)")
    command.add_argument(
        "--gate-mode",
        choices=("warn", "refuse", "off"),
        default="warn",
        help="a question that the gate refuses is answered with a note, or not at all (warn)",
    )
    command.add_argument(
        "--run",
        type=Path,
        default=Path("runs/assistant"),
        metavar="DIR",
        help="where ratings are kept (runs/assistant)",
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="another than this machine needs PATENT_LLAMA_KEY"
    )
    command.add_argument("--port", type=int, default=8080, help="0 for any free one (8080)")
    _number(command, "--sources", 5, "passages in a prompt at most")
    about = "of sources, and of the conversation before the question (6000; less for a small model)"
    _number(command, "--prompt-bytes", None, about, least=1)
    command.add_argument(
        "--input-slot",
        action=argparse.BooleanOptionalAction,
        help="sources stand in the template's slot for material (default: if the engine fills it)",
    )
    _number(command, "--keep-days", 0, "days that questions are kept in RUN/questions")
    _number(command, "--streams", 256, "answers at a time", least=1)
    _number(command, "--rate", 60, "requests a minute of one address; 0 for no limit")
    _number(command, "--answer-tokens", 1024, "of an answer at most", least=1)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    from serve.service.launch import serve

    if not 0 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port}: from 0 to 65535.")
    return serve(arguments)


def _pairs_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=Path, metavar="RUN", help="the --run of the service")
    _output(command, "JSON lines of pairs", "FILE")


def pairs(arguments: argparse.Namespace) -> None:
    """Write the pairs of a run."""
    from serve.service.ratings import write_pairs

    counts = write_pairs(arguments.run, arguments.output, force=arguments.force)
    print(
        f"{arguments.output}: {counts['pairs']:,} pairs, {counts['corrections']:,} from corrections and"
        f" {counts['thumbs']:,} from thumbs; {counts['alone']:,} thumbs make no pair."
    )


def _gate_options(command: argparse.ArgumentParser) -> None:
    chats: dict[str, Any] = {"type": Path, "nargs": "+", "default": [], "metavar": "FILE_OR_FOLDER"}
    command.add_argument(
        "--domain", **chats, help="chats about the domain, of two sources: their first questions pass"
    )
    command.add_argument("--general", **chats, help="chats about anything else, of two sources")
    _path(command, "--output", "the gate's folder")
    _number(
        command, "--refusals", 0.01, "of each held-out source of the domain, at most this share is refused"
    )
    _number(command, "--seed", 0, "draws the sources to hold out, if there are more than 20")
    command.add_argument("--force", action="store_true", help="replace an existing gate")
    command.add_argument("--check", nargs="+", metavar=("DIR", "QUESTION"), help="try a gate on questions")


def gate(arguments: argparse.Namespace) -> None:
    """Make a gate, or try one."""
    if arguments.check:
        from serve.gate.classifier import check

        check(Path(arguments.check[0]), arguments.check[1:])
        return
    if absent := [f"--{key}" for key in ("domain", "general", "output") if not getattr(arguments, key)]:
        raise UserError(f"{', '.join(absent)} missing. `python -m serve --help` has an example.")
    from serve.gate.training import build

    options = {name: getattr(arguments, name) for name in ("refusals", "seed", "force")}
    build(arguments.domain, arguments.general, arguments.output, **options)


def _ground_options(command: argparse.ArgumentParser) -> None:
    _corpus(command)
    command.add_argument("--index", type=Path, required=True, metavar="DIR", help="its index")
    _output(command, "the chats' folder")
    _number(command, "--number", 2000, "chats a file at most", least=1)
    _number(command, "--unanswerable", 0.15, "of chats without the right source")
    _number(command, "--sources", 5, "sources of a chat at most", least=2)
    _number(
        command,
        "--validation-share",
        0.01,
        "of inventions that are held out, as by `python -m data build` with the same seed",
    )
    _number(command, "--seed", 0, "of the split and all draws")


def ground(arguments: argparse.Namespace) -> None:
    """Make chats with sources."""
    from serve.ground import Settings, ground

    names = ("number", "unanswerable", "sources", "validation_share", "seed")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    counts = ground(arguments.corpus, arguments.index, arguments.output, settings, force=arguments.force)
    totals = {side: sum(counts[side].values()) for side in ("train", "validation")}
    print(
        f"{arguments.output}: {totals['train']:,} chats and {totals['validation']:,} of held-out inventions;"
        f" the index found the right one for {counts['found']:,} of {counts['searched']:,} questions"
    )


def _queries_options(command: argparse.ArgumentParser) -> None:
    _corpus(command)
    command.add_argument("--index", type=Path, required=True, metavar="DIR", help="what is evaluated")
    _output(command, "for search --queries", "FILE")
    command.add_argument(
        "--kind",
        choices=("citations", "families"),
        default="citations",
        help="what is to be found: what a record cites, or its invention in another language (citations)",
    )
    _number(command, "--number", None, "questions at most; default: all", least=1)
    _number(command, "--seed", 0, "of the questions' draw")


def queries(arguments: argparse.Namespace) -> None:
    """Make questions whose answers the corpus knows."""
    from serve.queries import write_queries

    options = {name: getattr(arguments, name) for name in ("number", "seed", "kind", "force")}
    counts = write_queries(arguments.corpus, arguments.index, arguments.output, **options)
    print(
        f"{arguments.output}: {counts['questions']:,} questions with {counts['relevant']:,} relevant"
        f" documents, from {counts['records']:,} records "
        + ("with citations" if arguments.kind == "citations" else "of families")
    )


COMMANDS = {
    "index": ("make an index of a corpus, or add a corpus to an index", _index_options, index),
    "embed": (
        "train an embedding on a corpus's families, to find documents in another language",
        _embed_options,
        embed,
    ),
    "search": ("search an index", _search_options, search),
    "run": ("serve a model as an assistant: API and page", _run_options, run),
    "pairs": ("preference pairs from users' ratings, for `python -m sft dpo`", _pairs_options, pairs),
    "gate": ("make a gate that lets only questions of the domain through, or try one", _gate_options, gate),
    "ground": ("make chats with sources from a corpus, to learn to cite", _ground_options, ground),
    "queries": ("make prior-art questions from a corpus's own citations", _queries_options, queries),
}
"""Of each command what it does, its options, and the function that does it."""


if __name__ == "__main__":
    main()
