"""The only module that imports DeepSpeed.

    configuration ──settings──▶ DeepSpeed's keys ──initialize──▶ engine ──save_state──▶ its checkpoint files
                                                                        ◀──load_state──     │
                                                                        ◀──load_state── universal.py

DeepSpeed gets the model and a torch optimizer. Loss normalisation, accumulation, the schedule, clipping and
checkpoint names stay in this project. The rest of the code sees an `Engine` and the functions below.
`initialize` checks that DeepSpeed's internals used here exist; if not, it names what is missing.
"""

import copy
import difflib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import torch

from core.config import json_file
from core.config.schema import DeepSpeedConfig, TrainingConfig
from core.errors import UserError

TESTED = ("0.19.8",)
"""DeepSpeed versions that the tests have passed with."""

SAFE_GLOBALS = frozenset(
    {
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)
"""Globals that pickles in DeepSpeed's checkpoint files may name, beyond those that torch allows."""

_FINITE, _MASK = "is_invalid_grad_norm", "mask_nan_or_inf_with_val_inplace"
CHECKS = {
    "deepspeed.runtime.utils": (_FINITE, _MASK),
    "deepspeed.runtime.bf16_optimizer": (_FINITE,),
    "deepspeed.runtime.zero.stage_1_and_2": (_FINITE, _MASK),
    "deepspeed.runtime.zero.stage3": (_FINITE, _MASK),
    "deepspeed.runtime.superoffload.superoffload_stage3": (_FINITE,),
    "deepspeed.runtime.zenflow.zenflow_stage_1_and_2": (_FINITE,),
}
"""DeepSpeed's modules with a ZeRO optimizer, and their functions that check gradients during a step."""
RESULTS = {_FINITE: False, _MASK: None}
"""What these functions return once they are replaced."""

OFFLOAD = "deepspeed.runtime.zero.parameter_offload"
"""The module with a list of all that ZeRO 3 computes, which core/distributed/release.py empties."""

ELSEWHERE = {
    "optimizer": "set `optimizer` in this configuration",
    "scheduler": "set `schedule` in this configuration",
    "activation_checkpointing": "set model.activation_checkpointing",
    "tensorboard": "set logging.tensorboard",
    "wandb": "set logging.wandb_project",
    "bfloat16": "set training.precision",
    "amp": "set training.precision",
    "data_efficiency": "not supported: the data order is this program's",
    "tensor_parallel": "not supported: every process trains on its own samples",
    "expert_parallel": "not supported: every process trains on its own samples",
    "sequence_parallel_size": "set training.sequence_parallel_size",
}
"""Sections of DeepSpeed's that a user's file may not have, and what to do instead."""


class Optimizer(Protocol):
    """The engine's optimizer: torch's at stage 0, else DeepSpeed's around it."""

    param_groups: list[dict[str, Any]]


class Engine(Protocol):
    """What training needs of DeepSpeed's engine."""

    @property
    def module(self) -> Any:
        """The transformers model, with its adapter if it has one."""

    @property
    def optimizer(self) -> Optimizer: ...
    def __call__(self, **inputs: Any) -> Any:
        """The model's output, with `logits`."""

    def backward(self, loss: torch.Tensor, *, scale_wrt_gas: bool) -> object: ...
    def step(self) -> object: ...
    def train(self) -> object: ...
    def eval(self) -> object: ...


SaveFile = Callable[[Any, str], None]
"""Writes a state (nested dicts and lists with tensors) to a path."""


def settings(config: DeepSpeedConfig, training: TrainingConfig) -> tuple[dict[str, Any], torch.dtype]:
    """DeepSpeed's configuration for this run, and the dtype in which the model is loaded.

    With `managed_gradient_accumulation` off, `engine.step()` is the boundary: any number of backward passes
    makes one optimizer step. Clipping and skipping steps belong to core/train/spike_guard.py. A user's file
    adds what this configuration does not decide; UserError if it contradicts it, or if DeepSpeed refuses it.
    """
    own = _own(config)
    precision = training.precision
    if precision == "auto":
        on = json_file.flat(own).get("bf16.enabled", torch.cuda.is_available())
        precision = "bf16" if on else "fp32"
    if config.zero_stage == 0 and precision == "bf16":
        raise UserError(
            "deepspeed.zero_stage=0 keeps no fp32 copy of bf16 weights, so small updates are lost. Set"
            " deepspeed.zero_stage=1 (no extra cost on one GPU) or training.precision=fp32."
        )
    decided: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": config.zero_stage},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }
    if precision == "bf16":
        decided["bf16"] = {"enabled": True}
        decided["data_types"] = {"grad_accum_dtype": config.gradient_dtype}
    bucket, overlap = _buckets(config.zero_stage, int(os.environ.get("WORLD_SIZE", "1")))
    chosen: dict[str, Any] = {
        "zero_optimization": {"overlap_comm": overlap, "reduce_bucket_size": bucket},
        "steps_per_print": None, "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},  # it waits for the device at every forward pass
    }  # fmt: skip
    if precision == "bf16":
        chosen["bf16"] = {"check_grad_overflow": False}
    if own:
        _refuse_contradictions(own, config, training, precision)
        own.pop("train_batch_size", None)  # of its product, accumulation is not DeepSpeed's here
        json_file.merge(chosen, own)
    json_file.merge(chosen, decided)
    if own:
        _have_deepspeed_read(chosen, config.json_file)
    return chosen, torch.bfloat16 if precision == "bf16" else torch.float32


def buckets(config: DeepSpeedConfig, processes: int) -> tuple[int, bool]:
    """Elements of a bucket of gradients on this many processes, and whether gradients are reduced during the
    backward pass, for which ZeRO 2 has a second bucket: as `settings` has it, or the user's file."""
    given = json_file.flat(_own(config))
    bucket, overlap = _buckets(config.zero_stage, processes)
    return (
        given.get("zero_optimization.reduce_bucket_size", bucket),
        given.get("zero_optimization.overlap_comm", overlap),
    )


def _buckets(stage: int, processes: int) -> tuple[int, bool]:
    """As `buckets`, without a file. One process reduces nothing: there the bucket only takes memory. At
    ZeRO 1 gradients are reduced once a step, after the last backward pass."""
    if processes == 1:
        return 50_000_000, False
    return 200_000_000, stage >= 2


def _own(config: DeepSpeedConfig) -> dict[str, Any]:
    """The settings in the user's own file."""
    return json_file.read(Path(config.json_file), "deepspeed.json_file") if config.json_file else {}


def _refuse_contradictions(
    own: dict[str, Any], config: DeepSpeedConfig, training: TrainingConfig, precision: str
) -> None:
    """UserError that lists what a user's file sets otherwise than this configuration does.

    Before the launch the number of processes is not known: then any that the batch can be divided among is.
    """
    found = json_file.flat(own)
    steps = found.get("gradient_accumulation_steps")
    samples = steps * training.micro_batch_size if isinstance(steps, int) and steps > 0 else 0
    if "WORLD_SIZE" in os.environ or not samples or training.global_batch_size % samples:
        steps = training.accumulation(int(os.environ.get("WORLD_SIZE", training.sequence_parallel_size)))
    dtype = config.gradient_dtype if precision == "bf16" else "fp32"
    same: dict[str, tuple[Any, str]] = {
        "train_batch_size": (training.global_batch_size, "training.global_batch_size"),
        "train_micro_batch_size_per_gpu": (training.micro_batch_size, "training.micro_batch_size"),
        "gradient_accumulation_steps": (steps, "global_batch_size / (micro_batch_size x processes)"),
        "gradient_clipping": (training.max_gradient_norm or 0, "training.max_gradient_norm (null: 0)"),
        "zero_optimization.stage": (config.zero_stage, "deepspeed.zero_stage"),
        "bf16.enabled": (precision == "bf16", f"training.precision={precision}, so it"),
        "fp16.enabled": (False, f"training.precision={precision}, so it"),
        "torch_autocast.enabled": (False, f"training.precision={precision}, so it"),
        "data_types.grad_accum_dtype": (dtype, "deepspeed.gradient_dtype (in bf16 training; else fp32)"),
        "managed_gradient_accumulation": (False, "this program accumulates gradients itself, so it"),
        "gradient_allreduce_op": ("mean", "this program counts on the mean of the gradients, so it"),
        "zero_allow_untested_optimizer": (True, "the optimizer is this program's, so it"),
        "zero_force_ds_cpu_optimizer": (False, "the optimizer is this program's, so it"),
    }
    lines = [
        f"{key}={found[key]!r}, but {name} is {value!r}"
        for key, (value, name) in same.items()
        if key in found and found[key] != value
    ]
    sections = {key.partition(".")[0] for key in same if "." in key}
    lines += [f"{name}={own[name]!r}, which is no section" for name in sorted(sections & found.keys())]
    lines += [f"`{name}`: {advice}" for name, advice in ELSEWHERE.items() if name in own]
    if lines:
        raise UserError(
            f"deepspeed.json_file: {config.json_file} contradicts this configuration:\n"
            + "\n".join(f"  {line}" for line in lines)
            + '\nMake them equal, or remove these keys from the file (or set them to "auto" there).'
        )


def _have_deepspeed_read(chosen: dict[str, Any], file: str | None) -> None:
    """UserError if DeepSpeed does not take these settings, or does not read one of them."""
    from deepspeed.runtime.config import DeepSpeedConfig as Reader

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    given = _Recording(copy.deepcopy(chosen))
    try:
        Reader(given)
    except Exception as error:  # of many kinds
        text = " ".join(str(error).split())
        raise UserError(f"deepspeed.json_file: {file}: DeepSpeed does not take it: {text[:500]}") from None
    unread = sorted(chosen.keys() - given.read)
    if unread:
        near = difflib.get_close_matches(unread[0], given.read, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"deepspeed.json_file: {file}: DeepSpeed has no setting {unread[0]!r}.{meant}")


class _Recording(dict[str, Any]):
    """Settings that note which of them are looked up."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def keys(self) -> Any:
        return self  # so that `key in settings.keys()` is a lookup too


def join(device: torch.device, timeout: timedelta) -> None:
    """Initialise torch.distributed: NCCL for a GPU, gloo for the CPU."""
    import deepspeed
    from deepspeed.ops import __compatible_ops__ as available_kernels

    if device.type == "cpu":
        available_kernels["deepspeed_shm_comm"] = False  # it would be compiled at every user's first start
    deepspeed.init_distributed(
        dist_backend="nccl" if device.type == "cuda" else "gloo",
        timeout=timeout,
        auto_mpi_discovery=False,
        verbose=False,
    )


def keep_partitioned(chosen: dict[str, Any]) -> object | None:
    """At stage 3, have transformers partition weights while it loads them. Keep the result alive until
    `initialize` has returned: transformers holds only a weak reference."""
    if chosen["zero_optimization"]["stage"] < 3:
        return None
    from transformers.integrations import HfDeepSpeedConfig

    kept: object = HfDeepSpeedConfig(chosen)
    return kept


def initialize(model: torch.nn.Module, optimizer: torch.optim.Optimizer, chosen: dict[str, Any]) -> Engine:
    """The DeepSpeed engine around `model` and `optimizer`; UserError if this DeepSpeed lacks what is used."""
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with redirect_stdout(io.StringIO()):  # its bf16 optimizer prints the memory in use (`MA 1.82 GB …`)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=chosen)
    checks = [] if engine.fp16_enabled() else _gradient_checks(engine)
    _require(engine, checks)
    _replace_gradient_checks(checks)
    engine.checkpoint_engine = _saving_through_a_function(engine.checkpoint_engine)
    return cast(Engine, engine)


def zero_stage(engine: Engine) -> int:
    """The ZeRO stage that the engine runs at."""
    return int(cast(Any, engine).zero_optimization_stage())


def torch_optimizer(engine: Engine) -> torch.optim.Optimizer:
    """The torch optimizer that updates the weights (at ZeRO 1 to 3: their fp32 partition)."""
    outer: Any = engine.optimizer
    inner: torch.optim.Optimizer = outer.optimizer if zero_stage(engine) else outer
    return inner


def gradient_norm(engine: Engine) -> torch.Tensor | None:
    """The 2-norm of all gradients, shape (), while `engine.step()` runs; None at stage 0, where DeepSpeed
    does not compute it."""
    if not zero_stage(engine):
        return None
    try:
        return torch.as_tensor(cast(Any, engine).optimizer._global_grad_norm)
    except AttributeError:
        _refuse([f"{type(engine.optimizer).__name__}._global_grad_norm is missing"])


def whole(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Within, a parameter that ZeRO 3 has partitioned is gathered; collective."""
    if not hasattr(tensor, "ds_id"):
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[object] = deepspeed.zero.GatheredParameters([tensor])
    return gathered


def save_state(
    engine: Engine, folder: Path, *, exclude_frozen: bool, save: Callable[[SaveFile, Any, str], None]
) -> None:
    """Write weights and optimizer state to `folder`/state in DeepSpeed's layout; collective.

    Every file is written by `save(write, state, path)`, which calls `write(state, path)` now, or later with a
    copy.
    """
    raw: Any = engine
    with raw.checkpoint_engine.through(save):
        raw.save_checkpoint(
            str(folder), tag="state", save_latest=False, exclude_frozen_parameters=exclude_frozen
        )


def load_state(engine: Engine, folder: Path, *, universal: bool, strict: bool) -> None:
    """Load DeepSpeed's files in `folder`/state, in their usual or universal form; collective.

    `strict` is False if frozen weights were not saved. From the universal form, ZeRO 3 gives every parameter
    group the settings of the first (weight decay too), and all groups one shared step counter, which counts
    each step several times (seen in 0.19.8). Each group gets its own settings and counter back.
    """
    raw: Any = engine
    groups = engine.optimizer.param_groups
    configured = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    raw._config.load_universal_checkpoint = universal
    loaded, _ = raw.load_checkpoint(str(folder), tag="state", load_module_strict=strict)
    assert loaded is not None, f"DeepSpeed found no checkpoint in {folder}"
    for group, own in zip(engine.optimizer.param_groups, configured, strict=True):
        group.update(own)
    for state in torch_optimizer(engine).state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


def _gradient_checks(engine: Any) -> list[tuple[str, str]]:
    """Module and name of every function with which this engine's optimizer checks gradients in a step; none
    at stage 0, whose optimizer is torch's."""
    if not zero_stage(engine):
        return []
    modules = [base.__module__ for base in type(engine.optimizer).__mro__ if base.__module__ in CHECKS]
    if not modules:
        _refuse([f"{type(engine.optimizer).__module__}.{type(engine.optimizer).__name__} is unknown"])
    return [(module, name) for module in ["deepspeed.runtime.utils", *modules] for name in CHECKS[module]]


def _require(engine: Any, checks: list[tuple[str, str]]) -> None:
    """UserError if this DeepSpeed lacks something that the functions above use."""
    missing = [f"{module}.{name}" for module, name in checks if not hasattr(sys.modules.get(module), name)]
    optimizer = engine.optimizer
    inner = getattr(optimizer, "optimizer", None) if zero_stage(engine) else optimizer
    used = [
        (optimizer, "param_groups"), (inner, "register_step_pre_hook"), (inner, "state"),
        (engine, "checkpoint_engine"), (engine, "_config"), (engine, "save_checkpoint"),
        (engine, "load_checkpoint"), (engine, "destroy"), (engine._config, "load_universal_checkpoint"),
    ]  # fmt: skip
    if zero_stage(engine) == 3:
        used.append((sys.modules.get(OFFLOAD), "FWD_MODULE_STACK"))
    missing += [f"{type(owner).__name__}.{name}" for owner, name in used if not hasattr(owner, name)]
    if missing:
        _refuse([f"{name} is missing" for name in missing])


def _refuse(problems: list[str]) -> NoReturn:
    import deepspeed

    raise UserError(
        f"DeepSpeed {deepspeed.__version__} is not supported: {', '.join(problems)}."
        f" Tested with DeepSpeed {', '.join(TESTED)}: pip install deepspeed=={TESTED[-1]}."
    )


def _replace_gradient_checks(checks: list[tuple[str, str]]) -> None:
    """Stop DeepSpeed from checking whether gradients are finite, for which the host would wait for the device
    several times a step: core/train/spike_guard.py judges every step on the device.

    An fp16 engine (no `checks`) keeps the checks, which its loss scale needs. The functions are global to the
    process, so what an earlier engine replaced is first put back.
    """
    for module, names in CHECKS.items():
        for name in names:
            current = getattr(sys.modules.get(module), name, None)
            if isinstance(current, _Constant):
                setattr(sys.modules[module], name, current.replaced)
    for module, name in checks:
        setattr(sys.modules[module], name, _Constant(RESULTS[name], getattr(sys.modules[module], name)))


class _Constant:
    """A function that always returns `result`, in place of `replaced`."""

    def __init__(self, result: object, replaced: Callable[..., object]) -> None:
        self.result, self.replaced = result, replaced

    def __call__(self, *_: object, **__: object) -> object:
        return self.result


def _saving_through_a_function(inner: Any) -> Any:
    """A checkpoint engine of DeepSpeed's that does what `inner` does; within `through` its files are written
    by a given function. (A class in a function: its base class is DeepSpeed's, which is imported late.)"""
    from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine

    class Saving(CheckpointEngine):
        def __init__(self) -> None:
            super().__init__()
            self.name = inner.name
            self._save: Callable[[SaveFile, Any, str], None] = _at_once

        @contextmanager
        def through(self, save: Callable[[SaveFile, Any, str], None]) -> Iterator[None]:
            self._save = save
            try:
                yield
            finally:
                self._save = _at_once

        def save(self, state_dict: Any, path: str) -> None:
            self._save(inner.save, state_dict, path)

        def create(self, info: Any) -> Any:
            return inner.create(info)

        def load(self, path: str, map_location: Any = None) -> Any:
            return inner.load(path, map_location)

        def commit(self, info: Any) -> Any:
            return inner.commit(info)

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            inner.makedirs(path, exist_ok)

        def is_data_parallel_writer(self, dp_rank: int) -> Any:
            return inner.is_data_parallel_writer(dp_rank)

        def is_decoupled(self) -> Any:
            return inner.is_decoupled()

        def set_commit_info(self, info: Any) -> None:
            inner.set_commit_info(info)

        def get_commit_info(self) -> Any:
            return inner.get_commit_info()

        def cleanup(self) -> None:
            inner.cleanup()

        def preserves_storage_sharing(self) -> Any:
            return inner.preserves_storage_sharing()

    missing = [name for name in vars(CheckpointEngine) if name not in vars(Saving) and name[0] != "_"]
    if missing:
        _refuse([f"CheckpointEngine.{name} is unknown" for name in missing])
    return Saving()


def _at_once(write: SaveFile, state: Any, path: str) -> None:
    write(state, path)
