"""The summed token loss of a micro-batch, computed where the logits arise, so that they are never held whole.

A vocabulary of 128k and 8,192 places make 4 GiB of fp32 logits, and as much again for their gradient. Here
the output layer itself computes the loss: some hundred places at a time it makes logits, their loss and, in
the same pass, the gradients of the hidden states and of its weight (as Liger-Kernel does, arXiv:2410.10989).
It does so inside its own forward pass, where ZeRO 3 has gathered its weight. Liger's own kernel is used on a
GPU where the package is installed in a version that sums the weight's gradient in fp32, as is done here. (It
counts the labels on the host, so that each micro-batch waits for the device.)
"""

import importlib.util
import inspect
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy, linear

from core.errors import UserError
from core.model import labels, varlen_attention

if TYPE_CHECKING:
    from core.distributed.process_group import World

IGNORED = labels.IGNORED
"""Label of a position that is not trained on (transformers' convention)."""

CHUNK = 1024
"""Places whose logits are held at a time, at most. With few, adding up the weight's gradient takes longer
than the products do."""
CHUNK_ELEMENTS = 2**25
"""Logits that are held at a time, at most: 128 MiB in fp32. Reached by vocabularies beyond 32k."""

UNUSUAL = ("final_logit_softcapping", "logits_scaling", "logit_scale", "output_multiplier_scale")
"""Keys of models that change the logits after the output layer: they take the plain way."""


def install(model: Any, kind: str) -> None:
    """Let the model's output layer compute losses; `kind` as in `model.cross_entropy`. UserError where it is
    liger and that cannot be."""
    head: Any = output_layer(model)
    chosen = choose(kind, liger_problem()) if kind in ("auto", "liger") else kind
    unusual = any(getattr(model.config.get_text_config(), key, None) for key in UNUSUAL)
    if chosen == "full" or unusual or head.__class__ is not torch.nn.Linear:
        return
    layer: Any = head
    layer.loss_of = _liger_loss if chosen == "liger" else chunked_loss
    layer.labels = layer.learnt = None
    layer.forward = MethodType(_loss_or_logits, head)


def choose(kind: str, problem: str | None) -> str:
    """liger or chunked, for a `kind` of auto or liger; `problem` says why it cannot be liger."""
    if kind == "liger" and problem:
        raise UserError(f"model.cross_entropy=liger: {problem}; or set model.cross_entropy=auto.")
    return "chunked" if problem else "liger"


def liger_problem() -> str | None:
    """Why Liger-Kernel's loss cannot be used on this machine, and what to do; None where it can."""
    if not torch.cuda.is_available():
        return "it runs on a GPU, and none is here. Use model.cross_entropy=chunked"
    if importlib.util.find_spec("liger_kernel") is None:
        return "the package liger-kernel is not installed. Install it (pip install liger-kernel)"
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy as kernel

    if "accum_dtype" not in inspect.signature(kernel).parameters:
        return "this liger-kernel sums the weight's gradient in bf16. Install the newest"
    return None


def output_layer(model: Any) -> Any:
    """The layer that makes the logits; the trained one where an adapter keeps two."""
    head = model.get_output_embeddings()
    return head.modules_to_save["default"] if hasattr(head, "modules_to_save") else head


def measure(model: Any) -> None:
    """From now on note, beside every loss, how many trained tokens the model would have guessed, and how
    unsure it was; `take_measures` gives the means."""
    output_layer(model).measures = []


def take_measures(model: Any, world: "World") -> dict[str, float]:
    """Token accuracy and entropy (nats) since the last call, over all trained tokens of all processes, and
    as TRL logs them: the mean of the micro-batches' means. Empty without `measure`; collective."""
    noted = getattr(output_layer(model), "measures", None)
    if not noted:
        return {}
    sums = world.sum(torch.stack(noted))
    noted.clear()
    tokens, hits, entropy = sums.sum(0).tolist()
    means = (sums[:, 1:] / sums[:, :1].clamp(min=1)).mean(0).tolist()
    return {
        "token_accuracy": hits / max(1, tokens),
        "entropy": entropy / max(1, tokens),
        "mean_token_accuracy_trl": means[0],
        "entropy_trl": means[1],
    }


def summed_loss(engine: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The sum of token losses (nats) of one micro-batch, in fp32.

    No attention mask is given and no cache is used: then documents, whose boundaries go along, do not see
    each other. With a cache, or with an all-ones mask, they would.
    """
    model = getattr(engine, "module", engine)
    head = output_layer(model)
    inputs: dict[str, Any] = {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        "use_cache": False,
    }
    if "boundaries" in batch:
        inputs |= varlen_attention.arguments(batch)
    if not hasattr(head, "loss_of"):
        logits = engine(**inputs).logits
        if hasattr(head, "measures"):
            head.measures.append(
                measures_of(logits.detach().flatten(0, -2), batch["labels"].flatten()[:, None])
            )
        return full_loss(logits, batch["labels"])
    head.labels, head.learnt = batch["labels"], batch.get("learnt")
    try:
        loss: torch.Tensor = engine(**inputs).logits
    finally:
        head.labels = head.learnt = None
    return loss


def full_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The plain way: logits of shape (B, L, V), labels of shape (B, L)."""
    flat = logits.float().flatten(0, -2)
    return cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="sum")


def chunked_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    measures: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """The same from hidden states (B, L, H) and the output layer's weight (V, H); `measures` grows."""
    loss: torch.Tensor = _ChunkedLoss.apply(hidden.flatten(0, -2), weight, bias, labels.flatten(), measures)
    return loss


def chunk_places(vocabulary: int) -> int:
    """How many places' logits are held at a time."""
    return max(16, min(CHUNK, CHUNK_ELEMENTS // vocabulary))


class _ChunkedLoss(torch.autograd.Function):
    """Gradients of the loss are made in the forward pass, beside the logits that they need."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, labels: Any, measures: Any) -> torch.Tensor:
        wanted = ctx.needs_input_grad
        hidden_grad = torch.empty_like(hidden) if wanted[0] else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        bias_grad = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
        loss = torch.zeros((), device=hidden.device)
        found = torch.zeros(3, device=hidden.device, dtype=torch.float64)
        rows = chunk_places(len(weight))
        for start in range(0, len(hidden), rows):
            part, label = hidden[start : start + rows], labels[start : start + rows, None]
            logits = linear(part, weight, bias).float()
            trained = label != IGNORED
            label = label.clamp(min=0)
            likeliest = logits.argmax(1, keepdim=True) if measures is not None else label
            logits.sub_(logits.amax(1, keepdim=True))
            right = logits.gather(1, label)
            # Softmax, in the logits' own memory where they are not needed any more.
            gradient = logits.exp_() if measures is None else logits.exp()
            total = gradient.sum(1, keepdim=True)
            loss += ((total.log() - right) * trained).sum()
            if measures is not None:
                entropy = total.log() - torch.linalg.vecdot(gradient, logits)[:, None] / total
                seen = (trained, (likeliest == label) & trained, entropy * trained)
                found += torch.stack([each.sum(dtype=torch.float64) for each in seen])
            if not any(wanted):
                continue
            gradient.mul_(trained / total).scatter_add_(1, label, -trained.to(gradient.dtype))
            if bias_grad is not None:
                bias_grad += gradient.sum(0)
            gradient = gradient.to(hidden.dtype)
            if hidden_grad is not None:
                torch.mm(gradient, weight, out=hidden_grad[start : start + rows])
            if weight_grad is not None and weight_grad.dtype == gradient.dtype:
                weight_grad.addmm_(gradient.T, part)
            elif weight_grad is not None:
                weight_grad += gradient.T @ part
        if measures is not None:
            measures.append(found)
        ctx.dtype = weight.dtype
        ctx.save_for_backward(hidden_grad, weight_grad, bias_grad)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        scale = upstream[0]
        hidden, weight, bias = ctx.saved_tensors
        scaled = [None if grad is None else (grad * scale).to(ctx.dtype) for grad in (weight, bias)]
        return None if hidden is None else hidden * scale.to(hidden.dtype), *scaled, None, None


class Objective(NamedTuple):
    """What a step minimises: a sum over a micro-batch, what it is divided by, and numbers for the log."""

    loss: Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]
    divisor: Callable[[dict[str, torch.Tensor]], torch.Tensor]
    take: Callable[[Any, "World"], dict[str, float]]
    """Gives the numbers since the last call; collective."""


TOKENS = Objective(summed_loss, lambda batch: (batch["labels"] != IGNORED).sum(), take_measures)
"""The mean loss of a trained token."""


def _loss_or_logits(head: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The output layer's forward pass: a loss where there are labels, else logits as ever (to generate).

    Places that nothing is learnt from, as questions, need no logits.
    """
    if head.labels is None:
        return linear(hidden, head.weight, head.bias)
    labels = head.labels
    if head.learnt is not None:
        hidden = hidden.flatten(0, -2).index_select(0, head.learnt)
        labels = labels.flatten().index_select(0, head.learnt)
    loss: torch.Tensor = head.loss_of(hidden, head.weight, head.bias, labels, getattr(head, "measures", None))
    return loss


def measures_of(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Trained tokens, hits and summed entropy (nats) of logits (N, V) for labels (N, 1), in fp64."""
    trained = (label != IGNORED).squeeze(1)
    logits, label = logits[trained].float(), label[trained]
    hits = (logits.argmax(1, keepdim=True) == label).sum()
    logs = logits.log_softmax(1)
    entropy = -torch.linalg.vecdot(logs.exp(), logs).sum()
    return torch.stack([trained.sum().double(), hits.double(), entropy.double()])


def _liger_loss(hidden: Any, weight: Any, bias: Any, labels: Any, measures: Any) -> torch.Tensor:
    if measures is not None:  # Liger's kernel does not give the logits
        return chunked_loss(hidden, weight, bias, labels, measures)
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    loss: torch.Tensor = liger_fused_linear_cross_entropy(
        hidden.flatten(0, -2), weight, labels.flatten(), bias, ignore_index=IGNORED, reduction="sum",
        accum_dtype=torch.float32,
    )  # fmt: skip
    return loss
