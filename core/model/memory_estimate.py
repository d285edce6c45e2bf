"""Estimates the memory of one GPU before a run starts, for `python -m pretrain estimate`.

Weights, gradients, optimizer states and what DeepSpeed adds in a backward pass and in a step follow from its
code at each ZeRO stage (core/model/zero_memory.py). With an adapter this holds for trained weights only:
frozen ones are whole on every process, and activations are taken to be those of the model without the
adapter. Activations are measured by torch's memory tracker on a model of the same shape with few layers,
whose tensors have no storage; every further layer adds the same. Nothing of the real size is allocated.
"""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from core.config.schema import DeepSpeedConfig, ModelConfig
from core.distributed import deepspeed_backend
from core.model import activation_checkpointing as activations
from core.model import lora, sequence_parallel
from core.model.loss_head import chunk_places
from core.model.parameter_groups import Shape, group_elements
from core.model.zero_memory import Zero, held, passing

COMPILED_SHARE = 0.55
"""What compiled layers keep with `selective`, of what layers keep uncompiled: 0.44 to 0.51 on a CPU."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process: what it holds from step to step, and what comes and goes within one."""

    weights: int
    gradients: int
    optimizer: int
    """Moments and, if they are separate from the weights, fp32 master weights."""
    buffers: int
    """Held through forward and backward passes: ZeRO 3's bucket and gathered weights, an unpacked matrix."""
    activations: int
    logits: int
    reduction: int
    """Gradients on their way from the layers to where they are accumulated, when the logits are gone; or
    weights that ZeRO 3 is gathering."""
    step: int
    """In the optimizer's step, when there are no activations."""

    @property
    def total(self) -> int:
        """The peak, of the backward pass or of the step."""
        backward = self.buffers + self.activations + max(self.logits, self.reduction)
        return self.weights + self.gradients + self.optimizer + max(backward, self.step)


def logits_bytes(config: Any, places: int, kind: str, dtype: torch.dtype, *, trained: bool = True) -> int:
    """Peak bytes of the output layer, `trained` or frozen, for a micro-batch of `places` tokens."""
    vocabulary, width = config.vocab_size, config.hidden_size
    if kind == "full":
        # logits; in fp32: logits, softmax, gradient
        return int(places * vocabulary * (dtype.itemsize + 3 * 4))
    chunk = min(places, chunk_places(vocabulary)) * vocabulary * (2 * 4 + 2 * dtype.itemsize)
    return int(chunk + places * width * dtype.itemsize + (2 * vocabulary * width * 4 if trained else 0))


def activation_bytes(
    config: Any, model: ModelConfig, batch: int, length: int, dtype: torch.dtype, parts: int = 1
) -> int:
    """Peak bytes of activations in the forward and backward pass, without the output layer, of one of `parts`
    processes that share the rows of `length` tokens.

    Models of 2 and 4 layers without storage are traced; their difference is the cost of two layers. Compiled
    code is not traced: with `selective` it is taken to keep its share of what layers keep uncompiled.
    """
    if model.compile and model.activation_checkpointing == "selective":
        whole = model.model_copy(update={"activation_checkpointing": "none"})
        return int(COMPILED_SHARE * activation_bytes(config, whole, batch, length, dtype, parts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn about tracing
        few, more = (_traced(config, model, layers, batch, length, dtype, parts) for layers in (2, 4))
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


def _traced(
    config: Any, model: ModelConfig, layers: int, batch: int, length: int, dtype: torch.dtype, parts: int
) -> int:
    from copy import deepcopy

    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AttentionInterface, AutoModel

    small = deepcopy(config)
    small.num_hidden_layers, small.use_cache = layers, False
    AttentionInterface.register("one_document", partial(_one_document, parts=parts))
    with FakeTensorMode():
        decoder = AutoModel.from_config(small, dtype=dtype, attn_implementation="one_document").train()
        activations.prepare(decoder, model.model_copy(update={"compile": False}))
        return measured(decoder, torch.zeros(batch, length // parts, dtype=torch.long))


def _one_document(
    module: Any, query: Any, key: Any, value: Any, mask: Any, parts: int = 1, **given: Any
) -> Any:
    """Attention with the activations of a variable-length kernel: no mask, which would depend on data. With
    `parts`, also with those of the exchange among processes, here of a process with itself."""
    del module, mask
    if parts > 1:
        heads = (query, *(sequence_parallel.repeated(each, parts) for each in (key, value)))
        query, key, value = (sequence_parallel.exchange(each, parts, torch.clone) for each in heads)
    out = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        is_causal=True,
        scale=given.get("scaling"),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    out = out.transpose(1, 2)
    return out if parts == 1 else sequence_parallel.exchange(out, parts, torch.clone), None


def estimate(
    model: ModelConfig,
    config: Any,
    zero: DeepSpeedConfig,
    *,
    processes: int,
    batch: int,
    length: int,
    bf16: bool,
    micro_batches: int = 2,
    parts: int = 1,
) -> Memory:
    """Memory of each of `processes` processes with micro-batches of `batch` x `length` tokens, of which
    `micro_batches` make a step and which `parts` processes share. UserError if they cannot."""
    sequence_parallel.check_length(parts, length)
    sequence_parallel.check(parts, config, model)
    dtype = torch.bfloat16 if bf16 else torch.float32
    shapes, frozen, unpacked = trained_shapes(config, model, dtype)
    way = settled(zero, processes, bf16=bf16)
    weights, gradients, optimizer = held(shapes, way)
    through, reduction, step = passing(shapes, way, micro_batches)
    head_trained = model.adapter is None or model.adapter.embeddings
    return Memory(
        weights + frozen,
        gradients,
        optimizer,
        through + unpacked,
        activation_bytes(config, model, batch, length, dtype, parts),
        logits_bytes(config, batch * length // parts, model.cross_entropy, dtype, trained=head_trained),
        reduction,
        step,
    )


def settled(zero: DeepSpeedConfig, processes: int, *, bf16: bool) -> Zero:
    """What a new run on this many processes sets in DeepSpeed, or the user's own file does."""
    bucket, overlap = deepspeed_backend.buckets(zero, processes)
    return Zero(
        zero.zero_stage,
        processes,
        bf16,
        4 if not bf16 or zero.gradient_dtype == "fp32" else 2,
        bucket,
        overlap,
        group_elements(processes),
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
