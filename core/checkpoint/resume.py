"""Going on from a checkpoint: pickles looked through, DeepSpeed's files loaded, and converted where another
number of processes goes on.

    state/ ──scan──▶ ──same processes and ZeRO stage──▶ DeepSpeed loads it
                     ──else: ds_to_universal──▶ .step-N.universal/ ──▶ DeepSpeed loads it, and it is removed

Samples do not depend on the number of processes, so the run goes on with the same ones.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from core.checkpoint.progress import Progress
from core.checkpoint.save import newest
from core.distributed.deepspeed_backend import load_state
from core.distributed.process_group import World, on_main
from core.errors import UserError
from core.provenance import manifest

SAFE = frozenset(
    {
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)
"""What DeepSpeed's files may name beyond what torch itself holds to be harmless."""


def resume(
    run: Path,
    engine: Any,
    world: World,
    say: Callable[[str], None],
    changed: Sequence[str],
    branch: Path | None = None,
) -> Progress:
    """Where the run stands: its newest sound checkpoint, else the one that it branches off from, which is
    loaded into the engine; else the beginning. Collective."""
    folder, damaged = on_main(world, lambda: newest(run / "checkpoints"))
    for problem in damaged:
        say(f"not used: {problem}")
    if folder is None and branch is not None:
        folder = branch
        on_main(world, lambda: manifest.verify(branch))
    if folder is None:
        return Progress()
    progress = load(engine, folder, world)
    say(f"resumed from {folder}")
    for line in changed:
        say(f"changed since the run began: {line}")
    return progress


def load(engine: Any, folder: Path, world: World) -> Progress:
    """Take weights, optimiser and progress from a checkpoint; collective."""
    written = json.loads((folder / "progress.json").read_text("utf-8"))
    stage, size = written.pop("zero_stage"), written.pop("world_size")
    now = int(engine.zero_optimization_stage())
    universal = stage != now or (size != world.size and stage > 0)
    if stage != now and {stage, now} != {1, 2}:
        raise UserError(
            f"{folder} was written at deepspeed.zero_stage={stage}, this run has {now}. Its optimiser states"
            f" can be taken over between 1 and 2 only. Set deepspeed.zero_stage={stage}, or start a new run"
            f" from the weights: model.path={folder / 'model'} with another run_dir."
        )
    source = folder
    if universal:
        source = on_main(world, lambda: convert(folder))
    else:
        on_main(world, lambda: check_pickles(folder))
    load_state(engine, source, universal=universal)
    world.barrier()
    if universal and world.is_main:
        shutil.rmtree(source)
    return Progress(**written)


def check_pickles(folder: Path) -> None:
    """UserError where a file of torch's under `folder` would run code that is not `SAFE` when it is loaded.

    DeepSpeed loads its files with `weights_only=False`, and a pickle may name any function to be called.
    """
    for file in sorted(folder.rglob("*.pt")):
        try:
            named = set(torch.serialization.get_unsafe_globals_in_checkpoint(file)) - SAFE
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(f"{file} is not a file that torch wrote ({error}); it was not loaded.") from None
        if named:
            raise UserError(
                f"{file} names {', '.join(sorted(named))}, which no checkpoint of this program does, and"
                " which would run when it is loaded. It was not. Find out who changed it; resume from another"
                " one."
            )


def convert(folder: Path) -> Path:
    """Write a checkpoint in DeepSpeed's universal form, for any number of processes, under a hidden name."""
    check_pickles(folder)
    target = folder.with_name(f".{folder.name}.universal")
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-P", "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    # It takes paths for regular expressions: they are short ones, seen from the folder of the checkpoints.
    places = ["--input_folder", f"{folder.name}/state", "--output_folder", f"{target.name}/state"]
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [*command, *places], cwd=folder.parent, env=alone, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no word of why"]
        raise UserError(
            f"{folder} could not be converted for another number of processes: {lines[-1]}. Start as many as"
            " wrote it (world_size in its progress.json)."
        )
    return target
