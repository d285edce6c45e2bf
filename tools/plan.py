"""What a whole recipe needs, step by step, before anything starts: disk, GPU memory, GPU-hours.

    python -m tools.plan                                        Patent-LLaMA 7B on three kinds of machines
    python -m tools.plan --config mine.yaml mfu_share=0.35      a recipe of your own

A step is one command of a room. Sizes that cannot be known beforehand (tokens, samples) are in the plan, see
configs/patent-llama/plan.yaml. Memory comes from core/model/memory_estimate.py. If a step does not fit a
machine as configured, the first cheaper settings that fit are printed, as overrides for its command. Time is
tokens x FLOPs per token / (MFU x the cards' peak). A training job on a cluster gets its signal early
enough before its time limit for the steps under way and a checkpoint (`leads_s`).
"""

import argparse
import math
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from core.config.loader import Config, add_arguments, from_arguments, load
from core.config.schema import DeepSpeedConfig, ModelConfig, TrainingConfig
from core.errors import UserError, run_command
from tools.doctor import CHECKPOINT_BYTES

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
GAIN = 0.99
"""A cheaper setting is proposed if the estimate falls below this share of what it was."""


class Machine(Config):
    """Cards that run a step together."""

    name: str
    """What the plan calls it."""
    card: str
    """A card of core/model/flops.py, which has its peak."""
    gpus: int = Field(ge=1)
    """Number of cards."""
    gib: float = Field(gt=0)
    """Memory of one card, in GiB."""


class PlannedStep(Config):
    """One command of the recipe."""

    name: str
    """What the plan calls it."""
    command: str
    """The room and its arguments: what follows `python -m`."""
    raw_gb: float | None = Field(None, gt=0)
    """Size of a corpus's raw files, in GB."""
    tokens: float | None = Field(None, gt=0)
    """Tokens in the corpus, or tokens trained on per epoch."""
    samples: float | None = Field(None, gt=0)
    """Instead of `tokens`: number of chats or questions."""
    tokens_per_sample: float | None = Field(None, gt=0)
    """Their mean length: an assumption, to be corrected once `--prepare` has counted them."""

    @property
    def trains(self) -> bool:
        """Whether it is a step of training."""
        return self.command.split()[0] in ("pretrain", "sft")


class PlanConfig(Config):
    """A recipe, and the machines to plan for."""

    architecture: dict[str, Any]
    """Keys of a transformers configuration: the shape of the base. Its weights are not needed."""
    mfu_share: float = Field(0.4, gt=0, le=1)
    """Model FLOP utilisation: the assumption behind all hours."""
    disk_gb_per_s: float = Field(1.0, gt=0)
    """GB per second in which all processes together write a checkpoint: an assumption; measure your disk."""
    machines: tuple[Machine, ...] = Field(min_length=1)
    """The machines to plan for."""
    steps: tuple[PlannedStep, ...] = Field(min_length=1)
    """The steps, in order."""


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
    parser.add_argument(
        "--commands",
        action="store_true",
        help="only each step's name, command and lead in seconds, for scripts",
    )
    arguments = parser.parse_intermixed_args()
    config = from_arguments(PlanConfig, arguments)
    if config is None:
        return None
    if arguments.commands:
        for step in config.steps:
            lead = max(leads_s(config, step).values()) if step.trains else ""
            print(f"{step.name}\t{step.command}\t{lead}")
        return 0
    from core.train.logger import quiet_libraries

    quiet_libraries()
    for line in plan(config):
        print(line, flush=True)
    return 0


def plan(config: PlanConfig) -> Iterator[str]:
    """The lines of the plan."""
    from core.model.flops import PEAK_TFLOPS

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
    for step in config.steps:
        yield f"\n{step.name}: python -m {step.command}"
        room = step.command.split()[0]
        if room == "data":
            yield from data_lines(step)
        elif room == "delta":
            yield from delta_lines(parameters)
        elif room == "eval":
            yield from answering_lines(config, step)
        else:
            yield from training_lines(config, step, parameters)


def data_lines(step: PlannedStep) -> Iterator[str]:
    """Disk space and core-hours of a corpus."""
    if step.raw_gb is None or step.tokens is None:
        raise UserError(f"steps: {step.name}: a corpus needs `raw_gb` and `tokens`.")
    ids = 2 * step.tokens / 1e9
    records = 2 * RECORDS_PER_RAW * step.raw_gb
    hours = step.raw_gb * 1e3 / DATA_MB_PER_CORE_S / 3600
    yield (
        f"  disk      {step.raw_gb:,.0f} GB raw, {records:,.0f} GB of records, {ids:,.0f} GB of ids"
        f" ({2 * ids:,.0f} GB while they are sorted)"
    )
    yield f"  time      {hours:,.1f} core-hours; divide by the number of workers. No GPU"


def delta_lines(parameters: int) -> Iterator[str]:
    """Disk space and core time of a delta."""
    model = 2 * parameters / 1e9
    written = DELTA_PER_MODEL * model
    yield f"  disk      {2 * model:,.0f} GB read (base and model), about {written:,.1f} GB written"
    yield f"  time      {model / DELTA_GB_PER_CORE_S / 3600 * 60:,.1f} minutes on one core. No GPU"


def answering_lines(config: PlanConfig, step: PlannedStep) -> Iterator[str]:
    """GPU-hours of evaluating two models, the tuned one and its base."""
    parameters, _ = shape_of(tuple(sorted(config.architecture.items())), 2048)
    tokens = tokens_of(step)
    yield f"  disk      the answers: under 1 GB. Memory: {2 * parameters / 2**30:.1f} GiB of weights per GPU"
    for machine in config.machines:
        work = 2 * 2.0 * parameters * tokens
        hours = work / (READING_SHARE * peak(machine)) / 3600
        yield f"  {machine.name:<14}{hours:10,.1f} GPU-hours {hours / machine.gpus:9,.2f} hours"


def training_lines(config: PlanConfig, step: PlannedStep, parameters: int) -> Iterator[str]:
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
        hours = tokens / speed / 3600
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


def stage_of(step: PlannedStep) -> StageConfig:
    """The configuration that a step trains with, its overrides included."""
    words = shlex.split(step.command)
    if "--config" not in words:
        raise UserError(f"steps: {step.name}: its command has no --config FILE.")
    at = words.index("--config") + 1
    return load(StageConfig, Path(words[at]), [word for word in words[at + 1 :] if not word.startswith("-")])


def leads_s(config: PlanConfig, step: PlannedStep) -> dict[str, int]:
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


def tokens_of(step: PlannedStep) -> float:
    """Tokens of one epoch."""
    if step.tokens is not None:
        return step.tokens
    if step.samples is None or step.tokens_per_sample is None:
        raise UserError(f"steps: {step.name}: set `tokens`, or `samples` and `tokens_per_sample`.")
    return step.samples * step.tokens_per_sample


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
