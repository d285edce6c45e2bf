"""Optimizers: AdamW with weight decay on matrices only, fused or paged.

`core/model/memory_estimate.py` assumes AdamW's two moments.
"""

import torch

from core.config.schema import OptimizerConfig
from core.model.parameter_groups import Shape, parameter_groups


def make_optimizer(
    model: torch.nn.Module, config: OptimizerConfig, group_elements: int | None = None
) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices, one fused kernel on a GPU and on a CPU.

    A parameter group has at most `group_elements` elements (core/model/parameter_groups.py).
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shapes = [
        Shape(getattr(p, "ds_numel", p.numel()), len(getattr(p, "ds_shape", p.shape)) >= 2)
        for p in parameters
    ]
    groups = [
        {
            "params": [parameters[i] for i in members],
            "weight_decay": config.weight_decay if shapes[members[0]].decayed else 0.0,
        }
        for members in parameter_groups(shapes, group_elements)
    ]
    if config.name == "paged_adamw_32bit":
        from bitsandbytes.optim.adamw import PagedAdamW32bit

        paged: torch.optim.Optimizer = PagedAdamW32bit(
            groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon
        )
        return paged
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True
    )
