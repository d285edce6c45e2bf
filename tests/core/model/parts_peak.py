"""Peak bytes of activations on processes that share rows, beside the estimate.

python -m core.launch --processes 2 -m tests.core.model.parts_peak FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, LlamaConfig

from core.config.schema import ModelConfig
from core.distributed import process_group
from core.model import activation_checkpointing
from core.model.memory_estimate import activation_bytes
from core.model.varlen_attention import arguments, boundaries, register
from tests.core.model.step_peak import Alive

ROWS, LENGTH = 2, 1024


def peak(kind: str, groups: int, world: process_group.World) -> dict[str, float]:
    """Of a forward and a backward pass, without gradients of weights."""
    shape = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=500, num_hidden_layers=9, num_key_value_heads=groups, **shape)
    settings = ModelConfig.model_validate({"path": "x", "activation_checkpointing": kind})
    part, parts = world.part
    estimated = activation_bytes(config, settings, ROWS, LENGTH, torch.float32, parts)
    model = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="documents").train()
    activation_checkpointing.prepare(model, settings)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    positions = torch.arange(LENGTH)[None].expand(ROWS, -1)
    mine = positions.chunk(parts, 1)[part].contiguous()
    batch = {"input_ids": mine % 500, "boundaries": boundaries(positions)}
    given = arguments(batch, world.sequence_group) | {"position_ids": mine, "use_cache": False}
    with Alive() as alive:
        model(input_ids=batch["input_ids"], **given)[0].sum().backward()
    return {"estimated": estimated, "peak": alive.peak}


def main(folder: Path) -> None:
    """Write FOLDER/RANK.json."""
    world = process_group.setup(5)
    world = process_group.sharing_rows(world, world.size, 5)
    register()
    kinds = ("none", "selective", "full")
    lines = [peak(kind, groups, world) for groups in (4, 1) for kind in kinds]
    (folder / f"{world.rank}.json").write_text(json.dumps(lines))
    process_group.teardown(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
