"""`--dry-run` of every room's command: everything is checked but the weights, and nothing is written.

A mistake in the configuration ends with its message and exit code 2, as in the real run. What an earlier step
of the recipe still has to make, and files that are not there yet, are told as missing and are no mistake.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from core.config.schema import DeepSpeedConfig, ModelConfig, TrainingConfig
from core.errors import UserError, printable
from core.files import files_below


class Look(NamedTuple):
    """One thing that the command would use."""

    subject: str
    found: str
    there: bool = True


def report(looks: Iterable[Look]) -> int:
    """Print a line a look, and what is missing; the exit code is that of a right configuration, 0."""
    missing = 0
    for look in looks:
        line = f"{'ok' if look.there else 'missing':<9}{look.subject:<19}{look.found}"
        print(printable(line), flush=True)
        missing += not look.there
    print(f"dry run: nothing was started or written; {missing or 'nothing'} missing")
    return 0


def place(subject: str, path: str | Path, what: str = "not there yet") -> Look:
    """A file or folder that the command reads: how many files and bytes, where it is there."""
    at = Path(path)
    if not at.exists():
        return Look(subject, f"{path}: {what}", there=False)
    files = [file for file in files_below(at) if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return Look(subject, f"{path}: {len(files):,} files, {size / 1e9:,.2f} GB")


def is_cached(name: str) -> bool:
    """Whether the hub's cache on this machine has the configuration of a model of this name."""
    if name.count("/") != 1 or name.startswith((".", "/")):
        return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def model(subject: str, path: str) -> Look:
    """A model's folder, or its name on the hub, of which only the small files would be read."""
    if Path(path).is_dir():
        return place(subject, path)
    if is_cached(path):
        return Look(subject, f"{path}: in the hub's cache")
    return Look(subject, f"{path}: no folder, and not in the hub's cache", there=False)


def training(
    config: TrainingConfig, architecture: ModelConfig, zero: DeepSpeedConfig, tokens_per_sample: int
) -> Iterator[Look]:
    """The checks that every stage of training has in common, for the processes that WORLD_SIZE names."""
    from core.distributed import deepspeed_backend
    from core.model import activation_checkpointing, lora, sequence_parallel

    together = config.sequence_parallel_size
    processes = int(os.environ.get("WORLD_SIZE", together))
    activation_checkpointing.check(architecture, zero.zero_stage)
    lora.check(architecture.adapter, zero.zero_stage)
    sequence_parallel.check_length(together, tokens_per_sample)
    deepspeed_backend.settings(zero, config)
    times = config.accumulation(processes)
    shared = "" if together == 1 else f" / {together} that share a row"
    split = f"{config.micro_batch_size} x {processes} processes{shared} x {times} times"
    tokens = config.global_batch_size * tokens_per_sample
    yield Look("batch", f"{config.global_batch_size:,} samples, up to {tokens:,} tokens a step: {split}")
    kind = "an adapter" if architecture.adapter else "all weights"
    yield Look(
        "training", f"{kind}, ZeRO {zero.zero_stage}, {architecture.activation_checkpointing} checkpointing"
    )


def base(
    config: ModelConfig, path: str, longest: int, *, begun: bool = False, together: int = 1
) -> Iterator[Look]:
    """How the base is trained on documents of up to `longest` tokens; tried out on a tiny model of its class
    (core/model/proof.py) where its configuration is on this machine. `begun` as in `remarks`; `together`
    processes share a row."""
    if config.architecture is None and not Path(path).is_dir() and not is_cached(path):
        return
    from core.model import proof, sequence_parallel
    from core.model.loading import architecture, load_config, remarks

    described = (
        load_config(path, trust=config.trust_remote_code)
        if config.architecture is None
        else architecture(config.architecture)
    )
    sequence_parallel.check(together, described, config)
    way = proof.prove(described, config.attention, trust=config.trust_remote_code)
    yield Look(
        "attention", f"{way.attention}, {'one document a row' if way.apart else 'documents share rows'}"
    )
    for remark in remarks(described, config, longest, begun=begun):
        yield Look("note", remark)
    if config.adapter is not None:
        proof.try_adapter(described, config.adapter, path, trust=config.trust_remote_code)


def vocabulary(path: str, tokenizer: str | Path, *, trust: bool = False) -> Iterator[Look]:
    """That the tokenizer is the model's, where both are on this machine; `trust` as in
    model.trust_remote_code."""
    if not (
        (Path(path).is_dir() or is_cached(path)) and (Path(tokenizer).is_dir() or is_cached(str(tokenizer)))
    ):
        return
    from core.model.loading import check_vocabulary, load_tokenizer

    loaded = load_tokenizer(str(tokenizer))
    check_vocabulary(path, loaded, trust=trust)
    yield Look("vocabulary", f"{len(loaded):,} pieces, which the model has rows for")


def writable(subject: str, path: str | Path) -> Look:
    """A folder that the command makes: that it can, and how much room its disk has."""
    import shutil

    real = Path(os.path.realpath(path))
    at = next(up for up in (real, *real.parents) if up.exists())
    if not os.access(at, os.W_OK):
        raise UserError(f"{subject}: {path}: {at} cannot be written. Choose another folder.")
    return Look(subject, f"{path}: {shutil.disk_usage(at).free / 1e9:,.0f} GB free")
