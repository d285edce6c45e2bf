"""Resumes from a checkpoint: checks its pickles, converts it for another number of processes, loads it.

    state/ ──check──▶ ──same number of processes and ZeRO stage──▶ DeepSpeed loads it
                      ──otherwise: universal form──▶ .step-N.universal/ ──▶ DeepSpeed loads it; then removed

Samples do not depend on the number of processes: the run continues with the next one.
"""

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from core.checkpoint.progress import Progress
from core.checkpoint.save import newest, verify
from core.distributed import deepspeed_backend
from core.distributed.deepspeed_backend import Engine
from core.distributed.process_group import World, on_main
from core.distributed.universal import to_universal
from core.errors import UserError
from core.model import parameter_groups
from core.model.lora import is_adapted


def find(run: Path, world: World, report: Callable[[str], None], branch: Path | None = None) -> Path | None:
    """The run's newest complete checkpoint, else the checkpoint `branch` that it starts from, if any.
    Collective."""
    folder, damaged = newest(run / "checkpoints", world)
    for problem in damaged:
        report(f"not used: {problem}")
    if folder is None and branch is not None:
        verify(branch, world)
    return folder or branch


def group_elements(folder: Path | None, world: World) -> int | None:
    """Most elements of a parameter group: what the checkpoint was written with, if there is one, because
    DeepSpeed's states of one division into groups do not fit another."""
    return parameter_groups.group_elements(world.size) if folder is None else _read(folder)[0].group_elements


def resume(
    folder: Path | None, engine: Engine, world: World, report: Callable[[str], None], changed: Sequence[str]
) -> Progress:
    """Load the checkpoint that `find` found into the engine; returns its progress. Collective.

    `changed` lists settings that differ from those the run started with; they are reported after a resume.
    """
    if folder is None:
        return Progress(group_elements=group_elements(None, world))
    progress = load(engine, folder, world)
    report(f"resumed from {folder}")
    for line in changed:
        report(f"changed since the run started: {line}")
    return progress


def load(engine: Engine, folder: Path, world: World) -> Progress:
    """Load weights and optimizer state from a checkpoint; returns its progress. Collective."""
    progress, stage, size = _read(folder)
    now = deepspeed_backend.zero_stage(engine)
    universal = stage != now or (size != world.size and stage > 0)
    if stage != now and {stage, now} != {1, 2}:
        raise UserError(
            f"{folder} was written at deepspeed.zero_stage={stage}, this run has {now}. Optimizer states can"
            f" only be converted between stages 1 and 2. Set deepspeed.zero_stage={stage}, or start a new run"
            f" from the weights: model.path={folder / 'model'} with another run_dir."
        )
    source = folder
    if universal:
        source = on_main(world, lambda: convert(folder))
    else:
        on_main(world, lambda: check_pickles(folder))
    strict = not is_adapted(engine.module)  # frozen weights are not saved
    deepspeed_backend.load_state(engine, source, universal=universal, strict=strict)
    world.barrier()
    if universal and world.is_main:
        shutil.rmtree(source)
    return progress


def _read(folder: Path) -> tuple[Progress, int, int]:
    """The progress of a checkpoint, its ZeRO stage, and the number of processes that wrote it."""
    written = json.loads((folder / "progress.json").read_text("utf-8"))
    stage, size = written.pop("zero_stage"), written.pop("world_size")
    return Progress(**written), stage, size


def check_pickles(folder: Path) -> None:
    """UserError if a file saved by torch under `folder` would run code when it is loaded.

    DeepSpeed loads its files with `weights_only=False`, and a pickle may call any function that it names.
    """
    for file in sorted(folder.rglob("*.pt")):
        try:
            unsafe = set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(f"{file} was not written by torch ({error}). It was not loaded.") from None
        if unsafe - deepspeed_backend.SAFE_GLOBALS:
            listed = ", ".join(sorted(unsafe - deepspeed_backend.SAFE_GLOBALS))
            raise UserError(
                f"{file} was not loaded: it would call {listed}, which no checkpoint of this program"
                " contains. Find out who changed it, and resume from another checkpoint."
            )


def convert(folder: Path) -> Path:
    """Write a checkpoint in DeepSpeed's universal form, for any number of processes, to a hidden folder."""
    check_pickles(folder)
    _check_space(folder)
    target = folder.with_name(f".{folder.name}.universal")
    shutil.rmtree(target, ignore_errors=True)
    problem = to_universal(folder, target)
    if problem:
        raise UserError(
            f"{folder} could not be converted for another number of processes: {problem}. Start as many"
            " processes as wrote it: world_size in its progress.json."
        )
    return target


def _check_space(folder: Path) -> None:
    """UserError if the disk is too small for the conversion: DeepSpeed writes the optimizer states once in
    pieces and once whole, and copies the rest, before it removes the pieces."""
    sizes = {file: file.stat().st_size for file in (folder / "state").rglob("*") if file.is_file()}
    needed = sum(size * (2 if "optim_states" in file.name else 1) for file, size in sizes.items())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder} was written by another number of processes, or at another ZeRO stage. To convert it,"
            f" {needed / 1e9:,.1f} GB more are needed on this disk for a time, and {free / 1e9:,.1f} GB are"
            " free. Free some space, or start as many processes as wrote it: world_size in its progress.json."
        )
