"""`python -m delta make --dry-run` and `apply --dry-run`: headers are compared, no tensor is read."""

from collections.abc import Iterator
from pathlib import Path

from core import dry_run
from core.errors import UserError
from core.provenance.atomic_io import refuse_overlap
from delta import delta_format, safetensors_io


def make_checks(base: Path, target: Path | None, adapter: Path | None, delta: Path) -> Iterator[dry_run.Look]:
    """What `make` would read and write."""
    if (target is None) == (adapter is None):
        raise UserError("make: give either --target or --adapter, not both.")
    tuned = target or adapter
    assert tuned is not None
    refuse_overlap(delta, (base, tuned))
    yield dry_run.model("base", str(base))
    yield dry_run.model("target" if target else "adapter", str(tuned))
    if target and base.is_dir() and target.is_dir():
        yield _tensors(safetensors_io.ModelFolder(base), safetensors_io.ModelFolder(target))
    yield dry_run.writable("delta", delta)


def apply_checks(base: Path, delta: Path, target: Path) -> Iterator[dry_run.Look]:
    """What `apply` would read and write."""
    refuse_overlap(target, (base, delta))
    yield dry_run.model("base", str(base))
    yield dry_run.place("delta", delta)
    yield dry_run.writable("target", target)


def _tensors(base: safetensors_io.ModelFolder, target: safetensors_io.ModelFolder) -> dry_run.Look:
    """How many of the target's tensors can be stored as a difference to the base; the others are stored in
    full."""
    similar = sum(delta_format.counterpart(tensor, base) is not None for tensor in target.tensors.values())
    full = len(target.tensors) - similar
    return dry_run.Look("tensors", f"{similar:,} as a difference to the base, {full:,} in full")
