"""What every stage does with its run folder: may this configuration go on there, where does it stand, what
came out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from core.config.loader import Config, load
from core.errors import UserError
from core.provenance import manifest
from core.train.logger import read_metrics

T = TypeVar("T")


def check_resume(mode: Literal["auto", "never"], run: Path) -> None:
    """UserError where the run folder has checkpoints and the user does not want to go on from them, or a name
    under which DeepSpeed, which looks for its files by pattern, would not find them again."""
    if any(sign in str(run.resolve()) for sign in "[]*?"):
        raise UserError(
            f"run_dir={run}: DeepSpeed finds no checkpoint in a folder with [, ], * or ? in its name."
        )
    if mode == "never" and any((run / "checkpoints").glob("step-*")):
        raise UserError(
            f"{run} has checkpoints and resume=never. Choose another run_dir, or set resume=auto."
        )


def check_unchanged(config: Config, run: Path, fixed: Sequence[str]) -> list[str]:
    """What differs from the configuration that the run began with; UserError where one of the `fixed` keys
    does."""
    if not (run / "config.yaml").exists() or not any((run / "checkpoints").glob("step-*")):
        return []
    old = load(type(config), run / "config.yaml").model_dump(mode="json")
    return compare(config, old, fixed, f"{run} holds a run", "Choose another run_dir.")


def check_branch(config: Config, checkpoint: Path, fixed: Sequence[str]) -> list[str]:
    """As `check_unchanged`, against the run that `checkpoint` is of."""
    old = manifest.read(checkpoint)["config"]
    return compare(config, old, fixed, f"{checkpoint} is of a run", "Set these keys as they were there.")


def compare(config: Config, old: dict[str, Any], fixed: Sequence[str], what: str, advice: str) -> list[str]:
    """A line for each key that is another one in `old`, a run's configuration; UserError as above."""
    before, new = _flat(old), _flat(config.model_dump(mode="json"))
    keys = [key for key in new | before if before.get(key) != new.get(key)]
    lines = {key: f"{key}: {before.get(key)!r} there, {new.get(key)!r} now" for key in keys}
    refused = [line for key, line in lines.items() if any(f"{key}.".startswith(f"{name}.") for name in fixed)]
    if refused:
        listed = "\n".join(f"  {line}" for line in refused)
        raise UserError(f"{what} with another model or other data:\n{listed}\n{advice}")
    return list(lines.values())


def summary(run: Path) -> str:
    """Where the results are and how the validation loss went."""
    rows = [("model", run / "model"), ("loss curve", run / "loss.png"), ("metrics", run / "metrics.jsonl")]
    rows += [("forgetting", run / "forgetting.png")] if (run / "forgetting.png").exists() else []
    lines = ["done:", *(f"  {name:<12}{path}" for name, path in rows)]
    validated = [line for line in read_metrics(run) if "validation_loss" in line]
    if validated:
        first, last = validated[0], validated[-1]
        text = f"  validation  loss {first['validation_loss']:.3f} at step {first['step']}"
        text += f", {last['validation_loss']:.3f} at step {last['step']}"
        bits = last.get("validation_bits_per_byte")
        lines.append(f"{text} ({bits:.3f} bits per byte)" if bits else text)
    return "\n".join(lines)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value
            else {f"{prefix}{key}": value}
        )
    return flat
