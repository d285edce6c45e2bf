"""The model card (README.md) of a run, from its own records; what was not measured is left out.

RUN/config.yaml, metrics.jsonl, hardware.json, model/manifest.json ─┐
the data folders' manifests, an evaluation's scores.json ───────────┴▶ RUN/model/README.md
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from core.config.schema import RunConfig
from core.errors import UserError
from core.provenance import atomic_io, manifest
from core.train.logger import read_metrics
from core.train.trainer import Card, Recipe

Tree = dict[str, Any]
HISTORY = "## Version history"


def command(prog: str, arguments: list[str], recipe_of: Callable[[Path], Recipe]) -> None:
    """Write the card of a run again, with an evaluation's results if one is given; `recipe_of` reads its
    config.yaml."""
    parser = argparse.ArgumentParser(prog=prog, description="The model card of a run.")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder (of one stage)")
    parser.add_argument("--evaluation", type=Path, help="a folder that `python -m eval run` wrote")
    given = parser.parse_args(arguments)
    file = given.run / "config.yaml"
    if not file.exists() or not (given.run / "model" / manifest.NAME).exists():
        raise UserError(
            f"{given.run}: not a finished run (config.yaml and model/{manifest.NAME} are needed)."
        )
    print(f"done: {write(recipe_of(file), given.run, given.evaluation)}")


def write(recipe: Recipe, run: Path, evaluation: Path | None = None) -> Path:
    """Write RUN/model/README.md."""
    config, card = recipe.config, recipe.card()
    scores = _read(evaluation / "scores.json") if evaluation else {}
    if evaluation and not scores:
        raise UserError(f"{evaluation}: scores.json not found; `python -m eval run` writes it.")
    model = manifest.read(run / "model")
    metrics = read_metrics(run)
    hardware = _read(run / "hardware.json")
    name = config.card.name or Path(config.run_dir).name
    parts = [
        _front_matter(recipe, card, name, metrics, model, scores),
        f"# {name}\n\nVersion {config.card.version}. {_what(recipe, card)}",
        _uses(config),
        f"## Data\n\n{card.data}",
        _data_of_base(recipe, model),
        _hyperparameters(config, card),
        _results(metrics, model, scores),
        _effort(config, hardware),
        "## Software\n\n" + _list({k: str(v) for k, v in model["versions"].items()}),
        _history(config, name),
    ]
    file = run / "model" / "README.md"
    atomic_io.write_text(file, "\n\n".join(part for part in parts if part) + "\n")
    return file


def _front_matter(
    recipe: Recipe, card: Card, name: str, metrics: list[Tree], model: Tree, scores: Tree
) -> str:
    config = recipe.config
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": task, "type": task},
            "metrics": [
                {"type": s["metric"], "value": s["value"], "name": s["metric"]} for s in tree["scores"]
            ],
        }
        for task, tree in scores.items()
    ]
    best = _best(metrics, model)
    if best:
        results.append(
            {
                "task": {"type": "text-generation"},
                "dataset": {"name": card.held_out, "type": "held-out"},
                "metrics": [{"type": "loss", "value": best["validation_loss"], "name": "validation loss"}],
            }
        )
    tree: Tree = {"base_model": recipe.base, "pipeline_tag": "text-generation", "tags": ["patent-llama"]}
    tree["library_name"] = "transformers" if config.model.adapter is None else "peft"
    if config.card.language:
        tree["language"] = list(config.card.language)
    if config.card.licence:
        tree["license"] = config.card.licence
    if results:
        tree["model-index"] = [{"name": name, "results": results}]
    return f"---\n{yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)}---"


def _what(recipe: Recipe, card: Card) -> str:
    adapter = recipe.config.model.adapter
    if adapter is None:
        return f"All weights of `{recipe.base}`, {card.method}."
    kind = f"QLoRA adapter ({adapter.quant_type}, 4 bits)" if adapter.load_in_4bit else "LoRA adapter"
    return f"A {kind} for `{recipe.base}`, {card.method}."


def _uses(config: RunConfig) -> str:
    said = {
        "Intended use": config.card.intended_use,
        "Out of scope": config.card.out_of_scope,
        "Limitations": config.card.limitations,
    }
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in said.items() if text)


def _data_of_base(recipe: Recipe, model: Tree) -> str:
    """The terms of what the base was trained on, as far as its own manifest records them."""
    own = {name for folder in recipe.open() for name in manifest.read(folder).get("sources") or {}}
    earlier = {name: terms for name, terms in (model.get("sources") or {}).items() if name not in own}
    rows = {name: f"licence {each['licence']}, use {each['use']}" for name, each in earlier.items()}
    return f"The base was trained on:\n\n{_list(rows)}" if rows else ""


def _hyperparameters(config: RunConfig, card: Card) -> str:
    training, optimizer, schedule = config.training, config.optimizer, config.schedule
    warmup = schedule.warmup_steps
    rows = {
        "length": f"{training.steps} steps" if training.steps else f"{training.epochs} epochs",
        "samples per step": f"{training.global_batch_size:,}",
        "optimizer": f"{optimizer.name}, betas {optimizer.betas}, weight decay {optimizer.weight_decay}",
        "learning rate": f"{optimizer.learning_rate:g}, {schedule.kind}, warm-up "
        + (f"{warmup} steps" if warmup is not None else f"{schedule.warmup_share:g} of the steps"),
        **card.settings,
        "seed": str(training.seed),
    }
    if config.model.adapter is not None and config.model.adapter.path is None:
        adapter = config.model.adapter
        rows["adapter"] = (
            f"r {adapter.r}, alpha {adapter.alpha}, dropout {adapter.dropout:g}, on {adapter.target_modules}"
        )
    return "## Training\n\n" + _list(rows)


def _results(metrics: list[Tree], model: Tree, scores: Tree) -> str:
    lines = []
    best = _best(metrics, model)
    if best:
        first = next(line for line in metrics if "validation_loss" in line)
        lines.append(
            f"Held-out loss {best['validation_loss']:.4f} (nats per token) at step {best['step']}, which is"
            f" this model; {first['validation_loss']:.4f} at step {first['step']}, the first that was logged."
        )
    rows = [
        f"| {task} | {s['metric']} | {s['value']:.4g} | {s['low']:.4g} – {s['high']:.4g} | {s['n']} |"
        for task, tree in scores.items()
        for s in tree["scores"]
    ]
    if rows:
        header = "| task | metric | value | 95% interval | n |\n|---|---|---|---|---|"
        lines.append("\n".join([header, *rows]))
    return "## Results\n\n" + "\n\n".join(lines) if lines else ""


def _effort(config: RunConfig, hardware: Mapping[str, Any]) -> str:
    """Hardware, hours and operations as they were recorded; energy at the stated power."""
    if not hardware:
        return ""
    hours = hardware["seconds"] / 3600
    rows = {
        "hardware": f"{hardware['processes']} x {hardware['device']}",
        "time": f"{hours:.2f} hours, validation and checkpoints included",
        "operations": f"{hardware['flops']:.3g} FLOP, of whole rows",
    }
    if config.card.watts is not None:
        energy = config.card.watts * hours / 1000
        rows["energy"] = f"{energy:.3g} kWh, at the stated {config.card.watts:g} W (not measured)"
    return "## Effort\n\n" + _list(rows)


def _history(config: RunConfig, name: str) -> str:
    """This version, then what the former card said of its own."""
    if config.card.former is None:
        return ""
    text = Path(config.card.former).read_text("utf-8")
    lines = text.partition(f"{HISTORY}\n\n")[2].splitlines() if HISTORY in text else []
    version = next(
        (x.split()[1].rstrip(".") for x in text.splitlines() if x.startswith("Version ")), "unknown"
    )
    if not any(line.startswith(f"- {version}:") for line in lines):
        lines.insert(
            0, f"- {version}: {next((x[2:] for x in text.splitlines() if x.startswith('# ')), name)}"
        )
    return f"{HISTORY}\n\n" + "\n".join([f"- {config.card.version}: {name}", *lines])


def _best(metrics: list[Tree], model: Tree) -> Tree:
    """The line of the step that the exported model is of; empty where nothing was held out."""
    step = model["counts"].get("step")
    return next((m for m in metrics if m["step"] == step and "validation_loss" in m), {})


def _list(rows: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in rows.items())


def _read(file: Path) -> Tree:
    if not file.exists():
        return {}
    tree: Tree = json.loads(file.read_text("utf-8"))
    return tree
