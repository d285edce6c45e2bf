"""What the arms of a study cost, and where their runs are.

Training (seconds, tokens) ──┐
RUN ──lineage──▶ hardware.json of runs that not all trainings share ──▶ GPU-hours, else CPU-hours
"""

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance import manifest
from tools import lineage
from tools.study.results import Arm, Key, Training

HARDWARE = "hardware.json"

Tree = dict[str, Any]


def costs(arms: Mapping[Key, Arm]) -> list[Tree]:
    """For each arm the means of a training: `seconds`, `cpu_seconds`, `tokens`, `gpu_hours` and `cpu_hours`.
    Tokens are None where a training does not say; GPU-hours where none was trained on a GPU."""
    hours = _gpu_hours(arms)
    rows = []
    for key, arm in arms.items():
        n = len(arm.trainings)
        tokens = [training.tokens for training in arm.trainings if training.tokens is not None]
        on_gpus = [hours[key, t.seed] for t in arm.trainings if hours[key, t.seed] is not None]
        cpu = sum(training.cpu_seconds for training in arm.trainings) / n
        rows.append(
            {
                "arm": dict(arm.levels),
                "trainings": n,
                "seconds": sum(training.seconds for training in arm.trainings) / n,
                "cpu_seconds": cpu,
                "tokens": sum(tokens) / n if len(tokens) == n else None,
                "gpu_hours": sum(filter(None, on_gpus)) / n if on_gpus else None,
                "cpu_hours": cpu / 3600,
            }
        )
    return rows


def runs(arms: Mapping[Key, Arm]) -> list[Tree]:
    """Every run: `arm`, `seed`, `run`, hash of its `manifest` (None without one), and the command for its
    `lineage`."""
    return [
        {
            "arm": dict(arm.levels),
            "seed": training.seed,
            "run": run.as_posix(),
            "manifest": next(iter(manifest.hash_files(_made(run)).values()), None),
            "lineage": f"make lineage RUN={shlex.quote(run.as_posix())}",
        }
        for arm in arms.values()
        for training in sorted(arm.trainings)
        for run in training.runs
    ]


def _made(run: Path) -> list[Path]:
    file = run / manifest.NAME
    return [file] if file.is_file() else []


def _gpu_hours(arms: Mapping[Key, Arm]) -> dict[tuple[Key, int], float | None]:
    """Of each training: processes × hours of the runs on GPUs behind it, but those behind all trainings."""
    used = {(key, t.seed): _hardware(t) for key, arm in arms.items() for t in arm.trainings}
    times = Counter(file for files in used.values() for file in files)
    found: dict[tuple[Key, int], float | None] = {}
    for training, files in used.items():
        own = [file for file in files if times[file] < max(2, len(used))]
        records = [json.loads(file.read_text("utf-8")) for file in own]
        on_gpus = [r for r in records if not str(r.get("device", "CPU")).startswith("CPU")]
        found[training] = sum(r["processes"] * r["seconds"] for r in on_gpus) / 3600 if on_gpus else None
    return found


def _hardware(training: Training) -> set[Path]:
    """The hardware.json files of all trainings that a training's runs rest on."""
    files = set()
    for run in filter(_made, training.runs):
        try:
            artifacts = list(lineage.walk(lineage.trace(run)))
        except UserError:  # something it was made from is damaged, which `make lineage` says
            continue
        for artifact in artifacts:
            for folder in (artifact.folder, artifact.folder.parent):
                if (folder / HARDWARE).is_file():
                    files.add((folder / HARDWARE).resolve())
    return files
