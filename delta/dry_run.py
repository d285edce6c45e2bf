"""`python -m delta make --dry-run` and `apply --dry-run`: what the real run checks before any tensor is read.

What is not there yet is told as missing. What is there and would be refused is refused, with exit code 2.
"""

from collections.abc import Iterator
from pathlib import Path

from core import dry_run
from core.provenance.atomic_io import refuse_existing, refuse_overlap
from delta import apply, delta_format, legacy_rules, safetensors_io, whole


def make_checks(
    base: Path,
    tuned: Path,
    delta: Path,
    *,
    rule: str | None = None,
    adapter: bool = False,
    force: bool = False,
    allow_whole: bool = False,
) -> Iterator[dry_run.Look]:
    """What `make` would read and write. `tuned` is the target, or the adapter."""
    refuse_overlap(delta, (base, tuned))
    yield dry_run.place("base", base, "no such folder")
    yield dry_run.place("adapter" if adapter else "target", tuned, "no such folder")
    if base.exists() and tuned.exists():
        refuse_existing(delta, force=force)
        if rule:
            pairs, of_base, _ = legacy_rules.pair(base, tuned, rule)
        else:
            source, target = safetensors_io.ModelFolder(base), _target(base, tuned, adapter)
            of_base = source.tensors
            pairs = [(each, delta_format.counterpart(each, source)) for each in target.tensors.values()]
        different = sum(paired is not None for _, paired in pairs)
        yield dry_run.Look(
            "tensors", f"{different:,} as a difference to the base, {len(pairs) - different:,} in full"
        )
        if warning := whole.check(pairs, of_base, allow_whole=allow_whole):
            yield dry_run.Look("warning", warning)
    yield dry_run.writable("delta", delta)


def apply_checks(
    base: Path, delta: Path, target: Path, *, rule: str | None = None, force: bool = False
) -> Iterator[dry_run.Look]:
    """What `apply` would read and write."""
    refuse_overlap(target, (base, delta))
    yield dry_run.place("base", base, "no such folder")
    yield dry_run.place("delta", delta)
    if base.exists() and delta.exists():
        refuse_existing(target, force=force)
        if rule:
            number = len(legacy_rules.pair(base, delta, rule).tensors)
        else:
            checked = apply.check(base, delta)
            number = len(checked.delta.tensors)
            apply.check_space(target, checked.delta)
        yield dry_run.Look("tensors", f"{number:,}; names, types and shapes are those of the base")
    elif delta.exists() and not rule:
        delta_format.read(delta)
    yield dry_run.writable("target", target)


def _target(base: Path, tuned: Path, adapter: bool) -> safetensors_io.Source:
    if not adapter:
        return safetensors_io.ModelFolder(tuned)
    from delta.lora_merge import Merged

    return Merged(safetensors_io.ModelFolder(base), tuned)
