"""The model card (README.md) of a run, from its own records; what was not measured is left out.

RUN/config.yaml, metrics.jsonl, hardware.json, model/manifest.json ─┐
the data folders' manifests, an evaluation's scores.json ───────────┴▶ RUN/model/README.md
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from core.config.schema import RunConfig
from core.errors import UserError
from core.model.location import HUB_ID
from core.provenance import atomic_io, manifest
from core.train import skipped
from core.train.logger import read_metrics
from core.train.trainer import Card, Recipe

Tree = dict[str, Any]
HISTORY = "## Version history"
TAG = "patent-llama"
UNITS = {"loss": " (nats per token)", "entropy": " (nats)"}


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
    scores = _read(evaluation / "scores.json") if evaluation else {}
    if evaluation and not scores:
        raise UserError(f"{evaluation}: scores.json not found; `python -m eval run` writes it.")
    file = run / "model" / "README.md"
    atomic_io.write_text(file, _text(recipe, run, manifest.read(run / "model"), scores))
    return file


def draft(recipe: Recipe, run: Path) -> None:
    """The card of a run that has not trained yet, for the errors that it would end with."""
    _text(recipe, run, {"counts": {}, "versions": {}}, {})


def _text(recipe: Recipe, run: Path, model: Tree, scores: Tree) -> str:
    """The card; `model` is the manifest of the model that it is of."""
    config, card = recipe.config, recipe.card()
    metrics, hardware = read_metrics(run), _read(run / "hardware.json")
    name = config.card.name or Path(config.run_dir).name
    parts = [
        _front_matter(recipe, card, name, metrics, model, scores),
        f"# {name}\n\nVersion {config.card.version}. {_what(recipe, card)}",
        _uses(config),
        f"## Data\n\n{card.data}",
        _data_of_base(recipe, model),
        _hyperparameters(config, card, model),
        _results(card, metrics, model, scores),
        _effort(config, hardware),
        "## Software\n\n" + _list({k: str(v) for k, v in model["versions"].items()}),
        _history(config, name),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


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
                "metrics": [
                    {"type": key, "value": value, "name": f"validation {key.replace('_', ' ')}"}
                    for key, value in _measured(best).items()
                ],
            }
        )
    base = base_on_hub(config.card.base_model, recipe.base)
    tree: Tree = {"base_model": base} if base else {}
    tree |= {"pipeline_tag": "text-generation", "tags": [TAG]}
    tree["library_name"] = "transformers" if config.model.adapter is None else "peft"
    if config.card.language:
        tree["language"] = list(config.card.language)
    if config.card.licence:
        tree["license"] = config.card.licence
    if results:
        tree["model-index"] = [{"name": name, "results": results}]
    return as_front_matter(tree)


def as_front_matter(tree: Tree) -> str:
    """The metadata at the top of a card."""
    return f"---\n{yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)}---"


def front_matter(card: Path) -> tuple[Tree, str]:
    """The metadata and the text of a card; no metadata if it has none that can be read."""
    text = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    _, begin, rest = text.partition("---\n")
    head, end, body = rest.partition("\n---")
    try:
        tree = yaml.safe_load(head) if text.startswith("---\n") and begin and end else None
    except yaml.YAMLError:
        tree = None
    return (tree, body.strip()) if isinstance(tree, dict) else ({}, text.strip())


def base_on_hub(stated: str | None, base: str) -> str | None:
    """The name of a base on the hub: the stated one, that of the base's own card if we wrote it, or `base`
    itself; None if it is a folder here."""
    if stated:
        return stated
    if not Path(base).exists():
        return base if HUB_ID.fullmatch(base) else None
    card = front_matter(Path(base) / "README.md")[0]
    return card.get("base_model") if TAG in (card.get("tags") or []) else None


def _what(recipe: Recipe, card: Card) -> str:
    adapter, base = recipe.config.model.adapter, recipe.config.card.base_model or recipe.base
    if adapter is None:
        return f"All weights of `{base}`, {card.method}."
    kind = f"QLoRA adapter ({adapter.quant_type}, 4 bits)" if adapter.load_in_4bit else "LoRA adapter"
    return f"A {kind} for `{base}`, {card.method}."


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


def _hyperparameters(config: RunConfig, card: Card, model: Tree) -> str:
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
    if said := skipped.sentence(model["counts"]):
        rows["not learnt from"] = said
    return "## Training\n\n" + _list(rows)


def _results(card: Card, metrics: list[Tree], model: Tree, scores: Tree) -> str:
    lines = []
    best = _best(metrics, model)
    if best:
        first = next(line for line in metrics if "validation_loss" in line)
        before, after = _measured(first), _measured(best)
        header = f"| {card.held_out} | step {first['step']} | step {best['step']}, this model |"
        told = [
            f"| {key.replace('_', ' ')}{UNITS.get(key, '')} | {_cell(before.get(key))} | {_cell(value)} |"
            for key, value in after.items()
        ]
        lines.append("\n".join([header, "|---|---|---|", *told]))
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


def _measured(line: Tree) -> dict[str, float]:
    """The held-out loss and what else was measured with it, such as token accuracy and entropy."""
    found = {key.removeprefix("validation_"): value for key, value in line.items() if "validation_" in key}
    return {key: value for key, value in found.items() if not key.endswith("_trl") and math.isfinite(value)}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _list(rows: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in rows.items())


def _read(file: Path) -> Tree:
    if not file.exists():
        return {}
    tree: Tree = json.loads(file.read_text("utf-8"))
    return tree
