"""Writes checkpoints, which are complete or absent, and the export that transformers opens.

    RUN/checkpoints/step-00000100/model/          Hugging Face folder: config, safetensors, tokenizer
                                  state/          DeepSpeed's files: optimizer, fp32 masters
                                  progress.json   samples and tokens consumed, who wrote it
                                  manifest.json   hash of every file
    RUN/checkpoints/latest                        name of the newest complete one

All processes write into a hidden folder, while training continues if the host has memory for a copy
(core/checkpoint/async_writer.py). Each hashes what it wrote. Then the main process writes the manifest,
renames the folder, and only then updates `latest` and removes old checkpoints.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch

from core.checkpoint.async_writer import Background, Copy, full_disk_named, plain_copy
from core.checkpoint.progress import Progress
from core.distributed import deepspeed_backend
from core.distributed.deepspeed_backend import Engine
from core.distributed.process_group import World, on_main
from core.errors import UserError
from core.model import lora
from core.provenance import atomic_io, manifest

SHARD_BYTES = 5 * 10**9


class Tokenizer(Protocol):
    """What is needed of transformers' tokenizer."""

    def save_pretrained(self, folder: Path, /) -> object: ...


def save(
    engine: Engine,
    tokenizer: Tokenizer,
    root: Path,
    progress: Progress,
    world: World,
    *,
    config: Mapping[str, Any],
    inputs: Callable[[], Mapping[str, str]],
    keep: int,
    background: Background | None = None,
) -> Path:
    """Write a checkpoint of this step, point `latest` at it, keep the newest `keep`; collective.

    `inputs` returns the files that the run was made from and their hashes; the main process calls it when all
    else is written. With `background` this returns as soon as training can continue, and `background` reports
    when the checkpoint is complete; an earlier one is waited for first.
    """
    started, name = time.perf_counter(), f"step-{progress.step:08d}"
    partial, target = root / f".{name}.partial", root / name
    writer = background or Background(world)
    writer.wait()
    if world.is_main:
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(".step-*"):
            shutil.rmtree(leftover)
        partial.mkdir()
    world.barrier()
    written = {**asdict(progress), "world_size": world.size}
    written["zero_stage"] = deepspeed_backend.zero_stage(engine)
    counts = progress.counts()
    with full_disk_named(partial):
        deepspeed_backend.save_state(
            engine, partial, exclude_frozen=lora.is_adapted(engine.module), save=writer.save_state
        )
        export(engine, tokenizer, partial / "model", world, writer)
    marks = [partial / f".written-{rank}" for rank in range(world.size)]
    writer.later(lambda: atomic_io.write_text(marks[world.rank], json.dumps(writer.hashes(partial))), partial)
    waited_s = time.perf_counter() - started

    def complete() -> str:
        # If a rank dies, core/distributed/watchdog.py ends the run.
        while not all(mark.exists() for mark in marks):
            time.sleep(0.01)
        hashes: dict[str, str] = {}
        for mark in marks:
            hashes |= json.loads(mark.read_text("utf-8"))
            mark.unlink()
        atomic_io.write_text(partial / "progress.json", json.dumps(written, indent=1) + "\n")
        record: Any = {"config": config, "inputs": inputs(), "counts": counts, "hashes": hashes}
        manifest.write(partial, step="checkpoint", **record)
        atomic_io.replace(partial, target)
        atomic_io.write_text(root / "latest", name + "\n")
        for old in sorted(root.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
        return f"saved {target}; training waited {waited_s:.2f} s"

    if world.is_main:
        writer.later(complete, partial)
    if background is None:
        writer.wait()
        world.barrier()
    return target


def newest(root: Path, world: World) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are complete and unchanged, and what is wrong with newer ones;
    collective.

    UserError if there are only damaged checkpoints: training must not silently start from the beginning.
    """
    candidates, damaged = on_main(world, lambda: _candidates(root))
    for folder in candidates:
        try:
            verify(folder, world)
        except UserError as error:
            damaged.append(str(error))
        else:
            return folder, damaged
    if damaged:
        listed = "\n".join(f"  {line}" for line in damaged)
        raise UserError(
            f"all checkpoints in {root} are damaged:\n{listed}\n"
            f"Restore the files, or remove {root} to start again from the base model."
        )
    return None, []


def _candidates(root: Path) -> tuple[list[Path], list[str]]:
    """The checkpoints, the newest first, and what is wrong with `latest`."""
    latest = root / "latest"
    name = latest.read_text("utf-8", errors="replace").strip() if latest.exists() else ""
    missing = name and not (root / name).is_dir()
    problems = [f"{latest} names {name!r}, which does not exist."] if missing else []
    return sorted(root.glob("step-*"), reverse=True), problems


def verify(folder: Path, world: World) -> None:
    """As `manifest.verify`, of which every process does its share; all raise the same error. Collective."""

    def largest_first() -> list[tuple[str, str]]:
        outputs: dict[str, str] = manifest.read(folder)["outputs"]
        sizes = {name: (folder / name).stat().st_size for name in outputs if (folder / name).is_file()}
        return sorted(outputs.items(), key=lambda item: -sizes.get(item[0], 0))

    mine = dict(on_main(world, largest_first)[world.rank :: world.size])
    found = world.gather(manifest.damage(folder, mine))
    missing, altered = (sorted(chain.from_iterable(names)) for names in zip(*found, strict=True))
    manifest.refuse_damage(folder, missing, altered)


def export(engine: Engine, tokenizer: Tokenizer, folder: Path, world: World, queue: Background) -> None:
    """Write the model in transformers' layout, shard by shard; collective, because ZeRO 3 gathers weights.

    Of a model with an adapter only the adapter is written, in peft's layout. Shards of `SHARD_BYTES` are
    queued while `queue` has memory for them, otherwise written one at a time; only one weight is gathered at
    a time. Errors are raised after the last collective operation, so that no process is left waiting.
    """
    model = engine.module
    if world.is_main:
        folder.mkdir(parents=True, exist_ok=True)
    if lora.is_adapted(model):
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if world.is_main:
            lora.write(model, {name: w for name, w in weights(model) if name in trained}, folder)
            tokenizer.save_pretrained(folder)
        return
    shards: list[list[str]] = [[]]
    pending: dict[str, torch.Tensor] = {}
    for name, weight in weights(model, queue.copy if world.is_main else None):
        if not world.is_main:
            continue
        if pending and _size(pending) + weight.nbytes > SHARD_BYTES:
            _queue(pending, folder / f"shard-{len(shards)}.safetensors", queue)
            shards.append([])
            pending = {}
        pending[name] = weight
        shards[-1].append(name)
    if world.is_main:
        _queue(pending, folder / f"shard-{len(shards)}.safetensors", queue)
        queue.later(lambda: _name_shards(folder, shards, queue), folder)
        write_settings(model, folder)
        tokenizer.save_pretrained(folder)
        if getattr(model.config, "auto_map", None):  # model.trust_remote_code: its code goes with its weights
            for file in Path(model.config.name_or_path).glob("*.py"):
                shutil.copy2(file, folder)
        queue.check()


def write_settings(model: Any, folder: Path) -> None:
    """Write what transformers keeps beside the weights: the architecture and the generation settings."""
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def publish(
    engine: Engine,
    tokenizer: Tokenizer,
    target: Path,
    progress: Progress,
    world: World,
    *,
    config: Mapping[str, Any],
    inputs: Callable[[], Mapping[str, str]],
    sources: Mapping[str, Mapping[str, str]] | None = None,
    background: Background | None = None,
) -> None:
    """Export the model of this step and its manifest to `target`, replacing an earlier one; collective.

    `inputs` and `background` as in `save`; `sources` are the licences and permitted uses of the training
    data.
    """
    started, step, counts = time.perf_counter(), progress.step, progress.counts()
    partial = target.with_name(f".{target.name}.partial")
    writer = background or Background(world)
    writer.wait()
    if world.is_main:
        shutil.rmtree(partial, ignore_errors=True)
    world.barrier()
    with full_disk_named(partial):
        export(engine, tokenizer, partial, world, writer)
    waited_s = time.perf_counter() - started

    def complete() -> str:
        record: Any = {"config": config, "inputs": inputs(), "counts": counts, "sources": sources}
        manifest.write(partial, step="train", hashes=writer.hashes(partial), **record)
        atomic_io.replace(partial, target)
        return f"saved the model of step {step} as {target}; training waited {waited_s:.2f} s"

    if world.is_main:
        writer.later(complete, partial)
    if background is None:
        writer.wait()
        world.barrier()


def weights(model: Any, copy: Copy | None = plain_copy) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of every weight that transformers stores, each tied weight once; values are copied to
    the CPU by `copy`, or not at all if it is None. Collective at ZeRO 3."""
    for name, parameter in model.named_parameters():
        with deepspeed_backend.whole(parameter):
            yield name, copy(parameter).contiguous() if copy else parameter
    stored = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in stored:
            yield name, copy(buffer).contiguous() if copy else buffer


def _queue(shard: dict[str, torch.Tensor], file: Path, writer: Background) -> None:
    """Queue a shard to be written; if memory is too small for another one, wait until it is written."""
    from safetensors.torch import save_file

    def write() -> None:
        save_file(shard, file, metadata={"format": "pt"})
        file.chmod(0o644)  # safetensors makes it readable by its owner only
        writer.hash(file)

    writer.later(write, file.parent)
    if not writer.has_memory(SHARD_BYTES):
        writer.settle()


def _name_shards(folder: Path, shards: list[list[str]], writer: Background) -> None:
    """Rename the shard files to transformers' names and write its index."""
    if len(shards) == 1:
        writer.rename(folder / "shard-1.safetensors", "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        writer.rename(folder / f"shard-{number}.safetensors", file)
        weight_map |= dict.fromkeys(names, file)
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    atomic_io.write_text(folder / "model.safetensors.index.json", json.dumps(index, indent=1) + "\n")


def _size(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
