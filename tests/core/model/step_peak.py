"""Bytes alive at the peak of accumulating gradients and of the optimizer's step, beside the estimate.

python -m core.launch --processes 2 -m tests.core.model.step_peak FOLDER

A dispatch mode sees every storage that is made and dropped, which on a CPU is what an allocator would hold.
"""

import gc
import json
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig

from core.config.schema import DeepSpeedConfig, ModelConfig, OptimizerConfig, TrainingConfig
from core.distributed import deepspeed_backend, process_group
from core.model import parameter_groups
from core.model.loading import load_model
from core.model.loss_head import summed_loss
from core.model.memory_estimate import estimate
from core.model.parameter_groups import group_elements
from core.train.optim import make_optimizer

GROUP, BUCKET, LENGTH = 2_200_000, 1_100_000, 32
SHAPE = LlamaConfig(
    vocab_size=4096, hidden_size=384, intermediate_size=1056, num_hidden_layers=8, num_attention_heads=6,
    num_key_value_heads=6,
)  # fmt: skip


class Alive(TorchDispatchMode):
    """Counts the bytes of living storages, and the most of them at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.where = self.op = ""
        self._held: dict[int, int] = {}

    def add(self, storage: Any) -> None:
        """Count a storage until it is dropped."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return
        self._held[key] = size
        self.now += size
        if self.now > self.peak:
            self.peak, self.where = self.now, self.op
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._held.pop(key, 0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.op = str(function)
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf.untyped_storage())
        return made


def living() -> list[Any]:
    """The storage of every tensor in the process."""
    gc.collect()
    found: dict[int, Any] = {}
    for item in gc.get_objects():
        if issubclass(type(item), torch.Tensor) and item.device.type != "meta":
            for tensor in (item, item.grad if item.is_leaf else None):
                if tensor is not None:
                    found[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
    return list(found.values())


def peak(
    folder: Path, stage: int, precision: str, gradients: str, world: process_group.World
) -> dict[str, Any]:
    """Two steps of two micro-batches; the peak of the second, of the rank that has more, and the estimate."""
    torch.manual_seed(0)
    training = TrainingConfig.model_validate({"global_batch_size": 2 * world.size, "precision": precision})
    zero = DeepSpeedConfig.model_validate(
        {"zero_stage": stage, "gradient_dtype": gradients, "json_file": str(folder / "deepspeed.json")}
    )
    chosen, dtype = deepspeed_backend.settings(zero, training)
    config = ModelConfig(path=str(folder), activation_checkpointing="full", cross_entropy="chunked")
    earlier = {storage._cdata: storage for storage in living()}
    partitioned = deepspeed_backend.keep_partitioned(chosen)
    model = load_model(str(folder), config, dtype)
    optimizer = make_optimizer(model, OptimizerConfig(), group_elements(world.size))
    engine: Any = deepspeed_backend.initialize(model, optimizer, chosen)
    del partitioned
    ids = torch.arange(LENGTH)[None]
    batch = {"input_ids": ids, "position_ids": ids, "labels": ids}
    for _ in range(2):
        alive = Alive()
        for storage in living():
            if storage._cdata not in earlier:
                alive.add(storage)
        del storage
        with alive:
            for _ in range(2):
                engine.backward(summed_loss(engine, batch) / LENGTH, scale_wrt_gas=False)
            backward, where = alive.peak, alive.where
            alive.peak = alive.now
            engine.step()
    most = torch.tensor([backward, alive.peak])
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    found = estimate(
        config, SHAPE, zero, processes=world.size, batch=1, length=LENGTH, bf16=precision == "bf16"
    )
    elements = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    engine.destroy()
    return {
        "stage": stage, "precision": precision, "gradients": gradients, "processes": world.size,
        "backward": most[0].item() / elements, "step": most[1].item() / elements,
        "total": found.total / elements, "at": [where, alive.where],
        "held": (found.weights + found.gradients + found.optimizer) / elements,
        "parts": {name: round(getattr(found, name) / elements, 3) for name in vars(found)},
    }  # fmt: skip


def main(folder: Path) -> None:
    """Write FOLDER/peaks.json: bytes a parameter, a line for each stage and dtype."""
    world = process_group.setup(5)
    parameter_groups.LARGEST_GROUP = parameter_groups.LARGEST_PIECE = GROUP
    if world.is_main:
        AutoModelForCausalLM.from_config(SHAPE).save_pretrained(folder)
        given = {"zero_optimization": {"reduce_bucket_size": BUCKET}}
        (folder / "deepspeed.json").write_text(json.dumps(given))
    world.barrier()
    kinds = (("bf16", "bf16"), ("bf16", "fp32"), ("fp32", "fp32"))
    lines = [peak(folder, stage, *kind, world) for stage in (1, 2, 3) for kind in kinds]
    if world.is_main:
        (folder / "peaks.json").write_text(json.dumps(lines))
    process_group.teardown(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
