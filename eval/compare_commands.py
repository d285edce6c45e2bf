"""The commands that compare: two runs, two recipes over several trainings, two searches."""

import argparse
import json
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance import atomic_io


def add(commands: Any) -> None:
    """Add the commands to the room's."""
    _add_compare(commands)
    _add_trainings(commands)
    _add_ranking(commands)


def _add_compare(commands: Any) -> None:
    command = commands.add_parser(
        "compare", help="test whether B is better than A: paired tests, Holm's correction"
    )
    command.add_argument("a", type=Path, metavar="A")
    command.add_argument("b", type=Path, metavar="B")
    command.add_argument("--metrics", nargs="+", default=[], metavar="NAME")
    command.add_argument("--output", type=Path, metavar="FILE", help="write the comparison as JSON")
    command.add_argument(
        "--fail-if-worse", action="store_true", help="exit code 1 if a primary score of B is worse"
    )
    command.set_defaults(call=compare)


def compare(arguments: argparse.Namespace) -> int:
    """Compare two predictions files or run folders; 1 if B is worse and that is a failure."""
    from eval.analysis import scoring
    from eval.sample import read_predictions

    a, b = read_predictions(arguments.a), read_predictions(arguments.b)
    check_output(arguments.output, arguments.a, arguments.b)
    rows = scoring.compare(a, b, arguments.metrics)
    print(scoring.comparison_table(rows))
    if arguments.output:
        atomic_io.write_text(arguments.output, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    worse = [f"{row['task']}: {row['metric']}" for row in rows if row["verdict"] == "worse"]
    if worse and arguments.fail_if_worse:
        print(f"B is worse in {len(worse)} of its primary scores: {', '.join(worse)}")
        return 1
    return 0


def _add_trainings(commands: Any) -> None:
    command = commands.add_parser(
        "trainings",
        help="the score of a recipe over several trainings, and whether another recipe's is better",
    )
    command.add_argument("--a", type=Path, nargs="+", required=True, metavar="RUN", help="a run of each seed")
    command.add_argument("--b", type=Path, nargs="+", metavar="RUN", help="those of another recipe")
    command.add_argument("--unpaired", action="store_true", help="A and B have no seed in common")
    command.add_argument("--metrics", nargs="+", default=[], metavar="NAME")
    command.add_argument("--output", type=Path, metavar="FILE", help="write the table as JSON")
    command.set_defaults(call=trainings)


def trainings(arguments: argparse.Namespace) -> None:
    """Score or compare recipes over trainings."""
    from eval.analysis import trainings as over
    from eval.sample import read_predictions

    check_output(arguments.output, *arguments.a, *(arguments.b or ()))
    a, b = ([read_predictions(run) for run in runs or ()] for runs in (arguments.a, arguments.b))
    rows = over.over_trainings(a, arguments.metrics)
    if arguments.b:
        rows = over.compare_trainings(a, b, arguments.metrics, paired=not arguments.unpaired)
    print(over.difference_table(rows) if arguments.b else over.mean_table(rows))
    if arguments.output:
        atomic_io.write_text(arguments.output, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


def _add_ranking(commands: Any) -> None:
    command = commands.add_parser(
        "ranking", help="score what a search found, and compare it with what another found"
    )
    command.add_argument("found", type=Path, metavar="FOUND", help="of `python -m serve search --queries`")
    command.add_argument("other", type=Path, nargs="?", metavar="OTHER", help="compare: is this one better?")
    command.add_argument(
        "--gain",
        choices=("linear", "exponential"),
        default="linear",
        help="of a grade in nDCG: the grade, or 2^grade - 1 (linear)",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="write scores and comparison as JSON")
    command.set_defaults(call=ranking)


def ranking(arguments: argparse.Namespace) -> None:
    """Score one or two files of hits, with their groups, and compare two."""
    from eval.analysis import scoring
    from eval.analysis.ranking import TASK, read_found, unpaired

    files = [file for file in (arguments.found, arguments.other) if file]
    check_output(arguments.output, *files)
    found = [read_found(file, arguments.gain) for file in files]
    written: dict[str, Any] = {"files": [str(file) for file in files], "scores": []}
    for file, each in zip(files, found, strict=True):
        scores = scoring.score(each.samples)
        scores[TASK]["groups"].pop("characters", None)  # of the reference, which is a list of numbers
        print(f"{file}\n{scoring.score_table(scores)}")
        for group in scores[TASK]["groups"]:
            print(scoring.group_table(scores, group))
        written["scores"].append(scores[TASK])
    if len(found) == 2:
        a, b = found[0].samples, found[1].samples
        written["comparison"] = scoring.compare(a, b)
        print(f"A is {files[0]}, B is {files[1]}\n{scoring.comparison_table(written['comparison'])}")
        if alone := unpaired(a, b):
            print(f"note: {alone:,} questions are in one of the files only and are not compared")
    for note in (note for each in found for note in each.notes):
        print(f"note: {note}")
    if arguments.output:
        atomic_io.write_text(arguments.output, json.dumps(written, ensure_ascii=False, indent=1) + "\n")


def check_output(output: Path | None, *inputs: Path | None) -> None:
    """Raise UserError if a file to write is one of the inputs, or what a run folder rests on."""
    if output is None or not output.exists():
        return
    same = any(given and given.exists() and given.samefile(output) for given in inputs)
    rests_on = output.name in ("predictions.jsonl", "manifest.json") or output.match("measured-*.jsonl")
    if same or output.is_dir() or rests_on:
        raise UserError(f"--output {output} would replace what is there. Choose another file.")
