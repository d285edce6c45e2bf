"""Preference tuning (DPO, arXiv:2305.18290): a tuned model and pairs of answers in, a model that prefers the
chosen ones out.

    python -m sft dpo --config FILE [key=value]          one process; torchrun -m sft dpo … for several

    pairs ──the model as it is──▶ reference log-probabilities, kept in RUN ──▶ core.train.loop ──▶ RUN/model

The reference is the model that training starts from: with a new adapter the model without it, with
`model.adapter.path` the model with that adapter as it came. Its log-probabilities are computed once, before
the first step; no second model is held. Steps, checkpoints and going on are those of `python -m sft`.
"""

import argparse
import hashlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from core.config.loader import Config, add_arguments, dump, from_arguments
from core.config.schema import (
    DeepSpeedConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from core.errors import UserError
from core.provenance import atomic_io, manifest
from sft.preference_data import Pairs, PairsConfig, read_pairs, reasons

FIXED = ("model", "data", "beta", "training.seed", "training.global_batch_size", "training.precision")


class DpoConfig(Config):
    """One run of preference tuning; samples in `training` are pairs, and so are the `tokens` of the log."""

    run_dir: str
    """Where everything of this run goes."""
    resume: Literal["auto", "never"] = "auto"
    """As in `python -m sft`."""
    model: ModelConfig
    data: PairsConfig
    beta: float = Field(0.1, gt=0)
    """How closely the model stays at the reference; higher is closer."""
    patience: int | None = Field(None, ge=1)
    """The run ends when so many validations in a row brought no lower loss; null for never."""
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-7)
    schedule: ScheduleConfig = ScheduleConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    logging: LoggingConfig = LoggingConfig()


def main(arguments: list[str]) -> int | None:
    """Read the configuration and train."""
    parser = argparse.ArgumentParser(
        prog="python -m sft dpo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, default="configs/sft/dpo.yaml")
    config = from_arguments(DpoConfig, parser.parse_intermixed_args(arguments))
    return None if config is None else train(config)


def train(config: DpoConfig) -> int:
    """Check, join the other processes, and train."""
    from core.distributed import process_group
    from core.model import lora
    from core.train.logger import quiet_libraries
    from core.train.run_dir import check_resume, check_unchanged

    quiet_libraries()
    run = Path(config.run_dir)
    if config.model.path is None:
        raise UserError("model.path: preference tuning needs a tuned model.")
    if config.deepspeed.zero_stage == 3:
        raise UserError("deepspeed.zero_stage=3 is not for preference tuning here. Set zero_stage=2.")
    check_resume(config.resume, run)
    check_unchanged(config, run, FIXED)
    lora.check(config.model.adapter, config.deepspeed.zero_stage)
    world = process_group.setup(config.training.timeout_minutes)
    config.training.accumulation(world.size)
    problem = f"{run}: another run is at work there"
    with atomic_io.lock(run / ".lock", problem) if world.is_main else nullcontext():
        finished = _fit(config, world)
    process_group.teardown()
    return 0 if finished else 143


def _fit(config: DpoConfig, world: Any) -> bool:
    from core.checkpoint import save as checkpoint
    from core.checkpoint.async_writer import Background, begun
    from core.checkpoint.progress import Progress
    from core.checkpoint.resume import resume
    from core.distributed import deepspeed_backend as deepspeed
    from core.model.loading import load_model, load_tokenizer, prompt_as_trained, weight_files
    from core.train.early_stopping import Best
    from core.train.logger import Log
    from core.train.loop import fit
    from core.train.optim import make_optimizer
    from core.train.run_dir import check_unchanged, summary
    from data.chat.chat_template import install
    from data.readers.source_files import list_files
    from sft.dpo_loss import Preference

    run, resolved, base = Path(config.run_dir), config.model_dump(mode="json"), str(config.model.path)
    changed = check_unchanged(config, run, FIXED)
    chosen, dtype = deepspeed.settings(config.deepspeed, config.training)
    log = Log(run, config.logging, resolved, active=world.is_main)
    if world.is_main:
        atomic_io.write_text(run / "config.yaml", dump(config))
    tokenizer = load_tokenizer(config.model.adapter.path if config.model.adapter and
                               config.model.adapter.path else base)  # fmt: skip
    install(tokenizer, config.data.template)
    data, held_out, dropped = read_pairs(config.data, tokenizer)
    said = f"{len(data):,} pairs to train on, {len(held_out):,} held out"
    log.line(f"{said}, left out: {reasons(dropped) or 'none'} (dropped.jsonl)")
    if world.is_main:
        lines = [json.dumps(each.__dict__, ensure_ascii=False) + "\n" for each in dropped]
        atomic_io.write_text(run / "dropped.jsonl", "".join(lines))
    model = load_model(base, config.model, dtype)
    prompt_as_trained(model, tokenizer)
    engine = deepspeed.initialize(model, make_optimizer(model, config.optimizer), chosen)
    preference = Preference(config.beta)
    identity = hashlib.sha256(str([config.data.model_dump(), weight_files(base), base]).encode()).hexdigest()
    for name, pairs in (("train", data), ("validation", held_out)):
        add_reference(engine, pairs, run / f"reference-{name}-{identity[:16]}.npy", world, log,
                      config.training.micro_batch_size)  # fmt: skip
    progress = resume(run, engine, world, log.line, changed)

    background = Background(world, log.line)

    def made_from() -> dict[str, str]:
        files = (file for name in config.data.paths for file in list_files(Path(name)))
        return manifest.hash_files(files) | weight_files(base)

    inputs = begun(made_from) if world.is_main else dict

    def save(now: Progress) -> None:
        settings: Any = {"config": resolved, "inputs": inputs, "keep": config.training.keep_checkpoints}
        checkpoint.save(engine, tokenizer, run / "checkpoints", now, world, **settings, background=background)

    def publish(now: Progress) -> None:
        checkpoint.publish(engine, tokenizer, run / "model", now, world, config=resolved, inputs=inputs)

    def look(_: Progress) -> dict[str, float]:
        return preference.validate(engine, held_out, config.training.micro_batch_size, world)

    finished = fit(
        engine, data, Best(look, publish, config.patience, log) if len(held_out) else None, progress,
        training=config.training, schedule=config.schedule, learning_rate=config.optimizer.learning_rate,
        world=world, log=log, save=save, background=background, objective=preference.objective(),
    )  # fmt: skip
    if not finished:
        log.close(f"stopped by a signal; the same command goes on from step {progress.step}.")
        return False
    if not len(held_out) or not (run / "model").exists():
        publish(progress)
    log.close(summary(run))
    return True


def add_reference(engine: Any, pairs: Pairs, file: Path, world: Any, log: Any, size: int) -> None:
    """Give `pairs` the log-probabilities of the model as it is, from `file` where they were kept there."""
    import numpy as np
    import torch

    from core.train.dataloader import collate
    from sft.dpo_loss import log_probabilities

    if not len(pairs):
        return
    world.barrier()
    if file.exists():
        pairs.reference = np.load(file)
        return
    found = torch.zeros(len(pairs), 2, dtype=torch.float64, device=world.device)
    engine.eval()
    with torch.no_grad():
        for first in range(world.rank * size, len(pairs), world.size * size):
            world.mark()
            stop = min(first + size, len(pairs))
            batch = collate([pairs[i] for i in range(first, stop)], world.device)
            found[first:stop] = log_probabilities(engine, batch).double()
    engine.train()
    pairs.reference = world.sum(found).cpu().numpy()
    if world.is_main:
        with atomic_io.beside(file, "partial").open("wb") as partial:
            np.save(partial, pairs.reference)
        atomic_io.replace(atomic_io.beside(file, "partial"), file)
    log.line(f"reference log-probabilities of {len(pairs):,} pairs: {file}")
