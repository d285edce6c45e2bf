"""A DeepSpeed that lacks what is used is refused by name, and what is replaced in it is put back."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deepspeed
import pytest
import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

from core.distributed import deepspeed_backend
from core.errors import UserError

UTILS, ZERO = "deepspeed.runtime.utils", "deepspeed.runtime.zero"
OPTIMIZERS = {
    (1, "bf16"): "deepspeed.runtime.bf16_optimizer.BF16_Optimizer",
    (2, "fp32"): f"{ZERO}.stage_1_and_2.DeepSpeedZeroOptimizer",
    (3, "bf16"): f"{ZERO}.stage3.DeepSpeedZeroOptimizer_Stage3",
}
"""DeepSpeed's optimizer for some ZeRO stages and gradient dtypes."""
TORCH = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)


@pytest.fixture(autouse=True)
def originals() -> Iterator[None]:
    """DeepSpeed's functions are global to the process: put them back."""
    yield
    deepspeed_backend._replace_gradient_checks([])


def found(path: str) -> Any:
    """What an absolute dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def engine_of(stage: int, optimizer: Any, *, fp16: bool = False) -> Any:
    """What `initialize` reads of an engine."""
    return SimpleNamespace(
        zero_optimization_stage=lambda: stage, fp16_enabled=lambda: fp16, optimizer=optimizer,
        checkpoint_engine=TorchCheckpointEngine(), save_checkpoint=print, load_checkpoint=print,
        destroy=print, _config=SimpleNamespace(load_universal_checkpoint=False),
    )  # fmt: skip


def optimizer_of(path: str) -> Any:
    """An optimizer of this class around torch's, without its buffers."""
    kind = found(path)
    made = kind.__new__(kind)
    made.__dict__.update(optimizer=TORCH, _param_groups=[])
    return made


def initialize(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The backend's `initialize`, with DeepSpeed returning `engine`."""
    monkeypatch.setattr(deepspeed, "initialize", lambda **_: (engine, None))
    return deepspeed_backend.initialize(torch.nn.Linear(1, 1), TORCH, {})


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_the_installed_version_is_accepted_and_its_checks_are_replaced_until_an_fp16_engine(
    case: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = OPTIMIZERS[case]
    checks = [f"{path.rpartition('.')[0]}.is_invalid_grad_norm", f"{UTILS}.is_invalid_grad_norm"]
    infinite = torch.tensor(torch.inf)
    assert all(found(check)(infinite) for check in checks)
    for _ in range(2):
        initialize(engine_of(case[0], optimizer_of(path)), monkeypatch)
        assert not any(found(check)(infinite) for check in checks)
    norm = infinite.clone()
    found(f"{UTILS}.mask_nan_or_inf_with_val_inplace")(norm, device=norm.device)
    assert norm == torch.inf, "the guard sees the norm itself"
    initialize(engine_of(case[0], optimizer_of(path), fp16=True), monkeypatch)
    assert all(found(check)(infinite) for check in checks)


@pytest.mark.parametrize("name", ["is_invalid_grad_norm", "mask_nan_or_inf_with_val_inplace"])
@pytest.mark.parametrize("case", OPTIMIZERS)
@pytest.mark.parametrize("where", ["the optimizer's module", UTILS])
def test_a_renamed_function_is_refused_by_name(
    case: tuple[int, str], name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = OPTIMIZERS[case]
    module = UTILS if where == UTILS else path.rpartition(".")[0]
    if name not in deepspeed_backend.CHECKS[module]:
        assert not hasattr(importlib.import_module(module), name), "nothing to replace"
        return
    monkeypatch.delattr(f"{module}.{name}")
    with pytest.raises(UserError) as refused:
        initialize(engine_of(case[0], optimizer_of(path)), monkeypatch)
    for part in (f"{module}.{name} is missing", deepspeed.__version__, *deepspeed_backend.TESTED):
        assert part in str(refused.value)


def test_an_unknown_optimizer_and_missing_attributes_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NewZero:
        param_groups: tuple[()] = ()

    with pytest.raises(UserError, match=r"test_deepspeed_backend\.NewZero is unknown"):
        initialize(engine_of(2, NewZero()), monkeypatch)
    known = optimizer_of(OPTIMIZERS[2, "fp32"])
    known.optimizer = NewZero()
    with pytest.raises(UserError, match=r"NewZero\.register_step_pre_hook is missing"):
        initialize(engine_of(2, known), monkeypatch)
    changed = engine_of(0, TORCH)
    del changed.checkpoint_engine
    with pytest.raises(UserError, match=r"SimpleNamespace\.checkpoint_engine is missing"):
        initialize(changed, monkeypatch)
    monkeypatch.setattr(CheckpointEngine, "flush", print, raising=False)
    with pytest.raises(UserError, match=r"CheckpointEngine\.flush is unknown"):
        initialize(engine_of(0, TORCH), monkeypatch)


def test_a_norm_that_is_not_there_is_refused_at_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = initialize(engine_of(2, optimizer_of(OPTIMIZERS[2, "fp32"])), monkeypatch)
    with pytest.raises(UserError, match=r"DeepSpeedZeroOptimizer\._global_grad_norm is missing"):
        deepspeed_backend.gradient_norm(engine)


def test_files_are_written_by_the_given_function_and_only_while_it_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    queued: list[Any] = []
    engine = engine_of(0, TORCH)
    engine.save_checkpoint = lambda folder, **_: engine.checkpoint_engine.save(
        state_dict={"weight": torch.ones(2)}, path=f"{folder}/state.pt"
    )
    initialize(engine, monkeypatch)
    assert isinstance(engine.checkpoint_engine, CheckpointEngine)
    deepspeed_backend.save_state(engine, tmp_path, exclude_frozen=False, save=lambda *job: queued.append(job))
    assert not (tmp_path / "state.pt").exists()
    [(write, state, path)] = queued
    write(state, path)
    assert engine.checkpoint_engine.load(path)["weight"].tolist() == [1, 1]

    def full(*_: Any) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        deepspeed_backend.save_state(engine, tmp_path, exclude_frozen=False, save=full)
    engine.checkpoint_engine.save({}, str(tmp_path / "at once.pt"))
    assert (tmp_path / "at once.pt").exists()
