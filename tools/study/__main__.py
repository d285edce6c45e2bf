"""Run a study: the steps of a file for several arms and seeds, and what they show.

    python -m tools.study --config configs/studies/continued-pretraining.yaml --seeds 5
    python -m tools.study --config FILE --list | --dry-run        the commands | are all files there?
    python -m tools.study --config FILE --at-once 4 width=128     four steps at a time; a variable of the file
    python -m tools.study --config FILE examples=25,100           these levels of an axis only

    arms × seeds (arms.py) ──tools/step_runner.py──▶ FOLDER/STEP/… ──▶ FOLDER/report/report.html, summary.txt

What is done is not done again: a killed study goes on, and a new arm or seed adds only its own steps. A file
without a `study` is run once, step by step.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from core import dry_run
from core.config.loader import add_arguments, from_arguments
from core.errors import UserError, run_command
from core.provenance import atomic_io
from tools import steps_file
from tools.step_runner import Step, record_file, run, unfinished
from tools.steps_file import StepsFile
from tools.study import picking, reading
from tools.study.arms import FOLDER, Study, job_name
from tools.study.picking import records_folder


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, default=None)
    parser.add_argument("--seeds", type=int, metavar="N", help="trainings of each arm (default: the file's)")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="run up to N steps at a time")
    parser.add_argument("--step", metavar="NAME", help="only this step, as submit.sh names it")
    parser.add_argument("--report", action="store_true", help="only write the report again")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--list", action="store_true", help="print the commands and exit")
    shown.add_argument("--dry-run", action="store_true", help="check the files that the steps name, and exit")
    arguments = parser.parse_intermixed_args()
    if arguments.keys:
        from_arguments(StepsFile, arguments)
        if arguments.config:
            described = steps_file.read(arguments.config)
            print(f"\nvariables of {arguments.config}, to be set as name=value:")
            print("\n".join(f"  {name}={value}" for name, value in described.variables.items()))
        return 0
    if arguments.config is None:
        raise UserError("give the file of the study: --config FILE (configs/studies has some).")
    for option in ("seeds", "at_once"):
        if (value := getattr(arguments, option)) is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} {value}: must be at least 1.")
    study = reading.read(arguments.config, arguments.overrides, arguments.seeds)
    steps = picking.steps(study, records_folder(study))
    if arguments.step:
        steps = [_named(steps, arguments.step)]
    if arguments.list:
        print(steps_file.shown(steps))
    elif arguments.dry_run:
        return dry_run.report(steps_file.looks(steps))
    else:
        _run(study, steps, Path(study.described.value(FOLDER)), arguments)
    return 0


def _run(study: Study, steps: Sequence[Step], folder: Path, arguments: argparse.Namespace) -> None:
    """Run the steps and show the results."""
    records = records_folder(study)
    records.mkdir(parents=True, exist_ok=True)
    name = f"{record_file(steps[0], records).stem}.lock" if arguments.step else atomic_io.LOCK
    with atomic_io.lock(records / name, f"{folder}: another process is at work there"):
        if arguments.step and (missing := unfinished(steps[0], records)):
            raise UserError(f"the step `{steps[0].name}` needs {', '.join(missing)}: not finished yet.")
        ran = [] if arguments.report else run(steps, records, arguments.at_once)
        if arguments.step:
            return
        more = picking.steps(study, records)  # what was picked says what else there is to do
        if more != steps and not arguments.report:
            steps = more
            ran += run(steps, records, arguments.at_once)
        if not ran:
            print(f"all {len(steps)} steps are up to date: {folder}")
        if study.described.tree.study:
            from tools.study import report

            print(report.write(study, steps, folder, records))


def _named(steps: Sequence[Step], name: str) -> Step:
    names = {job_name(step.name): step for step in steps} | {step.name: step for step in steps}
    if name not in names:
        raise UserError(f"--step {name}: no such step{steps_file.hint(name, names)}")
    return names[name]


if __name__ == "__main__":
    run_command(main)
