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
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError, printable, run_command
from core.provenance import atomic_io
from serve import making_commands

if TYPE_CHECKING:
    from serve.retrieval.opensearch import OpenSearch
    from serve.retrieval.search import Hit, Index


def main() -> None:
    """The command line; each command is a function below."""
    parser = argparse.ArgumentParser(
        prog="python -m serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _index_options(commands)
    _embed_options(commands)
    _search_options(commands)
    _run_options(commands)
    _pairs_options(commands)
    making_commands.add(commands)
    arguments = parser.parse_args()
    run_command(lambda: arguments.call(arguments))


def _index_options(commands: Any) -> None:
    command = commands.add_parser("index", help="make an index of a corpus, or add a corpus to an index")
    command.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="corpora (`python -m data run`), or folders with the records of one of their steps",
    )
    command.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="the new index, or one of an OpenSearch server (http://…)",
    )
    command.add_argument(
        "--extends",
        type=Path,
        metavar="DIR",
        help="an index whose passages the new one has too; it is not changed",
    )
    command.add_argument(
        "--embedding",
        type=Path,
        metavar="DIR",
        help="rank by vectors, too: those of `python -m serve embed`",
    )
    command.add_argument(
        "--embeddings",
        metavar="URL",
        help="… or an endpoint with /v1/embeddings; OPENAI_API_KEY holds its key",
    )
    command.add_argument("--embedding-model", metavar="NAME", help="the endpoint's model")
    command.add_argument(
        "--force", action="store_true", help="replace an existing index once the new one is complete"
    )
    command.set_defaults(call=index)


def _embed_options(commands: Any) -> None:
    command = commands.add_parser(
        "embed", help="train an embedding on a corpus's families, to find documents in another language"
    )
    command.add_argument(
        "--corpus", type=Path, nargs="+", required=True, metavar="DIR", help="as for `index`"
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="the embedding")
    command.add_argument("--epochs", type=int, default=20, metavar="N", help="passes over the families (20)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")
    command.add_argument("--force", action="store_true", help="replace an existing embedding")
    command.set_defaults(call=embed)


def _search_options(commands: Any) -> None:
    command = commands.add_parser("search", help="search an index")
    command.add_argument("index", metavar="DIR", help="or that of an OpenSearch server (http://…)")
    command.add_argument("question", nargs="?", help="words, a sentence or a whole claim")
    command.add_argument(
        "--queries",
        type=Path,
        metavar="FILE",
        help='JSON lines of {"question": "…"} and, if wanted, "id", "before", "office", "language", "ipc";'
        ' prints each with its "hits"',
    )
    command.add_argument("--hits", type=int, default=10, metavar="N", help="inventions that are shown (10)")
    command.add_argument(
        "--before",
        metavar="DATE",
        help="published before this day (2015-01-06), or a publication's priority date (CN-104223352-A)",
    )
    command.add_argument("--office", default="", metavar="CN,US", help="offices (WIPO ST.3)")
    command.add_argument("--language", default="", metavar="zh,en", help="languages (ISO 639-1)")
    command.add_argument("--ipc", default="", metavar="H01L", help="IPC or CPC symbols, at any level")
    command.add_argument("--json", action="store_true", help="print the hits as a line of JSON")
    command.add_argument("--output", type=Path, metavar="FILE", help="write the answers to --queries here")
    command.set_defaults(call=search)


def _run_options(commands: Any) -> None:
    command = commands.add_parser("run", help="serve a model as an assistant: API and page")
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
    command.add_argument("--gate", type=Path, metavar="DIR", help="a gate (`python -m serve gate`)")
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
    command.add_argument(
        "--sources", type=int, default=5, metavar="N", help="passages in a prompt at most (5)"
    )
    command.add_argument(
        "--prompt-bytes",
        type=int,
        metavar="N",
        help="of sources, and of the conversation before the question (6000; less for a small model)",
    )
    command.add_argument(
        "--input-slot",
        action=argparse.BooleanOptionalAction,
        help="sources stand in the template's slot for material (default: if the engine fills it)",
    )
    command.add_argument(
        "--keep-days",
        type=int,
        default=0,
        metavar="N",
        help="days that questions are kept in RUN/questions (0)",
    )
    command.add_argument("--streams", type=int, default=256, metavar="N", help="answers at a time (256)")
    command.add_argument(
        "--rate",
        type=int,
        default=60,
        metavar="N",
        help="requests a minute of one address; 0 for no limit (60)",
    )
    command.add_argument(
        "--answer-tokens", type=int, default=1024, metavar="N", help="of an answer at most (1024)"
    )
    command.set_defaults(call=run)


def _pairs_options(commands: Any) -> None:
    command = commands.add_parser(
        "pairs", help="preference pairs from users' ratings, for `python -m sft dpo`"
    )
    command.add_argument("run", type=Path, metavar="RUN", help="the --run of the service")
    command.add_argument("--output", type=Path, required=True, metavar="FILE")
    command.add_argument("--force", action="store_true", help="replace an existing file")
    command.set_defaults(call=pairs)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    from serve.service.launch import Options, serve
    from serve.service.limits import Limits

    for name, least in (("sources", 0), ("keep_days", 0), ("streams", 1), ("rate", 0), ("answer_tokens", 1)):
        if getattr(arguments, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: at least {least}.")
    limits = Limits(
        answer_tokens=arguments.answer_tokens, streams=arguments.streams, requests_per_minute=arguments.rate
    )
    same = ("run", "model", "engine", "index", "gate", "gate_mode", "host", "port", "sources", "prompt_bytes")
    given = {name: getattr(arguments, name) for name in (*same, "input_slot", "keep_days")}
    return serve(Options(**given, endpoints=tuple(arguments.endpoint), limits=limits))


def pairs(arguments: argparse.Namespace) -> None:
    """Write the pairs of a run."""
    from serve.service.ratings import write_pairs

    counts = write_pairs(arguments.run, arguments.output, force=arguments.force)
    print(
        f"{arguments.output}: {counts['pairs']:,} pairs, {counts['corrections']:,} from corrections and"
        f" {counts['thumbs']:,} from thumbs; {counts['alone']:,} thumbs make no pair."
    )


def index(arguments: argparse.Namespace) -> None:
    """Make an index."""
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
        from core.openai_client import OpenAIEndpointConfig

        endpoint = OpenAIEndpointConfig(url=arguments.embeddings, model=arguments.embedding_model)
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


def embed(arguments: argparse.Namespace) -> None:
    """Train an embedding."""
    from serve.retrieval.embedding import train
    from serve.retrieval.index import records_folder

    if arguments.epochs < 1:
        raise UserError(f"--epochs {arguments.epochs}: at least 1.")
    folders = [records_folder(corpus) for corpus in arguments.corpus]
    given = {"epochs": arguments.epochs, "seed": arguments.seed, "force": arguments.force}
    counts = train(folders, arguments.output, **given)
    print(f"{arguments.output}: trained on {counts['pairs']:,} pairs of texts, loss {counts['loss']}")


def search(arguments: argparse.Namespace) -> None:
    """Search an index for one question or for a file of them."""
    from serve.retrieval.search import filter_of, open_index

    if (arguments.question is None) == (arguments.queries is None):
        raise UserError("give a question, or a file of them with --queries.")
    if arguments.hits < 1:
        raise UserError(f"--hits {arguments.hits}: at least 1.")
    index = open_index(arguments.index)
    if arguments.queries is None:
        hits = index.search(arguments.question, arguments.hits, filter_of(index, _asked(vars(arguments))))
        print(_as_json({"hits": hits}) if arguments.json else "\n".join(_shown(hits)))
        return
    lines = enumerate(arguments.queries.read_text("utf-8").splitlines(), 1)
    answers = (
        _as_json(_answer(index, arguments, line, f"{arguments.queries}:{number}"))
        for number, line in lines
        if line.strip()
    )
    if arguments.output is None:
        for answer in answers:
            print(answer)
        return
    atomic_io.write_text(arguments.output, "".join(f"{answer}\n" for answer in answers))


def _answer(
    index: "Index | OpenSearch", arguments: argparse.Namespace, line: str, place: str
) -> dict[str, Any]:
    """A line of --queries with its hits."""
    from serve.retrieval.search import filter_of

    try:
        asked = json.loads(line)
        question = asked["question"]
        assert isinstance(question, str)
    except (ValueError, TypeError, KeyError, AssertionError):
        raise UserError(f'{place}: no JSON object with a text "question".') from None
    try:
        hits = index.search(question, arguments.hits, filter_of(index, _asked(vars(arguments) | asked)))
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return {**asked, "hits": hits}


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """The filter of the command line or of a line of --queries."""
    return {name: given.get(name) for name in ("before", "office", "language", "ipc")}


def _as_json(answer: dict[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False, default=vars)


def _shown(hits: "list[Hit]") -> list[str]:
    """Hits for a person: a line each, and its passages below it."""
    if not hits:
        return ["nothing found"]
    lines = []
    for number, hit in enumerate(hits, 1):
        named = "  ".join(filter(None, (hit.id, hit.language, hit.date, hit.title)))
        lines.append(f"{number}. {printable(named)}  ({hit.score:.1f})")
        for passage in hit.passages:
            place = " ".join(dict.fromkeys(filter(None, (passage["part"], passage["label"]))))
            lines.append(f"   {place}: {_excerpt(passage['text'], passage['found'])}")
    return lines


def _excerpt(text: str, found: list[tuple[int, int]], length: int = 160) -> str:
    """The part of a passage around the first term that was found, in bold on a terminal, on one line."""
    start = max(0, (found[0][0] if found else 0) - 40)
    marks = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    shown, position = "…" if start else "", start
    for begin, end in found:
        if start <= begin and end <= start + length:
            shown += printable(text[position:begin]) + marks[0] + printable(text[begin:end]) + marks[1]
            position = end
    shown += printable(text[position : start + length]) + ("…" if len(text) > start + length else "")
    return " ".join(shown.split())


if __name__ == "__main__":
    main()
