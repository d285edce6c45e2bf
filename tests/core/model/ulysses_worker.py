"""Attention of two processes that share rows, beside attention of whole rows and DeepSpeed's class.

python -m core.launch --processes 2 -m tests.core.model.ulysses_worker FOLDER
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF

from core.distributed import process_group
from core.model.varlen_attention import attend, boundaries

ROWS, LENGTH, WIDTH = 2, 24, 8
POSITIONS = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in ((5, 14, 5), (12, 1, 11))])
HEADS = ((4, 4), (4, 2), (4, 1), (6, 3))
"""Query heads, and key-value heads; DeepSpeed does not divide the last."""


def compare(
    heads: int, groups: int, value_width: int, more: dict[str, Any], world: process_group.World
) -> dict[str, Any]:
    """The largest differences of outputs and gradients."""
    generator = torch.Generator().manual_seed(heads + groups)
    shapes = ((heads, WIDTH), (groups, WIDTH), (groups, value_width))
    whole = [torch.randn(ROWS, n, LENGTH, width, generator=generator) for n, width in shapes]
    wanted = torch.randn(ROWS, LENGTH, heads, value_width, generator=generator)
    number, parts = world.part
    starts: dict[str, Any] = {"cu_seq_lens_q": boundaries(POSITIONS), "max_length_q": LENGTH, **more}
    module = torch.nn.Identity()

    def own(tensor: torch.Tensor, dim: int) -> torch.Tensor:
        return tensor.chunk(parts, dim)[number]

    def found(call: Any, inputs: list[torch.Tensor], seen: torch.Tensor) -> list[torch.Tensor]:
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        out = call(module, *leaves, None)[0]
        torch.autograd.backward(out.reshape_as(seen), seen)
        return [out.detach().reshape_as(seen), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    attention: Any = attend
    expected = found(partial(attention, **starts), whole, wanted)
    expected = [own(expected[0], 1), *(own(tensor, 2) for tensor in expected[1:])]
    mine, seen = [own(tensor, 2) for tensor in whole], own(wanted, 1)
    ours = found(partial(attention, **starts, sequence_group=world.sequence_group), mine, seen)
    result = {"heads": [heads, groups, value_width], "off": _off(ours, expected)}
    if (groups == 1 or groups % parts == 0) and value_width == WIDTH:
        shape = {"attn_head_count": heads, "attn_head_size": WIDTH, "kv_head_count": groups}
        theirs = UlyssesSPAttentionHF(
            attend, batch_size=ROWS, **shape, num_hidden_layers=1, process_group=world.sequence_group,
            seq_length_is_variable=True,
        )  # fmt: skip
        given = {**starts, "position_ids": own(POSITIONS, 1).contiguous()}
        result["off_deepspeed"] = _off(ours, found(partial(theirs, **given), mine, seen))
    return result


def _off(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def main(folder: Path) -> None:
    """Write FOLDER/RANK.json."""
    world = process_group.setup(5)
    world = process_group.sharing_rows(world, world.size, 5)
    lines = [compare(*heads, WIDTH, more, world) for heads in HEADS for more in ({}, {"sliding_window": 4})]
    lines.append(compare(4, 4, WIDTH // 2, {}, world))
    (folder / f"{world.rank}.json").write_text(json.dumps(lines))
    process_group.teardown(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
