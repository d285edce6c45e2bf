"""Estimates the memory of one GPU before a run starts, for `python -m pretrain estimate`.

Weights, gradients and optimizer states follow from DeepSpeed's buffers at each ZeRO stage. With an adapter
this holds for trained weights only: frozen ones are whole on every process, and activations are taken to be
those of the model without the adapter. Activations are measured by torch's memory tracker on a model of the
same shape with few layers, whose tensors have no storage; every further layer adds the same. Nothing of the
real size is allocated.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from core.config.schema import DeepSpeedConfig, ModelConfig
from core.model import activation_checkpointing as activations
from core.model import lora
from core.model.loss_head import chunk_places

BUCKET = 500_000_000
"""Elements of DeepSpeed's bucket for reducing gradients (stages 1 and 3; DeepSpeed's default)."""
PERSISTENT = 100_000
"""At stage 3, weights of at most this many elements are whole on every process (DeepSpeed's default)."""
LIVE = 1_000_000_000
"""At stage 3, maximum number of gathered elements held at a time (DeepSpeed's default)."""


@dataclass(frozen=True)
class Shape:
    """A parameter: its elements, and whether weight decay applies (DeepSpeed flattens each group)."""

    elements: int
    decayed: bool


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at the peak of a step."""

    weights: int
    gradients: int
    optimizer: int
    """Moments and, if they are separate from the weights, fp32 master weights."""
    buffers: int
    """DeepSpeed's bucket, and at stage 3 the gathered weights."""
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """The sum."""
        parts = (self.weights, self.gradients, self.optimizer, self.buffers, self.activations, self.logits)
        return sum(parts)


def held(
    shapes: list[Shape], stage: int, processes: int, *, bf16: bool, gradient_bytes: int
) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimizer states after a backward pass, once states exist.

    `gradient_bytes` is 4 or 2 (deepspeed.gradient_dtype). Tested against live tensors at all stages.
    """
    elements, wide = sum(shape.elements for shape in shapes), 2 if bf16 else 4
    groups = [[s.elements for s in shapes if s.decayed == decayed] for decayed in (True, False)]
    groups = [group for group in groups if group]
    if stage == 0:
        return wide * elements, 4 * elements, 8 * elements + 4 * len(shapes)
    steps = 4 * len(groups)
    if stage == 3:
        mine = sum(-(-shape.elements // processes) for shape in shapes)
        whole = sum(s.elements for s in shapes if s.elements <= PERSISTENT) if processes > 1 else 0
        return wide * (mine + whole), gradient_bytes * mine, 12 * mine + steps
    flat = sum(_aligned(sum(group), 2 * processes) for group in groups)
    mine = flat // processes
    if stage == 2:
        return wide * flat, gradient_bytes * mine, 12 * mine + steps
    gradients = (4 + wide) * elements if bf16 and gradient_bytes == 4 else gradient_bytes * elements
    return wide * flat, gradients, 12 * mine + steps


def buffers(elements: int, stage: int, *, bf16: bool, gradient_bytes: int) -> int:
    """Bytes of DeepSpeed's bucket, and of gathered weights at stage 3."""
    wide = 2 if bf16 else 4
    if stage == 3:
        return wide * (BUCKET + min(elements, LIVE))
    return wide * BUCKET if stage == 1 and not (bf16 and gradient_bytes == 4) else 0


def logits_bytes(config: Any, places: int, kind: str, dtype: torch.dtype, *, trained: bool = True) -> int:
    """Peak bytes of the output layer, `trained` or frozen, for a micro-batch of `places` tokens."""
    vocabulary, width = config.vocab_size, config.hidden_size
    if kind == "full":
        # logits; in fp32: logits, softmax, gradient
        return int(places * vocabulary * (dtype.itemsize + 3 * 4))
    chunk = min(places, chunk_places(vocabulary)) * vocabulary * (2 * 4 + 2 * dtype.itemsize)
    return int(chunk + places * width * dtype.itemsize + (2 * vocabulary * width * 4 if trained else 0))


def activation_bytes(config: Any, model: ModelConfig, batch: int, length: int, dtype: torch.dtype) -> int:
    """Peak bytes of activations in the forward and backward pass, without the output layer.

    Models of 2 and 4 layers without storage are traced; their difference is the cost of two layers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn about tracing
        few, more = (_traced(config, model, layers, batch, length, dtype) for layers in (2, 4))
    return int(few + (more - few) // 2 * (config.num_hidden_layers - 2))


def measured(decoder: Any, ids: torch.Tensor) -> int:
    """Peak bytes beyond parameters and their gradients, by torch's memory tracker."""
    from torch.distributed._tools.mem_tracker import MemTracker

    for (
        parameter
    ) in decoder.parameters():  # else the peak would be at the gradients, which are counted separately
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    tracker = MemTracker()
    tracker.track_external(decoder)
    positions = torch.arange(ids.shape[1])[None].expand_as(ids)
    with tracker:
        decoder(input_ids=ids, position_ids=positions, use_cache=False)[0].sum().backward()
    peak = next(iter(tracker.get_tracker_snapshot("peak").values()))
    kinds = {getattr(kind, "value", str(kind)): size for kind, size in peak.items()}
    return int(sum(size for kind, size in kinds.items() if kind in ("Activation", "Temp", "Input")))


def _traced(config: Any, model: ModelConfig, layers: int, batch: int, length: int, dtype: torch.dtype) -> int:
    from copy import deepcopy

    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AttentionInterface, AutoModel

    small = deepcopy(config)
    small.num_hidden_layers, small.use_cache = layers, False
    AttentionInterface.register("one_document", _one_document)
    with FakeTensorMode():
        decoder = AutoModel.from_config(small, dtype=dtype, attn_implementation="one_document").train()
        activations.prepare(decoder, model.model_copy(update={"compile": False}))
        return measured(decoder, torch.zeros(batch, length, dtype=torch.long))


def _one_document(module: Any, query: Any, key: Any, value: Any, mask: Any, **given: Any) -> Any:
    """Attention with the activations of a variable-length kernel: no mask, which would depend on data."""
    del module, mask
    out = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        is_causal=True,
        scale=given.get("scaling"),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2), None


def estimate(
    model: ModelConfig,
    config: Any,
    zero: DeepSpeedConfig,
    *,
    processes: int,
    batch: int,
    length: int,
    bf16: bool,
) -> Memory:
    """Memory of each of `processes` processes with micro-batches of `batch` x `length` tokens."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    gradient_bytes = 4 if not bf16 or zero.gradient_dtype == "fp32" else 2
    shapes, frozen, unpacked = trained_shapes(config, model, dtype)
    settings: dict[str, Any] = {"bf16": bf16, "gradient_bytes": gradient_bytes}
    weights, gradients, optimizer = held(shapes, zero.zero_stage, processes, **settings)
    elements = sum(shape.elements for shape in shapes)
    head_trained = model.adapter is None or model.adapter.embeddings
    return Memory(
        weights + frozen,
        gradients,
        optimizer,
        buffers(elements, zero.zero_stage, **settings) + unpacked,
        activation_bytes(config, model, batch, length, dtype),
        logits_bytes(config, batch * length, model.cross_entropy, dtype, trained=head_trained),
    )


def trained_shapes(config: Any, model: ModelConfig, dtype: torch.dtype) -> tuple[list[Shape], int, int]:
    """Trained parameters; bytes of frozen ones; bytes of the largest frozen 4-bit matrix when unpacked."""
    from transformers import AutoModelForCausalLM

    frozen = unpacked = 0
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config)
        if model.adapter is not None:
            frozen, unpacked = lora.frozen_bytes(whole, model.adapter, dtype.itemsize)
            whole = lora.attach(whole, model.adapter, model.path or "the model", model.seed)
        elif model.trained == "embeddings":
            lora.freeze_all_but_embeddings(whole)
            frozen = dtype.itemsize * sum(p.numel() for p in whole.parameters() if not p.requires_grad)
    trained = (parameter for parameter in whole.parameters() if parameter.requires_grad)
    return [Shape(p.numel(), p.ndim >= 2) for p in trained], frozen, unpacked


def _aligned(elements: int, multiple: int) -> int:
    return math.ceil(elements / multiple) * multiple
