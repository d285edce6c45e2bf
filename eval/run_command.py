"""`python -m eval run`: ask a model, and its base if one is given, then score, compare and write the page.

--tasks ──requests──▶ runner (the base's first) ──▶ RUN/predictions.jsonl, scores.json ──▶ report.html
"""

import argparse
import gc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.provenance import manifest
from eval.analysis import scoring
from eval.analysis.report import write_report
from eval.answers import check_folder
from eval.models.factory import endpoint, open_backend
from eval.ranks import connect
from eval.runner import run
from eval.sample import read_predictions
from eval.tasks import task as tasks
from eval.tasks.task import Request


def run_arguments(arguments: argparse.Namespace) -> None:
    """Run the tasks with the model that the arguments name."""
    check(arguments)
    name, output = model_and_output(arguments)
    chosen = tasks.load_tasks(arguments.tasks)
    requests = [
        request for task, config, _ in chosen for request in tasks.requests(task, config, arguments.data)
    ]
    scoring.check_references([request.sample for request in requests])
    requests = limited(requests, arguments.limit)
    files = [
        file
        for task, config, path in chosen
        for file in (path, *tasks.data_files(task, config, arguments.data))
    ]
    ranks = connect()
    hashes = manifest.hash_files(dict.fromkeys(files))
    base = base_run(arguments.base)
    if base and base.resolve() == output.resolve():
        raise UserError(
            f"{output} is the output folder of both the model and its base. Set another --output."
        )
    if base and base != Path(arguments.base):
        backend = open_backend(arguments, arguments.base, ranks, is_base=True)
        run(requests, backend, base, hashes, ranks, name=arguments.base, limit=arguments.limit)
        del backend  # its weights, before others are loaded
        gc.collect()
    backend = open_backend(arguments, name, ranks)
    run(requests, backend, output, hashes, ranks, name=name, limit=arguments.limit)
    if ranks.rank:
        return
    if base:
        rows = scoring.compare(read_predictions(base), read_predictions(output))
        print(f"\nA is {base}, B is {output}\n{scoring.comparison_table(rows)}")
    print(write_report(output, base))


def check(arguments: argparse.Namespace) -> None:
    """Raise UserError if the arguments name no model, predictions file or baseline, or an output folder or
    endpoint that cannot be one."""
    if not (arguments.model or arguments.replay or arguments.copy):
        raise UserError(
            "No model. Pass --model FOLDER, --endpoint URL --model NAME, --replay FILE or --copy."
        )
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit {arguments.limit}: must be at least 1.")
    local = ("four_bit", "dtype", "context") if arguments.endpoint else ("log_probabilities",)
    for name in local:
        if getattr(arguments, name):
            other = "a model folder" if arguments.endpoint else "--endpoint"
            raise UserError(f"--{name.replace('_', '-')} is for {other}. Remove it.")
    if arguments.endpoint:
        endpoint(arguments, arguments.model or arguments.base or "")
    check_folder(model_and_output(arguments)[1])
    if (base := base_run(arguments.base)) and base != Path(arguments.base):
        check_folder(base)


def model_and_output(arguments: argparse.Namespace) -> tuple[str, Path]:
    """The name of the model and the folder of its run."""
    name = arguments.model or str(arguments.replay or "copy")
    return name, arguments.output or default_output(name)


def limited(requests: Sequence[Request], limit: int | None) -> list[Request]:
    """The first `limit` requests of each task; of an exam, of each subject."""
    asked: Counter[tuple[str, str]] = Counter()
    chosen = []
    for request in requests:
        part = request.sample.task, request.sample.groups.get("subject", "")
        asked[part] += 1
        if limit is None or asked[part] <= limit:
            chosen.append(request)
    return chosen


def default_output(name: str) -> Path:
    """One folder for each model path, so that `runs/mine/model` and `runs/other/model` do not collide."""
    parts = [part for part in Path(name).parts if part not in ("/", ".", "..")]
    return Path("runs/eval") / "-".join(parts)


def base_run(base: str | None) -> Path | None:
    """The run folder of --base: itself if it is a finished run, else where its answers will be written."""
    if not base:
        return None
    return Path(base) if (Path(base) / "predictions.jsonl").is_file() else default_output(base)
