"""What every stage does with its run folder: may this configuration resume there, and what are the results.

config.yaml of the run, the configuration now ──▶ UserError, or the keys that changed
metrics.jsonl ──▶ the summary at the end of the run
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from core.config.loader import Config, load
from core.errors import UserError
from core.provenance import manifest
from core.train import skipped
from core.train.logger import read_metrics


def check_resume(mode: Literal["auto", "never"], run: Path) -> None:
    """UserError if the run has checkpoints and `mode` is never, or if DeepSpeed, which globs for its files,
    would not find them under this name."""
    if any(character in str(run.resolve()) for character in "[]*?"):
        raise UserError(
            f"run_dir={run}: DeepSpeed cannot find checkpoints in a path with [, ], * or ?. Choose another"
            " run_dir."
        )
    if mode == "never" and any((run / "checkpoints").glob("step-*")):
        raise UserError(
            f"{run} already has checkpoints, and resume=never. Choose another run_dir, or set resume=auto."
        )


def check_unchanged(config: Config, run: Path, fixed: Sequence[str]) -> list[str]:
    """A line for each key that changed since the run started; UserError if one of the `fixed` keys did."""
    if not (run / "config.yaml").exists() or not any((run / "checkpoints").glob("step-*")):
        return []
    old = load(type(config), run / "config.yaml").model_dump(mode="json")
    return _compare(config, old, fixed, run, "Choose another run_dir.")


def check_branch(config: Config, checkpoint: Path, fixed: Sequence[str]) -> list[str]:
    """As `check_unchanged`, against the run that wrote `checkpoint`."""
    old = manifest.read(checkpoint)["config"]
    return _compare(config, old, fixed, checkpoint, "Set these keys to their old values.")


def _compare(config: Config, old: dict[str, Any], fixed: Sequence[str], run: Path, advice: str) -> list[str]:
    """A line for each key that differs from `old`, the configuration of `run`; UserError as above."""
    leaves = manifest.differences_of(old, config.model_dump(mode="json"))
    lines = {key: f"{key}: was {before!r}, is now {now!r}" for key, before, now in leaves}
    refused = [line for key, line in lines.items() if any(_within(key, n) or _within(n, key) for n in fixed)]
    if refused:
        listed = "\n".join(f"  {line}" for line in refused)
        raise UserError(f"{run} was trained with another model or other data:\n{listed}\n{advice}")
    return list(lines.values())


def summary(run: Path, counts: Mapping[str, Any] | None = None) -> str:
    """Where the results are, the validation loss of the base model (step 0) and at the end, and what was
    skipped by the run's `counts`."""
    rows = [("model", run / "model"), ("loss curve", run / "loss.png"), ("metrics", run / "metrics.jsonl")]
    rows += [("forgetting", run / "forgetting.png")] if (run / "forgetting.png").exists() else []
    lines = ["done:", *(f"  {name:<12}{path}" for name, path in rows)]
    validated = [line for line in read_metrics(run) if "validation_loss" in line]
    if validated:
        first, last = (_validation(line) for line in (validated[0], validated[-1]))
        lines.append(f"  validation  {first} → {last}")
    if said := skipped.sentence(counts or {}):
        lines.append(f"  skipped     {said}")
    return "\n".join(lines)


def _validation(numbers: dict[str, float]) -> str:
    """The validation of one line of metrics.jsonl, in words."""
    step = "base model (step 0)" if numbers["step"] == 0 else f"step {numbers['step']}"
    text = f"{step}: loss {numbers['validation_loss']:.3f}"
    bits = numbers.get("validation_bits_per_byte")
    return f"{text}, {bits:.3f} bits per byte" if bits else text


def _within(key: str, section: str) -> bool:
    """Whether a dotted key is `section` or in it."""
    return f"{key}.".startswith(f"{section}.")
