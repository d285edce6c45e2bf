"""The steps of a file as jobs for a scheduler, for configs/slurm/submit.sh.

    python -m tools.jobs --config FILE [--seeds N] [name=value …]

A line a job, with tabs: name, names of the jobs before it, seconds that its signal leads, GPUs, GB, command.
A recipe's step is its own command; a study's is run by tools.study, which skips what is up to date.
"""

import argparse
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import run_command
from tools import plan
from tools.study import picking, reading
from tools.study.arms import Study, job_name


def main() -> None:
    """Print the jobs."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.jobs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="file of steps")
    parser.add_argument("--seeds", type=int, metavar="N", help="trainings of each arm (default: the file's)")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="variables and levels")
    arguments = parser.parse_intermixed_args()
    study = reading.read(arguments.config, arguments.overrides, arguments.seeds)
    for job in jobs(study, arguments.overrides):
        print("\t".join(job))


def jobs(study: Study, overrides: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """Of each step: name, jobs before it, its signal's lead, GPUs, GB, command."""
    steps = picking.steps(study, picking.records_folder(study))
    config = study.described.tree
    entries, before = {entry.name: entry for entry in study.described.entries}, ""
    linear = not any(step.needs for step in steps)
    for step in steps:
        entry = entries[step.name.split(" ")[0]]
        name, needs = job_name(step.name), ",".join(map(job_name, step.needs))
        gpus, memory = entry.resources.gpus, entry.resources.memory_gb
        lead, command = "", step.commands[0]
        if config.study or len(step.commands) > 1:
            seeds = ["--seeds", str(study.seeds)] if config.study else []
            words = ["tools.study", "--config", str(study.described.file), *seeds, "--step", name]
            command = shlex.join([*words, *overrides])
        elif (planned := plan.Planned(entry, command)).room in plan.TRAINING and config.machines:
            lead = str(max(plan.leads_s(config, planned).values()))
        yield name, needs or (before if linear else ""), lead, _shown(gpus), _shown(memory), command
        before = name


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


if __name__ == "__main__":
    run_command(main)
