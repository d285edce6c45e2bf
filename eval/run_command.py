"""`python -m eval run`: ask a model, and its base if one is given, then score, compare and write the page.

--tasks ──requests──▶ runner (the base's first) ──▶ RUN/predictions.jsonl, scores.json ──▶ report.html
"""

import argparse
from pathlib import Path

from core.errors import UserError
from core.provenance import manifest
from eval.analysis import scoring
from eval.analysis.report import write_report
from eval.models.factory import open_backend
from eval.ranks import connect
from eval.runner import run
from eval.sample import read_predictions
from eval.tasks import task as tasks


def run_arguments(arguments: argparse.Namespace) -> None:
    """Run the tasks with the model that the arguments name."""
    check(arguments)
    name = arguments.model or str(arguments.replay or "copy")
    output = arguments.output or default_output(name)
    chosen = tasks.load_tasks(arguments.tasks)
    requests = [
        request for task, config, _ in chosen for request in tasks.requests(task, config, arguments.data)
    ]
    files = [
        file
        for task, config, path in chosen
        for file in (path, *tasks.data_files(task, config, arguments.data))
    ]
    ranks = connect()
    hashes = manifest.hash_files(dict.fromkeys(files))
    base_run = _base_run(arguments.base)
    if base_run and base_run.resolve() == output.resolve():
        raise UserError(
            f"{output} is the output folder of both the model and its base. Set another --output."
        )
    if base_run and base_run != Path(arguments.base):
        run(requests, open_backend(arguments, arguments.base, ranks, is_base=True), base_run, hashes, ranks)
    run(requests, open_backend(arguments, name, ranks), output, hashes, ranks)
    if ranks.rank:
        return
    if base_run:
        rows = scoring.compare(read_predictions(base_run), read_predictions(output))
        print(f"\nA is {base_run}, B is {output}\n{scoring.comparison_table(rows)}")
    print(write_report(output, base_run))


def check(arguments: argparse.Namespace) -> None:
    """Raise UserError if the arguments name no model, predictions file or baseline."""
    if not (arguments.model or arguments.replay or arguments.copy):
        raise UserError(
            "No model. Pass --model FOLDER, --endpoint URL --model NAME, --replay FILE or --copy."
        )


def default_output(name: str) -> Path:
    """One folder for each model path, so that `runs/mine/model` and `runs/other/model` do not collide."""
    parts = [part for part in Path(name).parts if part not in ("/", ".", "..")]
    return Path("runs/eval") / "-".join(parts)


def _base_run(base: str | None) -> Path | None:
    """The run folder of --base: itself if it is a finished run, else where its answers will be written."""
    if not base:
        return None
    return Path(base) if (Path(base) / "predictions.jsonl").is_file() else default_output(base)
