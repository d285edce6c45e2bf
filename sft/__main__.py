"""Instruction tuning: chats and a base model in, a model that answers (or a LoRA adapter for it) out.

    python -m sft --config configs/sft/tiny.yaml --prepare     tokenise the chats of all stages
    python -m sft --config configs/sft/tiny.yaml               train on one process (CPU or one GPU)
    torchrun --nproc-per-node=8 -m sft --config FILE           train on eight GPUs
    python -m sft --config FILE --dry-run                      is everything right, but the weights?
    python -m sft preview --config FILE                        the first chats, trained tokens coloured
    python -m sft dpo --config FILE                            preference tuning, as the step after
    python -m sft merge --adapter RUN/model --output FOLDER    the adapter added to its base, in bf16
    python -m sft chat --model FOLDER [--adapter FOLDER]       talk to a model in the terminal
    python -m sft card --run RUN [--evaluation FOLDER]         its model card, from the run's records

`key.path=value` overrides any key, --keys lists them all. The result is RUN/model; the same command again
goes on from RUN/checkpoints. Stages have a folder each in RUN.
"""

import argparse
import gc
import importlib
import json
import platform
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.loader import add_arguments, dump, from_arguments
from core.errors import UserError, run_command
from core.provenance import atomic_io, manifest
from sft.config import FIXED, SftConfig, stages

if TYPE_CHECKING:
    from data.chat.prepare import ChatSet

COMMANDS = {
    "preview": "preview",
    "dpo": "dpo",
    "merge": "merge_adapter",
    "chat": "chat",
    "card": "model_card",
}
"""Commands of this room beside training, and their modules."""


def main() -> int | None:
    """Read the configuration, then prepare or train; or hand over to another command of this room."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        result: int | None = importlib.import_module(f"sft.{COMMANDS[sys.argv[1]]}").main(sys.argv[2:])
        return result
    parser = argparse.ArgumentParser(
        prog="python -m sft", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, default="configs/sft/tiny.yaml")
    parser.add_argument("--prepare", action="store_true", help="tokenise the chats, and stop")
    parser.add_argument(
        "--force", action="store_true", help="with --prepare: make a folder again that differs"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything but the weights, and stop")
    arguments = parser.parse_intermixed_args()
    config = from_arguments(SftConfig, arguments)
    if config is None:
        return None
    if arguments.dry_run:
        from core import dry_run
        from sft.dry_run import looks

        return dry_run.report(looks(config))
    if arguments.prepare:
        prepare(config, force=arguments.force)
        return None
    return train(config)


def prepare(config: SftConfig, *, force: bool) -> None:
    """All that one process does before the launch: the chats of all stages, by the first base's tokenizer."""
    from core.model.loading import check_vocabulary, load_tokenizer
    from core.train.logger import quiet_libraries
    from core.train.run_dir import check_resume, check_unchanged
    from data.chat.prepare import prepare as tokenise

    quiet_libraries()
    todo = stages(config)
    for stage in todo:
        check_unchanged(stage, Path(stage.run_dir), FIXED)
        check_resume(stage.resume, Path(stage.run_dir))
        chats = tokenise(stage.data, todo[0].base, force=force)
        check_vocabulary(todo[0].base, load_tokenizer(str(chats.tokenizer)))


def train(config: SftConfig) -> int:
    """Check what can be checked, join the other processes, and run stage after stage."""
    import torch

    from core.distributed import process_group
    from core.model import activation_checkpointing, lora
    from core.model.loading import check_vocabulary, load_tokenizer
    from core.train.logger import quiet_libraries
    from core.train.run_dir import check_resume, check_unchanged

    quiet_libraries()
    todo = stages(config)
    prepared = [require_prepared(stage) for stage in todo]
    for stage in todo:
        check_resume(stage.resume, Path(stage.run_dir))
        check_unchanged(stage, Path(stage.run_dir), FIXED)
        activation_checkpointing.check(stage.model, stage.deepspeed.zero_stage)
        lora.check(stage.model.adapter, stage.deepspeed.zero_stage)
        if stage.card.former is not None and not Path(stage.card.former).is_file():
            raise UserError(f"card.former: {stage.card.former}: there is no such file.")
    check_vocabulary(todo[0].base, load_tokenizer(str(prepared[0].tokenizer)))
    world = process_group.setup(config.training.timeout_minutes)
    finished = True
    for stage, chats in zip(todo, prepared, strict=True):
        stage.training.accumulation(world.size)
        run = Path(stage.run_dir)
        with (
            atomic_io.lock(run / ".lock", f"{run}: another run is at work there")
            if world.is_main
            else nullcontext()
        ):
            finished = _fit(stage, chats, world)
        gc.collect()  # the engine's parts hold one another
        torch.cuda.empty_cache()
        if not finished:
            break
    process_group.teardown()
    return 0 if finished else 143


def _fit(config: SftConfig, chats: "ChatSet", world: Any) -> bool:
    """Load, build, fit, save the best; False where a signal ended it early."""
    from core.checkpoint import save as checkpoint
    from core.checkpoint.async_writer import Background, begun
    from core.checkpoint.progress import Progress
    from core.checkpoint.resume import resume
    from core.distributed import deepspeed_backend
    from core.model import loss_head
    from core.model.flops import flops_per_token
    from core.model.loading import load_model, load_tokenizer, prompt_as_trained, weight_files
    from core.train.early_stopping import Best
    from core.train.logger import Log
    from core.train.loop import fit
    from core.train.optim import make_optimizer
    from core.train.run_dir import check_unchanged, summary
    from core.train.validation import Lookout
    from sft import neftune

    run, resolved = Path(config.run_dir), config.model_dump(mode="json")
    changed = check_unchanged(config, run, FIXED)
    chosen, dtype = deepspeed_backend.settings(config.deepspeed, config.training)
    log = Log(run, config.logging, resolved, active=world.is_main)
    if world.is_main:
        atomic_io.write_text(run / "config.yaml", dump(config))
    tokenizer = load_tokenizer(str(chats.tokenizer))
    data, validations = load_data(config, chats, tokenizer, log)

    partitioned = deepspeed_backend.keep_partitioned(chosen)
    model = load_model(config.base, config.model, dtype)
    prompt_as_trained(model, tokenizer)
    if config.neftune_alpha is not None:
        neftune.install(model, config.neftune_alpha)
    engine = deepspeed_backend.initialize(model, make_optimizer(model, config.optimizer), chosen)
    del partitioned
    loss_head.measure(engine.module)
    progress = resume(run, engine, world, log.line, changed)

    def made_from() -> dict[str, str]:
        return manifest.outputs_of(chats.folder) | weight_files(config.base)

    inputs = begun(made_from) if world.is_main else dict
    background = Background(world, log.line)

    def save(now: Progress) -> None:
        settings: Any = {"config": resolved, "inputs": inputs, "keep": config.training.keep_checkpoints}
        checkpoint.save(engine, tokenizer, run / "checkpoints", now, world, **settings, background=background)

    def publish(now: Progress) -> None:
        checkpoint.publish(
            engine, tokenizer, run / "model", now, world, config=resolved, inputs=inputs,
            sources=manifest.read(chats.folder).get("sources") or {},
        )  # fmt: skip

    look = Lookout(
        engine, tokenizer, validations, config.training.micro_batch_size, world, log, collapse=config.collapse
    )
    began, first = time.monotonic(), progress.samples
    finished = fit(
        engine, data, Best(look, publish, config.patience, log) if validations else None, progress,
        training=config.training, schedule=config.schedule, learning_rate=config.optimizer.learning_rate,
        world=world, log=log, save=save, background=background,
    )  # fmt: skip
    if world.is_main:
        length = config.data.max_tokens
        flops = (progress.samples - first) * length * flops_per_token(engine.module, length)
        _record(run, world, time.monotonic() - began, flops)
    if not finished:
        log.close(f"stopped by a signal; the same command goes on from step {progress.step}.")
        return False
    if not (run / "model").exists() or (not validations and not _is_of(run / "model", progress.step)):
        publish(progress)
    if world.is_main:
        from sft.model_card import write

        write(run)
    log.close(summary(run))
    return True


def _record(run: Path, world: Any, seconds: float, flops: float) -> None:
    """Add this start's time and operations to RUN/hardware.json, for the model card."""
    import torch

    file = run / "hardware.json"
    before = json.loads(file.read_text("utf-8")) if file.exists() else {"seconds": 0.0, "flops": 0.0}
    name = torch.cuda.get_device_name() if world.device.type == "cuda" else f"CPU ({platform.machine()})"
    record = {"device": name, "processes": world.size, "seconds": before["seconds"] + seconds}
    atomic_io.write_text(file, json.dumps(record | {"flops": before["flops"] + flops}) + "\n")


def load_data(config: SftConfig, chats: "ChatSet", tokenizer: Any, log: Any) -> tuple[Any, dict[str, Any]]:
    """Rows of chats to train on, and held-out ones, where there are any."""
    from core.train.validation import DOMAIN, Validation
    from data.packing.indexed_dataset import Documents
    from data.packing.packed_dataset import choose_documents

    length, padding = config.data.max_tokens, tokenizer.pad_token_id

    def rows(split: str, chosen: Any) -> Any:
        found = chats.blocks(split, length, packing=config.packing, padding_id=padding, chosen=chosen)
        log.line(
            f"{split}: {len(found.chosen):,} chats, {found.trained_tokens:,} trained tokens,"
            f" {len(found):,} rows of {length:,} ({found.fill:.1%} full)"
        )
        return found

    held_out = Documents(chats.split("validation"))
    if not len(held_out):
        log.line("validation: nothing is held out (data.validation_share)")
        return rows("train", None), {}
    chosen = choose_documents(held_out, config.validation_tokens, config.data.seed)
    return rows("train", None), {DOMAIN: Validation(rows("validation", chosen), None)}


def _is_of(folder: Path, step: int) -> bool:
    return bool(manifest.read(folder)["counts"].get("step") == step)


def require_prepared(config: SftConfig) -> "ChatSet":
    """The chats of a run; UserError where they are not made yet."""
    from data.chat.prepare import find_chats

    chats = find_chats(config.data)
    if chats is None:
        raise UserError(
            f"{config.data.output_dir} is not made yet: run the same command with --prepare first (make sft"
            " does both)."
        )
    return chats


if __name__ == "__main__":
    run_command(main)
