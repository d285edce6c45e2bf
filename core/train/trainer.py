"""One training run of any kind. A stage hands in a `Recipe`: what is trained on which data by which
objective.

    check    everything that can be refused before a GPU is held; this is what --dry-run prints
    prepare  what one process makes before the launch: a corpus, tokenised chats or pairs, a random base
    build    data, model and engine, at the newest checkpoint of the run
    fit      core/train/loop.py
    publish  RUN/model with its manifest, the licences it is under, and its card

RUN holds config.yaml, inputs.json, metrics.jsonl, log.txt, loss.png, hardware.json, checkpoints/ and model/.
The same command again continues from the newest checkpoint.
"""

import argparse
import gc
import json
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core import dry_run
from core.config.loader import add_arguments, dump
from core.config.schema import RunConfig
from core.errors import UserError
from core.provenance import atomic_io, manifest
from core.train.inputs import Inputs
from core.train.run_dir import check_branch, check_resume, check_unchanged, summary

if TYPE_CHECKING:
    from core.checkpoint.async_writer import Background
    from core.checkpoint.progress import Progress
    from core.distributed.deepspeed_backend import Engine
    from core.distributed.process_group import World
    from core.model.loss_head import Objective
    from core.train.logger import Log
    from core.train.loop import Dataset
    from core.train.validation import HeldOut


class Card(NamedTuple):
    """What a stage adds to the model card, beside what the run's own records say."""

    method: str
    """How the weights were trained, as `tuned on instructions`."""
    data: str
    """Markdown about the training data."""
    settings: Mapping[str, str]
    """Settings that only this stage has, by name."""
    held_out: str
    """What the validation loss is measured on, as `held-out chats`."""


class Recipe(ABC):
    """What a training method hands to the trainer; a method of training is one subclass.

    `check`, `prepare` and `open` run before the processes are joined, the others after.
    """

    fixed: Sequence[str]
    """Keys that a run which continues may not change: those that decide the weights and the data order."""
    prepares_late = False
    """Whether the main process prepares what is missing after the launch. True only if that takes seconds."""

    def __init__(self, config: RunConfig, first_base: str | None = None) -> None:
        """`first_base` is the model of the first stage, if `config` continues from a stage before it."""
        self.config = config
        self.first_base = first_base or self.base

    @property
    def base(self) -> str:
        """The folder or hub id of the model that training starts from."""
        assert self.config.model.path is not None
        return self.config.model.path

    @property
    @abstractmethod
    def sample_tokens(self) -> int:
        """Length of one sample."""

    @property
    def document_tokens(self) -> int:
        """Length of the longest document in a sample."""
        return self.sample_tokens

    @abstractmethod
    def check(self) -> Iterator[dry_run.Look]:
        """What only this stage uses or refuses."""

    @abstractmethod
    def prepare(self, *, force: bool) -> None:
        """Make the training data, and whatever else one process makes before the launch."""

    @abstractmethod
    def open(self) -> Sequence[Path]:
        """The finished folders that the run reads; UserError if one is missing. Their manifests give the
        run's inputs and the licences of its model."""

    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer that the data was made with."""

    @abstractmethod
    def load_data(self, tokenizer: Any, log: "Log") -> tuple["Dataset", Mapping[str, "HeldOut"]]:
        """The training samples and the held-out sets by name (core/train/validation.py)."""

    def objective(self) -> "Objective":
        """What a step minimises; the mean loss of the trained tokens unless a subclass says otherwise.

        It must be a sum over tokens, or `check` refuse training.sequence_parallel_size, with which a batch
        holds parts of rows.
        """
        from core.model.loss_head import TOKENS

        return TOKENS

    def adapt(self, model: Any, tokenizer: Any) -> None:  # noqa: B027 (most stages leave it)
        """Change the loaded model before the engine takes it."""

    def before_first_step(self, engine: "Engine", world: "World", log: "Log") -> None:  # noqa: B027 (as above)
        """Use the model as training finds it, before a checkpoint is loaded; collective."""

    @abstractmethod
    def card(self) -> Card:
        """What the model card says of this stage."""


def add_run_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """The arguments that every training command has; `default` is its recipe."""
    add_arguments(parser, default=default)
    parser.add_argument("--prepare", action="store_true", help="make the data (and a random base), and stop")
    parser.add_argument("--force", action="store_true", help="with --prepare: replace data that differs")
    parser.add_argument("--dry-run", action="store_true", help="check everything but the weights, and stop")


def run(recipes: Sequence[Recipe], arguments: argparse.Namespace) -> int:
    """Do what the command line asks for, for each recipe in turn; returns the exit code."""
    from core.train.logger import quiet_libraries

    if arguments.dry_run:
        return dry_run.report(look for recipe in recipes for look in _looks(recipe))
    quiet_libraries()
    if arguments.prepare:
        prepare(recipes, force=arguments.force)
        return 0
    return train(recipes)


def check(recipe: Recipe) -> Iterator[dry_run.Look]:
    """Yield what the run would use; UserError for everything that can be refused before it starts."""
    from core.checkpoint.rehearsal import rehearse

    config = recipe.config
    check_resume(config.resume, Path(config.run_dir))
    check_unchanged(config, Path(config.run_dir), recipe.fixed)
    if config.branch_from:
        yield dry_run.place("branch", config.branch_from)
        if Path(config.branch_from).exists():
            check_branch(config, Path(config.branch_from), recipe.fixed)
    if config.card.former is not None and not Path(config.card.former).is_file():
        raise UserError(f"card.former: {config.card.former}: no such file.")
    yield from dry_run.training(config.training, config.model, config.deepspeed, recipe.sample_tokens)
    yield from recipe.check()
    longest, together = recipe.document_tokens, config.training.sequence_parallel_size
    begun = _has_begun(config)
    yield from dry_run.base(config.model, recipe.base, longest, begun=begun, together=together)
    rehearse(recipe.base if Path(recipe.base).is_dir() else recipe.first_base, config.model)
    if config.general_dir:
        yield dry_run.place("general", config.general_dir)
    yield dry_run.writable("run", config.run_dir)


def _has_begun(config: RunConfig) -> bool:
    """Whether the run goes on from a checkpoint, its own or another run's."""
    return bool(config.branch_from) or any((Path(config.run_dir) / "checkpoints").glob("step-*"))


def _looks(recipe: Recipe) -> Iterator[dry_run.Look]:
    """What a dry run prints."""
    yield from check(recipe)
    _check_inputs(recipe)


def _check_inputs(recipe: Recipe) -> None:
    """UserError if the run goes on and its data or its base has changed; of missing data others tell."""
    folders: Sequence[Path] = ()
    with suppress(UserError):
        folders = recipe.open()
    if folders and all((folder / manifest.NAME).exists() for folder in folders):
        _inputs(recipe, folders).check_same()


def _inputs(recipe: Recipe, folders: Sequence[Path]) -> Inputs:
    """What the run of a recipe is made from; `folders` are those that it opened."""
    config, adapter = recipe.config, recipe.config.model.adapter
    branch = Path(config.branch_from) if config.branch_from else None
    return Inputs(Path(config.run_dir), branch, recipe.base, adapter.path if adapter else None, folders)


def prepare(recipes: Sequence[Recipe], *, force: bool) -> None:
    """All that one process does before the launch, once nothing is refused."""
    from core.model.loading import check_vocabulary

    for recipe in recipes:
        _refuse(recipe)
        _check_inputs(recipe)
    for recipe in recipes:
        recipe.prepare(force=force)
        trust = recipe.config.model.trust_remote_code
        check_vocabulary(recipe.first_base, recipe.tokenizer(), trust=trust)


def train(recipes: Sequence[Recipe]) -> int:
    """Check, join the other processes, and train one recipe after the other; 143 if a signal ended it."""
    import torch

    from core.distributed import process_group
    from core.model.loading import check_vocabulary

    for recipe in recipes:
        if not recipe.prepares_late:
            recipe.open()
        _refuse(recipe)
        if recipe.config.branch_from:
            manifest.read(Path(recipe.config.branch_from))  # UserError if it is no checkpoint
    trust = recipes[0].config.model.trust_remote_code
    check_vocabulary(recipes[0].base, recipes[0].tokenizer(), trust=trust)
    world = process_group.setup(recipes[0].config.training.timeout_minutes)
    finished = True
    for recipe in recipes:
        recipe.config.training.accumulation(world.size)
        folder = Path(recipe.config.run_dir)
        problem = f"{folder}: another run is using this folder"
        with atomic_io.lock(folder / atomic_io.LOCK, problem) if world.is_main else nullcontext():
            run = Run(recipe, world)
            finished = run.fit()
            run.publish() if finished else run.stop()
        run.release()
        del run
        gc.collect()  # the engine's parts refer to each other
        gc.collect()  # weights that refer to themselves, and that autograd's part of those kept
        torch.cuda.empty_cache()
        if not finished:
            break
    process_group.teardown(world)
    return 0 if finished else 143


class Run:
    """A recipe on joined processes: built, trained and published. Every method is collective."""

    def __init__(self, recipe: Recipe, world: "World") -> None:
        """Build: data, model, engine, then the state of the newest checkpoint."""
        from core.checkpoint.async_writer import Background, begun
        from core.checkpoint.rehearsal import rehearse_loaded
        from core.checkpoint.resume import find, group_elements, resume
        from core.distributed import deepspeed_backend
        from core.distributed.process_group import on_main, sharing_rows
        from core.model import sequence_parallel
        from core.model.loading import load_config, load_model, remarks, repair_generation
        from core.model.varlen_attention import share_rows
        from core.train import model_card
        from core.train.logger import Log
        from core.train.optim import make_optimizer

        self.recipe, config = recipe, recipe.config
        together = config.training.sequence_parallel_size
        self.world = world = sharing_rows(world, together, config.training.timeout_minutes)
        self.folder, self.resolved = Path(config.run_dir), config.model_dump(mode="json")
        if recipe.prepares_late:
            on_main(world, partial(recipe.prepare, force=False))
        self.read_folders = recipe.open()
        changed = check_unchanged(config, self.folder, recipe.fixed)
        made_from = _inputs(recipe, self.read_folders)
        on_main(world, made_from.check_same)
        settings, dtype = deepspeed_backend.settings(config.deepspeed, config.training)
        self.log = Log(self.folder, config.logging, self.resolved, active=world.is_main)
        if world.is_main:
            atomic_io.write_text(self.folder / "config.yaml", dump(config))
        self.tokenizer = recipe.tokenizer()
        self.data, self.validations = recipe.load_data(self.tokenizer, self.log)

        described = load_config(recipe.base, trust=config.model.trust_remote_code)
        longest, goes_on = recipe.document_tokens, _has_begun(config)
        for remark in remarks(described, config.model, longest, begun=goes_on):
            self.log.line(f"warning: {remark}")
        sequence_parallel.check(together, described, config.model)
        partitioned = deepspeed_backend.keep_partitioned(settings)
        model = load_model(recipe.base, config.model, dtype, world.device)
        world.barrier()  # however long each reads
        recipe.adapt(model, self.tokenizer)
        share_rows(model, world.sequence_group)
        if repaired := repair_generation(model):
            self.log.line(repaired)
        checkpoint = find(self.folder, world, self.log.line, made_from.branch)
        optimizer = make_optimizer(model, config.optimizer, group_elements(checkpoint, world))
        self.engine = deepspeed_backend.initialize(model, optimizer, settings)
        del partitioned
        recipe.before_first_step(self.engine, world, self.log)
        on_main(world, lambda: rehearse_loaded(self.engine.module, self.tokenizer, recipe.base))
        on_main(world, partial(model_card.draft, recipe, self.folder))
        self.progress = resume(checkpoint, self.engine, world, self.log.line, changed)
        self.resumed_at = self.progress.step
        self.inputs = begun(partial(made_from.hashes, note=True)) if world.is_main else dict
        self.background = Background(world, self.log.line)

    def fit(self) -> bool:
        """Train to the end, saving checkpoints; False if a signal ended it early."""
        from core.host_memory import keep_freed
        from core.train import loop

        if self.world.device.type == "cpu":
            keep_freed()
        config, before, start = self.recipe.config, self.progress.samples, time.monotonic()
        finished = loop.fit(
            self.engine,
            self.data,
            self._validation(),
            self.progress,
            training=config.training,
            schedule=config.schedule,
            learning_rate=config.optimizer.learning_rate,
            world=self.world,
            log=self.log,
            save=self._save,
            background=self.background,
            objective=self.recipe.objective(),
        )
        self._record_effort(time.monotonic() - start, self.progress.samples - before)
        done, skipped = self.progress.step, self.progress.skipped_steps
        if finished and done and skipped >= done:
            raise UserError(
                f"{self.folder}: all {done} steps were skipped, so nothing was learnt and no model is"
                f" published. log.txt says why; if no gradient was finite, {self.recipe.base} has weights"
                " that are not finite, or training.precision or the learning rate does not suit it."
            )
        return finished

    def publish(self) -> None:
        """Make RUN/model the model of this run, unless it is already, and write its card."""
        from core.train import model_card

        published = self.folder / "model"
        step = manifest.read(published)["counts"].get("step") if published.exists() else None
        none_best = self.progress.best_loss is None and self.progress.looks_without_gain
        if step is None and self._keeps_best() and none_best:
            raise UserError(
                f"{self.folder}: no validation gave a finite loss, so no model is the best. The last"
                " checkpoint is kept; to publish its model, run the same command with publish=last."
            )
        if step is None or (not self._keeps_best() and step != self.progress.step):
            self._publish(self.progress)
        elif self.progress.step == self.resumed_at:
            self.log.line(f"nothing left to do: the run has reached its last step, {self.progress.step}.")
        if self.world.is_main:
            model_card.write(self.recipe, self.folder)
        self.log.close(summary(self.folder, self.progress.counts()))

    def stop(self) -> None:
        """Say where the run can be continued from."""
        self.log.close(f"stopped by a signal; the same command continues from step {self.progress.step}.")

    def release(self) -> None:
        """Have the libraries let go of the engine, the model and the code compiled for it: with the last
        reference to this object their memory is free for the next stage. The run is of no use after this."""
        import torch

        from core.distributed.release import release

        release(self.engine)
        if self.recipe.config.model.compile:
            torch.compiler.reset()

    def _keeps_best(self) -> bool:
        """Whether validation decides which model is published: without held-out data the last one is."""
        from core.train.validation import DOMAIN

        return self.recipe.config.publish == "best" and DOMAIN in self.validations

    def _validation(self) -> "Callable[[Progress], dict[str, float]] | None":
        """Validation for the loop; it also keeps the best model and ends a run that stopped improving."""
        from core.train.early_stopping import Best
        from core.train.validation import DOMAIN, Validator

        config = self.recipe.config
        if config.patience and DOMAIN not in self.validations:
            self.log.line("warning: patience has no effect: nothing is held out to validate on.")
        if not self.validations:
            return None
        validate = Validator(
            self.engine,
            self.tokenizer,
            self.validations,
            config.training.micro_batch_size,
            self.world,
            self.log,
            config.forgetting,
            config.collapse,
        )
        if DOMAIN not in self.validations or not (self._keeps_best() or config.patience):
            return validate
        keep = partial(self._publish, background=self.background) if self._keeps_best() else None
        return Best(validate, keep, config.patience, self.log)

    def _save(self, progress: "Progress") -> None:
        from core.checkpoint.save import save

        save(
            self.engine,
            self.tokenizer,
            self.folder / "checkpoints",
            progress,
            self.world,
            config=self.resolved,
            inputs=self.inputs,
            keep=self.recipe.config.training.keep_checkpoints,
            background=self.background,
        )

    def _publish(self, progress: "Progress", background: "Background | None" = None) -> None:
        from core.checkpoint.save import publish

        publish(
            self.engine,
            self.tokenizer,
            self.folder / "model",
            progress,
            self.world,
            config=self.resolved,
            inputs=self.inputs,
            sources=self._sources(),
            background=background,
        )

    def _sources(self) -> dict[str, dict[str, str]]:
        """Licence and permitted use of everything that was trained on, the base's own training data
        included."""
        base = Path(self.recipe.base)
        folders = [base, *self.read_folders] if (base / manifest.NAME).exists() else self.read_folders
        return {k: v for folder in folders for k, v in (manifest.read(folder).get("sources") or {}).items()}

    def _record_effort(self, seconds: float, samples: int) -> None:
        """Add this start's time and operations to RUN/hardware.json, for the model card."""
        if not self.world.is_main:
            return
        import torch

        from core.model.flops import flops_per_token

        length = self.recipe.sample_tokens
        flops = samples * length * flops_per_token(self.engine.module, length)
        file = self.folder / "hardware.json"
        before = json.loads(file.read_text("utf-8")) if file.exists() else {"seconds": 0.0, "flops": 0.0}
        on_gpu = self.world.device.type == "cuda"
        name = torch.cuda.get_device_name() if on_gpu else f"CPU ({platform.machine()})"
        record = {"device": name, "processes": self.world.size, "seconds": before["seconds"] + seconds}
        atomic_io.write_text(file, json.dumps(record | {"flops": before["flops"] + flops}) + "\n")


def _refuse(recipe: Recipe) -> None:
    """UserError for what `check` refuses; what it finds is not printed."""
    for _ in check(recipe):
        pass
