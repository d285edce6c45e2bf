"""Scores with intervals, and whether two models differ.

    python -m eval run --endpoint http://localhost:8000/v1 --model NAME --tasks ceval,statutes-zh-en \\
        --data DIR --output runs/eval/mine                        ask a served model; goes on if killed
    python -m eval run --model runs/mine/model --tasks ceval --data DIR --output runs/eval/mine
    python -m eval score runs/eval/mine                           scores of a run's predictions; no torch
    python -m eval score predictions.jsonl --metrics bleu-zh chrf
    python -m eval contamination --corpus corpora/mine --tasks ceval --data DIR   what training has seen
    python -m eval compare runs/eval/base runs/eval/mine          better, worse or not shown
    python -m eval report runs/eval/mine --base runs/eval/base    one HTML page for people
    python -m eval sheet runs/eval/base runs/eval/mine --output sheet.xlsx --samples 100    judged blind
    python -m eval sheet --read ann.xlsx bob.xlsx --key sheet.key.json --pairs pairs.jsonl

A line of predictions.jsonl: {"task", "id", "prediction", "reference"} and, where a metric needs them,
"metrics", "source", "options", "glossary", "groups".
"""

import argparse
import json
from pathlib import Path

from core.errors import UserError, run_command
from core.provenance import atomic_io


def main() -> None:
    """The command line; each command is a function below."""
    parser = argparse.ArgumentParser(
        prog="python -m eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="ask a model, in a folder or behind an endpoint, and score")
    command.add_argument(
        "--endpoint", metavar="URL", help="http://host:port/v1; without it --model is a folder"
    )
    command.add_argument(
        "--model", metavar="NAME", help="the folder of a model or a LoRA adapter; or the model's name there"
    )
    command.add_argument(
        "--replay", type=Path, metavar="FILE", help="predictions instead of a model: FILE or run"
    )
    command.add_argument(
        "--copy", action="store_true", help="answer with the text asked about: what doing nothing scores"
    )
    command.add_argument("--base", metavar="NAME", help="a model to compare with, or a finished run")
    command.add_argument("--chat", action="store_true", help="ask in the model's chat template")
    command.add_argument("--four-bit", action="store_true", help="read the weights in 4 bits (bitsandbytes)")
    command.add_argument(
        "--log-probabilities", action="store_true", help="the endpoint echoes them (vLLM, SGLang)"
    )
    command.add_argument("--context", type=int, metavar="N", help="tokens read at once; default: the model's")
    command.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests under way at once")
    command.add_argument(
        "--batch-tokens", type=int, default=16_384, metavar="N", help="halved when memory runs out"
    )
    command.add_argument(
        "--tasks", required=True, metavar="A,B", help="names in configs/eval, groups, or YAML files"
    )
    command.add_argument("--data", type=Path, default=Path("evaldata"), metavar="DIR")
    command.add_argument("--output", type=Path, metavar="DIR", help="default: runs/eval/NAME")
    command.add_argument("--dry-run", action="store_true", help="read tasks and questions, ask nobody")
    command.set_defaults(call=run)

    command = commands.add_parser("score", help="scores of predictions, with 95%% intervals")
    command.add_argument("predictions", type=Path, metavar="FILE_OR_FOLDER")
    command.add_argument("--metrics", nargs="+", default=[], metavar="NAME")
    command.add_argument("--output", type=Path, metavar="FILE", help="write scores.json there")
    command.add_argument(
        "--contaminated", type=Path, metavar="FILE", help="report clean and dirty samples apart"
    )
    command.set_defaults(call=score)

    command = commands.add_parser("contamination", help="samples that stand in a training corpus")
    command.add_argument(
        "--corpus", type=Path, nargs="+", required=True, metavar="DIR",
        help="what `python -m data` made, or .jsonl and .txt files",
    )  # fmt: skip
    command.add_argument("--tasks", required=True, metavar="A,B", help="as for run")
    command.add_argument("--data", type=Path, default=Path("evaldata"), metavar="DIR")
    command.add_argument("--output", type=Path, default=Path("contaminated.jsonl"), metavar="FILE")
    command.set_defaults(call=contamination)

    command = commands.add_parser("compare", help="is B better than A? Paired tests with Holm's correction")
    command.add_argument("a", type=Path, metavar="A")
    command.add_argument("b", type=Path, metavar="B")
    command.add_argument("--metrics", nargs="+", default=[], metavar="NAME")
    command.add_argument("--output", type=Path, metavar="FILE", help="write the comparison there, as JSON")
    command.set_defaults(call=compare)

    command = commands.add_parser("report", help="one HTML page: scores, break-downs, samples, origin")
    command.add_argument("run", type=Path, metavar="RUN", help="a run folder or a predictions file")
    command.add_argument("--base", type=Path, metavar="RUN", help="show it against this run")
    command.add_argument("--output", type=Path, metavar="FILE", help="default: RUN/report.html")
    command.add_argument("--metrics", nargs="+", default=[], metavar="NAME")
    command.add_argument("--contaminated", type=Path, metavar="FILE", help="show what it names apart")
    command.set_defaults(call=report)

    command = commands.add_parser("sheet", help="a blind side-by-side sheet, and what people said in it")
    command.add_argument("runs", type=Path, nargs="*", metavar="A B", help="what is seen side by side")
    command.add_argument("--output", type=Path, metavar="FILE", help="the sheet, .xlsx or .csv")
    command.add_argument("--samples", type=int, metavar="N", help="draw so many; default: all that differ")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of rows, sides and the draw")
    command.add_argument("--read", type=Path, nargs="+", metavar="SHEET", help="filled sheets, one a person")
    command.add_argument("--key", type=Path, metavar="FILE", help="says which side is whose")
    command.add_argument("--pairs", type=Path, metavar="FILE", help="write prompt, chosen, rejected there")
    command.add_argument("--result", type=Path, metavar="FILE", help="write the results there, as JSON")
    command.set_defaults(call=sheet)

    arguments = parser.parse_args()
    run_command(lambda: arguments.call(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Ask a model all questions of the tasks, and score its answers."""
    if arguments.dry_run:
        from core import dry_run
        from eval.dry_run import looks

        dry_run.report(looks(arguments))
        return
    from eval.run_command import run_arguments

    run_arguments(arguments)


def score(arguments: argparse.Namespace) -> None:
    """Score a predictions file; in a run folder, scores.json is written beside it."""
    from eval.analysis import scoring
    from eval.sample import read_predictions

    samples = read_predictions(arguments.predictions)
    if arguments.contaminated:
        from eval.analysis.contamination import split

        samples = split(samples, arguments.contaminated)
    scores = scoring.score(samples, arguments.metrics)
    print(scoring.score_table(scores))
    if arguments.contaminated:
        print(scoring.group_table(scores, "corpus"))
    folder = arguments.predictions
    output = arguments.output or (folder / "scores.json" if folder.is_dir() else None)
    if output:
        atomic_io.write_text(output, json.dumps(scores, ensure_ascii=False, indent=1) + "\n")


def contamination(arguments: argparse.Namespace) -> None:
    """Find the samples of tasks in a training corpus."""
    from eval.analysis import contamination as contaminated
    from eval.tasks.task import load_tasks, requests

    asked = [
        request
        for name, task, _ in load_tasks(arguments.tasks)
        for request in requests(name, task, arguments.data)
    ]
    found = contaminated.contamination(asked, arguments.corpus)
    print(contaminated.write(found, asked, arguments.output))
    print(f"{arguments.output}: give it to `python -m eval score RUN --contaminated FILE`")


def compare(arguments: argparse.Namespace) -> None:
    """Compare two predictions files or run folders."""
    from eval.analysis import scoring
    from eval.sample import read_predictions

    a, b = read_predictions(arguments.a), read_predictions(arguments.b)
    rows = scoring.compare(a, b, arguments.metrics)
    print(scoring.comparison_table(rows))
    if arguments.output:
        atomic_io.write_text(arguments.output, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


def report(arguments: argparse.Namespace) -> None:
    """Write the page of a run."""
    from eval.analysis.report import write_report

    print(
        write_report(
            arguments.run, arguments.base, arguments.output, arguments.metrics, arguments.contaminated
        )
    )


def sheet(arguments: argparse.Namespace) -> None:
    """Write a sheet, or read filled ones."""
    from eval.analysis import human_eval as sheets

    if not arguments.read:
        if len(arguments.runs) != 2 or not arguments.output:
            raise UserError("sheet needs A, B and --output FILE, or --read SHEET … and --key FILE.")
        a, b = arguments.runs
        print(
            sheets.write_sheet(
                a, b, arguments.output, key=arguments.key, samples=arguments.samples, seed=arguments.seed
            )
        )
        return
    if not arguments.key:
        raise UserError("--read needs --key FILE, which was written beside the sheet.")
    key, judgments = sheets.read_sheets(arguments.read, arguments.key)
    rows = sheets.results(key, judgments)
    print(f"A is {key['a']}, B is {key['b']}\n{sheets.results_table(rows)}")
    if arguments.result:
        atomic_io.write_text(arguments.result, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    if arguments.pairs:
        pairs = sheets.preference_pairs(key, judgments)
        lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        atomic_io.write_text(arguments.pairs, lines)
        print(f"{arguments.pairs}: {len(pairs)} pairs")


if __name__ == "__main__":
    main()
