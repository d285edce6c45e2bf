"""Corpora that a corpus extends: it keeps to what they have read, what they contain, and how they are split.

extends: [JANUARY] ──▶ files not read again · known records dropped · inventions on the same side of the split
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import NothingNewError, UserError
from core.provenance import manifest
from data.packing.train_val_split import SplitConfig


def earlier_corpora(folders: Sequence[str]) -> list[Path]:
    """Corpora and those that they extend in turn, each once; UserError if one is unfinished."""
    found: list[Path] = []
    for folder in map(Path, folders):
        if not (folder / "pack" / manifest.NAME).exists():
            raise UserError(
                f"extends: {folder} is not a finished corpus. Finish it with `python -m data run`."
            )
        before = manifest.read(folder / "pack")["config"].get("extends", ())
        found += [each for each in [*earlier_corpora(before), folder] if each not in found]
    return found


def new_inputs(inputs: Mapping[str, str], earlier: Sequence[Path]) -> tuple[set[str], dict[str, str]]:
    """The inputs that earlier corpora have read (same content), and the new ones with their hashes."""
    read = {digest for corpus in earlier for digest in manifest.read(corpus / "ingest")["inputs"].values()}
    known = {name for name, digest in inputs.items() if digest in read}
    if len(known) == len(inputs):
        listed = ", ".join(map(str, earlier))
        raise NothingNewError(f"nothing new: {listed} already have all {len(inputs):,} files of the sources.")
    return known, {name: digest for name, digest in inputs.items() if name not in known}


def outputs_of_step(earlier: Sequence[Path], step: str, ending: str) -> dict[str, str]:
    """The files of a step of earlier corpora with this ending, and their hashes."""
    outputs = (manifest.outputs_of(corpus / step) for corpus in earlier)
    return {name: digest for each in outputs for name, digest in each.items() if name.endswith(ending)}


def check_split(config: SplitConfig, earlier: Sequence[Path]) -> None:
    """UserError if an earlier corpus was split differently: records that it held out would be trained on."""
    for corpus in earlier:
        before = manifest.read(corpus / "pack")["config"]["pack"]
        for key in SplitConfig.model_fields:
            if before[key] != getattr(config, key):
                raise UserError(
                    f"pack.{key}={getattr(config, key)}, but {corpus} was packed with {before[key]}, so"
                    f" held-out inventions would be trained on. Set pack.{key}={before[key]}."
                )
