"""Bytes of live tensors after a step and a backward pass, beside the estimate, for every ZeRO stage.

python -m core.launch --processes 2 -m tests.core.model.memory_worker FOLDER [adapters]
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch

from core.config.schema import DeepSpeedConfig, ModelConfig, OptimizerConfig, TrainingConfig
from core.distributed import deepspeed_backend, process_group
from core.model.loading import load_model
from core.model.loss_head import summed_loss
from core.model.memory_estimate import settled, trained_shapes
from core.model.parameter_groups import Shape
from core.model.zero_memory import held
from core.train.optim import make_optimizer


def main() -> None:
    """Write FOLDER/memory.json: a line for each stage and dtype."""
    folder = Path(sys.argv[1])
    world = process_group.setup(5)
    if world.is_main:
        from transformers import LlamaConfig, LlamaForCausalLM

        shape = {"hidden_size": 64, "intermediate_size": 100, "num_hidden_layers": 2}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=2003, num_attention_heads=4, **shape))
        model.save_pretrained(folder)
    world.barrier()
    adapted: list[dict[str, Any]] = [
        {"load_in_4bit": bits == 4, "double_quant": double, "embeddings": embeddings, "r": 4}
        for bits, double, embeddings in (
            (16, False, False),
            (16, False, True),
            (4, True, False),
            (4, False, True),
        )
    ]
    lines = (
        [
            compare(folder, stage, precision, "bf16" if precision == "bf16" else "fp32", world, adapter)
            for precision in ("fp32", "bf16")
            for stage in (1, 2)
            for adapter in adapted
        ]
        if "adapters" in sys.argv
        else [
            compare(folder, stage, precision, gradients, world)
            for precision, gradients in (("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16"))
            for stage in (0, 1, 2, 3)
            if not (precision == "bf16" and stage == 0)
        ]
    )
    if world.is_main:
        (folder / "memory.json").write_text(json.dumps(lines))
    process_group.teardown(world)


def compare(
    folder: Path,
    stage: int,
    precision: str,
    gradients: str,
    world: process_group.World,
    adapter: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a step, go backward once more, and count."""
    training = TrainingConfig.model_validate({"global_batch_size": world.size, "precision": precision})
    zero = DeepSpeedConfig.model_validate({"zero_stage": stage, "gradient_dtype": gradients})
    batch = {"input_ids": torch.zeros(1, 32, dtype=torch.long), "position_ids": torch.arange(32)[None]}
    batch["labels"] = batch["input_ids"]
    earlier = live()  # kept alive, so that no address is used twice
    chosen, dtype = deepspeed_backend.settings(zero, training)
    partitioned = deepspeed_backend.keep_partitioned(chosen)
    config = ModelConfig.model_validate({"path": str(folder), "adapter": adapter})
    model = load_model(str(folder), config, dtype)
    engine: Any = deepspeed_backend.initialize(model, make_optimizer(model, OptimizerConfig()), chosen)
    del partitioned
    shapes = [
        Shape(getattr(p, "ds_numel", p.numel()), len(getattr(p, "ds_shape", p.shape)) >= 2)
        for p in model.parameters()
    ]
    frozen = 0
    if adapter is not None:
        shapes, frozen, _ = trained_shapes(model.config, config, dtype)
    for step in (True, False):
        engine.backward(summed_loss(engine, batch) / 32, scale_wrt_gas=False)
        if step:
            engine.step()
    tensors = {address: tensor for address, tensor in live().items() if address not in earlier}
    way = settled(zero, world.size, bf16=precision == "bf16")
    weights, grads, optimizer = held(shapes, way)
    # a bucket is there until the step; at ZeRO 3 always
    lasts = stage == 3 or (stage == 1 and not way.widened)
    bucket = way.wide * way.bucket if lasts else 0
    alive = torch.tensor(sum(t.untyped_storage().nbytes() for t in tensors.values()))
    torch.distributed.all_reduce(alive, torch.distributed.ReduceOp.MAX)
    state = [t for s in engine.optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
    masters = [p for group in engine.optimizer.param_groups for p in group["params"]] if 0 < stage < 3 else []
    if stage == 3:
        masters = list(engine.optimizer.fp32_partitioned_groups_flat)
    return {
        "stage": stage, "precision": precision, "gradients": gradients, "processes": world.size,
        "live": alive.item() - bucket,
        "adapter": adapter, "estimated": weights + frozen + grads + optimizer,
        "live_optimizer": sum(t.numel() * t.element_size() for t in [*state, *masters]),
        "estimated_optimizer": optimizer,
    }  # fmt: skip


def live() -> dict[int, torch.Tensor]:
    """Every tensor in the process, by the address of its memory."""
    while gc.collect():  # what one pass frees may have held tensors of further cycles
        pass
    found: dict[int, torch.Tensor] = {}
    for item in gc.get_objects():
        if issubclass(type(item), torch.Tensor):
            for tensor in (item, item.grad if item.is_leaf else None):
                if tensor is not None and tensor.untyped_storage().nbytes():
                    found[tensor.untyped_storage().data_ptr()] = tensor
    return found


if __name__ == "__main__":
    main()
