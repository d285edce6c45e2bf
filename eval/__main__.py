"""Evaluate models: scores with confidence intervals, and tests of whether two models differ.

    python -m eval run --endpoint http://localhost:8000/v1 --model NAME --tasks ceval,statutes-zh-en \\
        --data DIR --output runs/eval/mine                        a served model; resumes if killed
    python -m eval run --model runs/mine/model --tasks ceval --data DIR --output runs/eval/mine
    python -m eval score runs/eval/mine                           score again, without the model
    python -m eval score predictions.jsonl --metrics bleu-zh chrf
    python -m eval contamination --corpus corpora/mine --tasks ceval --data DIR   test samples in it
    python -m eval compare runs/eval/base runs/eval/mine          better, worse or not shown
    python -m eval trainings --a S0 S1 S2 --b T0 T1 T2            … over trainings with several seeds
    python -m eval report runs/eval/mine --base runs/eval/base    one HTML page
    python -m eval export runs/eval/base runs/eval/mine --output scores.csv       or .tex
    python -m eval sheet runs/eval/base runs/eval/mine --output sheet.xlsx --samples 100    for blind judging
    python -m eval sheet --read ann.xlsx bob.xlsx --key sheet.key.json --pairs pairs.jsonl
    python -m eval judge --key sheet.key.json --endpoint URL --model NAME --output judge.csv
    python -m eval comet runs/eval/mine --python comet-env/bin/python     COMET, then --metrics comet
    python -m eval submission runs/eval/mine                      C-Eval's test answers, for its site
    python -m eval ranking found.jsonl [other.jsonl]              what a search found: nDCG, recall, MAP, MRR

A line of predictions.jsonl has "task", "id", "prediction" and "reference" and, if a metric needs them,
"metrics", "source", "options", "glossary" and "groups".
"""

import argparse
import json
from pathlib import Path
from typing import Any

from core.errors import UserError, run_command
from core.provenance import atomic_io
from eval import compare_commands
from eval.compare_commands import check_output


def main() -> None:
    """Parse the command line and call the command's function below."""
    parser = argparse.ArgumentParser(
        prog="python -m eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_score(commands)
    _add_contamination(commands)
    compare_commands.add(commands)
    _add_report(commands)
    _add_export(commands)
    _add_sheet(commands)
    _add_judge(commands)
    _add_comet(commands)
    _add_submission(commands)
    arguments = parser.parse_args()
    run_command(lambda: arguments.call(arguments))


def _add_run(commands: Any) -> None:
    command = commands.add_parser(
        "run", help="run tasks on a model folder or an endpoint, and score the answers"
    )
    command.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible server, http://host:port/v1")
    command.add_argument(
        "--model",
        metavar="NAME",
        help="model or LoRA adapter folder; with --endpoint, the served model's name",
    )
    command.add_argument(
        "--replay", type=Path, metavar="FILE", help="take the answers from a predictions file or run folder"
    )
    command.add_argument(
        "--copy", action="store_true", help="answer with the input text: a baseline that does nothing"
    )
    command.add_argument("--base", metavar="NAME", help="model or finished run to compare with")
    command.add_argument("--chat", action="store_true", help="apply the model's chat template")
    command.add_argument("--four-bit", action="store_true", help="load the weights in 4-bit (bitsandbytes)")
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="data type of weights and matrix products; default: bfloat16 on a GPU, float32 on a CPU",
    )
    command.add_argument(
        "--log-probabilities",
        action="store_true",
        help="the endpoint returns those of the prompt (vLLM, SGLang)",
    )
    command.add_argument(
        "--context", type=int, metavar="N", help="context length in tokens; default: the model's"
    )
    command.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="concurrent requests to the endpoint"
    )
    command.add_argument(
        "--batch-tokens",
        type=int,
        default=16_384,
        metavar="N",
        help="tokens in a batch; halved when memory runs out",
    )
    command.add_argument(
        "--tasks",
        required=True,
        metavar="A,B",
        help="names of tasks or groups in configs/eval, or YAML files",
    )
    command.add_argument("--data", type=Path, default=Path("evaldata"), metavar="DIR")
    command.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="ask only the first N samples of each task, or of each subject of an exam: a trial, no result",
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="default: runs/eval/NAME")
    command.add_argument("--dry-run", action="store_true", help="read tasks and data files, run no model")
    command.set_defaults(call=run)


def run(arguments: argparse.Namespace) -> None:
    """Run tasks on a model and score its answers."""
    if arguments.dry_run:
        from core import dry_run
        from eval.dry_run import looks

        dry_run.report(looks(arguments))
        return
    from eval.run_command import run_arguments

    run_arguments(arguments)


def _add_score(commands: Any) -> None:
    command = commands.add_parser("score", help="score predictions, with 95%% intervals")
    command.add_argument("predictions", type=Path, metavar="FILE_OR_FOLDER")
    command.add_argument("--metrics", nargs="+", default=[], metavar="NAME")
    command.add_argument("--output", type=Path, metavar="FILE", help="default: scores.json in a run folder")
    command.add_argument(
        "--contaminated",
        type=Path,
        metavar="FILE",
        help="also score contaminated and clean samples separately",
    )
    command.set_defaults(call=score)


def score(arguments: argparse.Namespace) -> None:
    """Score predictions and print the table; of a run folder, also write scores.json."""
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
        check_output(output, folder)
        atomic_io.write_text(output, json.dumps(scores, ensure_ascii=False, indent=1) + "\n")


def _add_contamination(commands: Any) -> None:
    command = commands.add_parser("contamination", help="find samples in a training corpus")
    command.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="a corpus from `python -m data`, or .jsonl and .txt files",
    )
    command.add_argument("--tasks", required=True, metavar="A,B", help="as for run")
    command.add_argument("--data", type=Path, default=Path("evaldata"), metavar="DIR")
    command.add_argument("--output", type=Path, default=Path("contaminated.jsonl"), metavar="FILE")
    command.set_defaults(call=contamination)


def contamination(arguments: argparse.Namespace) -> None:
    """Find the samples of tasks in a training corpus and write contaminated.jsonl."""
    from eval.analysis import contamination as search
    from eval.tasks.task import load_tasks, requests

    check_output(arguments.output, arguments.data, *arguments.corpus)
    all_requests = [
        request
        for name, task, _ in load_tasks(arguments.tasks)
        for request in requests(name, task, arguments.data)
    ]
    matches = search.contamination(all_requests, arguments.corpus)
    print(search.write(matches, all_requests, arguments.output))
    print(f"{arguments.output}: pass it to `python -m eval score RUN --contaminated FILE`")


def _add_report(commands: Any) -> None:
    command = commands.add_parser(
        "report", help="write an HTML page: scores, breakdowns, samples, provenance"
    )
    command.add_argument("run", type=Path, metavar="RUN", help="run folder or predictions file")
    command.add_argument("--base", type=Path, metavar="RUN", help="compare with this run")
    command.add_argument("--output", type=Path, metavar="FILE", help="default: RUN/report.html")
    command.add_argument("--metrics", nargs="+", default=[], metavar="NAME")
    command.add_argument(
        "--contaminated",
        type=Path,
        metavar="FILE",
        help="also score contaminated and clean samples separately",
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of the random samples that are shown"
    )
    command.set_defaults(call=report)


def report(arguments: argparse.Namespace) -> None:
    """Write the HTML page of a run."""
    from eval.analysis.report import write_report

    check_output(arguments.output, arguments.run, arguments.base, arguments.contaminated)
    print(
        write_report(
            arguments.run,
            arguments.base,
            arguments.output,
            arguments.metrics,
            arguments.contaminated,
            arguments.seed,
        )
    )


def _add_export(commands: Any) -> None:
    command = commands.add_parser(
        "export", help="write the scores of runs as a CSV or LaTeX table, or to Weights & Biases"
    )
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders or predictions files")
    command.add_argument("--output", type=Path, metavar="FILE", help="a .csv or .tex file")
    command.add_argument("--wandb", metavar="PROJECT", help="write them to a Weights & Biases project")
    command.add_argument("--metrics", nargs="+", default=[], metavar="NAME")
    command.add_argument("--primary", action="store_true", help="only the primary score of each task")
    command.set_defaults(call=export)


def export(arguments: argparse.Namespace) -> None:
    """Write the scores of runs as a table for other programs, or to Weights & Biases."""
    from eval.analysis import export as table

    if not (arguments.output or arguments.wandb):
        raise UserError("export needs --output FILE or --wandb PROJECT.")
    check_output(arguments.output, *arguments.runs)
    rows = table.rows_of(arguments.runs, arguments.metrics, arguments.primary)
    if arguments.output:
        atomic_io.write_text(arguments.output, table.export(rows, arguments.output))
        print(arguments.output)
    if arguments.wandb:
        table.log_to_wandb(rows, arguments.runs, arguments.wandb)


def _add_sheet(commands: Any) -> None:
    command = commands.add_parser(
        "sheet", help="write a sheet for blind side-by-side judging, or read filled ones"
    )
    command.add_argument("runs", type=Path, nargs="*", metavar="A B", help="the two runs to judge")
    command.add_argument("--output", type=Path, metavar="FILE", help="sheet to write, .xlsx or .csv")
    command.add_argument(
        "--samples", type=int, metavar="N", help="number of samples; default: all that differ"
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed of samples, rows and sides"
    )
    command.add_argument(
        "--read", type=Path, nargs="+", metavar="SHEET", help="filled sheets, one per person or judge"
    )
    command.add_argument("--key", type=Path, metavar="FILE", help="key file, which maps sides to runs")
    command.add_argument(
        "--pairs", type=Path, metavar="FILE", help="write preference pairs (prompt, chosen, rejected)"
    )
    command.add_argument("--result", type=Path, metavar="FILE", help="write the results as JSON")
    command.set_defaults(call=sheet)


def sheet(arguments: argparse.Namespace) -> None:
    """Write a sheet for blind judging, or read filled sheets."""
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
        raise UserError("--read also needs --key FILE, which was written with the sheet.")
    key, judgments = sheets.read_sheets(arguments.read, arguments.key)
    rows = sheets.results(key, judgments)
    print(f"A is {key['a']}, B is {key['b']}\n{sheets.results_table(rows)}")
    if arguments.result:
        atomic_io.write_text(arguments.result, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    if arguments.pairs:
        pairs = sheets.preference_pairs(key, judgments)
        lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        atomic_io.write_text(arguments.pairs, lines)
        print(f"{arguments.pairs}: {len(pairs):,} pairs")


def _add_judge(commands: Any) -> None:
    command = commands.add_parser("judge", help="have a language model fill in a sheet")
    command.add_argument("--key", type=Path, required=True, metavar="FILE", help="key file of the sheet")
    command.add_argument(
        "--endpoint", required=True, metavar="URL", help="OpenAI-compatible server, http://host:port/v1"
    )
    command.add_argument("--model", required=True, metavar="NAME", help="the served model's name")
    command.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="filled sheet to write, .xlsx or .csv"
    )
    command.add_argument(
        "--prompt",
        type=Path,
        metavar="FILE",
        help="prompt with {question}, {reference}, {answer_a}, {answer_b}; asks for [[A]], [[B]] or [[C]]",
    )
    command.add_argument("--concurrency", type=int, default=8, metavar="N", help="concurrent requests")
    command.add_argument(
        "--max-new-tokens", type=int, default=2048, metavar="N", help="maximum length of the judge's answer"
    )
    command.set_defaults(call=judge)


def judge(arguments: argparse.Namespace) -> None:
    """Have a model at an endpoint judge the rows of a sheet, each in both orders."""
    from eval.analysis import judge as judges

    config = judges.endpoint(arguments.endpoint, arguments.model, arguments.concurrency)
    print(
        judges.judge(
            arguments.key, config, arguments.output, arguments.prompt, max_new_tokens=arguments.max_new_tokens
        )
    )


def _add_comet(commands: Any) -> None:
    command = commands.add_parser("comet", help="measure a run's translations with COMET, in an environment")
    command.add_argument("run", type=Path, metavar="RUN", help="run folder")
    command.add_argument(
        "--python",
        required=True,
        metavar="FILE",
        help="Python of an environment with unbabel-comet, such as comet-env/bin/python",
    )
    command.add_argument(
        "--model",
        default="Unbabel/wmt22-comet-da",
        metavar="NAME",
        help="model on the hub, or a .ckpt file or its model's folder; default: Unbabel/wmt22-comet-da",
    )
    command.add_argument("--tasks", metavar="A,B", help="default: those whose samples have a `source`")
    command.add_argument("--batch-size", type=int, default=8, metavar="N", help="samples in a batch")
    command.add_argument("--gpus", type=int, default=0, metavar="N", help="0: on the CPU")
    command.set_defaults(call=comet)


def comet(arguments: argparse.Namespace) -> None:
    """Measure the samples of a run that have no value of this COMET model yet."""
    from eval.metrics.comet_values import measure

    tasks = arguments.tasks.split(",") if arguments.tasks else []
    settings = {"batch-size": arguments.batch_size, "gpus": arguments.gpus}
    print(measure(arguments.run, arguments.python, arguments.model, tasks, settings))


def _add_submission(commands: Any) -> None:
    command = commands.add_parser("submission", help="write the answers to C-Eval's test for its site")
    command.add_argument("run", type=Path, metavar="RUN", help="run folder of the task ceval-test")
    command.add_argument(
        "--task",
        default="ceval-test",
        metavar="NAME",
        help="task with `unanswered: true`; default: ceval-test",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="default: RUN/submission.json")
    command.set_defaults(call=submission)


def submission(arguments: argparse.Namespace) -> None:
    """Write the file that C-Eval's site scores."""
    from eval.tasks.submission import write_submission

    check_output(arguments.output, arguments.run)
    output = arguments.output or arguments.run / "submission.json"
    print(write_submission(arguments.run, arguments.task, output))


if __name__ == "__main__":
    main()
