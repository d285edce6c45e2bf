"""Checkpoints that are complete or absent, and the export that transformers opens.

    RUN/checkpoints/step-00000100/model/          Hugging Face folder: config, safetensors, tokenizer
                                  state/          DeepSpeed's files: optimiser, fp32 masters
                                  progress.json   samples and tokens consumed, who wrote it
                                  manifest.json   hash of every file
    RUN/checkpoints/latest                        name of the newest complete one

All processes write into a hidden folder beside, where memory allows it while training goes on
(core/checkpoint/async_writer.py); then the main process hashes it, renames it and only then moves `latest`.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from core.checkpoint.async_writer import Background, Copy, copied, full_disk_named, plain_copy
from core.checkpoint.progress import Progress
from core.distributed.process_group import World
from core.errors import UserError
from core.model import lora
from core.provenance import atomic_io, manifest

SHARD_BYTES = 5 * 10**9


def save(
    engine: Any,
    tokenizer: Any,
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

    `inputs` gives the files that the run rests on, with their hashes: the main process asks when all else is
    written. With `background` it returns as soon as training may go on, and `background` tells when it is
    complete; the one before is waited for first.
    """
    begun, name = time.perf_counter(), f"step-{progress.step:08d}"
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
    written["zero_stage"] = int(engine.zero_optimization_stage())
    counts = progress.counts()
    with full_disk_named(partial), copied(engine, writer):
        engine.save_checkpoint(
            str(partial), tag="state", save_latest=False,
            exclude_frozen_parameters=lora.is_adapted(engine.module),
        )  # fmt: skip
        export(engine, tokenizer, partial / "model", world, writer)
    writer.later((partial / f".written-{world.rank}").touch, partial)
    stood_s = time.perf_counter() - begun

    def complete() -> str:
        marks = [partial / f".written-{rank}" for rank in range(world.size)]
        while not all(
            mark.exists() for mark in marks
        ):  # one that died ends the run (core/distributed/watchdog.py)
            time.sleep(0.01)
        for mark in marks:
            mark.unlink()
        atomic_io.write_text(partial / "progress.json", json.dumps(written, indent=1) + "\n")
        manifest.write(partial, step="checkpoint", config=config, inputs=inputs(), counts=counts)
        atomic_io.replace(partial, target)
        atomic_io.write_text(root / "latest", name + "\n")
        for old in sorted(root.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
        return f"saved {target}; training stood still for {stood_s:.2f} s"

    if world.is_main:
        writer.later(complete, partial)
    if background is None:
        writer.wait()
        world.barrier()
    return target


def newest(root: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are all there and unaltered, and what is wrong with newer ones.

    UserError where there are checkpoints and none of them is sound: training must not start over by itself.
    """
    latest = root / "latest"
    name = latest.read_text("utf-8", errors="replace").strip() if latest.exists() else ""
    damaged = [f"{latest} names {name!r}, which is not there."] if name and not (root / name).is_dir() else []
    candidates = sorted(root.glob("step-*"), reverse=True)
    for folder in candidates:
        try:
            manifest.verify(folder)
        except UserError as error:
            damaged.append(str(error))
        else:
            return folder, damaged
    if damaged:
        listed = "\n".join(f"  {line}" for line in damaged)
        raise UserError(
            f"no checkpoint in {root} can be resumed from:\n{listed}\n"
            f"Restore the files, or remove {root} to start again from the base model."
        )
    return None, []


def export(engine: Any, tokenizer: Any, folder: Path, world: World, writer: Background | None = None) -> None:
    """Write the model as transformers does, shard by shard; collective, for at ZeRO 3 the weights are
    gathered.

    Of a model with an adapter only that is written, in peft's layout. Shards of `SHARD_BYTES` wait in memory
    while `writer` has room, else one at a time, and one weight is whole. What fails is raised after the last
    collective operation, so that no process waits for another in vain.
    """
    model, now = engine.module, writer or Background(world)
    if world.is_main:
        folder.mkdir(parents=True, exist_ok=True)
    if lora.is_adapted(model):
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if world.is_main:
            lora.write(model, {name: w for name, w in _weights(model) if name in trained}, folder)
            tokenizer.save_pretrained(folder)
        return
    shards: list[list[str]] = [[]]
    pending: dict[str, torch.Tensor] = {}
    for name, weight in _weights(model, now.copy if world.is_main else None):
        if not world.is_main:
            continue
        if pending and _size(pending) + weight.nbytes > SHARD_BYTES:
            _later(pending, folder / f"shard-{len(shards)}.safetensors", now)
            shards.append([])
            pending = {}
        pending[name] = weight
        shards[-1].append(name)
    if world.is_main:
        _later(pending, folder / f"shard-{len(shards)}.safetensors", now)
        now.later(lambda: _name_shards(folder, shards), folder)
        model.config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        now.check()


def publish(
    engine: Any,
    tokenizer: Any,
    target: Path,
    progress: Progress,
    world: World,
    *,
    config: Mapping[str, Any],
    inputs: Callable[[], Mapping[str, str]],
    sources: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Export the final model, with its manifest, as `target`, in place of an earlier one; collective.

    `inputs` as in `save`; `sources` are the licences and permitted uses of what it was trained on.
    """
    partial = target.with_name(f".{target.name}.partial")
    if world.is_main:
        shutil.rmtree(partial, ignore_errors=True)
    world.barrier()
    with full_disk_named(partial):
        export(engine, tokenizer, partial, world)
    if world.is_main:
        record: Any = {"config": config, "inputs": inputs(), "counts": progress.counts(), "sources": sources}
        manifest.write(partial, step="train", **record)
        atomic_io.replace(partial, target)
    world.barrier()


def _weights(model: Any, copy: Copy | None = plain_copy) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value, where it is wanted a `copy` on the CPU, of every weight that transformers stores; each
    tied weight once."""
    import deepspeed

    for name, parameter in model.named_parameters():
        split = [parameter] if hasattr(parameter, "ds_id") else []
        with deepspeed.zero.GatheredParameters(split):
            yield name, copy(parameter).contiguous() if copy else parameter
    stored = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in stored:
            yield name, copy(buffer).contiguous() if copy else buffer


def _later(shard: dict[str, torch.Tensor], file: Path, writer: Background) -> None:
    """Have a shard written; where memory has no room for another one, wait for it."""
    from safetensors.torch import save_file

    def write() -> None:
        save_file(shard, file, metadata={"format": "pt"})
        file.chmod(0o644)  # safetensors leaves it to its owner alone

    writer.later(write, file.parent)
    if not writer.room(SHARD_BYTES):
        writer.settle()


def _name_shards(folder: Path, shards: list[list[str]]) -> None:
    """Give the shard files transformers' names and write the index that it looks for."""
    if len(shards) == 1:
        (folder / "shard-1.safetensors").rename(folder / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}.safetensors").rename(folder / file)
        places |= dict.fromkeys(names, file)
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    index = {"metadata": {"total_size": total}, "weight_map": places}
    atomic_io.write_text(folder / "model.safetensors.index.json", json.dumps(index, indent=1) + "\n")


def _size(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
