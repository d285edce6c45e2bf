"""The summed token loss of a micro-batch, computed in the output layer: the logits are never held whole.

With a vocabulary of 128k, 8,192 positions make 4 GiB of fp32 logits, and their gradient as much again. A
`LossHead` in place of the output layer takes some hundred positions at a time: it computes their logits and
loss and, in the same pass, the gradients of the hidden states and of its weight (as Liger-Kernel does,
arXiv:2410.10989). It does so in its own forward pass, where ZeRO 3 has gathered its weight. On a GPU Liger's
kernel is used if the installed version sums the weight's gradient in fp32, as is done here. (It counts the
labels on the host, so that each micro-batch waits for the device.)
"""

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import cross_entropy, linear

from core.errors import UserError
from core.model import labels, varlen_attention

if TYPE_CHECKING:
    from core.distributed.deepspeed_backend import Engine
    from core.distributed.process_group import World

IGNORED = labels.IGNORED
"""Label of a position that is not trained on (transformers' convention)."""

CHUNK = 1024
"""Maximum number of positions whose logits are held at a time. With few, summing the weight's gradient takes
longer than the products."""
CHUNK_ELEMENTS = 2**25
"""Maximum number of logits held at a time: 128 MiB in fp32. Vocabularies above 32k reach it."""

Batch = dict[str, torch.Tensor]
Measures = list[torch.Tensor]
"""For each micro-batch: trained tokens, correct predictions and summed entropy (nats), (3,) float64."""
TokenLoss = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor, Measures | None], torch.Tensor
]
"""Summed loss of hidden states, weight, bias and labels; appends to measures."""

_measures: WeakKeyDictionary[torch.nn.Module, Measures] = WeakKeyDictionary()
"""What `measure` has recorded for each output layer, whatever its class."""


class LossHead(torch.nn.Linear):
    """An output layer that returns the loss instead of logits within `computing_loss`.

    It replaces `head` and has the same parameters, so names in the state dict, weight tying, gradients and
    ZeRO 3's bookkeeping are unchanged.
    """

    def __init__(self, head: torch.nn.Linear, loss: TokenLoss) -> None:
        torch.nn.Module.__init__(self)  # Linear's own would allocate a second weight
        self.in_features, self.out_features = head.in_features, head.out_features
        self.weight = head.weight
        self.register_parameter("bias", head.bias)
        self.train(head.training)
        self.loss = loss
        self._labels: torch.Tensor | None = None
        self._learnt: torch.Tensor | None = None
        self._measures: Measures | None = None

    @contextmanager
    def computing_loss(
        self, labels: torch.Tensor, learnt: torch.Tensor | None, measures: Measures | None
    ) -> Iterator[None]:
        """Within, `forward` returns the summed loss for `labels` (B, L). `learnt` (N,) are the positions,
        counted row by row, that are trained on; the others, such as those of questions, need no logits."""
        self._labels, self._learnt, self._measures = labels, learnt, measures
        try:
            yield
        finally:
            self._labels = self._learnt = self._measures = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Logits (B, L, V) of hidden states (B, L, H), or their summed loss, shape ()."""
        hidden, labels = input, self._labels
        if labels is None:
            return linear(hidden, self.weight, self.bias)
        if self._learnt is not None:
            hidden = hidden.flatten(0, -2).index_select(0, self._learnt)
            labels = labels.flatten().index_select(0, self._learnt)
        return self.loss(hidden, self.weight, self.bias, labels, self._measures)


def install(model: Any, kind: str) -> None:
    """Replace the model's output layer by a `LossHead`, if it is a plain linear layer; `kind` as in
    `model.cross_entropy`, and full for a model that changes the logits afterwards. UserError if it is
    liger and Liger-Kernel cannot be used."""
    head = output_layer(model)
    chosen = choose(kind, liger_problem()) if kind in ("auto", "liger") else kind
    if chosen == "full" or type(head) is not torch.nn.Linear:
        return
    new = LossHead(head, liger_loss if chosen == "liger" else chunked_loss)
    outer = model.get_output_embeddings()
    if outer is head:
        model.set_output_embeddings(new)
    else:  # peft's wrapper around the frozen and the trained layer
        outer.modules_to_save["default"] = new
    assert output_layer(model) is new


def choose(kind: str, problem: str | None) -> str:
    """liger or chunked, for a `kind` of auto or liger; `problem` is why liger cannot be used."""
    if kind == "liger" and problem:
        raise UserError(f"model.cross_entropy=liger: {problem}, or set model.cross_entropy=auto.")
    return "chunked" if problem else "liger"


def liger_problem() -> str | None:
    """Why Liger-Kernel's loss cannot be used on this machine, and what to do; None if it can."""
    if not torch.cuda.is_available():
        return "it needs a GPU, and none was found. Set model.cross_entropy=chunked"
    if importlib.util.find_spec("liger_kernel") is None:
        return "the package liger-kernel is not installed. Run pip install liger-kernel"
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy as kernel

    if "accum_dtype" not in inspect.signature(kernel).parameters:
        return "this liger-kernel sums the weight's gradient in bf16. Run pip install -U liger-kernel"
    return None


def output_layer(model: Any) -> Any:
    """The layer that computes the logits; the trained one if an adapter keeps two."""
    head = model.get_output_embeddings()
    return head.modules_to_save["default"] if hasattr(head, "modules_to_save") else head


def measure(model: Any) -> None:
    """From now on record, with every loss, how many trained tokens the model would have predicted and the
    entropy of its prediction; `take_measures` returns the means."""
    _measures[output_layer(model)] = []


def take_measures(model: Any, world: "World") -> dict[str, float]:
    """Token accuracy and entropy (nats) since the last call, over all trained tokens of all processes, and
    as TRL logs them: the mean of the micro-batches' means. Empty without `measure`; collective."""
    recorded = _measures.get(output_layer(model))
    if not recorded:
        return {}
    sums = world.sum(torch.stack(recorded))
    recorded.clear()
    tokens, hits, entropy = sums.sum(0).tolist()
    means = (sums[:, 1:] / sums[:, :1].clamp(min=1)).mean(0).tolist()
    return {
        "token_accuracy": hits / max(1, tokens),
        "entropy": entropy / max(1, tokens),
        "mean_token_accuracy_trl": means[0],
        "entropy_trl": means[1],
    }


def summed_loss(engine: "Engine | torch.nn.Module", batch: Batch) -> torch.Tensor:
    """The sum of token losses (nats) of one micro-batch, in fp32."""
    model: Any = getattr(engine, "module", engine)
    measures = _measures.get(output_layer(model))
    before = len(measures) if measures is not None else 0
    losses = [_loss_of(engine, each, measures) for each in varlen_attention.passes(model, batch)]
    if measures is not None and len(losses) > 1:  # one entry per micro-batch
        measures[before:] = [torch.stack(measures[before:]).sum(0)]
    return reduce(torch.add, losses)


def _loss_of(engine: Any, batch: Batch, measures: Measures | None) -> torch.Tensor:
    """The summed loss of one forward pass."""
    head = output_layer(getattr(engine, "module", engine))
    if isinstance(head, LossHead):
        with head.computing_loss(batch["labels"], batch.get("learnt"), measures):
            loss: torch.Tensor = varlen_attention.forward(engine, batch)
        return loss
    logits = varlen_attention.forward(engine, batch)
    if measures is not None:
        measures.append(measures_of(logits.detach().flatten(0, -2), batch["labels"].flatten()[:, None]))
    return full_loss(logits, batch["labels"])


def full_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The summed token loss of logits (B, L, V) for labels (B, L)."""
    flat = logits.float().flatten(0, -2)
    return cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="sum")


def chunked_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    measures: Measures | None = None,
) -> torch.Tensor:
    """The same from hidden states (B, L, H) and the output layer's weight (V, H). Appends to `measures`."""
    loss: torch.Tensor = _ChunkedLoss.apply(hidden.flatten(0, -2), weight, bias, labels.flatten(), measures)
    return loss


def chunk_places(vocabulary: int) -> int:
    """Number of positions whose logits are held at a time."""
    return max(16, min(CHUNK, CHUNK_ELEMENTS // vocabulary))


class _ChunkedLoss(torch.autograd.Function):
    """Gradients are computed in the forward pass, together with the logits that they need."""

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
            # Softmax, in the logits' own memory if they are not needed any more.
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
    """What a step minimises: a sum over a micro-batch, its divisor, and numbers for the log."""

    loss: Callable[["Engine", Batch], torch.Tensor]
    divisor: Callable[[Batch], torch.Tensor]
    take: Callable[[Any, "World"], dict[str, float]]
    """Returns the numbers since the last call; collective."""


TOKENS = Objective(summed_loss, lambda batch: (batch["labels"] != IGNORED).sum(), take_measures)
"""The mean loss per trained token."""


def measures_of(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Trained tokens, correct predictions and summed entropy (nats) of logits (N, V) for labels (N, 1): (3,)
    float64."""
    trained = (label != IGNORED).squeeze(1)
    logits, label = logits[trained].float(), label[trained]
    hits = (logits.argmax(1, keepdim=True) == label).sum()
    logs = logits.log_softmax(1)
    entropy = -torch.linalg.vecdot(logs.exp(), logs).sum()
    return torch.stack([trained.sum().double(), hits.double(), entropy.double()])


def liger_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    measures: Measures | None = None,
) -> torch.Tensor:
    """As `chunked_loss`, by Liger's kernel."""
    if measures is not None or not len(hidden):  # Liger's kernel gives no logits, and takes no empty batch
        return chunked_loss(hidden, weight, bias, labels, measures)
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    loss: torch.Tensor = liger_fused_linear_cross_entropy(
        hidden.flatten(0, -2), weight, labels.flatten(), bias, ignore_index=IGNORED, reduction="sum",
        accum_dtype=torch.float32,
    )  # fmt: skip
    return loss
