"""`python -m eval run --dry-run`: read the tasks and their data, run no model."""

import argparse
from collections.abc import Iterator

from core import dry_run
from eval import run_command
from eval.analysis import scoring
from eval.tasks import task as tasks


def looks(arguments: argparse.Namespace) -> Iterator[dry_run.Look]:
    """What the run would read, ask and write."""
    run_command.check(arguments)
    for name, task, _ in tasks.load_tasks(arguments.tasks):
        if not sorted(arguments.data.glob(task.data)):
            yield dry_run.Look(f"task {name}", f"no file matches {arguments.data / task.data}", there=False)
            continue
        tasks.data_files(name, task, arguments.data)
        requests = tasks.requests(name, task, arguments.data)
        scoring.check_references([request.sample for request in requests])
        asked = len(run_command.limited(requests, arguments.limit))
        yield dry_run.Look(f"task {name}", f"{asked:,} samples")
    for subject, asked in (("model", arguments.model), ("base", arguments.base)):
        if asked and arguments.endpoint:
            yield dry_run.Look(subject, f"{asked} at {arguments.endpoint} (not contacted)")
        elif asked:
            yield dry_run.model(subject, asked)
    if arguments.replay:
        yield dry_run.place("replay", arguments.replay)
    yield dry_run.writable("output", run_command.model_and_output(arguments)[1])
