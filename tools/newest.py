"""What make targets use if they are given no folder: the newest trained model under runs/, and its base.

    python -m tools.newest model             newest RUN/model; `whole`: not an adapter; `chat`: a chat model
    python -m tools.newest base [MODEL]      the model that MODEL was first trained from, over all stages
    python -m tools.newest delta [MODEL]     where its delta goes; `applied`: the model made from the delta

MODEL is the newest one unless given. The folder goes to standard output, for the Makefile, and a line for
people to standard error.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError, run_command
from core.provenance import manifest

RUNS = Path("runs")
DEEPEST = 3
"""Folders between runs/ and model/ at most, as in runs/demo/tuned/domain/model."""


def main() -> None:
    """Print the folder that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.newest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("wanted", choices=("model", "whole", "chat", "base", "delta", "applied"))
    parser.add_argument("model", nargs="?", type=Path)
    given = parser.parse_args()
    match given.wanted:
        case "base":
            label, folder = "base", base_of(given.model or newest(RUNS, "whole"))
        case "delta" | "applied":
            label, folder = (
                given.wanted,
                str(RUNS / given.wanted / _name(given.model or newest(RUNS, "whole"))),
            )
        case kind:
            label, folder = "model", str(newest(RUNS, kind))
    print(f"{label}: {folder}", file=sys.stderr)
    print(folder)


def newest(runs: Path, kind: str) -> Path:
    """The finished model that was written last; UserError if there is none."""
    suits: dict[str, Callable[[Path], bool]] = {
        "model": lambda _: True,
        "whole": lambda folder: not (folder / "adapter_config.json").exists(),
        "chat": has_chat_template,
    }
    models = [model for model in finished_models(runs) if suits[kind](model)]
    if not models:
        missing, command = (
            ("chat model", "make sft") if kind == "chat" else ("trained model", "make pretrain")
        )
        raise UserError(f"no {missing} found under {runs}/: run `{command}` first")
    return max(models, key=lambda model: (model / manifest.NAME).stat().st_mtime)


def finished_models(runs: Path) -> Iterator[Path]:
    """Every RUN/model; models inside checkpoints do not count."""
    for depth in range(1, DEEPEST + 1):
        for file in runs.glob("/".join(["*"] * depth + ["model", manifest.NAME])):
            if "checkpoints" not in file.parts:
                yield file.parent


def has_chat_template(model: Path) -> bool:
    """Whether its tokenizer can format a conversation."""
    if (model / "chat_template.jinja").is_file():
        return True
    file = model / "tokenizer_config.json"
    return file.is_file() and "chat_template" in json.loads(file.read_text("utf-8"))


def base_of(model: Path) -> str:
    """Follow `model.path` from run to run back to a model that no run here trained: a folder or a hub id."""
    if not (model / manifest.NAME).is_file():
        raise UserError(f"{model}: no {manifest.NAME}, which would name its base. Give BASE=folder.")
    config: dict[str, Any] = manifest.read(model)["config"]
    path = config["model"]["path"]
    if path is None:  # from random weights, which are kept next to the model
        return str(model.parent / "base")
    before = Path(path)
    trained = (before / manifest.NAME).is_file() and "model" in manifest.read(before)["config"]
    return base_of(before) if trained else str(path)


def _name(model: Path) -> str:
    """A model's name for folders that are made from it: runs/sft-tiny/domain/model is sft-tiny-domain."""
    folder = model.parent if model.name == "model" else model
    return "-".join(part for part in folder.parts if part not in ("/", ".", "..", RUNS.name))


if __name__ == "__main__":
    run_command(main)
