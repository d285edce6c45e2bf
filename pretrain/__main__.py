"""Continued pretraining: a packed corpus and a base model in, a model that transformers opens out.

    python -m pretrain --config configs/pretrain/tiny.yaml --prepare   make corpus and base, in one process
    python -m pretrain --config configs/pretrain/tiny.yaml             train on one process (CPU or one GPU)
    torchrun --nproc-per-node=8 -m pretrain --config FILE              train on eight GPUs
    python -m pretrain --config FILE optimizer.learning_rate=1e-5      override any key; --keys lists them all
    python -m pretrain estimate --config FILE --gpus 8                 memory and time, before anything starts
    python -m pretrain --config FILE --dry-run                 is everything right, but the weights?
    python -m pretrain smoke --processes 8                     ten minutes on your node, before the long run

The result is RUN/model; the same command again goes on from RUN/checkpoints. RUN also holds config.yaml,
metrics.jsonl, log.txt and loss.png.
"""

import argparse
import importlib
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.loader import add_arguments, dump, from_arguments
from core.errors import UserError, run_command
from core.provenance import atomic_io, manifest

if TYPE_CHECKING:
    from data.pipeline import Corpus
    from pretrain.config import PretrainConfig

COMMANDS = {"estimate": "estimate", "smoke": "smoke_test"}
"""Commands of this room beside training, and their modules."""


def main() -> int | None:
    """Read the configuration, then prepare or train."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        result: int | None = importlib.import_module(f"pretrain.{COMMANDS[sys.argv[1]]}").main(sys.argv[2:])
        return result
    parser = argparse.ArgumentParser(
        prog="python -m pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, default="configs/pretrain/tiny.yaml")
    parser.add_argument("--prepare", action="store_true", help="make the corpus and the base model, and stop")
    parser.add_argument(
        "--force", action="store_true", help="with --prepare: make a corpus again that differs"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything but the weights, and stop")
    arguments = parser.parse_intermixed_args()
    from pretrain.config import PretrainConfig

    config = from_arguments(PretrainConfig, arguments)
    if config is None:
        return None
    if arguments.dry_run:
        from core import dry_run
        from pretrain.dry_run import looks

        return dry_run.report(looks(config))
    if arguments.prepare:
        prepare(config, force=arguments.force)
        return None
    return train(config)


def prepare(config: "PretrainConfig", *, force: bool) -> None:
    """All that one process does before the launch: corpus, tokenizer, base model, and the checks that need
    them."""
    from core.model.loading import check_vocabulary, create_base, load_tokenizer
    from core.train.logger import quiet_libraries
    from core.train.run_dir import check_resume, check_unchanged
    from data.pipeline import run
    from pretrain.config import FIXED

    quiet_libraries()
    check_unchanged(config, Path(config.run_dir), FIXED)
    check_resume(config.resume, Path(config.run_dir))
    corpus = run(config.data, force=force)
    tokenizer = load_tokenizer(str(corpus.tokenizer))
    if config.model.architecture is not None:
        made = create_base(config.model, tokenizer, Path(config.base))
        print(f"base           {'done' if made else 'up to date'}: {config.base} (random weights)")
    check_vocabulary(config.base, tokenizer)


def train(config: "PretrainConfig") -> int:
    """Check what can be checked, join the other processes, and train while no other run is in the folder."""
    from core.distributed import process_group
    from core.model.loading import check_vocabulary, load_tokenizer
    from core.train.logger import quiet_libraries
    from core.train.run_dir import check_branch, check_resume, check_unchanged
    from pretrain.config import FIXED

    quiet_libraries()
    run = Path(config.run_dir)
    corpus = _require_prepared(config)
    check_resume(config.resume, run)
    changed = check_unchanged(config, run, FIXED)
    if config.branch_from:
        check_branch(config, Path(config.branch_from), FIXED)
    tokenizer = load_tokenizer(str(corpus.tokenizer))
    check_vocabulary(config.base, tokenizer)
    world = process_group.setup(config.training.timeout_minutes)
    config.training.accumulation(world.size)
    problem = f"{run}: another run is at work there"
    with atomic_io.lock(run / ".lock", problem) if world.is_main else nullcontext():
        finished = _fit(config, corpus, tokenizer, world, changed)
    process_group.teardown()
    return 0 if finished else 143


def _fit(config: "PretrainConfig", corpus: "Corpus", tokenizer: Any, world: Any, changed: list[str]) -> bool:
    """Load, build, fit, save; False where a signal ended it early."""
    from core.checkpoint import save as checkpoint
    from core.checkpoint.async_writer import Background, begun
    from core.checkpoint.progress import Progress
    from core.checkpoint.resume import resume
    from core.distributed import deepspeed_backend
    from core.model import activation_checkpointing, lora
    from core.model.loading import load_model, weight_files
    from core.train.logger import Log
    from core.train.loop import fit
    from core.train.optim import make_optimizer
    from core.train.run_dir import summary
    from core.train.validation import Lookout
    from pretrain.datasets import load_data

    run, base = Path(config.run_dir), config.base
    resolved = config.model_dump(mode="json")
    activation_checkpointing.check(config.model, config.deepspeed.zero_stage)
    lora.check(config.model.adapter, config.deepspeed.zero_stage)
    chosen, dtype = deepspeed_backend.settings(config.deepspeed, config.training)
    log = Log(run, config.logging, resolved, active=world.is_main)
    if world.is_main:
        atomic_io.write_text(run / "config.yaml", dump(config))
    data, validations = load_data(config, corpus, tokenizer, log)

    partitioned = deepspeed_backend.keep_partitioned(chosen)
    model = load_model(base, config.model, dtype)
    engine = deepspeed_backend.initialize(model, make_optimizer(model, config.optimizer), chosen)
    del partitioned
    branch = Path(config.branch_from) if config.branch_from else None
    progress = resume(run, engine, world, log.line, changed, branch)
    before = progress.step

    background = Background(world, log.line)
    packs = [folder / "pack" for folder in (corpus.folder, *(Path(c.output_dir) for c in config.mixture))]

    def made_from() -> dict[str, str]:
        return {k: v for pack in packs for k, v in manifest.outputs_of(pack).items()} | weight_files(base)

    inputs = begun(made_from) if world.is_main else dict

    def save(now: Progress) -> None:
        settings: Any = {"config": resolved, "inputs": inputs, "keep": config.training.keep_checkpoints}
        checkpoint.save(engine, tokenizer, run / "checkpoints", now, world, **settings, background=background)

    look = Lookout(
        engine, tokenizer, validations, config.training.micro_batch_size, world, log, config.forgetting,
        config.collapse,
    )  # fmt: skip
    finished = fit(
        engine, data, look if validations else None, progress,
        training=config.training, schedule=config.schedule, learning_rate=config.optimizer.learning_rate,
        world=world, log=log, save=save, background=background,
    )  # fmt: skip
    if not finished:
        log.close(f"stopped by a signal; the same command goes on from step {progress.step}.")
        return False
    if progress.step > before or not (run / "model").exists():
        sources = {k: v for pack in packs for k, v in (manifest.read(pack).get("sources") or {}).items()}
        checkpoint.publish(
            engine, tokenizer, run / "model", progress, world, config=resolved, inputs=inputs,
            sources=sources,
        )  # fmt: skip
    else:
        log.line(f"nothing left to do: the run is at its last step, {progress.step}.")
    log.close(summary(run))
    return True


def _require_prepared(config: "PretrainConfig") -> "Corpus":
    from data.pipeline import find_corpus

    corpus = find_corpus(config.data)
    if corpus is None or (not Path(config.base).exists() and config.model.architecture is not None):
        missing = config.data.output_dir if corpus is None else config.base
        raise UserError(
            f"{missing} is not made yet: run the same command with --prepare first (make pretrain does both)."
        )
    return corpus


if __name__ == "__main__":
    run_command(main)
