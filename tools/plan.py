"""What a whole recipe needs, step by step, before anything starts: disk, GPU memory, GPU-hours.

    python -m tools.plan                                        Patent-LLaMA 7B on three kinds of machines
    python -m tools.plan --config mine.yaml mfu_share=0.35      a recipe of your own

The recipe is a file of steps (tools/steps_file.py), or of a study; of each step its last command counts.
Sizes that cannot be known beforehand (tokens, samples) are in the file, see configs/patent-llama/plan.yaml.
Memory comes from core/model/memory_estimate.py. If a step does not fit a machine as configured, the first
cheaper settings that fit are printed, as overrides for its command. Time is tokens x FLOPs per token / (MFU x
the cards' peak). A training job on a cluster gets its signal early enough before its time limit for the steps
under way and a checkpoint (`leads_s`).
"""

import argparse
import math
import shlex
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict

from core.config.loader import Config, add_arguments, from_arguments, load
from core.config.schema import DeepSpeedConfig, ModelConfig, TrainingConfig
from core.errors import UserError, run_command
from tools.doctor import CHECKPOINT_BYTES
from tools.steps_file import Machine, StepConfig, StepsFile
from tools.study import reading
from tools.study.arms import Study

DATA_MB_PER_CORE_S = 6.7
"""Raw Chinese patents to packed ids: docs/numbers.md, corpus."""
RECORDS_PER_RAW = 0.35
"""Size of the compressed records, as a share of the plain text; `ingest` and `clean` each write them."""
DELTA_GB_PER_CORE_S = 0.4
"""GB of the tuned model's weights; an assumption."""
DELTA_PER_MODEL = 1 / 3.8
"""Size of a delta as a share of its model, measured on a tiny one with fp32 masters: docs/delta.md."""
READING_SHARE = 0.1
"""Share of the peak that generating answers reaches, prompts included; an assumption."""
HASH_GB_PER_S = 1.0
"""GB of its own files that a process hashes; an assumption: a core with SHA-256 instructions does 1.5."""
STEPS_AT_HAND = 3
"""Optimiser steps until a signal is obeyed: the one under way and two more (core/train/loop.py)."""
MARGIN_S = 60
"""Seconds added to a signal's lead."""
MEMORY_SHARE = 0.9
"""Share of a card's memory that the estimate may use."""
TRAINING = ("pretrain", "sft")
"""Commands of steps that train."""
GAIN = 0.99
"""A cheaper setting is proposed if the estimate falls below this share of what it was."""


class Planned(NamedTuple):
    """A step, the command that counts, and how often it is run."""

    entry: StepConfig
    command: str
    times: int = 1

    @property
    def room(self) -> str:
        """The room, and its command if it has several."""
        words = self.command.split()
        words = words[words.index("-m") + 1 :] if words[0] == "core.launch" and "-m" in words else words
        return words[0] if words[0] in TRAINING else " ".join(words[:2])


class Chats(Config):
    """The part of a `data` section that the plan reads."""

    model_config = ConfigDict(extra="ignore")
    max_tokens: int | None = None


class StageConfig(Config):
    """The part of a pretrain or sft configuration that the plan reads."""

    model_config = ConfigDict(extra="ignore")
    model: ModelConfig
    data: Chats = Chats()
    sequence_length: int | None = None
    training: TrainingConfig = TrainingConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()

    @property
    def length(self) -> int:
        """Tokens of one row."""
        return self.sequence_length or self.data.max_tokens or 2048


def main() -> int | None:
    """Print the plan."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, default="configs/patent-llama/plan.yaml")
    arguments = parser.parse_intermixed_args()
    if arguments.keys:
        from_arguments(StepsFile, arguments)
        return None
    study = reading.read(arguments.config, arguments.overrides)
    from core.train.logger import quiet_libraries

    quiet_libraries()
    for line in plan(study.described.tree, planned(study)):
        print(line, flush=True)
    return 0


def planned(study: Study) -> list[Planned]:
    """Each step of a file, with its last command for the first arm, and how often it is run."""
    found: dict[str, Planned] = {}
    entries = {entry.name: entry for entry in study.described.entries}
    for step in study.steps():
        name = step.name.split(" ")[0]
        first = found.get(name, Planned(entries[name], step.commands[-1], 0))
        found[name] = first._replace(times=first.times + 1)
    return list(found.values())


def plan(config: StepsFile, steps: Sequence[Planned]) -> Iterator[str]:
    """The lines of the plan."""
    from core.model.flops import PEAK_TFLOPS

    if not config.architecture or not config.machines:
        raise UserError("the plan needs `architecture` and `machines`: see configs/patent-llama/plan.yaml.")
    for machine in config.machines:
        if machine.card not in PEAK_TFLOPS:
            raise UserError(f"machines: unknown card {machine.card}. Use one of {', '.join(PEAK_TFLOPS)}.")
    parameters, _ = shape_of(tuple(sorted(config.architecture.items())), 2048)
    yield f"{parameters / 1e9:.2f}B parameters. Nothing below was measured on a card. Assumptions:"
    mfu = f"training reaches {config.mfu_share:.0%} of a card's bf16 peak (MFU)"
    yield f"  {mfu}, generating answers {READING_SHARE:.0%};"
    disk = f"checkpoints are written at {config.disk_gb_per_s:g} GB per second (disk_gb_per_s)"
    yield f"  {disk}, and hashed at {HASH_GB_PER_S:g} GB per second by each process;"
    yield f"  a core packs {DATA_MB_PER_CORE_S} MB of raw text per second (docs/numbers.md; no GPU);"
    yield "  chats and questions have the lengths given in the plan (tokens_per_sample)."
    for step in steps:
        times = f" ({step.times} times)" if step.times > 1 else ""
        yield f"\n{step.entry.name}{times}: python -m {step.command}"
        match step.room:
            case "data run":
                yield from data_lines(step)
            case "delta make" | "delta apply":
                yield from delta_lines(parameters)
            case "eval run":
                yield from answering_lines(config, step)
            case "pretrain" | "sft" if "--prepare" not in step.command:
                yield from training_lines(config, step, parameters)
            case _:
                yield "  not estimated"
    timed = [
        step for step in steps if step.room in ("eval run", *TRAINING) and "--prepare" not in step.command
    ]
    if len(timed) > 1:
        yield "\nall steps"
    for machine in config.machines if len(timed) > 1 else ():
        yield _hours(machine, sum(gpu_hours(config, step, machine) for step in timed))


def data_lines(step: Planned) -> Iterator[str]:
    """Disk space and core-hours of a corpus."""
    raw_gb, tokens = step.entry.raw_gb, step.entry.tokens
    if raw_gb is None or tokens is None:
        raise UserError(f"steps: {step.entry.name}: a corpus needs `raw_gb` and `tokens`.")
    ids = 2 * tokens / 1e9
    records = 2 * RECORDS_PER_RAW * raw_gb
    hours = raw_gb * 1e3 / DATA_MB_PER_CORE_S / 3600
    yield (
        f"  disk      {raw_gb:,.0f} GB raw, {records:,.0f} GB of records, {ids:,.0f} GB of ids"
        f" ({2 * ids:,.0f} GB while they are sorted)"
    )
    yield f"  time      {hours:,.1f} core-hours; divide by the number of workers. No GPU"


def delta_lines(parameters: int) -> Iterator[str]:
    """Disk space and core time of a delta."""
    model = 2 * parameters / 1e9
    written = DELTA_PER_MODEL * model
    yield f"  disk      {2 * model:,.0f} GB read (base and model), about {written:,.1f} GB written"
    yield f"  time      {model / DELTA_GB_PER_CORE_S / 3600 * 60:,.1f} minutes on one core. No GPU"


def answering_lines(config: StepsFile, step: Planned) -> Iterator[str]:
    """GPU-hours of evaluating two models, the tuned one and its base."""
    parameters, _ = shape_of(tuple(sorted(config.architecture.items())), 2048)
    yield f"  disk      the answers: under 1 GB. Memory: {2 * parameters / 2**30:.1f} GiB of weights per GPU"
    for machine in config.machines:
        yield _hours(machine, gpu_hours(config, step, machine))


def _hours(machine: Machine, hours: float) -> str:
    return f"  {machine.name:<14}{hours:10,.1f} GPU-hours {hours / machine.gpus:9,.2f} hours"


def gpu_hours(config: StepsFile, step: Planned, machine: Machine) -> float:
    """GPU-hours of all runs of a step that trains, or that evaluates a model and its base."""
    shape = tuple(sorted(config.architecture.items()))
    if step.room in TRAINING:
        stage = stage_of(step)
        _, flops = shape_of(shape, stage.length)
        work = flops * tokens_of(step) * (stage.training.epochs or 1)
        share = config.mfu_share
    else:
        parameters, _ = shape_of(shape, 2048)
        models = 2 if "--base" in step.command else 1
        work = 2.0 * models * parameters * tokens_of(step)
        share = READING_SHARE
    return step.times * work / (share * peak(machine)) / 3600


def training_lines(config: StepsFile, step: Planned, parameters: int) -> Iterator[str]:
    """Disk space, and for each machine memory, settings, speed and time."""
    stage = stage_of(step)
    _, flops = shape_of(tuple(sorted(config.architecture.items())), stage.length)
    tokens = tokens_of(step) * (stage.training.epochs or 1)
    kept = stage.training.keep_checkpoints + 1
    checkpoints, model = CHECKPOINT_BYTES * parameters / 1e9, 2 * parameters / 1e9
    yield (
        f"  disk      {kept * checkpoints + model:,.0f} GB: {kept} checkpoints of {checkpoints:,.0f} GB (one"
        f" being written), the model {model:,.0f} GB"
    )
    yield f"  tokens    {tokens:,.0f}, {flops / 1e9:,.1f} GFLOP each"
    for machine in config.machines:
        speed = config.mfu_share * peak(machine) / flops
        hours = gpu_hours(config, step, machine)
        gib, overrides = fit(stage, config.architecture, machine)
        if gib > MEMORY_SHARE * machine.gib:
            settings = f"with {' '.join(overrides)}" if overrides else "as configured"
            needs = f"does not fit: {gib:.0f} GiB {settings}"
            yield f"  {machine.name:<14}{needs}; train an adapter (model.adapter)"
            continue
        yield (
            f"  {machine.name:<14}{gib:6.1f} of {machine.gib:.0f} GiB {speed:9,.0f} tokens/s per GPU"
            f" {hours:9,.1f} GPU-hours {hours / machine.gpus:9,.1f} hours"
        )
        if overrides:
            yield f"  {'':<14}with {' '.join(overrides)}"
    leads = ", ".join(f"{seconds} ({name})" for name, seconds in leads_s(config, step).items())
    yield f"  signal    seconds before a job's time limit, --signal=USR1@N: {leads}"


def stage_of(step: Planned) -> StageConfig:
    """The configuration that a step trains with, its overrides included."""
    words = shlex.split(step.command)
    if "--config" not in words:
        raise UserError(f"steps: {step.entry.name}: its command has no --config FILE.")
    at = words.index("--config") + 1
    return load(StageConfig, Path(words[at]), [word for word in words[at + 1 :] if not word.startswith("-")])


def leads_s(config: StepsFile, step: Planned) -> dict[str, int]:
    """How many seconds before its time limit a training job should get its signal, on each machine.

    It has to last for the steps at hand, a checkpoint that is still being written, and one more. Of each, all
    bytes are written at `disk_gb_per_s` and rank 0 hashes its own: the weights for transformers and for
    DeepSpeed, and its share of the optimizer's states. With `MARGIN_S`, in whole minutes.
    """
    stage, shape = stage_of(step), tuple(sorted(config.architecture.items()))
    parameters, flops = shape_of(shape, stage.length)
    checkpoint, weights = CHECKPOINT_BYTES * parameters / 1e9, 2 * 2 * parameters / 1e9
    leads = {}
    for machine in config.machines:
        work = stage.training.global_batch_size * stage.length * flops
        step_s = work / (config.mfu_share * peak(machine) * machine.gpus)
        saved_s = checkpoint / config.disk_gb_per_s
        saved_s += (weights + (checkpoint - weights) / machine.gpus) / HASH_GB_PER_S
        needed = STEPS_AT_HAND * step_s + 2 * saved_s + MARGIN_S
        leads[machine.name] = 60 * math.ceil(needed / 60)
    return leads


def tokens_of(step: Planned) -> float:
    """Tokens of one epoch."""
    entry = step.entry
    if entry.tokens is not None:
        return entry.tokens
    if entry.samples is None or entry.tokens_per_sample is None:
        raise UserError(f"steps: {entry.name}: set `tokens`, or `samples` and `tokens_per_sample`.")
    return entry.samples * entry.tokens_per_sample


def peak(machine: Machine) -> float:
    """FLOP/s of one card."""
    from core.model.flops import PEAK_TFLOPS

    return PEAK_TFLOPS[machine.card] * 1e12


def fit(stage: StageConfig, architecture: dict[str, Any], machine: Machine) -> tuple[float, list[str]]:
    """GiB per GPU and the overrides of the first settings that fit, or of the last ones if none does."""
    overrides: dict[str, str] = {}
    gib = memory(stage, architecture, machine.gpus)
    for key, value in (
        ("deepspeed.gradient_dtype", "bf16"),
        ("model.activation_checkpointing", "full"),
        ("training.micro_batch_size", "1"),
        ("deepspeed.zero_stage", "3"),
    ):
        if gib <= MEMORY_SHARE * machine.gib:
            break
        section, _, name = key.partition(".")
        old = getattr(stage, section)
        new = old.model_copy(update={name: int(value) if value.isdigit() else value})
        cheaper = stage.model_copy(update={section: new})
        if (less := memory(cheaper, architecture, machine.gpus)) < GAIN * gib:
            stage, gib, overrides[key] = cheaper, less, value
    return gib, [f"{key}={value}" for key, value in overrides.items()]


def memory(stage: StageConfig, architecture: dict[str, Any], gpus: int) -> float:
    """GiB per GPU, from core/model/memory_estimate.py."""
    times = stage.training.accumulation(gpus)
    model = stage.model.model_copy(update={"path": None})
    training, shape = stage.training, tuple(sorted(architecture.items()))
    batch, parts = training.micro_batch_size, training.sequence_parallel_size
    return estimated(shape, model, stage.deepspeed, gpus, batch, stage.length, times, parts)


@lru_cache
def estimated(
    architecture: tuple[tuple[str, Any], ...],
    model: ModelConfig,
    zero: DeepSpeedConfig,
    gpus: int,
    batch: int,
    length: int,
    micro_batches: int,
    parts: int,
) -> float:
    """As `memory`, computed once for stages of the same shape."""
    from transformers import AutoConfig

    from core.model.memory_estimate import estimate

    config = AutoConfig.for_model(**dict(architecture))
    needed = estimate(
        model,
        config,
        zero,
        processes=gpus,
        batch=batch,
        length=length,
        bf16=True,
        micro_batches=micro_batches,
        parts=parts,
    )
    return needed.total / 2**30


@lru_cache
def shape_of(architecture: tuple[tuple[str, Any], ...], length: int) -> tuple[int, float]:
    """Parameters, and FLOPs per trained token, from a model without storage."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from core.model.flops import flops_per_token

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**dict(architecture)))
    return sum(p.numel() for p in model.parameters()), flops_per_token(model, length)


if __name__ == "__main__":
    run_command(main)
